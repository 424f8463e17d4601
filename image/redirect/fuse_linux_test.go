package redirect

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"sync/atomic"
	"syscall"
	"testing"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"holdfast/internal/testreq"
	"holdfast/repo/vfs"
)

// fuseDir serves one directory of a vfs.FS to the kernel, which has its own
// cache before it and reports failed syncs as it does of a disk.
type fuseDir struct {
	gofs.Inode
	fsys vfs.FS
	// onSync is called before each sync of a file.
	onSync func()
}

// fuseFile is a file of it, which is open as long as the kernel knows it.
type fuseFile struct {
	gofs.Inode
	dir  *fuseDir
	file vfs.File
}

// errno is what the kernel is told of an error.
func errno(err error) syscall.Errno {
	var no syscall.Errno
	switch {
	case err == nil:
		return 0
	case errors.As(err, &no):
		return no
	case errors.Is(err, os.ErrNotExist):
		return syscall.ENOENT
	case errors.Is(err, os.ErrExist):
		return syscall.EEXIST
	}
	return syscall.EIO
}

// add gives an open file its inode.
func (d *fuseDir) add(ctx context.Context, name string, f vfs.File, err error) (*gofs.Inode, syscall.Errno) {
	if err != nil {
		return nil, errno(err)
	}
	n := d.NewInode(ctx, &fuseFile{dir: d, file: f}, gofs.StableAttr{Mode: syscall.S_IFREG})
	d.AddChild(name, n, true)
	return n, 0
}

func (d *fuseDir) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*gofs.Inode, syscall.Errno) {
	n := d.GetChild(name)
	if n == nil {
		f, err := d.fsys.OpenWrite(name)
		var no syscall.Errno
		if n, no = d.add(ctx, name, f, err); no != 0 {
			return nil, no
		}
	}
	return n, n.Operations().(*fuseFile).attr(&out.Attr)
}

func (d *fuseDir) Create(ctx context.Context, name string, _, _ uint32, out *fuse.EntryOut) (*gofs.Inode, gofs.FileHandle, uint32, syscall.Errno) {
	f, err := d.fsys.Create(name)
	n, no := d.add(ctx, name, f, err)
	out.Attr.Mode = syscall.S_IFREG | 0o600
	return n, nil, 0, no
}

func (d *fuseDir) Unlink(_ context.Context, name string) syscall.Errno {
	return errno(d.fsys.Remove(name))
}

func (d *fuseDir) Rename(_ context.Context, name string, _ gofs.InodeEmbedder, newName string, _ uint32) syscall.Errno {
	return errno(d.fsys.Rename(name, newName))
}

func (d *fuseDir) Readdir(context.Context) (gofs.DirStream, syscall.Errno) {
	list, err := d.fsys.ReadDir(".")
	var out []fuse.DirEntry
	for _, e := range list {
		out = append(out, fuse.DirEntry{Name: e.Name, Mode: syscall.S_IFREG})
	}
	return gofs.NewListDirStream(out), errno(err)
}

func (d *fuseDir) Fsync(context.Context, gofs.FileHandle, uint32) syscall.Errno {
	return errno(d.fsys.SyncDir("."))
}

func (d *fuseDir) Statfs(_ context.Context, out *fuse.StatfsOut) syscall.Errno {
	const total = 1 << 40
	free, err := d.fsys.Free()
	out.Bsize, out.Frsize, out.Blocks = grainBytes, grainBytes, total/grainBytes
	out.Bfree = min(free, total) / grainBytes
	out.Bavail = out.Bfree
	return errno(err)
}

func (f *fuseFile) attr(a *fuse.Attr) syscall.Errno {
	size, err := f.file.Size()
	a.Mode, a.Size = syscall.S_IFREG|0o600, uint64(size)
	return errno(err)
}

func (f *fuseFile) Getattr(_ context.Context, _ gofs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	return f.attr(&out.Attr)
}

