package fs

import (
	"fmt"
	"time"
)

// Attr describes an inode.
type Attr struct {
	ID    ID
	Type  Type
	Perm  uint16 // the low twelve bits of a mode: permissions, sticky, set-group, set-user
	Nlink uint32
	UID   uint32
	GID   uint32
	Size  int64  // in bytes; of a symbolic link the length of its target
	Used  int64  // bytes of the device that it takes
	Major uint32 // of a device node
	Minor uint32
	Atime Time
	Mtime Time
	Ctime Time // of the inode
	Btime Time // of its making; zero where it is not known

	// Fixed says that nothing of this inode, its entries included, changes as
	// long as its ID is good: it may be cached for ever.
	Fixed bool
}

// IsDir says whether a describes a directory.
func (a *Attr) IsDir() bool { return a.Type == TypeDir }

// Type is what an inode is.
type Type uint8

const (
	TypeUnknown Type = iota
	TypeFile
	TypeDir
	TypeSymlink
	TypeCharDevice
	TypeBlockDevice
	TypeFIFO
	TypeSocket
)

var typeNames = [...]string{"unknown", "file", "directory", "symlink", "character device", "block device", "fifo", "socket"}

func (t Type) String() string {
	if int(t) < len(typeNames) {
		return typeNames[t]
	}
	return fmt.Sprintf("type %d", uint8(t))
}

// Time is seconds since 1970 and the nanoseconds, 0 to 999,999,999, after them.
// Guests have times that an int64 of nanoseconds, 1677 to 2262, can't hold.
type Time struct {
	Sec  int64
	Nsec uint32
}

// TimeOf returns t as a Time.
func TimeOf(t time.Time) Time { return Time{t.Unix(), uint32(t.Nanosecond())} }

// Time returns t as package time has it, in UTC.
func (t Time) Time() time.Time { return time.Unix(t.Sec, int64(t.Nsec)).UTC() }

// IsZero says whether t is the zero value, which stands for "not known".
func (t Time) IsZero() bool { return t == Time{} }

func (t Time) String() string { return t.Time().Format(time.RFC3339Nano) }
