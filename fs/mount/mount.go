// Package mount serves an fs.Tree through FUSE: read-only, and never honouring
// what set-user-ID bits and device nodes in it say.
//
// # What the kernel keeps
//
// What a tree calls Fixed is cached for ever: attributes, entries, names that
// are not there, whole directories, symbolic links and the pages of files, which
// stay cached when a file is opened again. Whatever else is asked about again
// after a second. So a backup that is made while its machine's directory is
// mounted appears there, and everything below it is asked for once.
//
// # Numbers
//
// st_ino is the inode's own number where fs.ID.FS is 0, and otherwise 64 bits
// mixed of both halves of the ID: the same at every mount, different for any two
// inodes of one file system, and different for any two of a tree unless chance
// has it (about one in 2^64 for each pair). A place in a directory is the tree's
// cookie plus 2, as Linux has "." and ".." before; cookies up to 2^63 - 3 work.
//
// The kernel's numbers for inodes lead back to IDs through a table that has what
// the kernel knows at the time, and forgets when the kernel does.
//
// # Attributes and streams
//
// Extended attributes are shown under their names. The alternate streams of a
// StreamTree are attributes too, "user.stream.NAME", as long as they have at most
// 64 KiB, more than which Linux can't return; longer ones are not listed, and
// asking for one gives E2BIG. An attribute of that very name goes first.
//
// # Permissions
//
// Without Options.AllowOther nobody but the user who mounted can enter, root
// included, and that user reads everything whatever the modes say. With it the
// kernel holds everybody to owners, groups and modes as they stand in the tree;
// access control lists are shown and not enforced.
//
// # Ends
//
// A mount ends when anybody unmounts it or its context ends. If the serving
// process dies instead, by whatever signal, a watcher, which is a process of its
// own, detaches the mount point, and should that die too, the next Mount there
// does it.
package mount

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"holdfast/fs"
)

// ErrBusy says that a mount is in use, or its directory is.
var ErrBusy = errors.New("busy")

// Options say how to mount. The zero value will do.
type Options struct {
	// Source is what lists of mounts show as the device; "holdfast" if empty.
	Source string

	// AllowOther lets all users in, as far as owners and modes let them. A
	// user who is not root may give it if /etc/fuse.conf says so.
	AllowOther bool

	// Watcher is the command line of a program that calls Watch. If it is empty,
	// it is this very program with the argument WatchVerb.
	Watcher []string

	// Log gets what can't be told to whoever reads: the reasons of I/O errors,
	// panics. nil: nowhere.
	Log *slog.Logger
}

// Bounds of what is under way at once.
const (
	readBytes     = 1 << 20  // of one read: what Linux has as the most
	background    = 64       // requests that nobody waits for yet: read-ahead
	inflightBytes = 64 << 20 // of requests received and not yet answered
)

// A Server serves a mounted tree.
type Server struct {
	dir     string // absolute, no symbolic links
	device  string // major:minor, in lists of mounts
	raw     *served
	log     *slog.Logger
	fuse    *fuse.Server
	watcher *watcher
	stop    context.CancelFunc // ends the requests

	served chan struct{} // closed when no request will come any more
	ended  chan struct{} // closed when all is undone
}

// Mount mounts a tree on a directory, which must be empty, and returns when it
// can be used. It is served until it is unmounted or ctx ends; Wait waits for
// that. The tree must stay open until then. ErrBusy when holdfast serves the
// directory already. A dead mount that an earlier server left there is detached
// first.
//
// Whoever is not root needs fusermount3.
func Mount(ctx context.Context, t fs.Tree, dir string, opt Options) (*Server, error) {
	log := opt.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if opt.Source == "" {
		opt.Source = "holdfast"
	}
	dir, err := mountpoint(dir)
	if err != nil {
		return nil, err
	}
	w, err := startWatcher(opt.Watcher, dir)
	if err != nil {
		return nil, fmt.Errorf("watch over the mount: %w", err)
	}
	// Requests may outlive ctx for a moment: what ends them is the unmounting.
	base, stop := context.WithCancel(context.WithoutCancel(ctx))
	raw, err := newServed(base, t, log)
	if err == nil {
		s := &Server{dir: dir, raw: raw, log: log, watcher: w, stop: stop, served: make(chan struct{}), ended: make(chan struct{})}
		if s.fuse, err = fuse.NewServer(raw, dir, mountOptions(opt, log, raw)); err == nil {
			return s.start(ctx)
		}
	}
	stop()
	return nil, errors.Join(fmt.Errorf("mount %s: %w", dir, err), w.release())
}

