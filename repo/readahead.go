package repo

import (
	"context"
	"sync/atomic"
)

// readLimit bounds the chunks that one repository reads at once for large
// reads and for reading ahead.
const readLimit = 16

// aheadChunks is how far a sequential reader is run ahead of.
const aheadChunks = 2

// A readAhead fetches the chunks after a sequential read into the frame cache.
// It asks for no chunk twice in a row and waits for nothing: with all readers
// busy there is no reading ahead.
type readAhead struct {
	until atomic.Int64 // byte up to which chunks were asked for
}

// start fetches up to aheadChunks from off on in the background. An error is
// not kept: whoever needs the bytes meets it again.
func (a *readAhead) start(d *Disk, off int64) {
	size := int64(d.store.settings.Geometry.ChunkBytes)
	end := min((off/size+1+aheadChunks)*size, d.Size())
	from := a.until.Load()
	if from < off || from > end {
		from = off
	}
	for from < end {
		next := min((from/size+1)*size, end)
		if !a.until.CompareAndSwap(a.until.Load(), next) {
			return
		}
		select {
		case d.store.limit <- struct{}{}:
		default:
			return
		}
		off, end := from, next
		d.store.background.Go(func() {
			defer func() { <-d.store.limit }()
			_ = d.fetch(context.Background(), off, end)
		})
		from = next
	}
}

// fetch brings the frames of one chunk between off and end into the cache.
func (d *Disk) fetch(ctx context.Context, off, end int64) error {
	geo := d.store.settings.Geometry
	no := off / int64(geo.ChunkBytes)
	id, err := d.chunkID(ctx, no)
	if err != nil || id.IsNull() {
		return err
	}
	first := int(off%int64(geo.ChunkBytes)) / geo.FrameBytes
	last := int((end-1)%int64(geo.ChunkBytes)) / geo.FrameBytes
	for i := first; i <= last; i++ {
		key := frameKey{id, i}
		e, err := d.store.frames.borrow(ctx, key, geo.FrameBytes, false, d.filling(ctx, key, no))
		if err != nil {
			return err
		}
		d.store.frames.giveBack(e)
	}
	return nil
}
