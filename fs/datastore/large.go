package datastore

import (
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"sync"
	"sync/atomic"

	"holdfast/fs"
	"holdfast/repo/vfs"
)

// largeFile is the file beside the journal that has the bytes of a large file.
// There is one for every regular file in use, for a small one may become large.
type largeFile struct {
	t   *tree
	id  fs.ID
	use int // guarded by largeFiles.mu

	// io is held shared by reads, by writes to what was written before, and by
	// commits; alone by all that changes how long the file is or which of its
	// units are written. It comes before tree.ioMu.
	io sync.RWMutex

	mu     sync.Mutex // guards the next two
	f      vfs.File
	failed error // a sync did: what was written may be gone, and the file is not written again

	dirty  atomic.Int64 // bytes written since the last sync began, at least
	rounds rounds
}

// largeFiles are those of a tree that are in use or open.
type largeFiles struct {
	mu   sync.Mutex
	open map[uint64]*largeFile
}

// dirtyBytes is how many bytes of a file wait for a Commit at most.
const dirtyBytes = 64 << 20

// maxOpen is how many files of a tree that nobody uses stay open.
const maxOpen = 32

// file returns the file of an inode, to be given back by done.
func (t *tree) file(id fs.ID) *largeFile {
	l := &t.large
	l.mu.Lock()
	defer l.mu.Unlock()
	f := l.open[local(id)]
	if f == nil {
		f = &largeFile{t: t, id: id}
		l.open[local(id)] = f
	}
	f.use++
	return f
}

func (f *largeFile) done() {
	l := &f.t.large
	l.mu.Lock()
	defer l.mu.Unlock()
	f.use--
	if f.use > 0 {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.failed == nil && (f.f == nil || len(l.open) > maxOpen && f.dirty.Load() == 0) {
		f.close()
		delete(l.open, local(f.id))
	}
}

// close closes the file, if it is open. mu is held.
func (f *largeFile) close() {
	if f.f == nil {
		return
	}
	if err := f.f.Close(); err != nil {
		f.t.s.opt.Log.Warn("close a file of the datastore", "session", f.t.number, "inode", local(f.id), "err", err)
	}
	f.f = nil
}

func (f *largeFile) name() string { return largeName(f.t.dir, local(f.id)) }

func largeName(dir string, ino uint64) string { return fmt.Sprintf("%s/f%010x", dir, ino) }

// handle opens the file. What is beyond size was never committed, and is taken
// off.
func (f *largeFile) handle() (vfs.File, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.f != nil {
		return f.f, nil
	}
	f.t.mu.RLock()
	n, err := f.t.getFile(f.id)
	var committed int64
	if err == nil {
		committed = n.size
	}
	f.t.mu.RUnlock()
	if err != nil {
		return nil, err
	}
	h, err := f.t.s.fs.OpenWrite(f.name())
	if err != nil {
		return nil, err
	}
	size, err := h.Size()
	if err == nil && size > committed {
		if err = h.Truncate(committed); err == nil {
			err = h.Sync()
		}
	}
	if err != nil {
		return nil, errors.Join(err, h.Close())
	}
	f.f = h
	return h, nil
}

// usable says why the file must not be written.
func (f *largeFile) usable() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.failed
}

// fail ends the writing of a file after a sync that failed.
func (f *largeFile) fail(err error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failed = fmt.Errorf("inode %#x: an earlier sync failed, remove the file: %w", f.id.Ino, err)
	f.t.s.opt.Log.Error("a file of the datastore failed", "session", f.t.number, "inode", local(f.id), "err", err)
	f.t.s.newEpoch()
	f.t.mu.Lock()
	defer f.t.mu.Unlock()
	if n := f.t.st.nodes[local(f.id)]; n != nil && n.soft != nil {
		times := *n.soft
		f.t.dropSoft(n)
		s := n.soften()
		s.mtime, s.ctime = times.mtime, times.ctime
	}
	return f.failed
}

