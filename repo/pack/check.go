package pack

import (
	"bytes"
	"context"
)

// checkBytes is how much is read at once where a whole pack is read.
const checkBytes = 1 << 20

// Damage is what Check found.
type Damage struct {
	// Bad has the numbers of the blocks of the file that are not as written or
	// that are missing, ascending; tails count as any other block.
	Bad []uint32
	// Worst is the number of bad blocks in the stripe that has the most.
	Worst int
	// Extra is the number of bytes behind the pack's end.
	Extra int64
	// Blind is true when both trailers or both CRC tables are lost, so that
	// nothing is known of the blocks. The records still have their own CRCs.
	Blind bool
	// Unreadable is the first error of reading, nil if there was none. What could
	// not be read is in Bad.
	Unreadable error

	parity int
}

// Any reports whether the file is other than it was written.
func (d *Damage) Any() bool { return d.Blind || len(d.Bad) > 0 || d.Extra > 0 }

// Healable reports whether Rebuild makes the file what it was.
func (d *Damage) Healable() bool { return !d.Blind && d.Worst <= d.parity }

// Check reads the whole file and compares every block with its CRC, and both
// tails with what they should be. The error is ctx's; damage is no error.
func (f *File) Check(ctx context.Context) (*Damage, error) {
	if f.loadSums() != nil {
		return &Damage{Blind: true}, ctx.Err()
	}
	l := f.tail.Layout
	d := &Damage{Extra: max(0, f.size-l.Bytes()), parity: l.Parity}
	perStripe := make([]int, l.Stripes)
	tailA, tailB := f.tailBytes(l.tailA()), f.tailBytes(l.tailB())
	buf := make([]byte, min(checkBytes, l.Bytes()))
	for at := 0; at < l.fileBlocks(); at += checkBytes / BlockBytes {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		p := buf[:min(checkBytes, (l.fileBlocks()-at)*BlockBytes)]
		if err := readFull(f.r, p, int64(at)*BlockBytes); err != nil && d.Unreadable == nil {
			d.Unreadable = err
		}
		for b := at; len(p) > 0; b, p = b+1, p[BlockBytes:] {
			block := p[:BlockBytes]
			shard := l.shard(b)
			switch {
			case shard >= 0 && f.good(shard, block),
				b >= l.tailB() && bytes.Equal(block, tailB[(b-l.tailB())*BlockBytes:][:BlockBytes]),
				shard < 0 && b < l.tailB() && bytes.Equal(block, tailA[(b-l.tailA())*BlockBytes:][:BlockBytes]):
				continue
			}
			d.Bad = append(d.Bad, uint32(b))
			if shard >= 0 {
				perStripe[shard%l.Stripes]++
				d.Worst = max(d.Worst, perStripe[shard%l.Stripes])
			}
		}
	}
	return d, nil
}

// tailBytes returns what the tail that starts at a block should be.
func (f *File) tailBytes(start int) []byte {
	t := *f.tail
	p := make([]byte, t.Tail*BlockBytes)
	t.putTail(p, start, f.sums)
	return p
}
