package treetest

import (
	"bytes"
	"context"
	"fmt"
	"slices"

	"holdfast/fs"
)

func (m *MemWrite) SetAttr(ctx context.Context, id fs.ID, set fs.SetAttr) (fs.Touched, error) {
	if err := m.begin(ctx, "SetAttr", id, set.Size, 0); err != nil {
		return fs.Touched{}, err
	}
	defer m.mu.Unlock()
	in, err := m.get(id)
	if err != nil {
		return fs.Touched{}, err
	}
	if set.Set&fs.GuardCtime != 0 && set.Ctime != in.attr.Ctime {
		return fs.Touched{}, fmt.Errorf("inode %d: %w", id.Ino, fs.ErrChanged)
	}
	before := fs.VersionOf(&in.attr)
	if set.Set&fs.SetSize != 0 {
		if _, err := m.file(id); err != nil {
			return fs.Touched{}, err
		}
		if err := badSize(set); err != nil {
			return fs.Touched{}, err
		}
	}
	m.set(in, set)
	return fs.Touched{Before: before, After: in.attr}, nil
}

// badSize says what is wrong with a size that is to be set.
func badSize(set fs.SetAttr) error {
	switch {
	case set.Set&fs.SetSize == 0:
	case set.Size < 0:
		return fmt.Errorf("size %d: %w", set.Size, fs.ErrInvalid)
	case set.Size > memMaxSize:
		return fmt.Errorf("size %d: %w", set.Size, fs.ErrTooLarge)
	}
	return nil
}

// set changes attributes, durably: a size that is set makes the bytes below it
// durable too.
func (m *MemWrite) set(in *memInode, set fs.SetAttr) {
	a, now := &in.attr, m.tick()
	a.Ctime = now
	if set.Set&fs.SetSize != 0 {
		m.resize(in, set.Size)
		in.undo = nil
		a.Mtime = now
	}
	if set.Set&fs.SetPerm != 0 {
		a.Perm = set.Perm & 0o7777
	}
	if set.Set&fs.SetUID != 0 {
		a.UID = set.UID
	}
	if set.Set&fs.SetGID != 0 {
		a.GID = set.GID
	}
	if set.Set&fs.SetAtime != 0 {
		a.Atime = set.Atime
	}
	if set.Set&fs.SetMtime != 0 {
		a.Mtime = set.Mtime
	}
	if set.Set&fs.SetAtimeNow != 0 {
		a.Atime = now
	}
	if set.Set&fs.SetMtimeNow != 0 {
		a.Mtime = now
	}
}

// resize cuts a file or adds a hole.
func (m *MemWrite) resize(in *memInode, size int64) {
	if size < in.attr.Size {
		for k := range in.frames {
			if k*memFrame >= size {
				delete(in.frames, k)
				m.charge(in, -memFrame)
			}
		}
		if within := size % memFrame; within > 0 && in.frames[size/memFrame] != nil {
			clear(m.frame(in, size/memFrame).data[within:])
		}
	}
	in.attr.Size = size
}

func (m *MemWrite) charge(in *memInode, n int64) {
	in.attr.Used += n
	m.used += n
}

// frame returns one that may be written to.
func (m *MemWrite) frame(in *memInode, k int64) *frame {
	f := in.frames[k]
	switch {
	case f == nil:
		f = &frame{}
		m.charge(in, memFrame)
	case f.lent > 0:
		f = &frame{data: f.data}
	default:
		return f
	}
	in.frames[k] = f
	return f
}

// put writes bytes, growing the file.
func (m *MemWrite) put(in *memInode, p []byte, off int64) {
	in.attr.Size = max(in.attr.Size, off+int64(len(p)))
	for len(p) > 0 {
		n := copy(m.frame(in, off/memFrame).data[off%memFrame:], p)
		p, off = p[n:], off+int64(n)
	}
}

