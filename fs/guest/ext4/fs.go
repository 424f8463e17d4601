package ext4

import (
	"context"
	"fmt"
	"io"
	"slices"
	"sync"

	"holdfast/fs"
)

// FS is an ext2, ext3 or ext4 file system open for reading. Safe for concurrent
// use, if its device is.
type FS struct {
	dev  io.ReaderAt
	size int64
	sb   super

	pageBytes int64
	cache     *cache
	overlay   overlay     // blocks the journal replaces
	fast      fastCommits // what fast commits changed on top of that
	indexes   dirIndexes
	notes     []string

	freeOnce   sync.Once
	freeBlocks uint64
	freeInodes uint64
}

var (
	_ fs.XattrTree = (*FS)(nil)
	_ fs.NotedTree = (*FS)(nil)
)

// Open opens the file system in the size bytes of dev, which stays the
// caller's. A journal that has to be replayed is read as far as its own records
// go, not what it holds.
func Open(dev io.ReaderAt, size int64) (*FS, error) {
	sb, note, err := findSuper(dev, size)
	if err != nil {
		return nil, err
	}
	f := &FS{dev: dev, size: size, sb: *sb}
	f.pageBytes = max(pageBytes, sb.blockBytes())
	f.cache = newCache(int(cacheBytes / f.pageBytes))
	f.indexes.budget = indexBytes
	if note != "" {
		f.notes = append(f.notes, note)
	}
	if err := f.replay(note != ""); err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	f.noteState(note != "")
	return f, nil
}

// noteState notes what people should know before they trust the tree. A copy of
// the super block has the state of long ago.
func (f *FS) noteState(backup bool) {
	if f.sb.blocks > uint64(f.size)>>f.sb.blockLog {
		f.notes = append(f.notes, fmt.Sprintf("The file system says it has %d bytes, its device has %d.",
			f.sb.blocks<<f.sb.blockLog, f.size))
	}
	if backup {
		return
	}
	if f.sb.state&stateErrors != 0 {
		f.notes = append(f.notes, "The file system is marked as having errors: its own system found damage in it.")
	}
	if f.sb.compat&compatHasJournal == 0 && f.sb.state&stateClean == 0 {
		f.notes = append(f.notes, "The file system was in use and has no journal: what was being changed may be half done.")
	}
	if f.sb.compat&compatHasJournal == 0 && f.sb.has(incompatRecover) {
		f.notes = append(f.notes, "The file system says that its journal must be replayed, but it has none.")
	}
}

// Notes has the meaning of fs.NotedTree.
func (f *FS) Notes() []string { return slices.Clone(f.notes) }

// Close forgets what was read. It does not close the device.
func (f *FS) Close() error { return nil }

// Root is the root directory, inode 2.
func (f *FS) Root() fs.ID { return fs.ID{Ino: rootIno} }

// get reads the inode that an ID names.
func (f *FS) get(ctx context.Context, id fs.ID) (inode, error) {
	if err := ctx.Err(); err != nil {
		return inode{}, err
	}
	if id.FS != 0 {
		return inode{}, fmt.Errorf("inode %d of file system %d: %w", id.Ino, id.FS, fs.ErrStale)
	}
	return f.inode(id.Ino)
}

// Attr has the meaning of fs.Tree.
func (f *FS) Attr(ctx context.Context, id fs.ID) (fs.Attr, error) {
	in, err := f.get(ctx, id)
	if err != nil {
		return fs.Attr{}, err
	}
	return f.attr(&in), nil
}

// StatFS has the meaning of fs.Tree. Free space is summed up from all groups
// when a journal was replayed, for then the super block's figure is old.
func (f *FS) StatFS(ctx context.Context, id fs.ID) (fs.StatFS, error) {
	if _, err := f.get(ctx, id); err != nil {
		return fs.StatFS{}, err
	}
	f.freeOnce.Do(func() { f.freeBlocks, f.freeInodes = f.free() })
	return fs.StatFS{
		Type:       f.sb.kind(),
		Label:      f.sb.label,
		BlockBytes: f.sb.blockBytes(),
		Bytes:      int64(f.sb.blocks << f.sb.blockLog),
		FreeBytes:  int64(f.freeBlocks << f.sb.blockLog),
		Files:      uint64(f.sb.inodes),
		FreeFiles:  f.freeInodes,
		NameBytes:  maxName,
	}, nil
}
