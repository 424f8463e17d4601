// Package blockfile is what the files of repo/index and repo/refcount have in
// common. Such a file is a row of blocks of 4,096 bytes; block 0 is a header of
// the owner's, the rest are rows of one size in ascending order, and the last
// blocks are fences, the first eight bytes of each block of rows. Files are
// named by numbers, and a list names those that count together (Names, Member).
//
// Every block ends in its own number and a CRC-32C over all before, both little
// endian, so that a read of one block is verified without reading another.
package blockfile

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// Sizes of a block and its parts, in bytes.
const (
	BlockBytes   = 4096
	PayloadBytes = BlockBytes - 8 // what is the owner's

	FenceBytes     = 8
	FencesPerBlock = PayloadBytes / FenceBytes // 511
)

// What Check says of a block that is not what Seal left.
var (
	ErrSum    = errors.New("checksum does not match")
	ErrNumber = errors.New("is another block")
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Checksum is the CRC-32C that guards blocks and lists.
func Checksum(p []byte) uint32 { return crc32.Checksum(p, castagnoli) }

// Block is a block as it is on disk.
type Block [BlockBytes]byte

// Seal writes number and checksum and returns the checksum.
func (b *Block) Seal(number uint32) uint32 {
	binary.LittleEndian.PutUint32(b[PayloadBytes:], number)
	sum := Checksum(b[:BlockBytes-4])
	binary.LittleEndian.PutUint32(b[BlockBytes-4:], sum)
	return sum
}

// Check reports whether the bytes are those that Seal left.
func (b *Block) Check(number uint32) error {
	if Checksum(b[:BlockBytes-4]) != b.Sum() {
		return ErrSum
	}
	if n := binary.LittleEndian.Uint32(b[PayloadBytes:]); n != number {
		return fmt.Errorf("%w: number %d", ErrNumber, n)
	}
	return nil
}

// Sum is the checksum that Seal wrote.
func (b *Block) Sum() uint32 { return binary.LittleEndian.Uint32(b[BlockBytes-4:]) }

func (b *Block) fence(i int) uint64       { return binary.LittleEndian.Uint64(b[i*FenceBytes:]) }
func (b *Block) putFence(i int, v uint64) { binary.LittleEndian.PutUint64(b[i*FenceBytes:], v) }

// SumOfSums is the CRC-32C of the checksums of blocks, in order. It stands for
// all their bytes.
type SumOfSums uint32

// Add adds the next block's checksum.
func (s *SumOfSums) Add(sum uint32) {
	var p [4]byte
	binary.LittleEndian.PutUint32(p[:], sum)
	*s = SumOfSums(crc32.Update(uint32(*s), castagnoli, p[:]))
}

// CeilDiv is how many blocks of b rows hold a rows.
func CeilDiv(a, b int64) int64 { return (a + b - 1) / b }