func (m *MemWrite) WriteAt(ctx context.Context, id fs.ID, p []byte, off int64, sync bool) (fs.Written, error) {
	if err := m.begin(ctx, "WriteAt", id, off, len(p)); err != nil {
		return fs.Written{}, err
	}
	defer m.mu.Unlock()
	in, err := m.file(id)
	switch {
	case err != nil:
		return fs.Written{}, err
	case off < 0:
		return fs.Written{}, fmt.Errorf("write at %d: %w", off, fs.ErrInvalid)
	case off > memMaxSize-int64(len(p)):
		return fs.Written{}, fmt.Errorf("write at %d: %w", off, fs.ErrTooLarge)
	}
	before := fs.VersionOf(&in.attr)
	if len(p) == 0 {
		return fs.Written{Touched: fs.Touched{Before: before, After: in.attr}, Durable: true}, nil
	}
	var fresh int64
	for k := off / memFrame; k*memFrame < off+int64(len(p)); k++ {
		if in.frames[k] == nil {
			fresh += memFrame
		}
	}
	if m.used+fresh > m.opt.Bytes {
		return fs.Written{}, fmt.Errorf("write %d bytes: %w", len(p), fs.ErrNoSpace)
	}
	if !sync {
		u := undo{off: off, old: make([]byte, len(p)), oldSize: in.attr.Size}
		for at := 0; at < len(p); {
			k, within := (off+int64(at))/memFrame, (off+int64(at))%memFrame
			n := min(len(p)-at, int(memFrame-within))
			if f := in.frames[k]; f != nil {
				copy(u.old[at:at+n], f.data[within:])
			}
			at += n
		}
		in.undo = append(in.undo, u)
	}
	m.put(in, p, off)
	if sync {
		in.undo = nil // all of the file's, which is allowed
	}
	now := m.tick()
	in.attr.Mtime, in.attr.Ctime = now, now
	return fs.Written{Touched: fs.Touched{Before: before, After: in.attr}, Durable: sync}, nil
}

func (m *MemWrite) Commit(ctx context.Context, id fs.ID, off, n int64) (fs.Touched, error) {
	if err := m.begin(ctx, "Commit", id, off, int(n)); err != nil {
		return fs.Touched{}, err
	}
	defer m.mu.Unlock()
	in, err := m.file(id)
	if err != nil {
		return fs.Touched{}, err
	}
	in.undo = nil
	return fs.Touched{Before: fs.VersionOf(&in.attr), After: in.attr}, nil
}

func (m *MemWrite) newInode(typ fs.Type, set fs.SetAttr, perm uint16) *memInode {
	m.ino++
	now := m.tick()
	in := &memInode{attr: fs.Attr{ID: fs.ID{Ino: m.ino}, Type: typ, Perm: perm, Nlink: 1, Atime: now, Mtime: now, Btime: now}}
	switch typ {
	case fs.TypeDir:
		in.byName = map[string]*memInode{}
		in.attr.Nlink, in.attr.Size = 2, blockBytes
	case fs.TypeFile:
		in.frames = map[int64]*frame{}
	}
	m.inodes[m.ino] = in
	set.Set &^= fs.GuardCtime
	if typ != fs.TypeFile {
		set.Set &^= fs.SetSize
	}
	m.set(in, set)
	return in
}

// vacant finds the directory in which a new name is to be.
func (m *MemWrite) vacant(dir fs.ID, name string) (*memInode, error) {
	if err := badName(name); err != nil {
		return nil, err
	}
	d, err := m.dir(dir)
	if err != nil {
		return nil, err
	}
	if _, ok := d.byName[name]; ok {
		return d, fmt.Errorf("%q: %w", name, fs.ErrExist)
	}
	return d, nil
}

// occupied finds a directory and what has a name in it.
func (m *MemWrite) occupied(dir fs.ID, name string) (d, in *memInode, err error) {
	if err := badName(name); err != nil {
		return nil, nil, err
	}
	if d, err = m.dir(dir); err != nil {
		return nil, nil, err
	}
	in, ok := d.byName[name]
	if !ok {
		return nil, nil, fmt.Errorf("%q: %w", name, fs.ErrNotFound)
	}
	return d, in, nil
}

func (m *MemWrite) enter(d *memInode, name string, in *memInode) {
	m.cookie++
	d.byName[name] = in
	d.entries = append(d.entries, memEntry{name, m.cookie, in})
	if in.attr.IsDir() {
		in.parent = d.attr.ID.Ino
		d.attr.Nlink++
	}
	m.stamp(d)
}

func (m *MemWrite) leave(d *memInode, name string) {
	in := d.byName[name]
	delete(d.byName, name)
	d.entries = slices.DeleteFunc(slices.Clone(d.entries), func(e memEntry) bool { return e.name == name })
	if in.attr.IsDir() {
		d.attr.Nlink--
	}
	m.stamp(d)
}

