package vfs

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// again calls fn until no signal interrupts it.
func again(fn func() error) error {
	for {
		if err := fn(); err != unix.EINTR {
			return err
		}
	}
}

func lockFile(f *os.File, mode LockMode) error {
	how := unix.LOCK_SH
	if mode == Exclusive {
		how = unix.LOCK_EX
	}
	err := again(func() error { return unix.Flock(int(f.Fd()), how|unix.LOCK_NB) })
	if err == unix.EWOULDBLOCK {
		return ErrLocked
	}
	return err
}

func unlockFile(f *os.File) error {
	return again(func() error { return unix.Flock(int(f.Fd()), unix.LOCK_UN) })
}

func freeBytes(dir *os.File) (uint64, error) {
	var st unix.Statfs_t
	err := again(func() error { return unix.Fstatfs(int(dir.Fd()), &st) })
	if err != nil {
		return 0, err
	}
	return st.Bavail * uint64(st.Frsize), nil
}

// immutableFlag is FS_IMMUTABLE_FL of linux/fs.h, which package unix lacks.
const immutableFlag = 0x10

// immutable reads the flag that chattr +i sets.
func immutable(f *os.File) (bool, error) {
	var flags uint32
	err := again(func() (err error) {
		flags, err = unix.IoctlGetUint32(int(f.Fd()), unix.FS_IOC_GETFLAGS)
		return err
	})
	if err == unix.ENOTTY || err == unix.EINVAL || errors.Is(err, errors.ErrUnsupported) {
		return false, nil // the file system has no flags
	}
	return flags&immutableFlag != 0, err
}

func preallocate(f *os.File, n int64) error {
	if n == 0 {
		return nil
	}
	err := again(func() error { return unix.Fallocate(int(f.Fd()), 0, 0, n) })
	if errors.Is(err, errors.ErrUnsupported) {
		return writeZeros(f, n)
	}
	return err
}

func dropCache(f *os.File, off, n int64) error {
	return again(func() error { return unix.Fadvise(int(f.Fd()), off, n, unix.FADV_DONTNEED) })
}

// syncData is Sync without the times.
func (f osFile) syncData() error {
	c, err := f.SyscallConn()
	if err != nil {
		return err
	}
	ctlErr := c.Control(func(fd uintptr) {
		err = again(func() error { return unix.Fdatasync(int(fd)) })
	})
	if ctlErr != nil {
		return f.Sync() // which says that the file is closed
	}
	if err != nil {
		return &os.PathError{Op: "sync", Path: f.Name(), Err: err}
	}
	return nil
}