// readLarge reads from a large file.
func (t *tree) readLarge(id fs.ID, p []byte, off int64) (int, error) {
	f := t.file(id)
	defer f.done()
	f.io.RLock()
	defer f.io.RUnlock()
	h, err := f.handle()
	if err != nil {
		return 0, err
	}
	t.mu.RLock()
	n, err := t.getFile(id)
	var size int64
	var list []fs.Extent
	if err == nil {
		if size = n.length(); off < size {
			list = n.extents(off, len(p)/unitBytes+2)
		}
	}
	t.mu.RUnlock()
	if err != nil {
		return 0, err
	}
	got := int64(0)
	for _, e := range list {
		q := p[got:min(int64(len(p)), got+e.Len)]
		if e.Kind == fs.Hole {
			clear(q)
		} else if err := readFull(h, q, e.Off); err != nil {
			return int(got), err
		}
		got += int64(len(q))
	}
	if got < int64(len(p)) {
		return int(got), io.EOF
	}
	return int(got), nil
}

// readFull reads what a file has, and zeros behind its end.
func readFull(f vfs.File, p []byte, off int64) error {
	n, err := f.ReadAt(p, off)
	if err == io.EOF {
		clear(p[n:])
		err = nil
	}
	return err
}

// writeLarge writes to a large file. Unless io is held alone it reports false
// where units would be written for the first time.
func (f *largeFile) writeLarge(p []byte, off int64, sync, alone bool) (w fs.Written, ok bool, err error) {
	if err := f.usable(); err != nil {
		return w, true, err
	}
	h, err := f.handle()
	if err != nil {
		return w, true, err
	}
	fresh, size, err := f.fresh(p, off)
	switch {
	case err != nil:
		return w, true, err
	case fresh.count > 0 && !alone:
		return w, false, nil
	case fresh.count > 0:
		if err := f.admit(&fresh); err != nil {
			return w, true, err
		}
		if err := writeFresh(h, &fresh, p, off, size); err != nil {
			return w, true, spaceError(err)
		}
	}
	dirty := f.dirty.Add(int64(len(p)))
	if err := writeOld(h, &fresh, p, off); err != nil {
		return w, true, spaceError(err)
	}
	w.Touched, err = f.t.touch(f.id, func(n *node) {
		s := n.soft
		s.size = max(s.size, off+int64(len(p)))
		live := n.newPages(&fresh) * pageCost
		s.units.merge(&fresh)
		s.live += live
		f.t.soft.units += fresh.count
		f.t.soft.live += live
	})
	if err == nil && (sync || dirty > dirtyBytes) {
		err = f.commit()
		w.Durable = true
	}
	return w, true, err
}

// fresh returns the units of a write that were not written before, and how long
// the file will be.
func (f *largeFile) fresh(p []byte, off int64) (fresh unitMap, size int64, err error) {
	f.t.mu.RLock()
	defer f.t.mu.RUnlock()
	n, err := f.t.getFile(f.id)
	if err != nil {
		return fresh, 0, err
	}
	end := off + int64(len(p))
	last := uint64(align(end, unitBytes) / unitBytes)
	for u := uint64(off / unitBytes); u < last; u++ {
		if n.nextUnit(u, u+1, true) != u {
			fresh.add(u, 1)
		}
	}
	return fresh, max(n.length(), end), nil
}

// newPages is how many pages of units a node gets with these. mu is held.
func (n *node) newPages(fresh *unitMap) (count int64) {
	for k := range fresh.pages {
		if n.units.pages[k] == nil && (n.soft == nil || n.soft.units.pages[k] == nil) {
			count++
		}
	}
	return count
}

// admit sees to it that there is room for units: in the quota, in the journal
// and on the volume.
func (f *largeFile) admit(fresh *unitMap) error {
	used := fresh.count * unitBytes
	if err := f.t.lockFor(growth{used: used, live: int64(len(fresh.pages)) * pageCost}); err != nil {
		return err
	}
	f.t.mu.Unlock()
	return f.t.s.room(used)
}

