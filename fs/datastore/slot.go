package datastore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"holdfast/fs"
)

// diskSlot is the place of a disk in a session, empty until it is attached.
type diskSlot struct {
	gate sync.RWMutex // held shared while the disk is in use
	disk Disk         // guarded by gate, as the rest
	err  error        // why there is none; nil: not attached yet

	seenMu sync.Mutex // guards seen; comes after gate
	seen   uint64     // the disk's verifier

	used atomic.Int64 // bytes it takes, as last told; 0: never told
}

// use returns the disk, to be given back by done.
func (d *diskSlot) use() (Disk, error) {
	d.gate.RLock()
	if d.disk != nil {
		return d.disk, nil
	}
	defer d.gate.RUnlock()
	if d.err != nil {
		return nil, fmt.Errorf("the disk is offline: %w", d.err)
	}
	return nil, fmt.Errorf("the disk is not attached yet: %w", fs.ErrRetry)
}

func (d *diskSlot) done() { d.gate.RUnlock() }

// set puts a disk into the slot, or err in its place, when the old one is not in
// use any more. If writes to the old one may have been lost it calls lost, before
// anybody can use the new one.
func (d *diskSlot) set(disk Disk, err error, lost func()) {
	d.gate.Lock()
	defer d.gate.Unlock()
	d.seenMu.Lock()
	defer d.seenMu.Unlock()
	if disk != nil {
		v := disk.Verifier()
		if d.seen != 0 && d.seen != v {
			lost()
		}
		d.seen = v
	}
	d.disk, d.err = disk, err
}

// lostWrites calls lost if the disk's verifier is another than at the last call.
// Whoever finds it the same afterwards finds that lost has returned.
func (d *diskSlot) lostWrites(lost func()) {
	disk, err := d.use()
	if err != nil {
		return
	}
	defer d.done()
	d.seenMu.Lock()
	defer d.seenMu.Unlock()
	if v := disk.Verifier(); v != d.seen {
		lost()
		d.seen = v
	}
}

func (d *diskSlot) attached() bool {
	d.gate.RLock()
	defer d.gate.RUnlock()
	return d.disk != nil
}

// usedBytes is what the disk takes, or took when that could be told last. It
// never waits: tree.mu is held, for which a call that uses the disk may wait.
func (d *diskSlot) usedBytes(last int64) int64 {
	if d.gate.TryRLock() {
		if d.disk != nil {
			d.used.Store(d.disk.UsedBytes())
		}
		d.gate.RUnlock()
	}
	return cmp.Or(d.used.Load(), last)
}

func (d *diskSlot) readAt(ctx context.Context, p []byte, off int64) (int, error) {
	disk, err := d.use()
	if err != nil {
		return 0, err
	}
	defer d.done()
	return disk.ReadAt(ctx, p, off)
}

func (d *diskSlot) borrow(ctx context.Context, off int64, n int) (fs.Borrowed, error) {
	disk, err := d.use()
	if err != nil {
		return fs.Borrowed{}, err
	}
	defer d.done()
	if l, ok := disk.(Lender); ok {
		return l.Borrow(ctx, off, n)
	}
	return fs.Borrowed{}, fs.ErrUnsupported
}

func (d *diskSlot) cached(off int64, n int) bool {
	disk, err := d.use()
	if err != nil {
		return true // an error is at hand
	}
	defer d.done()
	t, ok := disk.(Teller)
	return ok && t.Cached(off, n)
}

// extents tells where the disk has holes.
func (d *diskSlot) extents(off int64, n int) (list []fs.Extent, err error) {
	disk, err := d.use()
	if err != nil {
		return nil, err
	}
	defer d.done()
	size := disk.Size()
	for off < size && len(list) < n {
		start, end, err := disk.NextData(off)
		if errors.Is(err, io.EOF) {
			start, end, err = size, size, nil
		}
		if err != nil {
			return nil, err
		}
		if start > off {
			list = append(list, fs.Extent{Off: off, Len: start - off, Kind: fs.Hole})
		}
		if end > start && len(list) < n {
			list = append(list, fs.Extent{Off: start, Len: end - start, Kind: fs.Made})
		}
		off = max(end, start)
	}
	return list, nil
}

// slotOf returns the slot of an inode's disk, nil if it is none.
func (t *tree) slotOf(n *node) *diskSlot {
	if n.keep != keepDisk {
		return nil
	}
	return t.slots[n.disk]
}

// writeDisk writes to a disk. What the journal has to know of it is a mark.
func (t *tree) writeDisk(ctx context.Context, id fs.ID, slot *diskSlot, p []byte, off int64, sync bool) (w fs.Written, err error) {
	disk, err := slot.use()
	if err != nil {
		return w, err
	}
	defer slot.done()
	if size := disk.Size(); off > size-int64(len(p)) {
		return w, fmt.Errorf("inode %#x is a disk of %d bytes, write at %d: %w", id.Ino, size, off, fs.ErrTooLarge)
	}
	if !sync {
		t.unstable.Store(true)
	}
	if err := disk.WriteAt(ctx, p, off, sync); err != nil {
		return w, err
	}
	w.Touched, err = t.touch(id, nil)
	w.Durable = sync
	return w, err
}

// commitDisk makes durable what was written to a disk.
func (t *tree) commitDisk(ctx context.Context, id fs.ID, slot *diskSlot) (fs.Touched, error) {
	disk, err := slot.use()
	if err != nil {
		return fs.Touched{}, err
	}
	defer slot.done()
	if err := disk.Commit(ctx); err != nil {
		return fs.Touched{}, err
	}
	return t.untouched(id)
}

// untouched is an inode that nothing has changed.
func (t *tree) untouched(id fs.ID) (fs.Touched, error) {
	a, err := t.attrOf(id)
	return fs.Touched{Before: fs.VersionOf(&a), After: a}, err
}
