package ext4

import (
	"cmp"
	"slices"
	"sort"
)

// overlay is what the replay of the journal puts in place of blocks of the
// device: for each such block, where in the journal it is. Only that is kept in
// memory. The blocks themselves stay on the device and are verified when read.
type overlay struct {
	blocks []overlaid // by block
	seed   uint32     // of the checksums
}

// overlaid is a block that the journal holds in a newer form.
type overlaid struct {
	block    uint64 // that it replaces
	at       uint64 // where the newer one is
	sequence uint32 // of its transaction
	sum      uint32
	sumBits  uint8 // how many bits of sum count, 0, 16 or 32
	escaped  bool  // it begins with the journal's magic, written there as zeros
}

// maxOverlaid bounds the overlay; a journal has few hundred thousand blocks at
// most, unless somebody asked for more.
const maxOverlaid = 2 << 20

// find returns what replaces a block.
func (o *overlay) find(block uint64) (overlaid, bool) {
	e, ok := o.next(block, block)
	return e, ok
}

// next returns the first block from first to last that is replaced.
func (o *overlay) next(first, last uint64) (overlaid, bool) {
	if len(o.blocks) == 0 {
		return overlaid{}, false
	}
	i := sort.Search(len(o.blocks), func(i int) bool { return o.blocks[i].block >= first })
	if i == len(o.blocks) || o.blocks[i].block > last {
		return overlaid{}, false
	}
	return o.blocks[i], true
}

// settle sorts what was written one after the other, and keeps the last of each
// block.
func (o *overlay) settle() {
	slices.SortStableFunc(o.blocks, func(a, b overlaid) int { return cmp.Compare(a.block, b.block) })
	n := 0
	for i, e := range o.blocks {
		if i+1 < len(o.blocks) && o.blocks[i+1].block == e.block {
			continue
		}
		o.blocks[n] = e
		n++
	}
	o.blocks = slices.Clip(o.blocks[:n])
}

// readOverlaid fills p with what follows byte off of a replaced block, once its
// checksum is found right.
func (f *FS) readOverlaid(p []byte, e overlaid, off int64) error {
	b := p
	if int64(len(p)) != f.sb.blockBytes() {
		b = make([]byte, f.sb.blockBytes())
	}
	if err := f.readDevice(b, int64(e.at<<f.sb.blockLog)); err != nil {
		return err
	}
	if e.sumBits > 0 {
		c := crc32c(f.overlay.seed, []byte{byte(e.sequence >> 24), byte(e.sequence >> 16), byte(e.sequence >> 8), byte(e.sequence)})
		if c = crc32c(c, b) & (1<<e.sumBits - 1); c != e.sum {
			return damaged("block %d, replayed from block %d of the journal: checksum %08x, want %08x", e.block, e.at, c, e.sum)
		}
	}
	if e.escaped {
		be.PutUint32(b, journalMagic)
	}
	if len(b) != len(p) {
		copy(p, b[off:])
	}
	return nil
}
