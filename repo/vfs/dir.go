package vfs

import (
	"cmp"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
)

// Readers of a repository run as other users of its group: they may look. Only
// the owner may change.
const (
	filePerm = 0o640
	dirPerm  = 0o750
)

// Dir is a directory of the system as an FS. It holds the directory itself, not
// its path: renaming a parent does not lead elsewhere, and neither a name nor a
// symbolic link inside reaches outside.
type Dir struct {
	root *os.Root
	self *os.File // the directory, for Fd and Free
}

// OS opens an existing directory.
func OS(dir string) (*Dir, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	self, err := root.Open(".")
	if err != nil {
		return nil, errors.Join(err, root.Close())
	}
	return &Dir{root: root, self: self}, nil
}

// Close closes the directory. Files opened from it stay open.
func (d *Dir) Close() error { return errors.Join(d.self.Close(), d.root.Close()) }

// Fd returns the descriptor of the directory, which is good until Close. A
// socket is bound by it as /proc/self/fd/N/name, however long the path is.
func (d *Dir) Fd() int { return int(d.self.Fd()) }

// Path returns the path that the directory was opened by.
func (d *Dir) Path() string { return d.root.Name() }

// wrap says which operation on which path failed, once.
func (d *Dir) wrap(op, name string, err error) error {
	if err == nil {
		return nil
	}
	return &fs.PathError{Op: op, Path: filepath.Join(d.Path(), name), Err: bare(err)}
}

// bare takes off what package os has wrapped around an error.
func bare(err error) error {
	var pe *fs.PathError
	var le *os.LinkError
	var se *os.SyscallError
	switch {
	case errors.As(err, &pe):
		return bare(pe.Err)
	case errors.As(err, &le):
		return bare(le.Err)
	case errors.As(err, &se):
		return se.Err
	}
	return err
}

func (d *Dir) Create(name string) (File, error) {
	if err := checkEntry("create", name); err != nil {
		return nil, err
	}
	f, err := d.root.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, filePerm)
	if err != nil {
		return nil, d.wrap("create", name, err)
	}
	return osFile{f}, nil
}

func (d *Dir) Open(name string) (File, error)      { return d.open(name, os.O_RDONLY) }
func (d *Dir) OpenWrite(name string) (File, error) { return d.open(name, os.O_RDWR) }

func (d *Dir) open(name string, flag int) (File, error) {
	f, err := d.openFile("open", name, flag)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

// openFile opens a regular file for the operation op.
func (d *Dir) openFile(op, name string, flag int) (*os.File, error) {
	if err := checkName(op, name); err != nil {
		return nil, err
	}
	// Without O_NONBLOCK somebody's pipe in the directory would hold us up.
	f, err := d.root.OpenFile(name, flag|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, d.wrap(op, name, err)
	}
	if err := regular(f); err != nil {
		return nil, d.wrap(op, name, errors.Join(err, f.Close()))
	}
	return f, nil
}

// regular gives an error for what is not a plain file.
func regular(f *os.File) error {
	info, err := f.Stat()
	switch {
	case err != nil:
		return err
	case info.IsDir():
		return syscall.EISDIR
	case !info.Mode().IsRegular():
		return errNotRegular
	}
	return nil
}

func (d *Dir) Mkdir(name string) error {
	if err := checkEntry("mkdir", name); err != nil {
		return err
	}
	return d.wrap("mkdir", name, d.root.Mkdir(name, dirPerm))
}

func (d *Dir) Remove(name string) error {
	if err := checkEntry("remove", name); err != nil {
		return err
	}
	return d.wrap("remove", name, d.root.Remove(name))
}

func (d *Dir) Rename(oldName, newName string) error {
	if err := cmp.Or(checkEntry("rename", oldName), checkEntry("rename", newName)); err != nil {
		return err
	}
	if err := d.root.Rename(oldName, newName); err != nil {
		return &os.LinkError{Op: "rename", Old: filepath.Join(d.Path(), oldName), New: newName, Err: bare(err)}
	}
	return nil
}

func (d *Dir) ReadDir(name string) ([]Info, error) {
	if err := checkName("readdir", name); err != nil {
		return nil, err
	}
	f, err := d.openDir(name)
	if err != nil {
		return nil, d.wrap("readdir", name, err)
	}
	entries, err := f.ReadDir(-1)
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, d.wrap("readdir", name, err)
	}
	list := make([]Info, 0, len(entries))
	for _, e := range entries {
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed while we looked
		}
		if err != nil {
			return nil, d.wrap("readdir", name, err)
		}
		list = append(list, infoOf(info))
	}
	slices.SortFunc(list, func(a, b Info) int { return cmp.Compare(a.Name, b.Name) })
	return list, nil
}