func (m *MemWrite) stamp(d *memInode) {
	now := m.tick()
	d.attr.Mtime, d.attr.Ctime = now, now
}

// drop takes one link off an inode, and the inode away with the last.
func (m *MemWrite) drop(in *memInode) {
	in.attr.Nlink--
	in.attr.Ctime = m.tick()
	if in.attr.Nlink == 0 || in.attr.IsDir() {
		m.charge(in, -int64(len(in.frames))*memFrame)
		delete(m.inodes, in.attr.ID.Ino)
	}
}

// noted lets the caller say its note about a change.
func (m *MemWrite) noted(c fs.Change, note fs.Note) fs.Change {
	if note == nil {
		return c
	}
	if b := note(c); len(b) > 0 {
		if len(b) > fs.MaxNoteBytes {
			panic("treetest: note too long")
		}
		m.notes = append(m.notes, bytes.Clone(b))
		if over := len(m.notes) - memNotes; over > 0 {
			m.notes = slices.Clone(m.notes[over:])
		}
	}
	return c
}

// add makes an inode with a name.
func (m *MemWrite) add(ctx context.Context, op string, dir fs.ID, name string, note fs.Note, build func() *memInode) (fs.Change, error) {
	if err := m.begin(ctx, op, dir, 0, 0); err != nil {
		return fs.Change{}, err
	}
	defer m.mu.Unlock()
	d, err := m.vacant(dir, name)
	if err != nil {
		return fs.Change{}, err
	}
	before := fs.VersionOf(&d.attr)
	in := build()
	m.enter(d, name, in)
	return m.noted(fs.Change{Object: in.attr, Dir: fs.Touched{Before: before, After: d.attr}}, note), nil
}

func (m *MemWrite) Create(ctx context.Context, dir fs.ID, name string, how fs.Creation, set fs.SetAttr, note fs.Note) (fs.Change, error) {
	if err := m.begin(ctx, "Create", dir, 0, 0); err != nil {
		return fs.Change{}, err
	}
	defer m.mu.Unlock()
	if how.How == fs.CreateExclusive {
		set.Set &= fs.SetUID | fs.SetGID
	}
	if err := badSize(set); err != nil {
		return fs.Change{}, err
	}
	d, err := m.vacant(dir, name)
	if err != nil && (d == nil || how.How == fs.CreateGuarded) {
		return fs.Change{}, err
	}
	c := fs.Change{Dir: fs.Touched{Before: fs.VersionOf(&d.attr)}}
	in := d.byName[name]
	switch {
	case in == nil:
		in = m.newInode(fs.TypeFile, set, 0o644)
		in.verifier, in.made = how.Verifier, how.How == fs.CreateExclusive
		m.enter(d, name, in)
	case in.attr.Type != fs.TypeFile:
		return fs.Change{}, err
	case how.How == fs.CreateExclusive:
		if !in.made || in.verifier != how.Verifier {
			return fs.Change{}, err
		}
	case set.Set&fs.SetSize != 0:
		m.set(in, fs.SetAttr{Set: fs.SetSize, Size: set.Size})
	}
	c.Object, c.Dir.After = in.attr, d.attr
	return m.noted(c, note), nil
}

func (m *MemWrite) Mkdir(ctx context.Context, dir fs.ID, name string, set fs.SetAttr, note fs.Note) (fs.Change, error) {
	return m.add(ctx, "Mkdir", dir, name, note, func() *memInode { return m.newInode(fs.TypeDir, set, 0o755) })
}

func (m *MemWrite) Symlink(ctx context.Context, dir fs.ID, name, target string, set fs.SetAttr, note fs.Note) (fs.Change, error) {
	return m.add(ctx, "Symlink", dir, name, note, func() *memInode {
		in := m.newInode(fs.TypeSymlink, set, 0o777)
		in.target, in.attr.Size = target, int64(len(target))
		return in
	})
}

func (m *MemWrite) Mknod(ctx context.Context, dir fs.ID, name string, node fs.Node, set fs.SetAttr, note fs.Note) (fs.Change, error) {
	switch node.Type {
	case fs.TypeCharDevice, fs.TypeBlockDevice, fs.TypeFIFO, fs.TypeSocket:
	default:
		return fs.Change{}, fmt.Errorf("node of type %v: %w", node.Type, fs.ErrInvalid)
	}
	return m.add(ctx, "Mknod", dir, name, note, func() *memInode {
		in := m.newInode(node.Type, set, 0o644)
		in.attr.Major, in.attr.Minor = node.Major, node.Minor
		return in
	})
}

