package refcount

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// Every file of counts is a row of blocks, and every block ends in its own
// number and a CRC-32C, as in the files of repo/index.
const (
	blockBytes   = 4096
	payloadBytes = blockBytes - 8

	rowBytes   = PrefixBytes + 4
	fenceBytes = 8

	rowsPerBlock   = payloadBytes / rowBytes   // 204, and 8 bytes of zeros
	fencesPerBlock = payloadBytes / fenceBytes // 511
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var (
	errSum    = errors.New("checksum does not match")
	errNumber = errors.New("is another block")
)

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
		return errSum
	}
	if n := binary.LittleEndian.Uint32(b[payloadBytes:]); n != number {
		return fmt.Errorf("%w: number %d", errNumber, n)
	}
	return nil
}

func (b *block) sum() uint32 { return binary.LittleEndian.Uint32(b[blockBytes-4:]) }

func (b *block) key(i int) key { return key(b[i*rowBytes:][:PrefixBytes]) }

func (b *block) row(i int) row {
	return row{b.key(i), int32(binary.LittleEndian.Uint32(b[i*rowBytes+PrefixBytes:]))}
}

func (b *block) putRow(i int, r row) {
	p := b[i*rowBytes:][:rowBytes]
	copy(p, r.key[:])
	binary.LittleEndian.PutUint32(p[PrefixBytes:], uint32(r.change))
}

func (b *block) fence(i int) uint64       { return binary.LittleEndian.Uint64(b[i*fenceBytes:]) }
func (b *block) putFence(i int, v uint64) { binary.LittleEndian.PutUint64(b[i*fenceBytes:], v) }

// sumOfSums is the CRC of the CRCs of blocks.
type sumOfSums uint32

func (s *sumOfSums) add(sum uint32) {
	*s = sumOfSums(crc32.Update(uint32(*s), castagnoli, binary.LittleEndian.AppendUint32(nil, sum)))
}
