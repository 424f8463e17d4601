package index

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// Every file is a row of blocks, and every block ends in its own number and a
// CRC-32C, so that a read of one block is verified without reading another.
const (
	blockBytes   = 4096
	payloadBytes = blockBytes - 8

	entryBytes = 28
	nameBytes  = 16
	fenceBytes = 8

	entriesPerBlock = payloadBytes / entryBytes // 146, and nothing left over
	namesPerBlock   = payloadBytes / nameBytes  // 255, and 8 bytes of zeros
	fencesPerBlock  = payloadBytes / fenceBytes // 511

	lengthBits = 24 // of an entry's last number; the rest is the kind
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var (
	errBlockSum    = errors.New("checksum does not match")
	errBlockNumber = errors.New("is another block")
)

// block is 4096 bytes as they are on disk.
type block [blockBytes]byte

// seal writes number and checksum and returns the checksum.
func (b *block) seal(number uint32) uint32 {
	binary.LittleEndian.PutUint32(b[payloadBytes:], number)
	sum := crc32.Checksum(b[:blockBytes-4], castagnoli)
	binary.LittleEndian.PutUint32(b[blockBytes-4:], sum)
	return sum
}

// check reports whether the bytes are those that seal left.
func (b *block) check(number uint32) error {
	if crc32.Checksum(b[:blockBytes-4], castagnoli) != b.sum() {
		return errBlockSum
	}
	if n := binary.LittleEndian.Uint32(b[payloadBytes:]); n != number {
		return fmt.Errorf("%w: number %d", errBlockNumber, n)
	}
	return nil
}

func (b *block) sum() uint32 { return binary.LittleEndian.Uint32(b[blockBytes-4:]) }

// entry is one row of an index file.
type entry struct {
	key
	pack uint32 // ordinal in the file's own table of packs
	off  uint32
	size uint32 // length in the low 24 bits, kind above, dependentBit
}

func (b *block) entry(i int) entry {
	p := b[i*entryBytes:][:entryBytes]
	return entry{
		key:  keyOf(p),
		pack: binary.LittleEndian.Uint32(p[16:]),
		off:  binary.LittleEndian.Uint32(p[20:]),
		size: binary.LittleEndian.Uint32(p[24:]),
	}
}

func (b *block) putEntry(i int, e entry) {
	p := b[i*entryBytes:][:entryBytes]
	binary.BigEndian.PutUint64(p, e.hi)
	binary.BigEndian.PutUint64(p[8:], e.lo)
	binary.LittleEndian.PutUint32(p[16:], e.pack)
	binary.LittleEndian.PutUint32(p[20:], e.off)
	binary.LittleEndian.PutUint32(p[24:], e.size)
}

// key returns the key of entry i without the rest.
func (b *block) key(i int) key { return keyOf(b[i*entryBytes:][:PrefixBytes]) }

// name returns the i-th name of a block of names.
func (b *block) name(i int) (n [nameBytes]byte) {
	copy(n[:], b[i*nameBytes:])
	return n
}

// firstEntry returns the place of the first of n entries whose key is not
// below k.
func (b *block) firstEntry(n int, k key) int {
	lo, hi := 0, n
	for lo < hi {
		mid := int(uint(lo+hi) / 2)
		if b.key(mid).compare(k) < 0 {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo
}
