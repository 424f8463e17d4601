package ntfs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"holdfast/fs"
)

// FS is an NTFS volume. It implements fs.Tree, fs.XattrTree, fs.StreamTree and
// fs.NotedTree. What it keeps in memory is bounded, whatever the volume.
type FS struct {
	geometry
	dev     *device
	records uint64 // in the MFT
	mft     []run
	notes   []string // what Open found, and behind it what state did
	label   string   // found by state

	stateOnce sync.Once

	nodes *cache[uint64, *node]
	runs  *cache[pieceKey, []run]
	units *cache[unitKey, []byte]

	upMu  sync.Mutex // guards what follows, held while it is read
	up    upCase
	upErr error // of a table that is damaged

	statMu sync.Mutex // guards stat, which is made once
	stat   *fs.StatFS
}

var (
	_ fs.XattrTree  = (*FS)(nil)
	_ fs.StreamTree = (*FS)(nil)
	_ fs.NotedTree  = (*FS)(nil)
)

// Open reads the volume in the size bytes of dev, which must allow concurrent
// ReadAt and remains the caller's.
func Open(dev io.ReaderAt, size int64) (*FS, error) {
	d := newDevice(dev, size)
	g, copied, err := readBoot(d)
	if err != nil {
		return nil, err
	}
	f := &FS{
		geometry: g,
		dev:      d,
		nodes:    newCache[uint64, *node](nodesBudget),
		runs:     newCache[pieceKey, []run](runsBudget),
		units:    newCache[unitKey, []byte](unitsBudget),
	}
	if copied {
		f.note("The boot sector is damaged; its copy at the end was used.")
	}
	if have := size / g.clusterBytes; g.clusters > have {
		f.note("The volume has %d clusters, the device only %d: what lies behind can't be read.", g.clusters, have)
	}
	if err := f.loadMFT(); err != nil {
		return nil, fmt.Errorf("MFT: %w", err)
	}
	root, err := f.node(fileRoot)
	if err == nil && !root.attr.IsDir() {
		err = fs.ErrNotDir
	}
	if err != nil {
		return nil, fmt.Errorf("root directory: %w: %w", err, fs.ErrDamaged)
	}
	return f, nil
}

// Close does nothing: the device is the caller's.
func (f *FS) Close() error { return nil }

// Root is the directory at the top.
func (f *FS) Root() fs.ID { return fs.ID{Ino: fileRoot} }

// Notes tell of a volume that was in use and of what was read from a copy. The
// first call reads for it what Open and the tree can do without.
func (f *FS) Notes() []string {
	f.state()
	return f.notes
}

// state reads label and state of the volume, once.
func (f *FS) state() {
	f.stateOnce.Do(func() {
		f.readVolume()
		f.readLog()
		f.readHibernation()
		if _, err := f.capitals(); err != nil {
			f.note("Names are found by reading whole directories, since the volume's %v.", err)
		}
	})
}

func (f *FS) note(format string, args ...any) {
	f.notes = append(f.notes, fmt.Sprintf(format, args...))
}

// goneID is the ID of an entry whose record belongs to another file by now, or
// is not there; then record 0 stands for it.
func (f *FS) goneID(num uint64) fs.ID {
	if num >= f.records {
		num = 0
	}
	return fs.ID{Ino: num | 0xffff<<48}
}

// streamID is the ID of the i-th alternate stream of a file. (The numbers that
// attributes have won't do: volumes are about on which a file's are not distinct.)
func streamID(n *node, i int) fs.ID { return fs.ID{Ino: n.num | uint64(i+1)<<48} }

// at returns what id stands for: a file, and the stream if it is one.
func (f *FS) at(ctx context.Context, id fs.ID) (*node, *attribute, error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	num, stream := ref(id.Ino).num(), ref(id.Ino).seq()
	switch {
	case id.FS == 0 && stream == 0xffff && num < f.records:
		return nil, nil, fmt.Errorf("the file record of this name has gone to another file: %w", fs.ErrDamaged)
	case id.FS != 0 || num < firstPublic && num != fileRoot:
		return nil, nil, fmt.Errorf("inode %#x of file system %d: %w", id.Ino, id.FS, fs.ErrStale)
	case stream == 0:
		n, err := f.node(num)
		return n, nil, err
	}
	n, err := f.node(num)
	if err != nil {
		return nil, nil, err
	}
	if list := n.streams(); int(stream) <= len(list) {
		return n, list[stream-1], nil
	}
	return nil, nil, fmt.Errorf("stream %d of file record %d: %w", stream, num, fs.ErrStale)
}

