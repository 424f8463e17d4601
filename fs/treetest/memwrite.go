package treetest

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"holdfast/fs"
)

// MemWrite is a file system in memory that can be changed: an fs.WriteTree
// that is right, with every optional ability, and that can lose power.
type MemWrite struct {
	opt MemOptions

	mu       sync.Mutex // guards all below, and the memInodes
	inodes   map[uint64]*memInode
	ino      uint64 // the last one given
	cookie   uint64 // the last one given
	used     int64  // bytes of all frames
	now      fs.Time
	verifier uint64
	notes    [][]byte // of changes, oldest first
	recorded [][]byte // those from before the last restart
}

// MemOptions is what tests choose of a MemWrite. The zero value is a tree that
// answers at once.
type MemOptions struct {
	// Bytes is the room for data, 0: 1 GiB.
	Bytes int64

	// Before, if not nil, is called, with no lock held, before whatever the
	// tree does: op is the method's name. It may wait, and its error is what
	// the method answers.
	Before func(ctx context.Context, op string, id fs.ID, off int64, n int) error

	// Cached, if not nil, is what the tree's own Cached says.
	Cached func(id fs.ID, off int64, n int) bool

	// Now is the tree's clock, nil: the machine's. Times are later than those
	// before in any case.
	Now func() time.Time

	// NoBorrow makes Borrow answer fs.ErrUnsupported.
	NoBorrow bool
}

// memFrame is the unit in which a MemWrite stores and lends bytes.
const memFrame = 64 << 10

// memNotes is how many notes a MemWrite remembers.
const memNotes = 4096

// memMaxSize is how large its files can be.
const memMaxSize = 1 << 62

type memInode struct {
	attr     fs.Attr
	parent   uint64               // of a directory
	entries  []memEntry           // by cookie
	byName   map[string]*memInode // of a directory
	target   string
	frames   map[int64]*frame
	verifier [8]byte
	made     bool   // with verifier
	undo     []undo // of writes that are not durable
}

type memEntry struct {
	name   string
	cookie uint64
	in     *memInode
}

// frame is a piece of a file. One that is lent is never written to: a writer
// puts a copy in its place.
type frame struct {
	data [memFrame]byte
	lent int
}

// undo puts back what a write that was not durable wrote over.
type undo struct {
	off     int64
	old     []byte
	oldSize int64
}

var (
	_ fs.WriteTree  = (*MemWrite)(nil)
	_ fs.RecordTree = (*MemWrite)(nil)
	_ fs.BorrowTree = (*MemWrite)(nil)
	_ fs.CachedTree = (*MemWrite)(nil)
)

// NewMemWrite makes an empty one.
func NewMemWrite(opt MemOptions) *MemWrite {
	m := &MemWrite{opt: opt, inodes: map[uint64]*memInode{}, ino: rootIno - 1, verifier: 1}
	m.opt.Bytes = cmp.Or(opt.Bytes, 1<<30)
	root := m.newInode(fs.TypeDir, fs.SetAttr{}, 0o755)
	root.parent = root.attr.ID.Ino
	return m
}

// PowerCut takes away what is not durable, as a restart of the machine would,
// and lets RecordedNotes tell the notes of all changes so far. No call may be
// under way.
func (m *MemWrite) PowerCut() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, in := range m.inodes {
		for _, u := range slices.Backward(in.undo) {
			m.put(in, u.old, u.off)
			m.resize(in, u.oldSize)
		}
		in.undo = nil
	}
	m.recorded = slices.Clone(m.notes)
	m.verifier++
}

// LoseWrites does what a failed fsync leads to: writes that are not durable are
// gone, and the verifier is another.
func (m *MemWrite) LoseWrites() { m.PowerCut() }

func (m *MemWrite) Root() fs.ID  { return fs.ID{Ino: rootIno} }
func (m *MemWrite) Close() error { return nil }

func (m *MemWrite) Verifier() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.verifier
}

// begin runs the hook and takes the lock.
func (m *MemWrite) begin(ctx context.Context, op string, id fs.ID, off int64, n int) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if m.opt.Before != nil {
		if err := m.opt.Before(ctx, op, id, off, n); err != nil {
			return err
		}
	}
	m.mu.Lock()
	return nil
}

func (m *MemWrite) get(id fs.ID) (*memInode, error) {
	in, ok := m.inodes[id.Ino]
	if !ok || id.FS != 0 {
		return nil, fmt.Errorf("inode %d: %w", id.Ino, fs.ErrStale)
	}
	return in, nil
}

