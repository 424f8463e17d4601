// Package fs is what a file system is to us: a Tree of inodes. A guest's ext4,
// the tree of all backups and the datastore of a recovery are Trees; FUSE, NFS
// and the command line show any of them. (The library's io/fs will not do for
// guests: it refuses names that are not UTF-8, looks up by path, and knows
// neither xattrs nor links nor holes. Std makes an io/fs.FS of a Tree for those
// who need no more.)
//
// # Names, paths and links
//
// A name is bytes: 1 to 255 or whatever the file system allows, any but "/" and
// NUL, not necessarily UTF-8. It is a string here only because Go compares and
// copies those well. A Tree knows no paths and follows no links; Resolve and
// Walk do that for whoever has a path.
//
// # Damage
//
// What lies in a backed-up disk may be broken or hostile. A Tree answers with
// an error that wraps ErrDamaged or ErrUnsupported and says what was found; it
// never makes up bytes, cuts a file short, panics, loops or takes memory that the
// size of its device does not justify.
package fs

import "context"

// ID names an inode of a Tree. It is stable: the same object has the same ID
// whenever and wherever the tree is opened again, and no other object has it as
// long as the tree's content is the same.
type ID struct {
	// FS is the file system within the tree. A tree that is one file system
	// has 0 everywhere; one that joins several gives each another number.
	FS uint64

	// Ino is the inode's number in that file system; never 0.
	Ino uint64
}

// Tree is a file system read by inode. All methods may be called by several
// goroutines at once, but none after Close.
//
// An ID that the tree does not have, or has no more, gives ErrStale.
type Tree interface {
	// Root is the directory at the top.
	Root() ID

	// Attr describes an inode.
	Attr(ctx context.Context, id ID) (Attr, error)

	// Lookup describes what a directory has under a name. ".." is the parent
	// and the root's own parent is the root. ErrNotFound; ErrNotDir.
	Lookup(ctx context.Context, dir ID, name string) (Attr, error)

	// ReadDir calls fn for the entries of a directory behind the one that
	// cookie stands for, in the tree's own order, until fn returns false. 0
	// begins at the beginning. "." and ".." are not among them; every other
	// name is there once. A cookie is good for as long as the directory is as
	// it was, however often the tree was opened since. Reading a directory in
	// any number of parts costs time linear in its size.
	ReadDir(ctx context.Context, dir ID, cookie uint64, fn func(Entry) bool) error

	// ReadLink returns the target of a symbolic link as it stands there.
	ReadLink(ctx context.Context, id ID) (string, error)

	// ReadAt reads len(p) bytes of a regular file from byte off. Holes read as
	// zeros. n < len(p) only at the file's end, with io.EOF, or with the error
	// that stopped it. ErrIsDir; ErrInvalid for what else has no bytes.
	ReadAt(ctx context.Context, id ID, p []byte, off int64) (int, error)

	// Extents tells where the bytes of a regular file are from off on: at
	// least one extent and at most n, without gaps, the first beginning at off
	// and none past the file's end. io.EOF when off is at or behind that.
	Extents(ctx context.Context, id ID, off int64, n int) ([]Extent, error)

	// StatFS describes the file system that an inode belongs to.
	StatFS(ctx context.Context, id ID) (StatFS, error)

	Close() error
}

// Entry is a line of a directory.
type Entry struct {
	Name   string
	ID     ID
	Type   Type   // TypeUnknown where only Attr can tell
	Cookie uint64 // ReadDir goes on behind this entry; never 0, at most 1<<63 - 3, which Linux can seek to
	Attr   *Attr  // what Attr would say, where the tree had it at hand
}

// Extent is a stretch of a file.
type Extent struct {
	Off, Len int64 // in the file; Len > 0
	Kind     ExtentKind
	At       int64 // of a Stored one: byte offset on the tree's device
}

// ExtentKind says how to get at an extent's bytes.
type ExtentKind uint8

const (
	Hole   ExtentKind = iota // all zeros, nothing stored
	Stored                   // as they are on the device, from At on
	Made                     // only ReadAt can tell: compressed, inline, replayed
)

// StatFS describes a file system.
type StatFS struct {
	Type       string // "ext4"
	Label      string
	BlockBytes int64
	Bytes      int64 // of all blocks, of the free ones
	FreeBytes  int64
	Files      uint64 // inodes, and the free ones; 0 where there is no such number
	FreeFiles  uint64
	NameBytes  int // the longest name; 0: 255
}

// XattrTree is a Tree with extended attributes, named as Linux does it:
// "user.comment", "security.selinux".
type XattrTree interface {
	Tree

	// Xattrs lists the names of an inode's attributes.
	Xattrs(ctx context.Context, id ID) ([]string, error)

	// Xattr returns the value of one, or ErrNoXattr.
	Xattr(ctx context.Context, id ID, name string) ([]byte, error)
}

// StreamTree is a Tree whose inodes may have alternate streams: more contents
// beside the first, as in NTFS.
type StreamTree interface {
	Tree

	// Streams lists the alternate streams of a file or directory. The ID of a
	// stream is good for Attr, ReadAt and Extents.
	Streams(ctx context.Context, id ID) ([]Stream, error)
}

// Stream is an alternate stream.
type Stream struct {
	Name string
	ID   ID
	Size int64
}

// NotedTree is a Tree that has something to tell about itself: a journal that
// was replayed or could not be, features that are not honoured. People see the
// notes beside the tree.
type NotedTree interface {
	Tree
	Notes() []string
}
