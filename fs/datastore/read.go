package datastore

import (
	"context"
	"fmt"
	"io"

	"holdfast/fs"
)

// dirBytes is the size of directories.
const dirBytes = 4096

// attr describes an inode. mu is held.
func (t *tree) attr(n *node) fs.Attr {
	a := fs.Attr{
		ID: t.id(n.ino), Type: n.typ, Perm: n.perm, Nlink: n.nlink, UID: n.uid, GID: n.gid,
		Size: n.length(), Major: n.major, Minor: n.minor, Atime: n.atime, Mtime: n.mtime, Ctime: n.ctime, Btime: n.btime,
	}
	if n.soft != nil {
		a.Mtime, a.Ctime = n.soft.mtime, n.soft.ctime
	}
	switch {
	case n.typ == fs.TypeDir:
		a.Size, a.Used = dirBytes, dirBytes
	case n.typ == fs.TypeSymlink:
		a.Size = int64(len(n.target))
	case n.keep == keepDisk:
		a.Used = t.slots[n.disk].usedBytes(n.used)
	default:
		a.Used = n.usedBytes()
		if n.soft != nil {
			a.Used += n.soft.units.count * unitBytes
		}
	}
	return a
}

// version is what attr says that NFS clients tell changes by. mu is held.
func (t *tree) version(n *node) fs.Version {
	a := t.attr(n)
	return fs.VersionOf(&a)
}

func (t *tree) attrOf(id fs.ID) (a fs.Attr, err error) {
	err = t.view(func() (uint64, error) {
		n, err := t.get(id)
		if err != nil {
			return 0, err
		}
		a = t.attr(n)
		return n.lsn, nil
	})
	return a, err
}

// Attr describes an inode.
func (s *Store) Attr(ctx context.Context, id fs.ID) (fs.Attr, error) {
	t, err := s.enter(ctx, id)
	if err != nil {
		return fs.Attr{}, err
	}
	defer t.leave()
	return t.attrOf(id)
}

// Lookup describes what a directory has under a name.
func (s *Store) Lookup(ctx context.Context, dir fs.ID, name string) (fs.Attr, error) {
	t, err := s.enter(ctx, dir)
	if err != nil {
		return fs.Attr{}, err
	}
	defer t.leave()
	if name == ".." && t.number != 0 && local(dir) == rootIno {
		return s.root.attrOf(s.Root())
	}
	a, session, err := t.lookup(dir, name)
	if err == nil && session != 0 {
		return s.Attr(ctx, SessionRoot(session))
	}
	return a, err
}

// lookup describes what a directory has under a name, if that is no session.
func (t *tree) lookup(dir fs.ID, name string) (a fs.Attr, session uint32, err error) {
	err = t.view(func() (uint64, error) {
		d, err := t.getDir(dir)
		if err != nil {
			return 0, err
		}
		if name == ".." {
			n := t.st.nodes[d.parent]
			a = t.attr(n)
			return max(d.lsn, n.lsn), nil
		}
		e, ok := d.named(name)
		if !ok {
			return d.lsn, fmt.Errorf("%q: %w", name, fs.ErrNotFound)
		}
		if session = 0; e.session {
			session = uint32(e.child)
			return d.lsn, nil
		}
		n := t.st.nodes[e.child]
		a = t.attr(n)
		return max(d.lsn, n.lsn), nil
	})
	return a, session, err
}

// dirPart is how many entries are looked at with the tree locked.
const dirPart = 512

// ReadDir calls fn for the entries of a directory.
func (s *Store) ReadDir(ctx context.Context, dir fs.ID, cookie uint64, fn func(fs.Entry) bool) error {
	for {
		list, err := s.entries(ctx, dir, cookie)
		if err != nil || len(list) == 0 {
			return err
		}
		for _, e := range list {
			if cookie = e.Cookie; !fn(e) {
				return nil
			}
		}
	}
}

// entries are the next entries behind a cookie, no more than dirPart.
func (s *Store) entries(ctx context.Context, dir fs.ID, cookie uint64) (list []fs.Entry, err error) {
	t, err := s.enter(ctx, dir)
	if err != nil {
		return nil, err
	}
	defer t.leave()
	err = t.view(func() (lsn uint64, err error) {
		d, err := t.getDir(dir)
		if err != nil {
			return 0, err
		}
		i, found := d.at(cookie)
		if found {
			i++
		}
		part := d.entries[i:min(i+dirPart, len(d.entries))]
		list, lsn = make([]fs.Entry, 0, len(part)), d.lsn
		for _, e := range part {
			if e.session {
				list = append(list, fs.Entry{Name: e.name, ID: SessionRoot(uint32(e.child)), Type: fs.TypeDir, Cookie: e.cookie})
				continue
			}
			n := t.st.nodes[e.child]
			a := t.attr(n)
			lsn = max(lsn, n.lsn)
			list = append(list, fs.Entry{Name: e.name, ID: a.ID, Type: a.Type, Cookie: e.cookie, Attr: &a})
		}
		return lsn, nil
	})
	return list, err
}