func (m *MemWrite) Link(ctx context.Context, id, dir fs.ID, name string, note fs.Note) (fs.Change, error) {
	if err := m.begin(ctx, "Link", id, 0, 0); err != nil {
		return fs.Change{}, err
	}
	defer m.mu.Unlock()
	in, err := m.get(id)
	if err != nil {
		return fs.Change{}, err
	}
	if in.attr.IsDir() {
		return fs.Change{}, fmt.Errorf("link to inode %d: %w", id.Ino, fs.ErrIsDir)
	}
	d, err := m.vacant(dir, name)
	if err != nil {
		return fs.Change{}, err
	}
	before := fs.VersionOf(&d.attr)
	in.attr.Nlink++
	in.attr.Ctime = m.tick()
	m.enter(d, name, in)
	return m.noted(fs.Change{Object: in.attr, Dir: fs.Touched{Before: before, After: d.attr}}, note), nil
}

func (m *MemWrite) Remove(ctx context.Context, dir fs.ID, name string, note fs.Note) (fs.Change, error) {
	return m.take(ctx, "Remove", dir, name, note, func(in *memInode) error {
		if in.attr.IsDir() {
			return fs.ErrIsDir
		}
		return nil
	})
}

func (m *MemWrite) Rmdir(ctx context.Context, dir fs.ID, name string, note fs.Note) (fs.Change, error) {
	return m.take(ctx, "Rmdir", dir, name, note, func(in *memInode) error {
		if !in.attr.IsDir() {
			return fs.ErrNotDir
		}
		if len(in.entries) > 0 {
			return fs.ErrNotEmpty
		}
		return nil
	})
}

func (m *MemWrite) take(ctx context.Context, op string, dir fs.ID, name string, note fs.Note, check func(*memInode) error) (fs.Change, error) {
	if err := m.begin(ctx, op, dir, 0, 0); err != nil {
		return fs.Change{}, err
	}
	defer m.mu.Unlock()
	d, in, err := m.occupied(dir, name)
	if err != nil {
		return fs.Change{}, err
	}
	if err := check(in); err != nil {
		return fs.Change{}, fmt.Errorf("%q: %w", name, err)
	}
	before := fs.VersionOf(&d.attr)
	m.leave(d, name)
	m.drop(in)
	return m.noted(fs.Change{Dir: fs.Touched{Before: before, After: d.attr}}, note), nil
}

func (m *MemWrite) Rename(ctx context.Context, from fs.ID, name string, to fs.ID, toName string, note fs.Note) (fs.Change, error) {
	if err := m.begin(ctx, "Rename", from, 0, 0); err != nil {
		return fs.Change{}, err
	}
	defer m.mu.Unlock()
	d, in, err := m.occupied(from, name)
	if err != nil {
		return fs.Change{}, err
	}
	if err := badName(toName); err != nil {
		return fs.Change{}, err
	}
	td, err := m.dir(to)
	if err != nil {
		return fs.Change{}, err
	}
	for up := td; in.attr.IsDir(); up = m.inodes[up.parent] {
		if up == in {
			return fs.Change{}, fmt.Errorf("%q into itself: %w", name, fs.ErrInvalid)
		}
		if up.parent == up.attr.ID.Ino {
			break
		}
	}
	c := fs.Change{Dir: fs.Touched{Before: fs.VersionOf(&d.attr)}, ToDir: fs.Touched{Before: fs.VersionOf(&td.attr)}}
	old := td.byName[toName]
	switch {
	case old == nil || old == in:
	case old.attr.IsDir() != in.attr.IsDir():
		return fs.Change{}, fmt.Errorf("%q: %w", toName, fs.ErrExist)
	case len(old.entries) > 0:
		return fs.Change{}, fmt.Errorf("%q: %w", toName, fs.ErrNotEmpty)
	}
	if old != in {
		if old != nil {
			m.leave(td, toName)
			m.drop(old)
		}
		m.leave(d, name)
		m.enter(td, toName, in)
		in.attr.Ctime = m.tick()
	}
	c.Object, c.Dir.After, c.ToDir.After = in.attr, d.attr, td.attr
	return m.noted(c, note), nil
}
