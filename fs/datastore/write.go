package datastore

import (
	"context"
	"fmt"

	"holdfast/fs"
)

// smallBytes is what may be written to a file out of the journal's reserve.
const smallBytes = 4 << 10

// SetAttr changes attributes of an inode. The size of a disk is fixed:
// fs.ErrPermission.
func (s *Store) SetAttr(ctx context.Context, id fs.ID, set fs.SetAttr) (fs.Touched, error) {
	t, err := s.enter(ctx, id)
	if err != nil {
		return fs.Touched{}, err
	}
	defer t.leave()
	return t.setAttr(id, set)
}

func (t *tree) setAttr(id fs.ID, set fs.SetAttr) (c fs.Touched, err error) {
	f := t.file(id)
	defer f.done()
	f.io.Lock()
	defer f.io.Unlock()
	if err := t.beforeSet(f, set); err != nil {
		return c, err
	}
	cut := false
	err = t.change(growth{small: true}, func(x *tx) error {
		n, err := t.get(id)
		if err == nil {
			err = t.maySet(n, set)
		}
		if err != nil {
			return err
		}
		c.Before = t.version(n)
		cut = n.keep == keepLarge && set.Set&fs.SetSize != 0 && set.Size < n.size
		x.edit(n, func(i *inode) { i.set(set, x.now) })
		if !n.pending() && n.marked {
			i := n.inode
			i.marked = false
			x.put(&i)
			t.dropSoft(n)
		}
		c.After = t.attr(n)
		return nil
	})
	if err == nil && cut {
		err = f.shorten(set.Size)
	}
	return c, err
}

// beforeSet does what must be durable before attributes are set: what was
// written so far, where the file is large, and its bytes in a file of their own
// when it becomes so. A large file that gets another size is opened, which takes
// off what a cut left that a crash came after: it would be there again should the
// file become longer. io is held alone.
func (t *tree) beforeSet(f *largeFile, set fs.SetAttr) error {
	var large, pending, sized bool
	err := t.view(func() (uint64, error) {
		n, err := t.get(f.id)
		if err == nil {
			err = t.maySet(n, set)
		}
		if err != nil {
			return 0, err
		}
		large = n.keep == keepInline && set.Set&fs.SetSize != 0 && set.Size > inlineBytes
		pending = n.keep == keepLarge && n.pending()
		sized = n.keep == keepLarge && set.Set&fs.SetSize != 0 && set.Size != n.length()
		return n.lsn, nil
	})
	switch {
	case err != nil:
		return err
	case large:
		return f.spill()
	case pending:
		err = f.commit()
	}
	if err == nil && sized {
		if err = f.usable(); err == nil {
			_, err = f.handle()
		}
	}
	return err
}

// maySet says why attributes can't be set. mu is held.
func (t *tree) maySet(n *node, set fs.SetAttr) error {
	if a := t.attr(n); set.Set&fs.GuardCtime != 0 && set.Ctime != a.Ctime {
		return fmt.Errorf("inode %#x: %w", a.ID.Ino, fs.ErrChanged)
	}
	if set.Set&fs.SetSize == 0 {
		return nil
	}
	_, err := t.getFile(t.id(n.ino))
	switch {
	case err != nil:
		return err
	case set.Size < 0:
		return fmt.Errorf("size %d: %w", set.Size, fs.ErrInvalid)
	case n.keep == keepDisk && set.Size != n.size:
		return fmt.Errorf("the size of a published disk is fixed at %d bytes: %w", n.size, fs.ErrPermission)
	case n.keep != keepDisk && set.Size > maxFileBytes:
		return fmt.Errorf("size %d: %w", set.Size, fs.ErrTooLarge)
	}
	return nil
}

// set sets attributes, the size too.
func (i *inode) set(set fs.SetAttr, now fs.Time) {
	if set.Set&fs.SetSize != 0 && i.keep != keepNone && i.keep != keepDisk {
		i.size, i.mtime = set.Size, now
	}
	if set.Set&fs.SetPerm != 0 {
		i.perm = set.Perm & 0o7777
	}
	if set.Set&fs.SetUID != 0 {
		i.uid = set.UID
	}
	if set.Set&fs.SetGID != 0 {
		i.gid = set.GID
	}
	if set.Set&fs.SetAtime != 0 {
		i.atime = set.Atime
	}
	if set.Set&fs.SetMtime != 0 {
		i.mtime = set.Mtime
	}
	if set.Set&fs.SetAtimeNow != 0 {
		i.atime = now
	}
	if set.Set&fs.SetMtimeNow != 0 {
		i.mtime = now
	}
}

