package treetest

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"

	"holdfast/fs"
)

// Files says what a Tree holds, by path: "dir/name", without a slash in front.
// Directories on the way need not be named.
type Files map[string]File

// File is one path of a Tree. Of the embedded Attr, Type, Perm, Nlink, Size and
// times are filled in where they are zero: a path with a Target is a symbolic
// link, a path that others lie below is a directory, the rest are files.
type File struct {
	fs.Attr

	Data    []byte // from the beginning; zeros, as a hole, from there to Attr.Size
	Target  string
	Link    string // path of the file that this is another name of; all else is then taken from there
	Xattrs  map[string]string
	Streams map[string][]byte
	Err     error // what reading Data, Target or the directory answers
}

// blockBytes is the unit in which a Tree stores files.
const blockBytes = 4096

// inlineBytes is up to where a Tree keeps a file's bytes where no device has them.
const inlineBytes = 64

// Tree is a file system in memory that never changes: an fs.Tree that is right,
// with extents of each kind. Blocks of zeros are holes, files of up to 64 bytes
// are fs.Made and all others lie on Device. The same Files give the same IDs
// and cookies.
type Tree struct {
	inodes map[uint64]*inode
	device []byte
	notes  []string
}

type inode struct {
	attr    fs.Attr
	parent  uint64 // of a directory
	entries []fs.Entry
	byName  map[string]uint64
	data    []byte
	blocks  []int64 // of data: the place of each block on the device, -1 a hole
	target  string
	xattrs  map[string]string
	streams []fs.Stream
	err     error
}

var (
	_ fs.XattrTree  = (*Tree)(nil)
	_ fs.StreamTree = (*Tree)(nil)
	_ fs.NotedTree  = (*Tree)(nil)
)

const rootIno = 2

// NewTree makes a tree of files, with the notes that its Notes tells. It panics
// if files is not a tree: a name below what is no directory, a Link to nothing.
func NewTree(files Files, notes ...string) *Tree {
	t := &Tree{inodes: map[uint64]*inode{}, notes: notes}
	all := maps.Clone(files)
	if all == nil {
		all = Files{}
	}
	root := all["."]
	root.Type = fs.TypeDir
	all["."] = root
	for p := range files {
		for dir := path.Dir(p); dir != "."; dir = path.Dir(dir) {
			f := all[dir]
			f.Type = cmp.Or(f.Type, fs.TypeDir)
			if f.Type != fs.TypeDir {
				panic(fmt.Sprintf("treetest: %q lies below %q, which is no directory", p, dir))
			}
			all[dir] = f
		}
	}
	inos := map[string]uint64{}
	paths := slices.Sorted(maps.Keys(all))
	next := uint64(rootIno)
	add := func(in *inode) uint64 {
		in.attr.ID = fs.ID{Ino: next}
		t.inodes[next] = in
		next++
		return next - 1
	}
	inos["."] = add(t.inodeOf(all["."]))
	for _, p := range paths {
		if f := all[p]; p != "." && f.Link == "" {
			inos[p] = add(t.inodeOf(f))
		}
	}
	for _, p := range paths {
		f := all[p]
		if f.Link != "" {
			ino, ok := inos[f.Link]
			if !ok {
				panic(fmt.Sprintf("treetest: %q is a link to %q, which is not there", p, f.Link))
			}
			inos[p] = ino
			t.inodes[ino].attr.Nlink++
			continue
		}
		for _, name := range slices.Sorted(maps.Keys(f.Streams)) {
			s := t.inodeOf(File{Data: f.Streams[name]})
			s.attr.Nlink = 1
			add(s)
			in := t.inodes[inos[p]]
			in.streams = append(in.streams, fs.Stream{Name: name, ID: s.attr.ID, Size: s.attr.Size})
		}
	}
	t.inodes[inos["."]].parent = inos["."]
	for _, p := range paths {
		if p == "." {
			continue
		}
		dir := t.inodes[inos[path.Dir(p)]]
		in := t.inodes[inos[p]]
		if all[p].Link == "" {
			in.attr.Nlink++
		}
		if in.attr.IsDir() {
			in.parent = dir.attr.ID.Ino
			in.attr.Nlink++
			dir.attr.Nlink++
		}
		if dir.byName == nil {
			dir.byName = map[string]uint64{}
		}
		dir.byName[path.Base(p)] = in.attr.ID.Ino
		dir.entries = append(dir.entries, fs.Entry{Name: path.Base(p), ID: in.attr.ID, Type: in.attr.Type})
	}
	t.inodes[inos["."]].attr.Nlink += 2
	for _, in := range t.inodes {
		for i := range in.entries {
			in.entries[i].Cookie = uint64(i)*3 + 7
			if i%2 == 0 {
				a := t.inodes[in.entries[i].ID.Ino].attr
				in.entries[i].Attr = &a
			}
		}
	}
	return t
}

