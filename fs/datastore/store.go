package datastore

import (
	"context"

	"holdfast/fs"
	"holdfast/repo/vfs"
)

// Store is a datastore that is open. Its methods may be called by several
// goroutines at once, but none after Close.
//
// Beside what package fs says of a WriteTree this holds:
//   - A link or a rename from one session into another, or between one and the
//     root, gives fs.ErrCrossing.
//   - The directory of a session can't be removed or renamed: fs.ErrPermission.
//   - A disk can be renamed, linked and removed like a file. Removing its last
//     name, as a hypervisor does that deletes a machine, does not touch the
//     Disk: until RemoveSession what was written can still be kept.
//   - The size of a disk is fixed: setting another gives fs.ErrPermission,
//     writing beyond it fs.ErrTooLarge.
//   - A disk that is not attached has a name, attributes and handles; its bytes
//     are fs.ErrRetry, or what Offline said.
type Store struct{}

var (
	_ fs.WriteTree  = (*Store)(nil)
	_ fs.RecordTree = (*Store)(nil)
	_ fs.BorrowTree = (*Store)(nil)
	_ fs.CachedTree = (*Store)(nil)
)

// Create makes an empty store in fsys. io/fs.ErrExist when there is one.
func Create(fsys vfs.FS, opt Options) error { return fs.ErrUnsupported }

// Open opens the store in fsys. io/fs.ErrNotExist when there is none, ErrBusy
// when it is open elsewhere. It reads journals and nothing else: names, attributes
// and handles of all sessions work when it returns, their disks once attached.
func Open(fsys vfs.FS, opt Options) (*Store, error) { return nil, fs.ErrUnsupported }

// Close makes everything durable and closes the store. Disks are left to who
// attached them.
func (s *Store) Close() error { return fs.ErrUnsupported }

// AddSession makes a session, durably, and returns its number, 1 to 2^24 - 1.
// fs.ErrExist when the root has that name; fs.ErrNoSpace. The number of one
// that could not be made isn't used again.
func (s *Store) AddSession(spec SessionSpec) (number uint32, err error) { return 0, fs.ErrUnsupported }

// Attach gives a session its disks, by the names in its SessionSpec; all of
// them. Disks attached before are replaced, as after a restart of what is below.
// fs.ErrInvalid if one is missing, too many or of another size.
func (s *Store) Attach(number uint32, disks map[string]Disk) error { return fs.ErrUnsupported }

// Offline takes the disks of a session away again and waits until none of them
// is in use: from now on reads and writes of them give err, or fs.ErrRetry if
// that is nil. Names and small files go on working.
func (s *Store) Offline(number uint32, err error) error { return fs.ErrUnsupported }

// RemoveSession removes a session, durably: its directory, its small files and
// its journal. Its disks are taken away as by Offline and otherwise left to who
// attached them. Handles are stale from now on. ErrNoSession.
func (s *Store) RemoveSession(number uint32) error { return fs.ErrUnsupported }

// Sessions lists the sessions, in the order of their numbers.
func (s *Store) Sessions() []Session { return nil }

// SessionRoot is the ID of a session's directory, for whoever wants to read its
// files through the tree.
func SessionRoot(number uint32) fs.ID { return fs.ID{Ino: uint64(number)<<inoBits | rootIno} }

const (
	inoBits = 40
	rootIno = 1
)

func (s *Store) Root() fs.ID { return SessionRoot(0) }

func (s *Store) Attr(ctx context.Context, id fs.ID) (fs.Attr, error) {
	return fs.Attr{}, fs.ErrUnsupported
}

func (s *Store) Lookup(ctx context.Context, dir fs.ID, name string) (fs.Attr, error) {
	return fs.Attr{}, fs.ErrUnsupported
}

func (s *Store) ReadDir(ctx context.Context, dir fs.ID, cookie uint64, fn func(fs.Entry) bool) error {
	return fs.ErrUnsupported
}

func (s *Store) ReadLink(ctx context.Context, id fs.ID) (string, error) {
	return "", fs.ErrUnsupported
}

func (s *Store) ReadAt(ctx context.Context, id fs.ID, p []byte, off int64) (int, error) {
	return 0, fs.ErrUnsupported
}

func (s *Store) Extents(ctx context.Context, id fs.ID, off int64, n int) ([]fs.Extent, error) {
	return nil, fs.ErrUnsupported
}

// StatFS describes the volume, less the reserve; in the root no more than its
// quota leaves.
func (s *Store) StatFS(ctx context.Context, id fs.ID) (fs.StatFS, error) {
	return fs.StatFS{}, fs.ErrUnsupported
}

// RecordedNotes has the notes of the last 512 changes, at most 128 KiB, of the
// root and of each session.
func (s *Store) RecordedNotes(ctx context.Context, fn func(note []byte)) error {
	return fs.ErrUnsupported
}

// Borrow lends what the Disk of a file lends.
func (s *Store) Borrow(ctx context.Context, id fs.ID, off int64, n int) (fs.Borrowed, error) {
	return fs.Borrowed{}, fs.ErrUnsupported
}

func (s *Store) CachedAttr(id fs.ID) bool { return false }

func (s *Store) Cached(id fs.ID, off int64, n int) bool { return false }

func (s *Store) SetAttr(ctx context.Context, id fs.ID, set fs.SetAttr) (fs.Touched, error) {
	return fs.Touched{}, fs.ErrUnsupported
}

func (s *Store) WriteAt(ctx context.Context, id fs.ID, p []byte, off int64, sync bool) (fs.Written, error) {
	return fs.Written{}, fs.ErrUnsupported
}

func (s *Store) Commit(ctx context.Context, id fs.ID, off, n int64) (fs.Touched, error) {
	return fs.Touched{}, fs.ErrUnsupported
}

// Verifier also changes when that of a disk does.
func (s *Store) Verifier() uint64 { return 0 }

func (s *Store) Create(ctx context.Context, dir fs.ID, name string, how fs.Creation, set fs.SetAttr, note fs.Note) (fs.Change, error) {
	return fs.Change{}, fs.ErrUnsupported
}

func (s *Store) Mkdir(ctx context.Context, dir fs.ID, name string, set fs.SetAttr, note fs.Note) (fs.Change, error) {
	return fs.Change{}, fs.ErrUnsupported
}

func (s *Store) Symlink(ctx context.Context, dir fs.ID, name, target string, set fs.SetAttr, note fs.Note) (fs.Change, error) {
	return fs.Change{}, fs.ErrUnsupported
}

func (s *Store) Mknod(ctx context.Context, dir fs.ID, name string, node fs.Node, set fs.SetAttr, note fs.Note) (fs.Change, error) {
	return fs.Change{}, fs.ErrUnsupported
}

func (s *Store) Link(ctx context.Context, id, dir fs.ID, name string, note fs.Note) (fs.Change, error) {
	return fs.Change{}, fs.ErrUnsupported
}

func (s *Store) Remove(ctx context.Context, dir fs.ID, name string, note fs.Note) (fs.Change, error) {
	return fs.Change{}, fs.ErrUnsupported
}

func (s *Store) Rmdir(ctx context.Context, dir fs.ID, name string, note fs.Note) (fs.Change, error) {
	return fs.Change{}, fs.ErrUnsupported
}

func (s *Store) Rename(ctx context.Context, from fs.ID, name string, to fs.ID, toName string, note fs.Note) (fs.Change, error) {
	return fs.Change{}, fs.ErrUnsupported
}