// room says whether so many bytes can be written to large files.
func (s *Store) room(n int64) error {
	free, err := s.fs.Free()
	if err != nil {
		return fmt.Errorf("free space of the datastore: %w", err)
	}
	if left := int64(min(free, 1<<62)) - s.opt.ReserveBytes; left < n {
		return fmt.Errorf("%d bytes for a file, %d left: %w", n, max(left, 0), fs.ErrNoSpace)
	}
	return nil
}

// writeFresh writes the part of p that lies in fresh units, and zeros where
// those have more: something may be there that was never committed.
func writeFresh(h vfs.File, fresh *unitMap, p []byte, off, size int64) error {
	end := off + int64(len(p))
	for first, count := range fresh.runs {
		from, to := int64(first)*unitBytes, min(size, int64(first+count)*unitBytes)
		piece := p
		if from > off {
			piece = p[from-off:]
		} else if err := writeZeros(h, from, off); err != nil {
			return err
		}
		at := max(from, off)
		if _, err := h.WriteAt(piece[:min(to, end)-at], at); err != nil {
			return err
		}
		if err := writeZeros(h, end, to); err != nil {
			return err
		}
	}
	return nil
}

// writeZeros writes zeros from one byte to another one, less than a unit.
func writeZeros(h vfs.File, from, to int64) error {
	if from >= to {
		return nil
	}
	_, err := h.WriteAt(zeros[:to-from], from)
	return err
}

// zeros is never written to.
var zeros [unitBytes]byte

// writeOld writes the part of p that lies in other than fresh units.
func writeOld(h vfs.File, fresh *unitMap, p []byte, off int64) error {
	for len(p) > 0 {
		u, end := uint64(off/unitBytes), uint64((off+int64(len(p))-1)/unitBytes)+1
		stop := fresh.next(u, end, true)
		if stop == u {
			stop = fresh.next(u, end, false)
			n := min(int64(len(p)), int64(stop)*unitBytes-off)
			p, off = p[n:], off+n
			continue
		}
		n := min(int64(len(p)), int64(stop)*unitBytes-off)
		if _, err := h.WriteAt(p[:n], off); err != nil {
			return err
		}
		p, off = p[n:], off+n
	}
	return nil
}

// commit makes all that was written before durable, together with others who
// ask for that. io is held.
func (f *largeFile) commit() error { return f.rounds.join(f.harden) }

// harden syncs the file and then tells the journal of its length and units.
func (f *largeFile) harden() error {
	if err := f.usable(); err != nil {
		return err
	}
	t := f.t
	var units unitMap
	t.mu.RLock()
	n, err := t.getFile(f.id)
	pending := err == nil && n.pending()
	var size int64
	if pending {
		units.merge(&n.soft.units)
		size = n.soft.size
	}
	t.mu.RUnlock()
	if err != nil {
		return err
	}
	h, err := f.handle()
	if err != nil {
		return err
	}
	dirty := f.dirty.Load()
	if !pending {
		err = vfs.SyncData(h)
	} else {
		err = h.Sync()
	}
	if err != nil {
		return f.fail(err)
	}
	f.dirty.Add(-dirty)
	if !pending {
		return nil
	}
	return t.change(growth{small: true}, func(x *tx) error {
		n, err := t.getFile(f.id)
		if err != nil || n.soft == nil {
			return err
		}
		i := n.inode
		i.size, i.mtime, i.ctime = max(size, n.size), n.soft.mtime, n.soft.ctime
		x.put(&i)
		for first, count := range units.runs {
			x.put(unitsRec{n.ino, first, count})
		}
		t.hardened(n, &units)
		x.touched = append(x.touched, n)
		return nil
	})
}

// hardened takes units that are in the journal off those that are not. mu is
// held.
func (t *tree) hardened(n *node, units *unitMap) {
	rest := &soft{mtime: n.soft.mtime, ctime: n.soft.ctime, size: n.soft.size}
	for first, count := range n.soft.units.runs {
		for u := first; u < first+count; u++ {
			if !units.has(u) {
				rest.units.add(u, 1)
			}
		}
	}
	rest.live = int64(len(rest.units.pages)) * pageCost
	t.dropSoft(n)
	n.soft = rest
	t.soft.units += rest.units.count
	t.soft.live += rest.live
}