// ReadLink returns the target of a symbolic link.
func (s *Store) ReadLink(ctx context.Context, id fs.ID) (target string, err error) {
	t, err := s.enter(ctx, id)
	if err != nil {
		return "", err
	}
	defer t.leave()
	err = t.view(func() (uint64, error) {
		n, err := t.get(id)
		if err == nil && n.typ != fs.TypeSymlink {
			err = fmt.Errorf("inode %#x is a %v: %w", id.Ino, n.typ, fs.ErrInvalid)
		}
		if err != nil {
			return 0, err
		}
		target = n.target
		return n.lsn, nil
	})
	return target, err
}

// ReadAt reads from a regular file.
func (s *Store) ReadAt(ctx context.Context, id fs.ID, p []byte, off int64) (int, error) {
	t, err := s.enter(ctx, id)
	if err != nil {
		return 0, err
	}
	defer t.leave()
	if off < 0 {
		if err := t.isFile(id); err != nil {
			return 0, err
		}
		return 0, fmt.Errorf("read at %d: %w", off, fs.ErrInvalid)
	}
	return t.readAt(ctx, id, p, off)
}

// isFile says what is wrong with an ID that should be a regular file's.
func (t *tree) isFile(id fs.ID) error {
	return t.view(func() (uint64, error) {
		_, err := t.getFile(id)
		return 0, err
	})
}

func (t *tree) readAt(ctx context.Context, id fs.ID, p []byte, off int64) (int, error) {
	var size int64
	var where keep
	var disk *diskSlot
	err := t.view(func() (uint64, error) {
		n, err := t.getFile(id)
		if err != nil {
			return 0, err
		}
		size, where = n.length(), n.keep
		switch where {
		case keepInline:
			if off < size {
				q := p[:min(int64(len(p)), size-off)]
				clear(q[copy(q, n.data[min(off, int64(len(n.data))):]):])
			}
		case keepDisk:
			disk = t.slots[n.disk]
			return 0, nil // its bytes are not in the journal
		}
		return n.lsn, nil
	})
	switch {
	case err != nil:
		return 0, err
	case off >= size:
		return 0, io.EOF
	case where == keepDisk:
		return disk.readAt(ctx, p, off)
	case where == keepLarge:
		return t.readLarge(id, p, off)
	case int64(len(p)) > size-off:
		return int(size - off), io.EOF
	}
	return len(p), nil
}

// Extents tells where a file has holes. What is no hole is fs.Made.
func (s *Store) Extents(ctx context.Context, id fs.ID, off int64, n int) (list []fs.Extent, err error) {
	t, err := s.enter(ctx, id)
	if err != nil {
		return nil, err
	}
	defer t.leave()
	if off < 0 || n < 1 {
		if err := t.isFile(id); err != nil {
			return nil, err
		}
		return nil, fmt.Errorf("extents at %d: %w", off, fs.ErrInvalid)
	}
	var disk *diskSlot
	err = t.view(func() (uint64, error) {
		f, err := t.getFile(id)
		switch {
		case err != nil:
			return 0, err
		case off >= f.length():
			return f.lsn, io.EOF
		case f.keep == keepDisk:
			disk = t.slots[f.disk]
			return 0, nil
		}
		list = f.extents(off, n)
		return f.lsn, nil
	})
	if err == nil && disk != nil {
		return disk.extents(off, n)
	}
	return list, err
}

// extents tells where a file that is no disk has holes. mu is held.
func (n *node) extents(off int64, most int) (list []fs.Extent) {
	size := n.length()
	for off < size && len(list) < most {
		e := fs.Extent{Off: off, Kind: fs.Made}
		end := size
		switch {
		case n.keep == keepLarge:
			u, last := uint64(off/unitBytes), uint64(align(size, unitBytes)/unitBytes)
			e.Kind = fs.Hole
			stop := n.nextUnit(u, last, true)
			if stop == u {
				e.Kind, stop = fs.Made, n.nextUnit(u, last, false)
			}
			end = min(size, int64(stop)*unitBytes)
		case off >= int64(len(n.data)):
			e.Kind = fs.Hole
		default:
			end = int64(len(n.data))
		}
		e.Len = end - off
		list = append(list, e)
		off = end
	}
	return list
}

