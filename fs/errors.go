package fs

import "errors"

// What a Tree answers instead of what was asked for. Errors wrap one of these
// and name the object; fs/mount and nfs turn them into errno and status.
var (
	ErrNotFound    = errors.New("no such file or directory")
	ErrStale       = errors.New("no such inode any more")
	ErrNotDir      = errors.New("not a directory")
	ErrIsDir       = errors.New("is a directory")
	ErrInvalid     = errors.New("invalid argument")
	ErrNoXattr     = errors.New("no such attribute")
	ErrLoop        = errors.New("too many symbolic links")
	ErrDamaged     = errors.New("damaged")                 // contradicts its format, or failed a check
	ErrUnsupported = errors.New("not supported")           // in order as far as can be told, but not readable by us
	ErrRetry       = errors.New("not available right now") // the same again may do
	ErrNoSpace     = errors.New("no space left")
	ErrReadOnly    = errors.New("read-only")
	ErrPermission  = errors.New("not permitted")
)

// What only trees that can be changed answer.
var (
	ErrExist        = errors.New("there already")
	ErrNotEmpty     = errors.New("directory not empty")
	ErrNameTooLong  = errors.New("name too long")
	ErrCrossing     = errors.New("in another part of the tree") // a link or move between parts that share nothing
	ErrTooManyLinks = errors.New("too many links")
	ErrTooLarge     = errors.New("larger than a file can be")
	ErrQuota        = errors.New("more than is granted")
	ErrChanged      = errors.New("changed meanwhile")
	ErrBadCookie    = errors.New("no such place in the directory")
)
