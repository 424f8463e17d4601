package repo

import (
	"context"
	"fmt"

	"holdfast/repo/blockmap"
	"holdfast/repo/chunk"
)

// Diff calls fn for each range of bytes that differs between two disks of the
// repository, ascending and not touching, in whole frames but for the end of
// the longer disk. Beyond a disk's end it counts as zeros; that two sizes
// differ is not a difference of content. Its cost is in proportion to the
// difference: shared nodes are not read, and no chunk is.
func (r *Repository) Diff(ctx context.Context, a, b *Disk, fn func(off, n int64) error) error {
	d := &differ{
		store: r.store, size: max(a.Size(), b.Size()), fn: fn,
		a: blockmap.NewCursor(r.store, a.tree), b: blockmap.NewCursor(r.store, b.tree),
	}
	err := blockmap.Diff(ctx, r.store, a.tree, b.tree, func(n int64, idA, idB chunk.ID) error {
		return d.chunk(ctx, n, idA, idB)
	})
	if err == nil {
		err = d.flush()
	}
	if err != nil {
		return fmt.Errorf("compare points %s and %s: %w", a.point, b.point, err)
	}
	return nil
}

type differ struct {
	store   *store
	size    int64
	fn      func(off, n int64) error
	a, b    *blockmap.Cursor
	pending Range // not yet told, in case it goes on
}

// chunk compares the frames of one chunk by their digests.
func (d *differ) chunk(ctx context.Context, n int64, idA, idB chunk.ID) error {
	geo := d.store.settings.Geometry
	digestsA, err := d.digests(ctx, d.a, n, idA)
	if err != nil {
		return err
	}
	digestsB, err := d.digests(ctx, d.b, n, idB)
	if err != nil {
		return err
	}
	for i := range geo.Frames() {
		if digestsA[i] == digestsB[i] {
			continue
		}
		off := n*int64(geo.ChunkBytes) + int64(i*geo.FrameBytes)
		if err := d.add(off, min(int64(geo.FrameBytes), d.size-off)); err != nil {
			return err
		}
	}
	return nil
}

// digests returns the digests of a chunk's frames.
func (d *differ) digests(ctx context.Context, c *blockmap.Cursor, n int64, id chunk.ID) ([]chunk.Digest, error) {
	out := make([]chunk.Digest, d.store.settings.Geometry.Frames())
	if id.IsNull() {
		for i := range out {
			out[i] = d.store.hasher.ZeroFrame()
		}
		return out, nil
	}
	_, e, err := c.At(ctx, n)
	if err != nil {
		return nil, err
	}
	if e == nil || d.store.checkEntry(id, e) != nil {
		if e, err = d.store.entry(ctx, id); err != nil {
			return nil, err
		}
	}
	for i := range out {
		out[i] = e.Frames[i].Digest
	}
	return out, nil
}

func (d *differ) add(off, n int64) error {
	if n <= 0 {
		return nil
	}
	if d.pending.Len > 0 && d.pending.Off+d.pending.Len == off {
		d.pending.Len += n
		return nil
	}
	err := d.flush()
	d.pending = Range{off, n}
	return err
}

func (d *differ) flush() error {
	if d.pending.Len == 0 {
		return nil
	}
	return d.fn(d.pending.Off, d.pending.Len)
}
