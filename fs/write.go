package fs

import "context"

// WriteTree is a Tree that can be changed. What holds for Tree holds for it:
// any method at any time from any goroutine.
//
// Every change of a name or of attributes is durable when the call returns;
// bytes are when WriteAt or Commit says so. A change that fails leaves nothing
// behind. Times never go backwards, and every change of an inode changes its
// Ctime. Directory cookies stay good while other names come and go.
//
// Names are checked by the tree: "", ".", ".." and names with "/" or NUL give
// ErrInvalid, names longer than the tree holds ErrNameTooLong. A directory
// that isn't one gives ErrNotDir. A tree without room answers ErrNoSpace, or
// ErrQuota where the room is there but not for this, before it changes
// anything. A part of the tree that can't be changed answers ErrReadOnly.
type WriteTree interface {
	Tree

	// SetAttr changes attributes of an inode. With GuardCtime set and another
	// Ctime it changes nothing and gives ErrChanged. A new size cuts the file
	// or adds a hole; ErrIsDir or ErrInvalid for what has no size to set.
	SetAttr(ctx context.Context, id ID, set SetAttr) (Touched, error)

	// WriteAt writes p to a regular file at byte off, all of it or nothing,
	// growing it as needed. With sync it and all it needs is durable on return,
	// otherwise Written says whether it is. p is not kept.
	WriteAt(ctx context.Context, id ID, p []byte, off int64, sync bool) (Written, error)

	// Commit makes durable what was written to n bytes of a regular file from
	// off on; n 0 means all from there. Bytes beyond that may be synced too.
	Commit(ctx context.Context, id ID, off, n int64) (Touched, error)

	// Verifier is another number whenever writes that were not durable may have
	// been lost. Ask before a WriteAt and after a Commit: bytes written under
	// one number are safe once a later Commit is followed by the same one.
	Verifier() uint64

	// Create makes a regular file; see Creation for what is there already.
	Create(ctx context.Context, dir ID, name string, how Creation, set SetAttr, note Note) (Change, error)

	// Mkdir makes a directory. ErrExist.
	Mkdir(ctx context.Context, dir ID, name string, set SetAttr, note Note) (Change, error)

	// Symlink makes a symbolic link to target, whatever that is. ErrExist.
	Symlink(ctx context.Context, dir ID, name, target string, set SetAttr, note Note) (Change, error)

	// Mknod makes a device node, a FIFO or a socket. ErrExist; ErrUnsupported.
	Mknod(ctx context.Context, dir ID, name string, node Node, set SetAttr, note Note) (Change, error)

	// Link gives an inode that is no directory another name. ErrExist;
	// ErrIsDir; ErrCrossing; ErrTooManyLinks.
	Link(ctx context.Context, id, dir ID, name string, note Note) (Change, error)

	// Remove takes away a name that is no directory's, and with the last one
	// the inode. ErrNotFound; ErrIsDir.
	Remove(ctx context.Context, dir ID, name string, note Note) (Change, error)

	// Rmdir takes away an empty directory. ErrNotFound; ErrNotEmpty.
	Rmdir(ctx context.Context, dir ID, name string, note Note) (Change, error)

	// Rename moves what from has as name to to, as toName, in one step,
	// replacing a file by a file or an empty directory by a directory. If both
	// names are the same inode nothing happens. ErrNotFound; ErrExist for a
	// directory over a file or the other way round; ErrNotEmpty; ErrCrossing;
	// ErrInvalid for a directory into itself.
	Rename(ctx context.Context, from ID, name string, to ID, toName string, note Note) (Change, error)
}

// SetAttr says which attributes get which values. The zero value changes none.
// What is made gets those not set from the tree's defaults.
type SetAttr struct {
	Set   SetMask
	Perm  uint16
	UID   uint32
	GID   uint32
	Size  int64
	Atime Time
	Mtime Time
	Ctime Time // the guard: only if the inode still has this one
}

// SetMask says which fields of a SetAttr count.
type SetMask uint16

const (
	SetPerm SetMask = 1 << iota
	SetUID
	SetGID
	SetSize
	SetAtime
	SetMtime
	SetAtimeNow // to the tree's own clock; SetAtime and SetMtime to the values given
	SetMtimeNow
	GuardCtime
)

// Creation is how Create treats a name that is there already.
type Creation struct {
	How      CreateHow
	Verifier [8]byte // of CreateExclusive
}

// CreateHow is one of the three ways of Create.
type CreateHow uint8

const (
	// CreateUnchecked answers with the regular file that is there, its size set
	// if a size is given and else unchanged. ErrExist for what is no file.
	CreateUnchecked CreateHow = iota

	// CreateGuarded gives ErrExist for whatever is there.
	CreateGuarded

	// CreateExclusive answers with the file that is there if it was made with
	// the same verifier, and else gives ErrExist. The tree stores the verifier
	// with the file, durably. No attributes are set but those of SetUID and
	// SetGID.
	CreateExclusive
)

// Node is what Mknod makes.
type Node struct {
	Type         Type
	Major, Minor uint32
}

// Version is by what NFS clients tell that an inode has changed.
type Version struct {
	Size  int64
	Mtime Time
	Ctime Time
}

// VersionOf returns the version that a describes.
func VersionOf(a *Attr) Version { return Version{a.Size, a.Mtime, a.Ctime} }

// Touched is an inode before and after a change with nothing else in between.
type Touched struct {
	Before Version
	After  Attr
}

// Written is what WriteAt did.
type Written struct {
	Touched
	Durable bool // no Commit is needed for these bytes
}

// Change is what a change of names did.
type Change struct {
	Object Attr    // what was made, linked or moved, afterwards; zero after Remove and Rmdir
	Dir    Touched // the directory
	ToDir  Touched // of Rename: the other one, or the same again
}

// Note, where it isn't nil, is called once when a change of names is sure to
// happen and not durable yet, with what will be returned. The bytes it returns,
// up to MaxNoteBytes and not kept by it, become durable with the change: so a
// server that is asked the same again after a crash knows its own answer. It
// must not call the tree.
type Note func(Change) []byte

// MaxNoteBytes is how long the bytes of a Note are at most.
const MaxNoteBytes = 1024

// RecordTree is a tree that remembers notes.
type RecordTree interface {
	// RecordedNotes calls fn with the notes of the last changes before the tree
	// was opened, oldest first. How many those are is the tree's choice. fn
	// does not keep its argument.
	RecordedNotes(ctx context.Context, fn func(note []byte)) error
}

// BorrowTree is a tree that can lend the bytes of files instead of copying them.
type BorrowTree interface {
	// Borrow is ReadAt of n bytes, n > 0, into memory of the tree's own. It may
	// answer ErrUnsupported, for ReadAt to be used.
	Borrow(ctx context.Context, id ID, off int64, n int) (Borrowed, error)
}

// Borrowed are bytes lent by a tree. They do not change until Release, which
// is called exactly once, also if there was io.EOF, but not after any other error.
type Borrowed struct {
	Segments [][]byte // one after another, none empty
	Pinned   int64    // bytes of memory that can't be used otherwise until Release
	Release  func()   // from any goroutine; not nil
}

// CachedTree is a tree that knows what it can tell at once.
type CachedTree interface {
	// CachedAttr says that Attr of an inode, and of a directory Lookup and
	// ReadDir, would now be answered from memory.
	CachedAttr(id ID) bool

	// Cached says that n bytes of a file from off would now be read from memory.
	Cached(id ID, off int64, n int) bool
}
