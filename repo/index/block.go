package index

import (
	"encoding/binary"

	"holdfast/repo/blockfile"
)

const (
	blockBytes   = blockfile.BlockBytes
	payloadBytes = blockfile.PayloadBytes

	entryBytes = 28
	nameBytes  = 16

	entriesPerBlock = payloadBytes / entryBytes // 146, and nothing left over
	namesPerBlock   = payloadBytes / nameBytes  // 255, and 8 bytes of zeros

	lengthBits = 24 // of an entry's last number; the rest is the kind
)

type block = blockfile.Block

// entry is one row of an index file.
type entry struct {
	key
	pack uint32 // ordinal in the file's own table of packs
	off  uint32
	size uint32 // length in the low 24 bits, kind above, dependentBit
}

func entryAt(b *block, i int) entry {
	p := b[i*entryBytes:][:entryBytes]
	return entry{
		key:  keyOf(p),
		pack: binary.LittleEndian.Uint32(p[16:]),
		off:  binary.LittleEndian.Uint32(p[20:]),
		size: binary.LittleEndian.Uint32(p[24:]),
	}
}

func putEntry(b *block, i int, e entry) {
	p := b[i*entryBytes:][:entryBytes]
	binary.BigEndian.PutUint64(p, e.hi)
	binary.BigEndian.PutUint64(p[8:], e.lo)
	binary.LittleEndian.PutUint32(p[16:], e.pack)
	binary.LittleEndian.PutUint32(p[20:], e.off)
	binary.LittleEndian.PutUint32(p[24:], e.size)
}

// keyAt returns the key of entry i without the rest.
func keyAt(b *block, i int) key { return keyOf(b[i*entryBytes:][:PrefixBytes]) }

// nameAt returns the i-th name of a block of names.
func nameAt(b *block, i int) (n [nameBytes]byte) {
	copy(n[:], b[i*nameBytes:])
	return n
}

// firstEntry returns the place of the first of n entries whose key is not
// below k.
func firstEntry(b *block, n int, k key) int {
	lo, hi := 0, n
	for lo < hi {
		mid := int(uint(lo+hi) / 2)
		if keyAt(b, mid).compare(k) < 0 {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo
}