func (m *MemWrite) dir(id fs.ID) (*memInode, error) {
	in, err := m.get(id)
	if err == nil && !in.attr.IsDir() {
		err = fmt.Errorf("inode %d: %w", id.Ino, fs.ErrNotDir)
	}
	return in, err
}

func (m *MemWrite) file(id fs.ID) (*memInode, error) {
	in, err := m.get(id)
	switch {
	case err != nil:
		return nil, err
	case in.attr.IsDir():
		return nil, fmt.Errorf("inode %d: %w", id.Ino, fs.ErrIsDir)
	case in.attr.Type != fs.TypeFile:
		return nil, fmt.Errorf("inode %d is a %v: %w", id.Ino, in.attr.Type, fs.ErrInvalid)
	}
	return in, nil
}

func (m *MemWrite) Attr(ctx context.Context, id fs.ID) (fs.Attr, error) {
	if err := m.begin(ctx, "Attr", id, 0, 0); err != nil {
		return fs.Attr{}, err
	}
	defer m.mu.Unlock()
	in, err := m.get(id)
	if err != nil {
		return fs.Attr{}, err
	}
	return in.attr, nil
}

func (m *MemWrite) Lookup(ctx context.Context, dir fs.ID, name string) (fs.Attr, error) {
	if err := m.begin(ctx, "Lookup", dir, 0, 0); err != nil {
		return fs.Attr{}, err
	}
	defer m.mu.Unlock()
	d, err := m.dir(dir)
	if err != nil {
		return fs.Attr{}, err
	}
	if name == ".." {
		return m.inodes[d.parent].attr, nil
	}
	in, ok := d.byName[name]
	if !ok {
		return fs.Attr{}, fmt.Errorf("%q: %w", name, fs.ErrNotFound)
	}
	return in.attr, nil
}

func (m *MemWrite) ReadDir(ctx context.Context, dir fs.ID, cookie uint64, fn func(fs.Entry) bool) error {
	if err := m.begin(ctx, "ReadDir", dir, int64(cookie), 0); err != nil {
		return err
	}
	d, err := m.dir(dir)
	var list []fs.Entry
	for err == nil {
		list = list[:0]
		at, found := slices.BinarySearchFunc(d.entries, cookie, func(e memEntry, c uint64) int { return cmp.Compare(e.cookie, c) })
		if found {
			at++
		}
		for _, e := range d.entries[at:min(at+512, len(d.entries))] {
			a := e.in.attr
			list = append(list, fs.Entry{Name: e.name, ID: a.ID, Type: a.Type, Cookie: e.cookie, Attr: &a})
		}
		m.mu.Unlock() // fn may ask the tree
		for _, e := range list {
			if cookie = e.Cookie; !fn(e) {
				return nil
			}
		}
		if len(list) == 0 {
			return nil
		}
		m.mu.Lock()
	}
	m.mu.Unlock()
	return err
}

func (m *MemWrite) ReadLink(ctx context.Context, id fs.ID) (string, error) {
	if err := m.begin(ctx, "ReadLink", id, 0, 0); err != nil {
		return "", err
	}
	defer m.mu.Unlock()
	in, err := m.get(id)
	if err != nil {
		return "", err
	}
	if in.attr.Type != fs.TypeSymlink {
		return "", fmt.Errorf("inode %d is a %v: %w", id.Ino, in.attr.Type, fs.ErrInvalid)
	}
	return in.target, nil
}