func (t *Tree) inodeOf(f File) *inode {
	in := &inode{attr: f.Attr, data: f.Data, target: f.Target, xattrs: f.Xattrs, err: f.Err}
	a := &in.attr
	a.Nlink = 0
	a.Fixed = true
	perm := uint16(0o644)
	switch {
	case f.Target != "":
		a.Type, a.Size, perm = fs.TypeSymlink, int64(len(f.Target)), 0o777
	case a.Type == fs.TypeDir:
		a.Size, perm = blockBytes, 0o755
	case a.Type == fs.TypeUnknown || a.Type == fs.TypeFile:
		a.Type, a.Size = fs.TypeFile, max(a.Size, int64(len(f.Data)))
		t.store(in)
	}
	a.Perm = cmp.Or(a.Perm, perm)
	for i, when := range []*fs.Time{&a.Atime, &a.Mtime, &a.Ctime, &a.Btime} {
		if when.IsZero() {
			*when = fs.Time{Sec: 1_700_000_000 + int64(i), Nsec: 123456789}
		}
	}
	return in
}

// store gives a file's blocks their places on the device.
func (t *Tree) store(in *inode) {
	if len(in.data) <= inlineBytes {
		return
	}
	for rest := in.data; len(rest) > 0; rest = rest[min(blockBytes, len(rest)):] {
		block := rest[:min(blockBytes, len(rest))]
		if isZero(block) {
			in.blocks = append(in.blocks, -1)
			continue
		}
		in.blocks = append(in.blocks, int64(len(t.device)))
		in.attr.Used += blockBytes
		t.device = append(t.device, block...)
		t.device = append(t.device, make([]byte, blockBytes-len(block))...)
	}
}

// Device is what the fs.Stored extents lie on.
func (t *Tree) Device() *bytes.Reader { return bytes.NewReader(t.device) }

func (t *Tree) Root() fs.ID     { return fs.ID{Ino: rootIno} }
func (t *Tree) Notes() []string { return t.notes }
func (t *Tree) Close() error    { return nil }

func (t *Tree) get(ctx context.Context, id fs.ID) (*inode, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	in, ok := t.inodes[id.Ino]
	if !ok || id.FS != 0 {
		return nil, fmt.Errorf("inode %d: %w", id.Ino, fs.ErrStale)
	}
	return in, nil
}

func (t *Tree) dir(ctx context.Context, id fs.ID) (*inode, error) {
	in, err := t.get(ctx, id)
	if err == nil && !in.attr.IsDir() {
		err = fmt.Errorf("inode %d: %w", id.Ino, fs.ErrNotDir)
	}
	return in, err
}

func (t *Tree) file(ctx context.Context, id fs.ID) (*inode, error) {
	in, err := t.get(ctx, id)
	switch {
	case err != nil:
		return nil, err
	case in.attr.IsDir():
		return nil, fmt.Errorf("inode %d: %w", id.Ino, fs.ErrIsDir)
	case in.attr.Type != fs.TypeFile:
		return nil, fmt.Errorf("inode %d is a %v: %w", id.Ino, in.attr.Type, fs.ErrInvalid)
	}
	return in, in.err
}

func (t *Tree) Attr(ctx context.Context, id fs.ID) (fs.Attr, error) {
	in, err := t.get(ctx, id)
	if err != nil {
		return fs.Attr{}, err
	}
	return in.attr, nil
}

func (t *Tree) Lookup(ctx context.Context, dir fs.ID, name string) (fs.Attr, error) {
	in, err := t.dir(ctx, dir)
	if err != nil {
		return fs.Attr{}, err
	}
	if name == ".." {
		return t.inodes[in.parent].attr, nil
	}
	if in.err != nil {
		return fs.Attr{}, in.err
	}
	ino, ok := in.byName[name]
	if !ok {
		return fs.Attr{}, fmt.Errorf("%q: %w", name, fs.ErrNotFound)
	}
	return t.inodes[ino].attr, nil
}

