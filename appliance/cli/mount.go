package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"

	"holdfast/fs/content"
	"holdfast/fs/mount"
	"holdfast/repo"
)

type mountOptions struct {
	dir        string
	mountpoint string
	allowOther bool
	background bool
	announce   bool // print the listing as soon as it is mounted, whatever else is printed
}

func newMount(a *app) *cobra.Command {
	var opt mountOptions
	var foreground bool
	cmd := &cobra.Command{
		Use:     "mount DIR MOUNTPOINT",
		GroupID: groupRepo,
		Short:   "Show the backups as files",
		Long: `Mount the backups of a repository on the empty directory MOUNTPOINT, read-only:

  MACHINE/latest                a link to the last restore point
  MACHINE/POINT/machine.json    what is known of the point
  MACHINE/POINT/disks/          the disks as raw, vmdk and others, made as they are read
  MACHINE/POINT/files/          the files inside the disks, by disk and partition

New restore points appear, expired ones go, while it is mounted and the repository
is written. Device nodes and set-user-ID bits are shown and not honoured.

It is served until it is unmounted, or this process is told to end by ctrl-C or
SIGTERM; then it is detached even if somebody is still in it. With --background
the command returns when MOUNTPOINT can be used, and "umount MOUNTPOINT" or, for
who is not root, "fusermount3 -u MOUNTPOINT" ends it. What can't be read is told
on standard error, where that is a file.

Only the user who mounts can look inside, at everything. With --allow-other all
users can, as far as the owners and modes of the guests' files let them; for that
a user who is not root needs user_allow_other in /etc/fuse.conf.`,
		Example: `  holdfast mount /srv/backup /mnt
  holdfast mount /srv/backup /mnt --background
  cp -a /mnt/db1/latest/files/disk0.raw/1/etc/fstab /tmp
  umount /mnt`,
		Args: takes(false, "DIR", "MOUNTPOINT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			opt.dir, opt.mountpoint = args[0], args[1]
			if foreground && opt.background {
				return usagef("--foreground and --background: want one of them")
			}
			outlivePipes()
			if opt.background {
				return a.mountInBackground(cmd.Context(), opt)
			}
			return a.mount(cmd.Context(), opt)
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.BoolVar(&opt.allowOther, "allow-other", false, "let all users in, as far as owners and modes let them")
	f.BoolVar(&foreground, "foreground", false, "serve until it ends (the default)")
	f.BoolVar(&opt.background, "background", false, "return when it is mounted")
	f.BoolVar(&opt.announce, "announce", false, "")
	f.MarkHidden("announce") //nolint:errcheck // the flag is there
	return cmd
}

// newMountWatch is the process that detaches a mount when its server has died.
func newMountWatch() *cobra.Command {
	return &cobra.Command{
		Use:    mount.WatchVerb + " PID MOUNTPOINT",
		Short:  "Detach a mount when the process that serves it dies",
		Hidden: true,
		Args:   takes(false, "PID", "MOUNTPOINT"),
		RunE:   func(_ *cobra.Command, args []string) error { return mount.Watch(args) },
	}
}

type mountListing struct {
	Schema     string `json:"schema"`
	Repository string `json:"repository"`
	Mountpoint string `json:"mountpoint"`
	PID        int    `json:"pid"` // of the process that serves it
}

func (a *app) mount(ctx context.Context, opt mountOptions) error {
	log, err := a.logger()
	if err != nil {
		return err
	}
	dir, err := filepath.Abs(opt.dir)
	if err != nil {
		return err
	}
	return a.reading(ctx, opt.dir, func(r *repo.Repository) (err error) {
		t := content.New(r, content.Options{Guests: guests(log), Log: log})
		defer func() { err = errors.Join(err, t.Close()) }()
		s, err := mount.Mount(ctx, t, opt.mountpoint, mount.Options{Source: dir, AllowOther: opt.allowOther, Log: log})
		if err != nil {
			return mountError(err)
		}
		l := mountListing{Schema: "holdfast.mount/1", Repository: dir, Mountpoint: s.Dir(), PID: os.Getpid()}
		switch {
		case opt.announce:
			err = json.NewEncoder(a.out).Encode(l)
		case a.json:
			err = a.printJSON(l)
		default:
			a.say("%s is mounted on %s; ctrl-C unmounts it", dir, s.Dir())
		}
		if err != nil {
			return errors.Join(err, s.Unmount(), s.Wait())
		}
		return s.Wait()
	})
}

// mountError adds the way out to what keeps a directory from being mounted on.
func mountError(err error) error {
	switch {
	case errors.Is(err, exec.ErrNotFound):
		return withHint(err, "who is not root needs fusermount3, which is in the package fuse3")
	case errors.Is(err, fs.ErrNotExist) && errors.Is(err, syscall.ENOENT):
		if _, serr := os.Stat("/dev/fuse"); serr != nil {
			return withHint(err, `there is no /dev/fuse: "modprobe fuse" brings it`)
		}
		return withHint(err, "make the directory first")
	}
	return err
}

// mountInBackground has another process mount, and returns when it has.
func (a *app) mountInBackground(ctx context.Context, opt mountOptions) error {
	// What keeps the repository from being opened is told here, and a passphrase
	// is asked for here.
	if err := a.reading(ctx, opt.dir, func(*repo.Repository) error { return nil }); err != nil {
		return err
	}
	cmd := exec.Command("/proc/self/exe", a.mountArgs(opt)...)
	cmd.Args[0] = os.Args[0]
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if a.asked != nil {
		cmd.Stdin = bytes.NewReader(append(bytes.Clone(a.asked), '\n'))
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	stderr, copied, err := a.shareStderr(cmd)
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { cmd.Process.Signal(syscall.SIGTERM) })
	defer stop()
	var l mountListing
	if err := json.NewDecoder(out).Decode(&l); err != nil {
		stderr.Close()
		<-copied
		err = cmd.Wait()
		if code := cmd.ProcessState.ExitCode(); code > 0 {
			return &reportedError{code}
		}
		return fmt.Errorf("the process that was to serve: %w", err)
	}
	if a.json {
		return a.printJSON(l)
	}
	a.say("%s is mounted on %s by process %d", l.Repository, l.Mountpoint, l.PID)
	return nil
}

// mountArgs is the command line of the process that serves in the background.
func (a *app) mountArgs(opt mountOptions) []string {
	args := []string{"mount", opt.dir, opt.mountpoint, "--announce", "--log-level", a.logLevel}
	if a.logFormat != "" {
		args = append(args, "--log-format", a.logFormat)
	}
	if opt.allowOther {
		args = append(args, "--allow-other")
	}
	if a.json {
		args = append(args, "--json")
	}
	switch {
	case a.asked != nil:
		args = append(args, "--passphrase-file", "/dev/stdin")
	case a.passphraseFile != "":
		args = append(args, "--passphrase-file", a.passphraseFile)
	}
	for _, name := range a.identityFiles {
		args = append(args, "--identity-file", name)
	}
	return args
}

// shareStderr lets cmd write errors to where ours go: for good if that is a
// file, or else as long as we are there, since whoever reads a pipe or has a
// terminal waits for its end. copied is closed when what came before the writer
// w was closed has been passed on.
func (a *app) shareStderr(cmd *exec.Cmd) (w io.Closer, copied <-chan struct{}, err error) {
	done := make(chan struct{})
	if f, ok := a.err.(*os.File); ok {
		if info, err := f.Stat(); err == nil && info.Mode().IsRegular() {
			cmd.Stderr = f
			close(done)
			return io.NopCloser(nil), done, nil
		}
	}
	from, to, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	cmd.Stderr = to
	go func() {
		defer close(done)
		io.Copy(a.err, from) //nolint:errcheck // there is nobody left to tell
	}()
	return to, done, nil
}
