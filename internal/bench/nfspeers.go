//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"github.com/go-git/go-billy/v5"
	"github.com/go-git/go-billy/v5/osfs"
	gonfs "github.com/willscott/go-nfs"
	gonfshelp "github.com/willscott/go-nfs/helpers"
	"golang.org/x/sys/unix"
)

// An nfsServer is a server that is up.
type nfsServer struct {
	name string
	peer bool
	addr string
	hot  string // path to be mounted where the file to be read is
	data string // path to be mounted to write to
	dir  string // below data, where the file to be written to is; "" for data itself
	cmd  *exec.Cmd
	errs *bytes.Buffer
}

// goNFSServer is the name of the peer that serves one request at a time, and
// answers FILE_SYNC without syncing.
const (
	oursServer    = "holdfast"
	ganeshaServer = "nfs-ganesha"
	goNFSServer   = "go-nfs"
)

// startNFS starts the servers, each a process, on ports of the network that the
// calling goroutine is in. dir is on the file system that all write to, hot the file
// that all have for reading, or "" for one to write to.
func startNFS(ctx context.Context, dir, hot string) (list []*nfsServer, err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, stopNFS(list))
			list = nil
		}
	}()
	for _, start := range []func(ctx context.Context, dir, hot string) (*nfsServer, error){startOurs, startGanesha, startGoNFS} {
		s, err := start(ctx, dir, hot)
		if s != nil {
			list = append(list, s)
		}
		if err != nil {
			return list, err
		}
	}
	return list, nil
}

// begin starts the server's process and waits until it listens.
func (s *nfsServer) begin(ctx context.Context, c command) (*nfsServer, error) {
	s.errs = &bytes.Buffer{}
	s.cmd = c.prepare(context.WithoutCancel(ctx))
	s.cmd.Stderr = s.errs
	if c.in != nil {
		s.cmd.Stdin = bytes.NewReader(c.in)
	}
	if err := s.cmd.Start(); err != nil {
		return nil, fmt.Errorf("%s: %w", s.name, err)
	}
	for range 600 {
		if listens(s.addr) {
			return s, nil
		}
		select {
		case <-ctx.Done():
			return s, context.Cause(ctx)
		case <-time.After(50 * time.Millisecond):
		}
		var st unix.Siginfo
		if err := unix.Waitid(unix.P_PID, s.cmd.Process.Pid, &st, unix.WEXITED|unix.WNOWAIT|unix.WNOHANG, nil); err == nil && st.Signo != 0 {
			break
		}
	}
	return s, fmt.Errorf("%s: does not listen at %s: %s", s.name, s.addr, tail(s.errs.String()))
}

