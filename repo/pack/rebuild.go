package pack

import (
	"context"
	"io"
	"maps"
)

// healBatch is how many healed blocks Rebuild keeps in memory. Stripes lie
// across the whole file, so healing many blocks together reads it fewer times.
const healBatch = 16 << 20 / BlockBytes

// Rebuild writes the file to w as it was first written, byte for byte, so that
// its SHA-256 is the one in the ledger. It reads the file once to find the
// damage and once to copy, and the stripes that have damage. A *CorruptError
// that wraps ErrDamaged says that this cannot be done; w may then have got
// some bytes.
func (f *File) Rebuild(ctx context.Context, w io.Writer) error {
	d, err := f.Check(ctx)
	if err != nil {
		return err
	}
	if d.Blind {
		return f.corrupt(0, f.loadSums())
	}
	c := copier{f: f, w: w, healed: map[int][]byte{}}
	l := f.tail.Layout
	for _, b := range d.Bad {
		if s := l.shard(int(b)); s >= 0 {
			c.bad = append(c.bad, s)
		}
	}
	if !d.Healable() {
		// Names the first block that is lost.
		return f.reconstruct(c.bad, func(int, []byte) {})
	}
	if err := c.copy(ctx, 0, l.Data); err != nil {
		return err
	}
	if _, err := w.Write(f.tailBytes(l.tailA())); err != nil {
		return err
	}
	if err := c.copy(ctx, l.Data, l.shards()); err != nil {
		return err
	}
	_, err = w.Write(f.tailBytes(l.tailB()))
	return err
}

// A copier writes shards in order, healed.
type copier struct {
	f      *File
	w      io.Writer
	bad    []int          // shards still to be healed, ascending
	healed map[int][]byte // shards healed and not yet written
}

// copy writes the shards from a up to b, which lie beside each other.
func (c *copier) copy(ctx context.Context, a, b int) error {
	buf := make([]byte, min(checkBytes, (b-a)*BlockBytes))
	for a < b {
		if err := ctx.Err(); err != nil {
			return err
		}
		p := buf[:min(checkBytes, (b-a)*BlockBytes)]
		readFull(c.f.r, p, int64(c.f.tail.fileBlock(a))*BlockBytes)
		for i := range len(p) / BlockBytes {
			if block := p[i*BlockBytes:][:BlockBytes]; !c.f.good(a+i, block) {
				healed, err := c.take(a + i)
				if err != nil {
					return err
				}
				copy(block, healed)
			}
		}
		if _, err := c.w.Write(p); err != nil {
			return err
		}
		a += len(p) / BlockBytes
	}
	return nil
}

// take returns a shard healed, together with the bad ones that follow it.
func (c *copier) take(shard int) ([]byte, error) {
	if p, ok := c.healed[shard]; ok {
		delete(c.healed, shard)
		return p, nil
	}
	// Those before this one read well the second time.
	maps.DeleteFunc(c.healed, func(s int, _ []byte) bool { return s < shard })
	for len(c.bad) > 0 && c.bad[0] <= shard {
		c.bad = c.bad[1:]
	}
	batch := append([]int{shard}, c.bad[:min(healBatch-1, len(c.bad))]...)
	c.bad = c.bad[len(batch)-1:]
	err := c.f.reconstruct(batch, func(s int, p []byte) { c.healed[s] = append([]byte(nil), p...) })
	if err != nil {
		return nil, err
	}
	p := c.healed[shard]
	delete(c.healed, shard)
	return p, nil
}
