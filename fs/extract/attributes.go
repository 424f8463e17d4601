package extract

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"holdfast/fs"
)

// fileAttributes gives an open file or directory what a says, after its content.
func (c *copier) fileAttributes(ctx context.Context, fd int, a *fs.Attr) error {
	perm := c.opt.perm(&c.n, a)
	err := unix.Fchown(fd, int(a.UID), int(a.GID))
	switch {
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EINVAL): // we are not root, or it is a number that can't be here
		c.n.Attributes++
		perm &^= 0o6000 // which were another's
	case err != nil:
		return os.NewSyscallError("chown", err)
	}
	if err := unix.Fchmod(fd, perm); err != nil {
		return os.NewSyscallError("chmod", err)
	}
	err = c.eachXattr(ctx, a, func(name string, value []byte) error { return unix.Fsetxattr(fd, name, value, 0) })
	if err != nil {
		return err
	}
	return os.NewSyscallError("utimensat", futimes(fd, times(a)))
}

// futimes sets the times of an open file.
func futimes(fd int, ts []unix.Timespec) error {
	return unix.UtimesNanoAt(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), ts, 0)
}

// nodeAttributes is fileAttributes for what can't be opened, by its name in d.
func (c *copier) nodeAttributes(ctx context.Context, d *Dir, name string, a *fs.Attr) error {
	err := unix.Fchownat(d.fd, name, int(a.UID), int(a.GID), unix.AT_SYMLINK_NOFOLLOW)
	switch {
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EINVAL):
		c.n.Attributes++
	case err != nil:
		return os.NewSyscallError("chown", err)
	}
	// A link has no mode. There is no other way to it for the rest; whoever
	// could put a link in the place of what we just made owns the directory.
	if a.Type != fs.TypeSymlink {
		if err := unix.Fchmodat(d.fd, name, c.opt.perm(&c.n, a), unix.AT_SYMLINK_NOFOLLOW); err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
			return os.NewSyscallError("chmod", err)
		}
	}
	path := fmt.Sprintf("/proc/self/fd/%d/%s", d.fd, name)
	err = c.eachXattr(ctx, a, func(name string, value []byte) error { return unix.Lsetxattr(path, name, value, 0) })
	if err != nil {
		return err
	}
	return os.NewSyscallError("utimensat", unix.UtimesNanoAt(d.fd, name, times(a), unix.AT_SYMLINK_NOFOLLOW))
}

func times(a *fs.Attr) []unix.Timespec {
	of := func(t fs.Time) unix.Timespec {
		if t.IsZero() {
			return unix.Timespec{Nsec: unix.UTIME_OMIT}
		}
		return unix.Timespec{Sec: t.Sec, Nsec: int64(t.Nsec)}
	}
	return []unix.Timespec{of(a.Atime), of(a.Mtime)}
}

// capability is the attribute that makes a program more than whoever runs it.
const capability = "security.capability"

// eachXattr calls set for the extended attributes of an object, and for its
// alternate streams as such. What the target or its owner does not take is
// counted.
func (c *copier) eachXattr(ctx context.Context, a *fs.Attr, set func(name string, value []byte) error) error {
	names, tooLong, err := fs.XattrNames(ctx, c.t, a.ID)
	if err != nil {
		return fmt.Errorf("list attributes: %w", err)
	}
	c.n.Streams += tooLong
	for _, name := range names {
		if name == capability && !c.opt.SetID {
			c.n.Stripped++
			continue
		}
		value, err := fs.XattrValue(ctx, c.t, a.ID, name)
		if err != nil {
			return fmt.Errorf("read attribute %q: %w", name, err)
		}
		err = set(name, value)
		switch {
		case err == nil:
		case errors.Is(err, unix.EPERM), errors.Is(err, unix.ENOTSUP), errors.Is(err, unix.EINVAL), errors.Is(err, unix.EACCES),
			errors.Is(err, unix.E2BIG), errors.Is(err, unix.ERANGE),
			// ext4 says so of one that is too long for it. If the target is full
			// indeed, the next file will tell.
			errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
			c.n.Attributes++
		default:
			return os.NewSyscallError("setxattr "+name, err)
		}
	}
	return nil
}