// Attr describes a file, a directory or a stream.
func (f *FS) Attr(ctx context.Context, id fs.ID) (fs.Attr, error) {
	n, stream, err := f.at(ctx, id)
	if err != nil {
		return fs.Attr{}, err
	}
	if stream != nil {
		return streamAttr(n, stream, id), nil
	}
	return f.fullAttr(n)
}

// fullAttr is the description of n. Only the size of a link takes work.
func (f *FS) fullAttr(n *node) (fs.Attr, error) {
	if n.attr.Type != fs.TypeSymlink {
		return n.attr, nil
	}
	target, err := f.target(n)
	if err != nil {
		return fs.Attr{}, fmt.Errorf("link in file record %d: %w", n.num, err)
	}
	a := n.attr
	a.Size = int64(len(target))
	return a, nil
}

// ReadLink returns a target as the package comment explains.
func (f *FS) ReadLink(ctx context.Context, id fs.ID) (string, error) {
	n, stream, err := f.at(ctx, id)
	if err != nil {
		return "", err
	}
	if stream != nil || n.attr.Type != fs.TypeSymlink {
		return "", fmt.Errorf("read link %#x: not a symbolic link: %w", id.Ino, fs.ErrInvalid)
	}
	target, err := f.target(n)
	if err != nil {
		return "", fmt.Errorf("link in file record %d: %w", n.num, err)
	}
	return target, nil
}

// contents returns what the bytes of id come from; a nil attribute has none.
func (f *FS) contents(ctx context.Context, id fs.ID) (*node, *attribute, error) {
	n, a, err := f.at(ctx, id)
	if err != nil || a != nil {
		return n, a, err
	}
	switch n.attr.Type {
	case fs.TypeDir:
		return nil, nil, fmt.Errorf("inode %d: %w", n.num, fs.ErrIsDir)
	case fs.TypeFile:
		return n, n.data(), nil
	}
	return nil, nil, fmt.Errorf("inode %d is a %v: %w", n.num, n.attr.Type, fs.ErrInvalid)
}

// ReadAt reads a file or a stream.
func (f *FS) ReadAt(ctx context.Context, id fs.ID, p []byte, off int64) (int, error) {
	n, a, err := f.contents(ctx, id)
	if err != nil {
		return 0, err
	}
	if off < 0 {
		return 0, fmt.Errorf("read at %d: %w", off, fs.ErrInvalid)
	}
	if a == nil || off >= a.bytes() {
		return 0, io.EOF
	}
	if err = readable(n, a); err == nil {
		var done int
		if a.name == "" && n.wof != nil {
			done, err = f.readWOF(n.wof, p, off)
		} else {
			done, err = f.readData(a, p, off)
		}
		if err == nil || errors.Is(err, io.EOF) {
			return done, err
		}
		return done, fmt.Errorf("read file record %d at %d: %w", n.num, off+int64(done), err)
	}
	return 0, fmt.Errorf("read file record %d: %w", n.num, err)
}

// Extents tells where the bytes of a file or a stream are.
func (f *FS) Extents(ctx context.Context, id fs.ID, off int64, n int) ([]fs.Extent, error) {
	file, a, err := f.contents(ctx, id)
	if err != nil {
		return nil, err
	}
	if off < 0 || n < 1 {
		return nil, fmt.Errorf("%d extents from %d on: %w", n, off, fs.ErrInvalid)
	}
	if a == nil || off >= a.bytes() {
		return nil, io.EOF
	}
	if err := readable(file, a); err != nil {
		return nil, fmt.Errorf("extents of file record %d: %w", file.num, err)
	}
	if a.name == "" && file.wof != nil {
		return []fs.Extent{{Off: off, Len: a.bytes() - off, Kind: fs.Made}}, nil
	}
	var list []fs.Extent
	for len(list) < n && off < a.bytes() {
		e, err := f.stretch(a, off)
		if err != nil {
			if len(list) > 0 {
				break // whoever goes on from there will hear of it
			}
			return nil, fmt.Errorf("extents of file record %d: %w", file.num, err)
		}
		list = append(list, e)
		off += e.Len
	}
	return list, nil
}