// nextUnit finds the first unit from u on, below end, that is written, or is a
// hole. mu is held.
func (n *node) nextUnit(u, end uint64, written bool) uint64 {
	if n.soft == nil {
		return n.units.next(u, end, written)
	}
	if written {
		return min(n.units.next(u, end, true), n.soft.units.next(u, end, true))
	}
	for u < end {
		v := n.soft.units.next(n.units.next(u, end, false), end, false)
		if v == u {
			return u
		}
		u = v
	}
	return end
}

// StatFS describes the volume, less the reserve.
func (s *Store) StatFS(ctx context.Context, id fs.ID) (fs.StatFS, error) {
	t, err := s.enter(ctx, id)
	if err != nil {
		return fs.StatFS{}, err
	}
	defer t.leave()
	free, total, err := s.space()
	if err != nil {
		return fs.StatFS{}, fmt.Errorf("free space of the datastore: %w", err)
	}
	st := fs.StatFS{Type: "datastore", BlockBytes: blockBytes, Bytes: total, FreeBytes: max(0, free-s.opt.ReserveBytes), NameBytes: maxNameBytes}
	err = t.view(func() (uint64, error) {
		n, err := t.get(id)
		if err != nil {
			return 0, err
		}
		st.Files = uint64(s.opt.MaxFiles)
		st.FreeFiles = st.Files - uint64(min(len(t.st.nodes), s.opt.MaxFiles))
		return n.lsn, nil
	})
	return st, err
}

// space is what is free on the volume, and all of it.
func (s *Store) space() (free, total int64, err error) {
	if s.opt.Space != nil {
		return s.opt.Space()
	}
	n, err := s.fs.Free()
	free = int64(min(n, 1<<62))
	return free, free, err
}

// RecordedNotes has the notes of the last 512 changes, at most 120 KiB, of the
// root and of each session.
func (s *Store) RecordedNotes(ctx context.Context, fn func(note []byte)) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	for _, n := range s.recorded {
		fn(n.p)
	}
	return nil
}

// Borrow lends what the Disk of a file lends.
func (s *Store) Borrow(ctx context.Context, id fs.ID, off int64, n int) (fs.Borrowed, error) {
	t, err := s.enter(ctx, id)
	if err != nil {
		return fs.Borrowed{}, err
	}
	defer t.leave()
	slot, size, err := t.diskOf(id)
	switch {
	case err != nil:
		return fs.Borrowed{}, err
	case slot == nil:
		return fs.Borrowed{}, fs.ErrUnsupported
	case off < 0 || n < 1:
		return fs.Borrowed{}, fmt.Errorf("read at %d: %w", off, fs.ErrInvalid)
	case off >= size:
		return fs.Borrowed{}, fs.ErrUnsupported
	}
	return slot.borrow(ctx, off, n)
}

// diskOf returns what a file's bytes are, nil if they are no disk's.
func (t *tree) diskOf(id fs.ID) (slot *diskSlot, size int64, err error) {
	err = t.view(func() (uint64, error) {
		n, err := t.getFile(id)
		if err == nil && n.keep == keepDisk {
			slot, size = t.slots[n.disk], n.size
		}
		return 0, err
	})
	return slot, size, err
}

// CachedAttr says that nobody has to wait for the journal.
func (s *Store) CachedAttr(id fs.ID) bool {
	t, err := s.enter(context.Background(), id)
	if err != nil {
		return true
	}
	defer t.leave()
	t.mu.RLock()
	defer t.mu.RUnlock()
	n, err := t.get(id)
	return err != nil || t.queue.isDurable(n.lsn)
}

// Cached says that bytes of a file are in memory.
func (s *Store) Cached(id fs.ID, off int64, n int) bool {
	t, err := s.enter(context.Background(), id)
	if err != nil {
		return true
	}
	defer t.leave()
	t.mu.RLock()
	f, err := t.getFile(id)
	where, slot := keepInline, (*diskSlot)(nil)
	if err == nil {
		if where = f.keep; where == keepDisk {
			slot = t.slots[f.disk]
		}
	}
	durable := err != nil || t.queue.isDurable(f.lsn)
	t.mu.RUnlock()
	if slot != nil {
		return slot.cached(off, n)
	}
	return where == keepInline && durable
}
