package ext4

import (
	"fmt"
	"sort"
)

// A node of the extent tree is a header of 12 bytes (magic, entries, room for
// entries, depth, generation) and entries of 12 bytes, sorted by the block of
// the file they begin at. Depth 0 has extents, others name the nodes below. The
// node in the inode has 60 bytes, others a block, with a checksum behind the
// room for entries.
const (
	extentMagic    = 0xf30a
	extentMaxDepth = 5
	extentMaxLen   = 1 << 15 // longer ones are unwritten, and as much shorter
)

// extentNode is a node that was found in order.
type extentNode struct {
	b      []byte // entries only
	n      int
	lo, hi uint64 // blocks of the file that it may tell of
}

func (e *extentNode) first(i int) uint64 { return uint64(le.Uint32(e.b[12*i:])) }

// child is where an index entry points.
func (e *extentNode) child(i int) uint64 {
	return uint64(le.Uint32(e.b[12*i+4:])) | uint64(le.Uint16(e.b[12*i+8:]))<<32
}

func (e *extentNode) extent(i int) extent {
	b := e.b[12*i:]
	x := extent{
		first: uint64(le.Uint32(b)),
		n:     uint64(le.Uint16(b[4:])),
		at:    uint64(le.Uint16(b[6:]))<<32 | uint64(le.Uint32(b[8:])),
	}
	if x.n > extentMaxLen {
		x.n, x.unwritten = x.n-extentMaxLen, true
	}
	return x
}

// after is the index of the first entry that begins behind a block.
func (e *extentNode) after(block uint64) int {
	return sort.Search(e.n, func(i int) bool { return e.first(i) > block })
}

// parseExtents checks a node and the order of its entries.
func parseExtents(b []byte, depth int, lo, hi uint64) (extentNode, error) {
	magic, n, room := le.Uint16(b), int(le.Uint16(b[2:])), int(le.Uint16(b[4:]))
	if magic != extentMagic || n > room || room > (len(b)-12)/12 || int(le.Uint16(b[6:])) != depth {
		return extentNode{}, damaged("extent header % x at depth %d", b[:8], depth)
	}
	e := extentNode{b: b[12 : 12+12*n], n: n, lo: lo, hi: hi}
	at := lo
	for i := range n {
		first, next := e.first(i), e.first(i)+1
		if depth == 0 {
			x := e.extent(i)
			if next = x.end(); x.n == 0 || x.at == 0 {
				return extentNode{}, damaged("extent of %d blocks at block %d", x.n, x.at)
			}
		}
		if first < at || next > hi {
			return extentNode{}, damaged("extent of block %d out of order", first)
		}
		at = next
	}
	return e, nil
}

// extentLeaf finds the leaf that tells of a block. ok is false for one between
// leaves, with lo and hi the hole.
func (f *FS) extentLeaf(in *inode, block uint64) (leaf extentNode, ok bool, err error) {
	b := in.iblock()
	depth := int(le.Uint16(b[6:]))
	if depth > extentMaxDepth {
		return leaf, false, damaged("inode %d: extent tree of depth %d", in.ino, depth)
	}
	lo, hi := uint64(0), uint64(maxFileBlocks)
	for ; ; depth-- {
		node, err := parseExtents(b, depth, lo, hi)
		if err != nil {
			return leaf, false, fmt.Errorf("inode %d: %w", in.ino, err)
		}
		if depth == 0 {
			return node, true, nil
		}
		i := node.after(block)
		if i < node.n {
			hi = node.first(i)
		}
		if i == 0 {
			return extentNode{lo: lo, hi: hi}, false, nil
		}
		lo = node.first(i - 1)
		if b, err = f.extentBlock(in, node.child(i-1)); err != nil {
			return leaf, false, err
		}
	}
}

// extentBlock reads a node from a block of its own.
func (f *FS) extentBlock(in *inode, at uint64) ([]byte, error) {
	b, err := f.block(at)
	if err != nil {
		return nil, fmt.Errorf("inode %d: extents: %w", in.ino, err)
	}
	if !f.sb.csum() {
		return b, nil
	}
	tail := 12 + 12*int(le.Uint16(b[4:]))
	if tail+4 > len(b) {
		return nil, damaged("inode %d: extents in block %d: room for %d", in.ino, at, le.Uint16(b[4:]))
	}
	if got, want := crc32c(in.seed, b[:tail]), le.Uint32(b[tail:]); got != want {
		return nil, damaged("inode %d: extents in block %d: checksum %08x, want %08x", in.ino, at, got, want)
	}
	return b, nil
}

// mapLeaf calls fn with the extents, and the holes between them, of the leaf
// that tells of block first, from there up to end. next is where to go on.
func (f *FS) mapLeaf(in *inode, first, end uint64, fn func(extent) (bool, error)) (next uint64, more bool, err error) {
	leaf, ok, err := f.extentLeaf(in, first)
	if err != nil {
		return 0, false, err
	}
	if !ok {
		more, err = fn(extent{first: first, n: leaf.hi - first})
		return leaf.hi, more, err
	}
	i := leaf.after(first)
	if i > 0 && leaf.extent(i-1).end() > first {
		i--
	}
	for first < min(end, leaf.hi) {
		e := extent{first: first, n: leaf.hi - first}
		if i < leaf.n {
			if x := leaf.extent(i); x.first <= first {
				e, i = x, i+1
			} else {
				e.n = x.first - first
			}
		}
		if more, err = fn(e); err != nil || !more {
			return 0, false, err
		}
		first = e.end()
	}
	return first, true, nil
}

// mapList is mapLeaf for a list of extents.
func mapList(list []extent, first, end uint64, fn func(extent) (bool, error)) (next uint64, more bool, err error) {
	i := sort.Search(len(list), func(i int) bool { return list[i].end() > first })
	for first < end {
		e := extent{first: first, n: maxFileBlocks - first}
		if i < len(list) {
			if list[i].first <= first {
				e, i = list[i], i+1
			} else {
				e.n = list[i].first - first
			}
		}
		if more, err = fn(e); err != nil || !more {
			return 0, false, err
		}
		first = e.end()
	}
	return first, true, nil
}
