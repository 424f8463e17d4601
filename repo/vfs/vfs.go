// Package vfs is the few file operations a repository uses, so that every one
// of them can be counted, refused, torn or followed by a power cut in a test.
//
// Three file systems implement [FS]. [Dir] is a real directory. [Mem] keeps
// everything in memory and knows what was made durable and what was not:
// [Mem.CrashClone] gives the file system as it could look after losing power.
// [Faulty] stands before another one, counts and lists the operations, and
// fails those it is told to.
//
// # Names
//
// A name is relative to the root, with slashes, as [io/fs.ValidPath] has it;
// "." is the root. Errors name what they are about and answer to errors.Is
// with fs.ErrNotExist, fs.ErrExist, fs.ErrPermission, syscall.ENOSPC,
// syscall.EROFS and so on, the same ones from each implementation. The test
// suite in vfstest holds them to it.
//
// # What is durable when
//
// Nothing is, until it is synced. [File.Sync] makes a file's bytes and size
// durable but not its name; [FS.SyncDir] makes the names in one directory
// durable but neither the bytes behind them nor the name of the directory
// itself. After Sync has failed the bytes written before are to be held lost,
// even though they still read and though the next Sync says nothing: the
// kernel may have dropped them. Write them again into another file.
//
// [WriteFile] and [Place] do these steps in the one right order.
package vfs

import (
	"errors"
	"io"
	"io/fs"
	"strings"
	"syscall"
)

var (
	// ErrLocked says that somebody else holds the lock, in this process or
	// another one.
	ErrLocked = errors.New("locked by another holder")

	// ErrTooLarge says that a file is larger than the reader's limit.
	ErrTooLarge = errors.New("file larger than allowed")

	// ErrCrashed is what every operation of a [Faulty] returns from the point
	// of its crash on.
	ErrCrashed = errors.New("crashed here by the test")

	errNotRegular = errors.New("not a regular file")
)

// FS is a tree of files. All methods are safe for concurrent use.
type FS interface {
	// Create makes a new file and opens it for reading and writing. It gives
	// fs.ErrExist when the name is taken. The name is durable after SyncDir
	// of its directory.
	Create(name string) (File, error)

	// Open opens an existing regular file for reading.
	Open(name string) (File, error)

	// OpenWrite opens an existing regular file for reading and writing, at
	// position 0. Named files of a repository are never written again: this
	// is for the reserve file, the text of a lock, and tests that damage.
	OpenWrite(name string) (File, error)

	// Mkdir makes one directory; fs.ErrExist when the name is taken.
	Mkdir(name string) error

	// Remove removes a file or an empty directory. A file that is open
	// keeps working until it is closed.
	Remove(name string) error

	// Rename gives a file or directory another name in one step. A file takes
	// the place of a file that had that name before; a directory in the way
	// gives fs.ErrExist.
	Rename(oldName, newName string) error

	// ReadDir lists a directory, sorted by name.
	ReadDir(name string) ([]Info, error)

	// Stat describes one file or directory.
	Stat(name string) (Info, error)

	// Locked tells whether a regular file is immutable: whether Remove, Rename
	// from or to its name, and OpenWrite give fs.ErrPermission, whoever calls.
	// Somebody else locks and unlocks files, at any time. Where the system
	// has no such flag no file is locked.
	Locked(name string) (bool, error)

	// SyncDir makes durable what was created in, renamed into or out of,
	// and removed from the directory.
	SyncDir(name string) error

	// Lock takes a lock on a file, creating the file when it is missing, and
	// does not wait: ErrLocked when it is held in a way that excludes this
	// one. Every call stands for itself, also within one process. The lock
	// dies with the process. It excludes only others that ask for a lock.
	Lock(name string, mode LockMode) (Unlocker, error)

	// Free returns how many bytes this user could still write.
	Free() (bytes uint64, err error)
}

// File is an open file. ReadAt and WriteAt may run at once on one File; Write
// has a position of its own, which starts at 0, and one caller at a time.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Writer
	io.Closer

	// Sync makes the file's bytes and its size durable. See the package
	// comment for what a failure means.
	Sync() error

	// Size returns the length in bytes.
	Size() (int64, error)

	// Truncate sets the length; what is added reads as zeros. The position
	// of Write stays.
	Truncate(size int64) error

	// Preallocate takes the space for the first n bytes, so that the disk
	// cannot be full when they are written, and makes the file at least n
	// bytes long. Bytes never written read as zeros. On error some of the
	// space may have been taken.
	Preallocate(n int64) error

	// DropCache asks the system to forget n bytes from off, which are not
	// going to be read again soon; n = 0 means to the end. Bytes not yet
	// synced stay. Where this cannot be asked, it does nothing.
	DropCache(off, n int64) error
}

// Info describes a file or a directory.
type Info struct {
	Name string // the last element
	Size int64  // bytes; 0 for a directory
	Dir  bool
}

// LockMode says with whom a lock may be shared.
type LockMode int

const (
	Shared    LockMode = iota // with other shared ones
	Exclusive                 // with nobody
)

// Unlocker is a lock that is held.
type Unlocker interface {
	// Unlock gives the lock up. The file stays. A second call gives
	// fs.ErrClosed.
	Unlock() error
}

// maxName is the longest element of a name, in bytes, on the file systems we
// run on.
const maxName = 255

// checkName refuses names that no implementation takes.
func checkName(op, name string) error {
	if !fs.ValidPath(name) || strings.IndexByte(name, 0) >= 0 {
		return &fs.PathError{Op: op, Path: name, Err: fs.ErrInvalid}
	}
	for elem := range strings.SplitSeq(name, "/") {
		if len(elem) > maxName {
			return &fs.PathError{Op: op, Path: name, Err: syscall.ENAMETOOLONG}
		}
	}
	return nil
}

// checkEntry is checkName for operations on an entry of a directory, which the
// root is not.
func checkEntry(op, name string) error {
	if name == "." {
		return &fs.PathError{Op: op, Path: name, Err: fs.ErrInvalid}
	}
	return checkName(op, name)
}
