package datastore

// SessionSpec is a session to be made: a directory and what is in it at first.
type SessionSpec struct {
	Name  string     // of the directory, in the root
	Files []File     // small ones, stored here
	Disks []DiskFile // big ones, which Attach brings

	// QuotaBytes is what the session's files, disks not counted, may take
	// together; 0: all that is free.
	QuotaBytes int64

	// UID and GID own the directory and all in it.
	UID, GID uint32
}

// File is a small file of a new session, at most 64 MiB.
type File struct {
	Name string
	Data []byte
	Perm uint16 // 0: 0644
}

// DiskFile is a disk of a new session. Name is both the file's first name and,
// for as long as the session is there, by what Attach knows the disk.
type DiskFile struct {
	Name string
	Size int64  // bytes
	Perm uint16 // 0: 0600
}

// Session describes a session of a store.
type Session struct {
	Number uint32
	Name   string
	Disks  []SessionDisk

	// Err is why the session is offline: fs.ErrDamaged and what is wrong with
	// its journal. Its other fields but Number and Name are empty then.
	Err error
}

// SessionDisk is a disk of a session.
type SessionDisk struct {
	Name     string // as in the SessionSpec
	Size     int64
	Path     string // its name now, from the session's directory on; "" if all its names were removed
	Attached bool
}
