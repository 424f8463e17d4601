package redirect

import (
	"context"
	"fmt"
	"io"
)

// Lender is a Base that lends its bytes instead of copying them, and knows what
// it has in memory.
type Lender interface {
	// Borrow is ReadAt of n bytes, n > 0, into memory of the base's own: segments
	// one after another, none empty, that do not change until release, which is
	// called exactly once, also if there was io.EOF, but not after any other
	// error. pinned is how much memory can't be used otherwise until then.
	Borrow(ctx context.Context, off int64, n int) (segments [][]byte, pinned int64, release func(), err error)

	// Cached says that n bytes from off on would now be read from memory.
	Cached(off int64, n int) bool
}

// Borrow is ReadAt of n bytes, n > 0, within the disk, lent by the base as
// Lender has it. lent is false if ReadAt is to be used instead: because some of
// the bytes were written since, or the base lends nothing, or the session has
// something to say that ReadAt will. What is written while bytes are lent does
// not change them.
func (d *Disk) Borrow(ctx context.Context, off int64, n int) (segments [][]byte, pinned int64, release func(), lent bool, err error) {
	base, ok := d.base.(Lender)
	if !ok || off < 0 || n <= 0 || off >= d.size || !d.untouched(off, min(int64(n), d.size-off)) {
		return nil, 0, nil, false, nil
	}
	// The base does not change, so nothing needs to be held while it reads: this
	// is a read that came before all writes since.
	segments, pinned, release, err = base.Borrow(ctx, off, n)
	if err != nil && err != io.EOF {
		return nil, 0, nil, true, fmt.Errorf("read disk %s at %d: %w", d.name, off, err)
	}
	return segments, pinned, release, true, err
}

// untouched says that n bytes from off on are as the base has them.
func (d *Disk) untouched(off, n int64) bool {
	d.s.gate.RLock()
	defer d.s.gate.RUnlock()
	d.s.mu.RLock()
	defer d.s.mu.RUnlock()
	return d.target == nil && d.s.usableLocked(false) == nil && d.all(off, n, func(from from) bool { return from == fromBase })
}

// Cached says that n bytes from off on would now be read without waiting for a
// file or the base.
func (d *Disk) Cached(off int64, n int) bool {
	base, ok := d.base.(Lender)
	if off < 0 || off > d.size || !ok {
		return false
	}
	n = int(min(int64(n), d.size-off))
	below := false
	if !d.s.gate.TryRLock() {
		return false
	}
	defer d.s.gate.RUnlock()
	d.s.mu.RLock()
	here := d.target == nil && d.s.usableLocked(false) == nil && d.all(off, int64(n), func(from from) bool {
		below = below || from == fromBase
		return from == fromBase || from == fromZero || from == fromMemory
	})
	d.s.mu.RUnlock()
	return here && (!below || base.Cached(off, n))
}

// all says that ok is true of where each grain of n bytes from off on lies. mu
// is held.
func (d *Disk) all(off, n int64, ok func(from) bool) bool {
	for g := off / grainBytes; g*grainBytes < off+n; g++ {
		if !ok(d.place(uint64(g), maxLayers).from) {
			return false
		}
	}
	return true
}