func (m *MemWrite) ReadAt(ctx context.Context, id fs.ID, p []byte, off int64) (int, error) {
	if err := m.begin(ctx, "ReadAt", id, off, len(p)); err != nil {
		return 0, err
	}
	defer m.mu.Unlock()
	in, err := m.file(id)
	switch {
	case err != nil:
		return 0, err
	case off < 0:
		return 0, fmt.Errorf("read at %d: %w", off, fs.ErrInvalid)
	case off >= in.attr.Size:
		return 0, io.EOF
	}
	n := int(min(int64(len(p)), in.attr.Size-off))
	for at := 0; at < n; {
		k, within := (off+int64(at))/memFrame, int((off+int64(at))%memFrame)
		piece := p[at:min(n, at+memFrame-within)]
		if f := in.frames[k]; f != nil {
			copy(piece, f.data[within:])
		} else {
			clear(piece)
		}
		at += len(piece)
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// zeroFrame is what holes are lent as.
var zeroFrame [memFrame]byte

func (m *MemWrite) Borrow(ctx context.Context, id fs.ID, off int64, n int) (fs.Borrowed, error) {
	if m.opt.NoBorrow {
		return fs.Borrowed{}, fs.ErrUnsupported
	}
	if err := m.begin(ctx, "Borrow", id, off, n); err != nil {
		return fs.Borrowed{}, err
	}
	defer m.mu.Unlock()
	in, err := m.file(id)
	switch {
	case err != nil:
		return fs.Borrowed{}, err
	case off < 0 || n < 1:
		return fs.Borrowed{}, fmt.Errorf("read at %d: %w", off, fs.ErrInvalid)
	case off >= in.attr.Size:
		return fs.Borrowed{Release: func() {}}, io.EOF
	}
	var b fs.Borrowed
	var lent []*frame
	end := min(off+int64(n), in.attr.Size)
	if off+int64(n) > in.attr.Size {
		err = io.EOF
	}
	for at := off; at < end; {
		within := at % memFrame
		data := &zeroFrame
		if f := in.frames[at/memFrame]; f != nil {
			f.lent++
			lent = append(lent, f)
			data = &f.data
			b.Pinned += memFrame
		}
		piece := data[within:min(memFrame, within+end-at)]
		b.Segments = append(b.Segments, piece)
		at += int64(len(piece))
	}
	b.Release = func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		for _, f := range lent {
			if f.lent--; f.lent < 0 {
				panic("treetest: released twice")
			}
		}
	}
	return b, err
}

// Lent is how many frames are lent right now.
func (m *MemWrite) Lent() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := 0
	for _, in := range m.inodes {
		for _, f := range in.frames {
			n += f.lent
		}
	}
	return n
}

func (m *MemWrite) CachedAttr(fs.ID) bool { return m.opt.Before == nil }

func (m *MemWrite) Cached(id fs.ID, off int64, n int) bool {
	if m.opt.Cached != nil {
		return m.opt.Cached(id, off, n)
	}
	return m.opt.Before == nil
}

func (m *MemWrite) Extents(ctx context.Context, id fs.ID, off int64, n int) ([]fs.Extent, error) {
	if err := m.begin(ctx, "Extents", id, off, n); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	in, err := m.file(id)
	switch {
	case err != nil:
		return nil, err
	case off < 0 || n < 1:
		return nil, fmt.Errorf("extents at %d: %w", off, fs.ErrInvalid)
	case off >= in.attr.Size:
		return nil, io.EOF
	}
	var data []int64
	for k := range in.frames {
		if (k+1)*memFrame > off {
			data = append(data, k)
		}
	}
	slices.Sort(data)
	var list []fs.Extent
	for len(list) < n && off < in.attr.Size {
		e := fs.Extent{Off: off, Kind: fs.Hole, Len: in.attr.Size - off}
		if len(data) > 0 {
			if start := data[0] * memFrame; start <= off {
				e.Kind, e.Len = fs.Made, min(start+memFrame, in.attr.Size)-off
				data = data[1:]
			} else {
				e.Len = min(start, in.attr.Size) - off
			}
		}
		list = append(list, e)
		off += e.Len
	}
	return list, nil
}

func (m *MemWrite) StatFS(ctx context.Context, id fs.ID) (fs.StatFS, error) {
	if err := m.begin(ctx, "StatFS", id, 0, 0); err != nil {
		return fs.StatFS{}, err
	}
	defer m.mu.Unlock()
	if _, err := m.get(id); err != nil {
		return fs.StatFS{}, err
	}
	return fs.StatFS{Type: "memory", BlockBytes: memFrame, Bytes: m.opt.Bytes, FreeBytes: m.opt.Bytes - m.used, Files: 1 << 20, FreeFiles: 1<<20 - uint64(len(m.inodes)), NameBytes: 255}, nil
}

func (m *MemWrite) RecordedNotes(ctx context.Context, fn func(note []byte)) error {
	if err := m.begin(ctx, "RecordedNotes", fs.ID{}, 0, 0); err != nil {
		return err
	}
	notes := m.recorded
	m.mu.Unlock()
	for _, n := range notes {
		fn(bytes.Clone(n))
	}
	return nil
}

// tick gives a time later than any before.
func (m *MemWrite) tick() fs.Time {
	clock := time.Now
	if m.opt.Now != nil {
		clock = m.opt.Now
	}
	now := fs.TimeOf(clock())
	if last := m.now; now.Sec < last.Sec || (now.Sec == last.Sec && now.Nsec <= last.Nsec) {
		now = fs.TimeOf(last.Time().Add(1))
	}
	m.now = now
	return now
}

func badName(name string) error {
	switch {
	case name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00"):
		return fmt.Errorf("name %q: %w", name, fs.ErrInvalid)
	case len(name) > 255:
		return fmt.Errorf("name of %d bytes: %w", len(name), fs.ErrNameTooLong)
	}
	return nil
}
