package mount

import (
	"context"
	"errors"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"

	"holdfast/fs"
)

// errnos is the border where errors of a tree become error numbers: the first
// that matches wins, and an error that matches none is EIO.
var errnos = []struct {
	err   error
	errno syscall.Errno
}{
	{context.Canceled, syscall.EINTR},
	{context.DeadlineExceeded, syscall.ETIMEDOUT},
	{fs.ErrNotFound, syscall.ENOENT},
	{fs.ErrStale, syscall.ESTALE},
	{fs.ErrNotDir, syscall.ENOTDIR},
	{fs.ErrIsDir, syscall.EISDIR},
	{fs.ErrInvalid, syscall.EINVAL},
	{fs.ErrNoXattr, syscall.ENODATA},
	{fs.ErrLoop, syscall.ELOOP},
	{fs.ErrDamaged, syscall.EIO},
	{fs.ErrUnsupported, syscall.EOPNOTSUPP},
	{fs.ErrRetry, syscall.EAGAIN},
	{fs.ErrNoSpace, syscall.ENOSPC},
	{fs.ErrReadOnly, syscall.EROFS},
	{fs.ErrPermission, syscall.EPERM},
	{fs.ErrExist, syscall.EEXIST},
	{fs.ErrNotEmpty, syscall.ENOTEMPTY},
	{fs.ErrNameTooLong, syscall.ENAMETOOLONG},
	{fs.ErrCrossing, syscall.EXDEV},
	{fs.ErrTooManyLinks, syscall.EMLINK},
	{fs.ErrTooLarge, syscall.EFBIG},
	{fs.ErrQuota, syscall.EDQUOT},
	{fs.ErrChanged, syscall.EAGAIN},
	{fs.ErrBadCookie, syscall.EINVAL},
}

// errno turns an error of a tree into an error number.
func errno(err error) syscall.Errno {
	if err == nil {
		return 0
	}
	for _, e := range errnos {
		if errors.Is(err, e.err) {
			return e.errno
		}
	}
	return syscall.EIO
}

// status answers with an error. What a number can't explain is logged.
func (s *served) status(err error) fuse.Status {
	n := errno(err)
	switch n {
	case syscall.EIO, syscall.EOPNOTSUPP, syscall.ETIMEDOUT, syscall.ENOSPC:
		s.reasons.tell("a request failed", "errno", n.Error(), "error", err.Error())
	}
	return fuse.Status(n)
}