// spill moves the bytes of a small file into a file of its own. io is held alone.
func (f *largeFile) spill() error {
	t := f.t
	var data []byte
	var small bool
	err := t.view(func() (uint64, error) {
		n, err := t.getFile(f.id)
		if err != nil {
			return 0, err
		}
		small, data = n.keep == keepInline, append([]byte(nil), n.data...)
		return n.lsn, nil
	})
	if err != nil || !small {
		return err
	}
	g := growth{live: pageCost, used: unitBytes - align(int64(len(data)), blockBytes)}
	if err := t.lockFor(g); err != nil {
		return err
	}
	t.mu.Unlock()
	if err := t.s.room(unitBytes); err != nil {
		return err
	}
	if err := t.makeLarge(f, data); err != nil {
		return spaceError(err)
	}
	err = t.change(g, func(x *tx) error {
		n, err := t.getFile(f.id)
		if err != nil {
			return err
		}
		i := n.inode
		i.keep = keepLarge
		x.put(&i)
		if len(data) > 0 {
			x.put(unitsRec{n.ino, 0, 1})
		}
		x.touched = append(x.touched, n)
		return nil
	})
	if err != nil && !errors.Is(err, ErrLost) { // which may be in the journal all the same: Open tidies
		err = errors.Join(err, t.s.fs.Remove(f.name()))
	}
	return err
}

// makeLarge makes the file of a large file, durably.
func (t *tree) makeLarge(f *largeFile, data []byte) error {
	if err := t.s.fs.Remove(f.name()); err != nil && !errors.Is(err, iofs.ErrNotExist) {
		return err
	}
	h, err := t.s.fs.Create(f.name())
	if err != nil {
		return err
	}
	if len(data) > 0 {
		_, err = h.WriteAt(data, 0)
	}
	if err == nil {
		err = h.Sync()
	}
	if err = errors.Join(err, h.Close()); err == nil {
		err = t.s.fs.SyncDir(t.dir)
	}
	return err
}

// shorten cuts the file after the journal has said so: what is there may come
// back otherwise when the file becomes longer again. io is held alone.
func (f *largeFile) shorten(size int64) error {
	h, err := f.handle()
	if err != nil {
		return err
	}
	err = h.Truncate(size)
	if err == nil {
		err = h.Sync()
	}
	if err != nil {
		return f.fail(err)
	}
	return nil
}

// removeLarge removes the file of an inode that is no more. That it is no more
// is durable; should the file stay, it goes when the store is opened.
func (t *tree) removeLarge(id fs.ID) {
	f := t.file(id)
	f.io.Lock()
	f.mu.Lock()
	f.close()
	f.failed = nil
	f.mu.Unlock()
	f.io.Unlock()
	f.done()
	if err := t.s.fs.Remove(f.name()); err != nil {
		t.s.opt.Log.Warn("remove a file of the datastore", "session", t.number, "inode", local(id), "err", err)
	}
}

// rounds lets all who wait for a sync share one: who comes while one runs joins
// the next, and one of those leads it.
type rounds struct {
	mu   sync.Mutex
	busy bool
	next *round
}

type round struct {
	lead chan struct{} // one token: who takes it leads
	done chan struct{}
	err  error
}

// join returns what a call of fn returned that began after it did.
func (c *rounds) join(fn func() error) error {
	c.mu.Lock()
	if c.next == nil {
		c.next = &round{lead: make(chan struct{}, 1), done: make(chan struct{})}
	}
	r := c.next
	if c.busy {
		c.mu.Unlock()
		select {
		case <-r.done:
			return r.err
		case <-r.lead:
		}
		c.mu.Lock()
	}
	c.busy, c.next = true, nil
	c.mu.Unlock()
	r.err = fn()
	c.mu.Lock()
	if c.next != nil {
		c.next.lead <- struct{}{}
	} else {
		c.busy = false
	}
	c.mu.Unlock()
	close(r.done)
	return r.err
}
