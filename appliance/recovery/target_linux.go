package recovery

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// target is a file or block device that a disk is migrated to. Only this process
// has it: a device by O_EXCL, which the kernel refuses for one that is mounted or
// otherwise in use; a file by a lock, and by looking whether a loop device has it.
type target struct{ f *os.File }

// realTargets are those of this machine.
type realTargets struct{}

func (realTargets) path(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	dir, err := filepath.EvalSymlinks(filepath.Dir(path))
	if err != nil {
		return "", err
	}
	path = filepath.Join(dir, filepath.Base(path))
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real, nil // a name under /dev/disk, say
	}
	return path, nil
}

func (realTargets) isFile(path string) (bool, error) {
	info, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return err == nil && info.Mode().IsRegular(), err
}

func (realTargets) open(path string, size int64) (migrationTarget, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, os.ErrNotExist) && size > 0:
	case err != nil:
		return nil, err
	case info.Mode()&os.ModeDevice != 0 && info.Mode()&os.ModeCharDevice == 0:
		return openDevice(path, size)
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is neither a file nor a block device", path)
	}
	return openFile(path, size)
}

// openFile opens a file that this process alone has, as far as others ask.
func openFile(path string, size int64) (_ migrationTarget, err error) {
	if dev := loopOver(path); dev != "" {
		return nil, fmt.Errorf("%s is in use by %s", path, dev)
	}
	flags := os.O_RDWR
	if size > 0 {
		flags |= os.O_CREATE
	}
	f, err := os.OpenFile(path, flags, 0o600)
	if err != nil {
		return nil, err
	}
	if err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		err = fmt.Errorf("%s is in use: %w", path, err)
	} else if size > 0 {
		err = errors.Join(f.Truncate(size), syncDir(filepath.Dir(path)))
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &target{f}, nil
}

func openDevice(path string, size int64) (migrationTarget, error) {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_EXCL, 0)
	if errors.Is(err, unix.EBUSY) {
		return nil, fmt.Errorf("%s is mounted or otherwise in use: %w", path, err)
	}
	if err != nil {
		return nil, err
	}
	room, err := f.Seek(0, io.SeekEnd)
	if err == nil && room < size {
		err = fmt.Errorf("%s has %d bytes, the disk %d", path, room, size)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &target{f}, nil
}

// loopOver returns the loop device that has a file, if there is one.
func loopOver(path string) string {
	names, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for _, name := range names {
		if p, err := os.ReadFile(name); err == nil && strings.TrimSuffix(string(p), "\n") == path {
			return "/dev/" + strings.Split(name, "/")[3]
		}
	}
	return ""
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func (t *target) ReadAt(p []byte, off int64) (int, error)  { return t.f.ReadAt(p, off) }
func (t *target) WriteAt(p []byte, off int64) (int, error) { return t.f.WriteAt(p, off) }
func (t *target) Sync() error                              { return t.f.Sync() }
func (t *target) Close() error                             { return t.f.Close() }

// DropCache has the next reads come from the medium.
func (t *target) DropCache(off, n int64) error {
	return unix.Fadvise(int(t.f.Fd()), off, n, unix.FADV_DONTNEED)
}