// mountpoint returns the absolute path of the directory, once it is ready to be
// mounted on.
func mountpoint(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	// Even to look at a dead mount gives an error, so that its own path isn't
	// resolved, only what leads to it.
	parent, err := filepath.EvalSymlinks(filepath.Dir(dir))
	if err != nil {
		return "", err
	}
	dir = filepath.Join(parent, filepath.Base(dir))
	if err := detachDead(dir); err != nil {
		return "", err
	}
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return "", err
	}
	if err := detachDead(dir); err != nil {
		return "", err
	}
	if m, err := mountedAt(dir); err != nil {
		return "", err
	} else if m.ours() {
		return "", fmt.Errorf("%s: %w: holdfast has mounted it", dir, ErrBusy)
	}
	return dir, empty(dir)
}

// empty gives an error unless dir is an empty directory: what is below a mount
// can't be reached.
func empty(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	names, err := f.Readdirnames(1)
	if len(names) > 0 {
		return fmt.Errorf("%s: the directory is not empty", dir)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

func mountOptions(opt Options, log *slog.Logger, raw *served) *fuse.MountOptions {
	m := &fuse.MountOptions{
		Name:                    fsName,
		FsName:                  opt.Source,
		Options:                 []string{"ro", "nosuid", "nodev"},
		AllowOther:              opt.AllowOther,
		DirectMountFlags:        directFlags,
		DirectMountStrict:       os.Geteuid() == 0,
		MaxWrite:                readBytes,
		MaxBackground:           background,
		MaxInflightRequestBytes: inflightBytes,
		DisableSplice:           true, // what is read is in memory
		DisableXAttrs:           !fs.HasXattrs(raw.tree),
		EnableSymlinkCaching:    true,
		Logger:                  slog.NewLogLogger(log.Handler(), slog.LevelWarn),
		PanicHandler: func(p any) fuse.Status {
			log.Error("panic while serving a request", "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			return fuse.EIO
		},
	}
	if os.Geteuid() == 0 {
		m.Options = nil // mount(2) has them as flags
	}
	if opt.AllowOther {
		m.Options = append(m.Options, "default_permissions")
	}
	return m
}

// start serves, and sees to it that all is undone at the end.
func (s *Server) start(ctx context.Context) (*Server, error) {
	m, err := mountedAt(s.dir)
	s.device = m.device
	go func() {
		s.fuse.Serve()
		close(s.served)
	}()
	go s.end(ctx)
	if err := errors.Join(err, s.fuse.WaitMount(), s.watcher.ready()); err != nil {
		err = fmt.Errorf("mount %s: %w", s.dir, err)
		return nil, errors.Join(err, s.detach(), s.Wait())
	}
	if err := raiseReadAhead(s.device); err != nil {
		s.log.Info("reads ahead stay short", "error", err)
	}
	return s, nil
}

// end waits for the end and cleans up behind it.
func (s *Server) end(ctx context.Context) {
	select {
	case <-s.served:
	case <-s.unreachable():
	case <-ctx.Done():
		if err := unmount(s.dir, false); err != nil && !s.isServed() {
			s.log.Warn("unmounting while in use", "dir", s.dir, "error", err)
			if err := s.detach(); err != nil {
				s.log.Error("unmount", "dir", s.dir, "error", err)
			}
		}
	}
	s.stop()
	select {
	case <-s.served:
	case <-time.After(time.Second):
		// Somebody holds on to what can't be reached by name any more, and
		// nobody can cut them off. That ends with this process.
	}
	if err := s.watcher.release(); err != nil {
		s.log.Warn("the watcher of the mount", "error", err)
	}
	close(s.ended)
}

// unreachable returns a channel that is closed when the mount is mounted nowhere
// and nothing of it is open. Requests could go on being served even then: any
// namespace of mounts that was made meanwhile may have a copy of the mount.
func (s *Server) unreachable() <-chan struct{} {
	gone := make(chan struct{})
	go func() {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			select {
			case <-s.ended:
				return
			case <-tick.C:
			}
			if there, err := stillMounted(s.device); err == nil && !there && s.raw.opened.Load() == 0 {
				close(gone)
				return
			}
		}
	}()
	return gone
}

func (s *Server) isServed() bool {
	select {
	case <-s.served:
		return true
	default:
		return false
	}
}

// Dir is the absolute path of the mount point.
func (s *Server) Dir() string { return s.dir }

// Wait waits until the mount has ended and everything is undone.
func (s *Server) Wait() error {
	<-s.ended
	return nil
}

// Unmount unmounts, unless files or directories of the mount are in use, which
// gives ErrBusy, with the mount as it was.
func (s *Server) Unmount() error {
	if s.isServed() {
		return s.Wait()
	}
	if err := unmount(s.dir, false); err != nil {
		return fmt.Errorf("unmount %s: %w", s.dir, err)
	}
	return s.Wait()
}

// detach takes the mount away even from those who use it. Their requests fail
// from then on.
func (s *Server) detach() error {
	s.stop()
	return unmount(s.dir, true)
}