func (f *fuseFile) Setattr(_ context.Context, _ gofs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	if size, ok := in.GetSize(); ok {
		if err := f.file.Truncate(int64(size)); err != nil {
			return errno(err)
		}
	}
	return f.attr(&out.Attr)
}

func (f *fuseFile) Open(context.Context, uint32) (gofs.FileHandle, uint32, syscall.Errno) {
	return nil, 0, 0
}

func (f *fuseFile) Read(_ context.Context, _ gofs.FileHandle, p []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	n, err := f.file.ReadAt(p, off)
	if err == io.EOF {
		err = nil
	}
	return fuse.ReadResultData(p[:n]), errno(err)
}

func (f *fuseFile) Write(_ context.Context, _ gofs.FileHandle, p []byte, off int64) (uint32, syscall.Errno) {
	n, err := f.file.WriteAt(p, off)
	return uint32(n), errno(err)
}

func (f *fuseFile) Allocate(_ context.Context, _ gofs.FileHandle, off, n uint64, _ uint32) syscall.Errno {
	return errno(f.file.Preallocate(int64(off + n)))
}

func (f *fuseFile) Fsync(context.Context, gofs.FileHandle, uint32) syscall.Errno {
	f.dir.onSync()
	return errno(f.file.Sync())
}

func (f *fuseFile) OnForget() { _ = f.file.Close() } // nothing is kept back

// mountFUSE mounts the file system below a world, and has its session use that.
func (w *world) mountFUSE(t *testing.T, onSync func()) {
	t.Helper()
	root := &fuseDir{fsys: w.disk, onSync: onSync}
	at := t.TempDir()
	server, err := gofs.Mount(at, root, &gofs.Options{MountOptions: fuse.MountOptions{
		FsName: "redirect", Name: "test", DirectMountStrict: true, SingleThreaded: true,
	}})
	if err != nil {
		t.Fatal(err)
	}
	dir, err := vfs.OS(at)
	if err != nil {
		t.Fatal(errors.Join(err, server.Unmount()))
	}
	w.fsys = dir
	t.Cleanup(func() {
		if err := errors.Join(dir.Close(), server.Unmount()); err != nil {
			t.Error(errors.Join(err, unix.Unmount(at, unix.MNT_DETACH)))
		}
	})
}

// TestFailedSyncOfKernel lets fsync fail on a real file system, whose server
// loses what it was to make durable.
func TestFailedSyncOfKernel(t *testing.T) {
	testreq.Need(t, "root")
	if _, err := os.Stat("/dev/fuse"); err != nil {
		testreq.Need(t, "/dev/fuse")
	}
	lost, readOnly := 0, 0
	for run := range steps(8) {
		w := newWorld(uint64(run))
		var syncs, next, again atomic.Int64
		next.Store(1 << 40)
		again.Store(1 << 40)
		w.mountFUSE(t, func() {
			if n := syncs.Add(1); n == next.Load() || n == again.Load() {
				w.disk.FailAt(w.disk.Count(), syscall.EIO)
			}
		})
		if err := w.create(); err != nil {
			t.Fatal(err)
		}
		rng := rand.New(rand.NewPCG(uint64(run), 4))
		next.Store(syncs.Load() + 1 + rng.Int64N(20))
		if run%3 == 2 {
			again.Store(next.Load() + 1 + rng.Int64N(20))
		}
		verifier := w.s.Verifier()
		// Where a seal can't make its layer nothing was lost, and it says EIO alone.
		if err := w.tryWork(t.Context(), rng, steps(25), syscall.EIO); err != nil {
			t.Fatalf("run %d: %v", run, err)
		}
		if w.s.Verifier() != verifier {
			lost++
		}
		if errors.Is(w.s.usable(true), ErrReadOnly) {
			readOnly++
		}
		if err := w.inTheEnd(); err != nil {
			t.Fatalf("run %d: %v", run, err)
		}
	}
	t.Logf("%d runs, verifier changed in %d, read-only after %d", steps(8), lost, readOnly)
	if lost == 0 {
		t.Error("no sync failed")
	}
}
