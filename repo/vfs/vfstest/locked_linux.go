package vfstest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"holdfast/repo/vfs"

	"golang.org/x/sys/unix"
)

// setImmutable does what chattr +i and -i do.
func setImmutable(d *vfs.Dir, name string, on bool) error {
	f, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d/%s", d.Fd(), name), os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	const immutable = 0x10 // FS_IMMUTABLE_FL
	fd := int(f.Fd())
	flags, err := unix.IoctlGetInt(fd, unix.FS_IOC_GETFLAGS)
	if err == nil {
		flags &^= immutable
		if on {
			flags |= immutable
		}
		err = unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, flags)
	}
	if err == unix.ENOTTY {
		err = errors.ErrUnsupported
	}
	if err != nil {
		err = &fs.PathError{Op: "set locked", Path: name, Err: err}
	}
	return errors.Join(err, f.Close())
}