// openDir opens a directory and nothing else.
func (d *Dir) openDir(name string) (*os.File, error) {
	f, err := d.root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.IsDir() {
		err = syscall.ENOTDIR
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func (d *Dir) Stat(name string) (Info, error) {
	if err := checkName("stat", name); err != nil {
		return Info{}, err
	}
	info, err := d.root.Stat(name)
	if err != nil {
		return Info{}, d.wrap("stat", name, err)
	}
	return infoOf(info), nil
}

func (d *Dir) Locked(name string) (bool, error) {
	f, err := d.openFile("locked", name, os.O_RDONLY)
	if err != nil {
		return false, err
	}
	locked, err := immutable(f)
	return locked && err == nil, d.wrap("locked", name, errors.Join(err, f.Close()))
}

func infoOf(info fs.FileInfo) Info {
	if info.IsDir() {
		return Info{Name: info.Name(), Dir: true}
	}
	return Info{Name: info.Name(), Size: info.Size()}
}

func (d *Dir) SyncDir(name string) error {
	if err := checkName("syncdir", name); err != nil {
		return err
	}
	f, err := d.openDir(name)
	if err != nil {
		return d.wrap("syncdir", name, err)
	}
	return d.wrap("syncdir", name, errors.Join(f.Sync(), f.Close()))
}

func (d *Dir) Lock(name string, mode LockMode) (Unlocker, error) {
	if err := checkEntry("lock", name); err != nil {
		return nil, err
	}
	// Whoever removes the file of a lock holds it. If that happened between
	// our opening and our locking, we hold a file that has no name any more
	// and keeps nobody out.
	for {
		f, err := d.openLock(name, mode)
		if err != nil {
			return nil, d.wrap("lock", name, err)
		}
		err = lockFile(f, mode)
		if err == nil {
			var same bool
			if same, err = d.isNamed(f, name); same {
				return &dirLock{f}, nil
			}
		}
		if err := errors.Join(err, f.Close()); err != nil {
			return nil, d.wrap("lock", name, err)
		}
	}
}

// openLock opens or creates the file of a lock. A reader may lock where it
// cannot write: an existing file on a read-only medium, or one that is owned by
// another user.
func (d *Dir) openLock(name string, mode LockMode) (*os.File, error) {
	flag := os.O_CREATE | syscall.O_NONBLOCK
	if mode == Exclusive {
		f, err := d.root.OpenFile(name, os.O_RDWR|flag, filePerm)
		if !errors.Is(err, fs.ErrPermission) {
			return f, err
		}
	}
	return d.root.OpenFile(name, os.O_RDONLY|flag, filePerm)
}

// isNamed tells whether name still stands for the open file.
func (d *Dir) isNamed(f *os.File, name string) (bool, error) {
	have, err := f.Stat()
	if err != nil {
		return false, err
	}
	want, err := d.root.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && os.SameFile(have, want), err
}

type dirLock struct{ f *os.File }

// Unlock gives up the lock and closes the file. Closing alone would do, but for
// a program that is being started at this moment: until it is, it has all our
// files open, and with this one the lock.
func (l *dirLock) Unlock() error { return errors.Join(unlockFile(l.f), l.f.Close()) }

func (d *Dir) Free() (uint64, error) {
	n, err := freeBytes(d.self)
	return n, d.wrap("statfs", ".", err)
}

// osFile is a file of the system. Package os retries what a signal interrupts
// and what was written in part, and names the file in its errors.
type osFile struct{ *os.File }

func (f osFile) Size() (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

func (f osFile) Preallocate(n int64) error {
	if err := preallocate(f.File, n); err != nil {
		return &fs.PathError{Op: "preallocate", Path: f.Name(), Err: bare(err)}
	}
	return nil
}

func (f osFile) DropCache(off, n int64) error {
	if err := dropCache(f.File, off, n); err != nil {
		return &fs.PathError{Op: "fadvise", Path: f.Name(), Err: err}
	}
	return nil
}

// writeZeros is preallocate where the file system has no such thing: it writes
// zeros from the end of the file on.
func writeZeros(f *os.File, n int64) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	zeros := make([]byte, 1<<20)
	for off := info.Size(); off < n; off += int64(len(zeros)) {
		if _, err := f.WriteAt(zeros[:min(int64(len(zeros)), n-off)], off); err != nil {
			return err
		}
	}
	return nil
}