// WriteAt writes to a regular file. What files up to 64 KiB get is durable at
// once.
func (s *Store) WriteAt(ctx context.Context, id fs.ID, p []byte, off int64, sync bool) (fs.Written, error) {
	t, err := s.enter(ctx, id)
	if err != nil {
		return fs.Written{}, err
	}
	defer t.leave()
	f := t.file(id)
	defer f.done()
	for alone := false; ; alone = true {
		w, ok, err := t.writeAt(ctx, f, p, off, sync, alone)
		if ok || err != nil {
			return w, err
		}
	}
}

// writeAt writes, or reports false where that needs largeFile.io alone.
func (t *tree) writeAt(ctx context.Context, f *largeFile, p []byte, off int64, sync, alone bool) (w fs.Written, ok bool, err error) {
	if alone {
		f.io.Lock()
		defer f.io.Unlock()
	} else {
		f.io.RLock()
		defer f.io.RUnlock()
	}
	where, have, slot, err := t.target(f.id)
	end := off + int64(len(p))
	switch {
	case err != nil:
		return w, true, err
	case off < 0:
		return w, true, fmt.Errorf("write at %d: %w", off, fs.ErrInvalid)
	case len(p) == 0:
		w.Durable = true
		w.Touched, err = t.untouched(f.id)
		return w, true, err
	case where == keepDisk:
		w, err = t.writeDisk(ctx, f.id, slot, p, off, sync)
		return w, true, err
	case off > maxFileBytes-int64(len(p)):
		return w, true, fmt.Errorf("write at %d: %w", off, fs.ErrTooLarge)
	case where == keepInline && end <= inlineBytes:
		w, err = t.writeInline(f.id, p, off, have)
		return w, true, err
	case where == keepInline && !alone:
		return w, false, nil
	case where == keepInline:
		if err := f.spill(); err != nil {
			return w, true, err
		}
	}
	return f.writeLarge(p, off, sync, alone)
}

// target says what a file's bytes are, and of a small one how many there are.
func (t *tree) target(id fs.ID) (where keep, have int64, slot *diskSlot, err error) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	n, err := t.getFile(id)
	if err == nil {
		err = t.readOnly
	}
	if err != nil {
		return 0, 0, nil, err
	}
	return n.keep, int64(len(n.data)), t.slotOf(n), nil
}

// writeInline writes to a file of which have bytes, or more, are in the journal.
func (t *tree) writeInline(id fs.ID, p []byte, off, have int64) (w fs.Written, err error) {
	end := off + int64(len(p))
	g := growth{
		live: max(0, end-have), used: max(0, align(end, blockBytes)-align(have, blockBytes)),
		small: end <= smallBytes,
	}
	err = t.change(g, func(x *tx) error {
		n, err := t.getFile(id)
		if err != nil {
			return err
		}
		w.Before = t.version(n)
		x.edit(n, func(i *inode) { i.size, i.mtime = max(i.size, end), x.now })
		x.put(bytesRec{n.ino, off, p})
		w.After = t.attr(n)
		return nil
	})
	w.Durable = true
	return w, err
}

// Commit makes durable what was written to a file.
func (s *Store) Commit(ctx context.Context, id fs.ID, off, n int64) (fs.Touched, error) {
	t, err := s.enter(ctx, id)
	if err != nil {
		return fs.Touched{}, err
	}
	defer t.leave()
	f := t.file(id)
	defer f.done()
	f.io.RLock()
	defer f.io.RUnlock()
	where, _, slot, err := t.target(id)
	switch {
	case err != nil:
		return fs.Touched{}, err
	case off < 0 || n < 0:
		return fs.Touched{}, fmt.Errorf("commit from %d: %w", off, fs.ErrInvalid)
	case where == keepDisk:
		return t.commitDisk(ctx, id, slot)
	case where == keepLarge:
		if err := f.commit(); err != nil {
			return fs.Touched{}, err
		}
	}
	return t.untouched(id)
}
