package vfs

import (
	"bytes"
	"io"
	"io/fs"
	"math"
	"syscall"
)

// memFile is an open file of a Mem.
type memFile struct {
	fs    *Mem
	n     *node
	name  string // as it was opened, for errors
	write bool

	// Guarded by fs.mu:
	pos    int64
	closed bool
}

// check gives the error of an operation on a handle that does not allow it.
func (f *memFile) check(op string, writes bool) error {
	switch {
	case f.closed:
		return wrapMem(op, f.name, fs.ErrClosed)
	case writes && !f.write:
		return wrapMem(op, f.name, syscall.EBADF)
	case writes && f.fs.readOnly:
		return wrapMem(op, f.name, syscall.EROFS)
	}
	return nil
}

func (f *memFile) ReadAt(p []byte, off int64) (int, error) {
	f.fs.mu.RLock()
	defer f.fs.mu.RUnlock()
	if err := f.check("read", false); err != nil {
		return 0, err
	}
	if off < 0 {
		return 0, wrapMem("read", f.name, syscall.EINVAL)
	}
	n := int(min(int64(len(p)), max(0, f.n.live.size-off)))
	f.n.live.readAt(p[:n], off)
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *memFile) WriteAt(p []byte, off int64) (int, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	return f.writeAt(p, off)
}

func (f *memFile) Write(p []byte) (int, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	n, err := f.writeAt(p, f.pos)
	f.pos += int64(n)
	return n, err
}

// writeAt writes what fits and says so when that is not all.
func (f *memFile) writeAt(p []byte, off int64) (int, error) {
	if err := f.check("write", true); err != nil {
		return 0, err
	}
	if off < 0 {
		return 0, wrapMem("write", f.name, syscall.EINVAL)
	}
	if off > math.MaxInt64-int64(len(p)) {
		return 0, wrapMem("write", f.name, syscall.EFBIG)
	}
	n := f.fs.fits(f.n.live, off, off+int64(len(p))) - off
	if n > 0 {
		data := bytes.Clone(p[:n])
		f.change(record{off: off, data: data}, func(b *blob) { b.writeAt(data, off) })
	}
	if n < int64(len(p)) {
		return int(n), wrapMem("write", f.name, syscall.ENOSPC)
	}
	return int(n), nil
}

// fits returns how far a write from byte off towards byte end gets before the
// disk is full.
func (m *Mem) fits(b *blob, off, end int64) int64 {
	left := m.capacity - m.used
	for at := off; at < end; at = (at/pageSize + 1) * pageSize {
		if b.page(at/pageSize) == nil {
			if left <= 0 {
				return at
			}
			left--
		}
	}
	return end
}

// change does something to the bytes of the file and records it.
func (f *memFile) change(r record, do func(*blob)) {
	b := f.n.live.thaw()
	before := b.pages
	do(b)
	f.fs.used += b.pages - before
	f.n.live = b
	f.n.writes = append(f.n.writes, r)
}

func (f *memFile) Truncate(size int64) error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if err := f.check("truncate", true); err != nil {
		return err
	}
	if size < 0 {
		return wrapMem("truncate", f.name, syscall.EINVAL)
	}
	f.change(record{off: size}, func(b *blob) { b.resize(size) })
	return nil
}

func (f *memFile) Preallocate(n int64) error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if err := f.check("preallocate", true); err != nil {
		return err
	}
	switch {
	case n < 0:
		return wrapMem("preallocate", f.name, syscall.EINVAL)
	case f.n.live.missing(0, n) > f.fs.capacity-f.fs.used:
		return wrapMem("preallocate", f.name, syscall.ENOSPC)
	}
	f.change(record{off: max(n, f.n.live.size)}, func(b *blob) { b.fill(n) })
	return nil
}

func (f *memFile) Sync() error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if err := f.check("sync", false); err != nil {
		return err
	}
	f.n.sync()
	return nil
}

// sync makes live durable, but for what an earlier failed sync dropped.
func (n *node) sync() {
	if n.dropped {
		b := n.durable.thaw()
		for _, r := range n.writes {
			r.apply(b)
		}
		n.durable = b.freeze()
	} else {
		n.durable = n.live.freeze()
	}
	n.writes = nil
}

// apply repeats the operation on other bytes.
func (r record) apply(b *blob) {
	if r.data == nil {
		b.resize(r.off)
	} else {
		b.writeAt(r.data, r.off)
	}
}

// failSync is what a sync that fails does: nothing becomes durable, and the
// kernel holds what was written for clean, so that the next sync does not
// write it either, though it still reads.
func (f *memFile) failSync() {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if len(f.n.writes) > 0 {
		f.n.writes, f.n.dropped = nil, true
	}
}

func (f *memFile) Size() (int64, error) {
	f.fs.mu.RLock()
	defer f.fs.mu.RUnlock()
	if err := f.check("stat", false); err != nil {
		return 0, err
	}
	return f.n.live.size, nil
}

func (f *memFile) DropCache(off, n int64) error {
	f.fs.mu.RLock()
	defer f.fs.mu.RUnlock()
	return f.check("fadvise", false)
}

func (f *memFile) Close() error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if err := f.check("close", false); err != nil {
		return err
	}
	f.closed = true
	f.n.opens--
	f.fs.release(f.n)
	return nil
}