// listens says whether there is somebody at an address. It asks from the calling
// goroutine's thread, which is in the servers' network; the library's dialer
// would not.
func listens(addr string) bool {
	a, err := net.ResolveTCPAddr("tcp4", addr)
	if err != nil {
		return false
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	return unix.Connect(fd, &unix.SockaddrInet4{Port: a.Port, Addr: [4]byte(a.IP.To4())}) == nil
}

// stopNFS ends the servers and what they started.
func stopNFS(list []*nfsServer) error {
	var errs []error
	for _, s := range list {
		group := -s.cmd.Process.Pid
		_ = syscall.Kill(group, syscall.SIGTERM) // it may have ended
		kill := time.AfterFunc(time.Minute, func() { _ = syscall.Kill(group, syscall.SIGKILL) })
		err := s.cmd.Wait()
		kill.Stop()
		_ = syscall.Kill(group, syscall.SIGKILL) // what it started
		if err != nil && !s.peer {
			errs = append(errs, fmt.Errorf("%s: %w: %s", s.name, err, tail(s.errs.String())))
		}
	}
	return errors.Join(errs...)
}

func startOurs(ctx context.Context, dir, hot string) (*nfsServer, error) {
	in := childInput{File: hot, Addr: "127.0.0.1:3049"}
	if hot == "" {
		in.Target = filepath.Join(dir, "ours")
		if err := os.Mkdir(in.Target, 0o755); err != nil {
			return nil, err
		}
	}
	c, err := childServer("nfs", in, "")
	if err != nil {
		return nil, err
	}
	s := &nfsServer{name: oursServer, addr: in.Addr, hot: "/hot", data: "/data", dir: "vm"}
	return s.begin(ctx, c.command)
}

// ganeshaConfig has nothing that version 3 does not need, and no limits on files
// kept open below those of its default.
const ganeshaConfig = `
NFS_CORE_PARAM { NFS_Protocols = 3; NFS_Port = 4049; MNT_Port = 4050; Enable_NLM = false; Enable_RQUOTA = false; mount_path_pseudo = false; }
NFSV4 { Graceless = true; RecoveryRoot = %[1]q; }
LOG { Default_Log_Level = WARN; }
EXPORT { Export_Id = 1; Path = %[2]q; Pseudo = "/data"; Access_Type = RW; Squash = No_Root_Squash; SecType = sys; Protocols = 3; Transports = TCP; FSAL { Name = VFS; } }
`

// startGanesha starts the best server in user space that Debian has, with the port
// mapper that it wants, both with a /run of their own.
func startGanesha(ctx context.Context, dir, hot string) (*nfsServer, error) {
	export, err := peerDir(dir, "ganesha", hot)
	if err != nil {
		return nil, err
	}
	state := filepath.Join(dir, "ganesha-state")
	if err := os.Mkdir(state, 0o755); err != nil {
		return nil, err
	}
	config := filepath.Join(state, "ganesha.conf")
	if err := os.WriteFile(config, fmt.Appendf(nil, ganeshaConfig, state, export), 0o644); err != nil {
		return nil, err
	}
	s := &nfsServer{name: ganeshaServer, peer: true, addr: "127.0.0.1:4049", hot: export, data: export}
	return s.begin(ctx, command{args: []string{"unshare", "--mount", "sh", "-ec",
		`mount -t tmpfs tmpfs /run; mkdir -p /run/ganesha /run/rpcbind; rpcbind -f >/dev/null 2>&1 & sleep 0.5
		exec ganesha.nfsd -F -L STDERR -f "$1" -p /run/ganesha.pid`, "sh", config}})
}

// peerDir makes a directory for a peer to export, with the file to be read or an
// empty one to be written to.
func peerDir(dir, name, hot string) (string, error) {
	export := filepath.Join(dir, name)
	if err := os.Mkdir(export, 0o755); err != nil {
		return "", err
	}
	if hot != "" {
		return export, os.Link(hot, filepath.Join(export, hotFile))
	}
	f, err := os.Create(filepath.Join(export, writeFile))
	if err != nil {
		return "", err
	}
	return export, errors.Join(f.Truncate(writeSize), f.Close())
}

func startGoNFS(ctx context.Context, dir, hot string) (*nfsServer, error) {
	export, err := peerDir(dir, "gonfs", hot)
	if err != nil {
		return nil, err
	}
	in := childInput{Target: export, Addr: "127.0.0.1:5049"}
	c, err := childServer("gonfs", in, "")
	if err != nil {
		return nil, err
	}
	s := &nfsServer{name: goNFSServer, peer: true, addr: in.Addr, hot: "/", data: "/"}
	return s.begin(ctx, c.command)
}

// childGoNFS serves a directory by go-nfs, as its example does.
func childGoNFS(in childInput) error {
	l, err := net.Listen("tcp", in.Addr)
	if err != nil {
		return err
	}
	tree := changeable{osfs.New(in.Target)}
	const handles = 20_000 // more than the files there are
	return gonfs.Serve(l, gonfshelp.NewCachingHandler(gonfshelp.NewNullAuthHandler(tree), handles))
}

// changeable lets go-nfs change attributes.
type changeable struct{ billy.Filesystem }

func (c changeable) at(name string) string { return c.Join(c.Root(), name) }

func (c changeable) Chmod(name string, mode os.FileMode) error { return os.Chmod(c.at(name), mode) }
func (c changeable) Lchown(name string, uid, gid int) error    { return os.Lchown(c.at(name), uid, gid) }
func (c changeable) Chown(name string, uid, gid int) error     { return os.Chown(c.at(name), uid, gid) }
func (c changeable) Chtimes(name string, a, m time.Time) error { return os.Chtimes(c.at(name), a, m) }

// inNetwork runs fn on a thread in a network of its own, in which everything that
// it starts is too. What else runs in this process is not.
func inNetwork(fn func() error) error {
	ended := make(chan error, 1)
	go func() {
		// The thread ends with the goroutine, as it is of no use any more.
		runtime.LockOSThread()
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			err = exec.Command("ip", "link", "set", "lo", "up").Run()
		}
		if err != nil {
			ended <- fmt.Errorf("make a network: %w", err)
			return
		}
		ended <- fn()
	}()
	return <-ended
}