func (t *Tree) ReadDir(ctx context.Context, dir fs.ID, cookie uint64, fn func(fs.Entry) bool) error {
	in, err := t.dir(ctx, dir)
	if err != nil {
		return err
	}
	if in.err != nil {
		return in.err
	}
	at, found := slices.BinarySearchFunc(in.entries, cookie, func(e fs.Entry, c uint64) int { return cmp.Compare(e.Cookie, c) })
	if found {
		at++
	}
	for _, e := range in.entries[at:] {
		if !fn(e) {
			break
		}
	}
	return nil
}

func (t *Tree) ReadLink(ctx context.Context, id fs.ID) (string, error) {
	in, err := t.get(ctx, id)
	if err != nil {
		return "", err
	}
	if in.attr.Type != fs.TypeSymlink {
		return "", fmt.Errorf("inode %d is a %v: %w", id.Ino, in.attr.Type, fs.ErrInvalid)
	}
	return in.target, in.err
}

func (t *Tree) ReadAt(ctx context.Context, id fs.ID, p []byte, off int64) (int, error) {
	in, err := t.file(ctx, id)
	if err != nil {
		return 0, err
	}
	if off < 0 {
		return 0, fmt.Errorf("read at %d: %w", off, fs.ErrInvalid)
	}
	if off >= in.attr.Size {
		return 0, io.EOF
	}
	n := int(min(int64(len(p)), in.attr.Size-off))
	done := 0
	if off < int64(len(in.data)) {
		done = copy(p[:n], in.data[off:])
	}
	clear(p[done:n])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (t *Tree) Extents(ctx context.Context, id fs.ID, off int64, n int) ([]fs.Extent, error) {
	in, err := t.file(ctx, id)
	if err != nil {
		return nil, err
	}
	if off < 0 || n < 1 {
		return nil, fmt.Errorf("extents at %d: %w", off, fs.ErrInvalid)
	}
	if off >= in.attr.Size {
		return nil, io.EOF
	}
	var list []fs.Extent
	for len(list) < n && off < in.attr.Size {
		e := in.extent(off)
		list = append(list, e)
		off += e.Len
	}
	return list, nil
}

// extent is what lies at off, which is within the file, up to where that ends.
func (in *inode) extent(off int64) fs.Extent {
	first := off / blockBytes
	if len(in.data) <= inlineBytes {
		if end := int64(len(in.data)); off < end {
			return fs.Extent{Off: off, Len: end - off, Kind: fs.Made}
		}
		return fs.Extent{Off: off, Len: in.attr.Size - off, Kind: fs.Hole}
	}
	if first >= int64(len(in.blocks)) {
		return fs.Extent{Off: off, Len: in.attr.Size - off, Kind: fs.Hole}
	}
	at := in.blocks[first]
	last := first
	for last+1 < int64(len(in.blocks)) && ((at < 0 && in.blocks[last+1] < 0) || (at >= 0 && in.blocks[last+1] == at+(last+1-first)*blockBytes)) {
		last++
	}
	e := fs.Extent{Off: off, Len: min((last+1)*blockBytes, in.attr.Size) - off, Kind: fs.Stored, At: at + off%blockBytes}
	if at < 0 {
		e.Kind, e.At = fs.Hole, 0
	}
	return e
}

func (t *Tree) StatFS(ctx context.Context, id fs.ID) (fs.StatFS, error) {
	if _, err := t.get(ctx, id); err != nil {
		return fs.StatFS{}, err
	}
	return fs.StatFS{Type: "memory", Label: "treetest", BlockBytes: blockBytes, Bytes: int64(len(t.device)) + 1<<20, FreeBytes: 1 << 20, Files: uint64(len(t.inodes)) + 100, FreeFiles: 100}, nil
}

func (t *Tree) Xattrs(ctx context.Context, id fs.ID) ([]string, error) {
	in, err := t.get(ctx, id)
	if err != nil {
		return nil, err
	}
	return slices.Sorted(maps.Keys(in.xattrs)), nil
}

func (t *Tree) Xattr(ctx context.Context, id fs.ID, name string) ([]byte, error) {
	in, err := t.get(ctx, id)
	if err != nil {
		return nil, err
	}
	value, ok := in.xattrs[name]
	if !ok {
		return nil, fmt.Errorf("%s: %w", strings.ToValidUTF8(name, "?"), fs.ErrNoXattr)
	}
	return []byte(value), nil
}

func (t *Tree) Streams(ctx context.Context, id fs.ID) ([]fs.Stream, error) {
	in, err := t.get(ctx, id)
	if err != nil {
		return nil, err
	}
	return slices.Clone(in.streams), nil
}
