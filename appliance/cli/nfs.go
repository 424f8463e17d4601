package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"holdfast/appliance/recovery"
	"holdfast/repo/vfs"
)

func newNFS(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "nfs VERB",
		GroupID: groupRepo,
		Short:   "Run machines from their restore points, over NFS",
		Long: `Run machines straight from their restore points. "serve" offers a datastore over
NFS version 3, which a hypervisor mounts once; "publish" puts a restore point into
it, as a directory with the machine's configuration and disks, within a second and
whatever the size. What the machine writes goes to a redirect layer: "stop" drops
it, "keep" makes a new restore point of it, "migrate" moves the disks to where they
are to stay.

All verbs but "serve" ask the process that serves, through a socket in its state
directory.`,
	}
	group(cmd)
	cmd.AddCommand(newNFSServe(a), newNFSPublish(a), newNFSList(a), newNFSKeep(a), newNFSMigrate(a), newNFSStop(a))
	return cmd
}

// nfsState is the state directory of what serves: the one given, or "nfs" below
// the state directory of this user.
func nfsState(dir string) (string, error) {
	if dir != "" {
		return filepath.Abs(dir)
	}
	state, err := stateDir()
	if err != nil {
		return "", err
	}
	return filepath.Abs(filepath.Join(state, "nfs"))
}

// stateFlag is the flag by which all verbs find the process that serves.
func stateFlag(cmd *cobra.Command, dir *string) {
	cmd.Flags().StringVar(dir, "state", "", "`DIR` of the server's state; default nfs below the state directory")
}

// askNFS runs fn with a client of the process that serves.
func askNFS(stateFlag string, fn func(*recovery.Client) error) error {
	dir, err := nfsState(stateFlag)
	if err != nil {
		return err
	}
	state, err := vfs.OS(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %s is not there", recovery.ErrNoServer, dir)
	}
	if err != nil {
		return err
	}
	defer state.Close() //nolint:errcheck // nothing was written through it
	return fn(&recovery.Client{Dial: func(ctx context.Context) (net.Conn, error) { return recovery.Dial(ctx, state) }})
}

// openPrivate opens a directory, which it makes for this user alone.
func openPrivate(dir string) (*vfs.Dir, error) {
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		if err := errors.Join(os.MkdirAll(dir, 0o700), syncDir(filepath.Dir(dir))); err != nil {
			return nil, err
		}
	}
	return vfs.OS(dir)
}

// mountLines are the commands that reach what is served: for people to copy.
func mountLines(s recovery.Server) []string {
	lines := []string{
		fmt.Sprintf("ESXi   esxcli storage nfs add --host=%s --share=%s --volume-name=holdfast", s.Host, s.Export),
		fmt.Sprintf("Linux  mount -t nfs -o vers=3,proto=tcp,hard,nolock,port=%d,mountport=%d %s:%s /mnt", s.Port, s.Port, s.Host, s.Export),
	}
	if s.Portmap == portmapNone || s.Port != nfsPort {
		lines[0] = "ESXi   needs port 2049 and a port mapper on 111: serve without --listen PORT and --portmap none"
	}
	return lines
}

// machineLines are those that start a published machine. QEMU gets the disks
// through the kernel's mount, which sends again what a server that was killed had
// not made durable; its own nfs:// does not (that is what serve --sync is for),
// and finds no server at another port.
func machineLines(m recovery.Session) []string {
	lines := []string{fmt.Sprintf("ESXi   vim-cmd solo/registervm %s", shellQuote("/vmfs/volumes/holdfast/"+m.Name+"/"+m.Config))}
	qemu := "QEMU   qemu-system-x86_64 -m 2G"
	for _, d := range m.Disks {
		file := strings.ReplaceAll(m.Name+"/"+d.File, ",", ",,") // as -drive has it
		qemu += " -drive " + shellQuote("format=raw,if=virtio,cache=none,file=/mnt/"+file)
	}
	return append(lines, qemu)
}

// shellQuote makes one word of s for a shell.
func shellQuote(s string) string {
	plain := strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-:=,@+") == ""
	if plain && s != "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
