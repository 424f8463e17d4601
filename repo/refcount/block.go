package refcount

import (
	"cmp"
	"encoding/binary"

	"holdfast/repo/blockfile"
)

const (
	blockBytes = blockfile.BlockBytes
	rowBytes   = PrefixBytes + 4

	rowsPerBlock = blockfile.PayloadBytes / rowBytes // 204, and 8 bytes of zeros
)

type block = blockfile.Block

// key is the part of an id that is counted by.
type key [PrefixBytes]byte

// compare is bytes.Compare, and faster.
func (k key) compare(o key) int {
	if a, b := k.fence(), o.fence(); a != b {
		return cmp.Compare(a, b)
	}
	return cmp.Compare(binary.BigEndian.Uint64(k[8:]), binary.BigEndian.Uint64(o[8:]))
}

// fence is how a key stands among the fences.
func (k key) fence() uint64 { return binary.BigEndian.Uint64(k[:]) }

// row says that a key's count changes.
type row struct {
	key
	change int32
}

func keyAt(b *block, i int) key { return key(b[i*rowBytes:][:PrefixBytes]) }

func rowAt(b *block, i int) row {
	return row{keyAt(b, i), int32(binary.LittleEndian.Uint32(b[i*rowBytes+PrefixBytes:]))}
}

func putRow(b *block, i int, r row) {
	p := b[i*rowBytes:][:rowBytes]
	copy(p, r.key[:])
	binary.LittleEndian.PutUint32(p[PrefixBytes:], uint32(r.change))
}
