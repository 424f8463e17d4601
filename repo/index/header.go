package index

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"holdfast/repo/blockfile"
)

const (
	fileMagic   = "HFix"
	fileVersion = 1
	headerUsed  = 32 // bytes of block 0 that mean something
)

var (
	errMagic   = errors.New("not an index file")
	errVersion = errors.New("version is not known")
	errHeader  = errors.New("header contradicts itself")
	errSize    = errors.New("size is not what the header says")
)

// header is block 0 of an index file. It is written last, when all the rest is
// known, and so stands for every byte of the file.
type header struct {
	number  uint64
	entries uint64
	packs   uint32
	sum     uint32 // CRC of the CRCs of the other blocks, in order
}

func (h header) nameBlocks() int64  { return blockfile.CeilDiv(int64(h.packs), namesPerBlock) }
func (h header) entryBlocks() int64 { return blockfile.CeilDiv(int64(h.entries), entriesPerBlock) }
func (h header) fenceBlocks() int64 {
	return blockfile.CeilDiv(h.nameBlocks()+h.entryBlocks(), blockfile.FencesPerBlock)
}

// firstEntry is the number of the first block of entries, firstFence that of
// the first block of fences.
func (h header) firstEntry() int64 { return 1 + h.nameBlocks() }
func (h header) firstFence() int64 { return h.firstEntry() + h.entryBlocks() }
func (h header) blocks() int64     { return h.firstFence() + h.fenceBlocks() }
func (h header) bytes() int64      { return h.blocks() * blockBytes }

// encode returns block 0, sealed.
func (h header) encode() *block {
	var b block
	copy(b[:], fileMagic)
	binary.LittleEndian.PutUint16(b[4:], fileVersion)
	binary.LittleEndian.PutUint64(b[8:], h.number)
	binary.LittleEndian.PutUint64(b[16:], h.entries)
	binary.LittleEndian.PutUint32(b[24:], h.packs)
	binary.LittleEndian.PutUint32(b[28:], h.sum)
	b.Seal(0)
	return &b
}

// parseHeader reads block 0 of a file of size bytes.
func parseHeader(b *block, size int64) (header, error) {
	if string(b[:4]) != fileMagic {
		return header{}, errMagic
	}
	if v := binary.LittleEndian.Uint16(b[4:]); v != fileVersion {
		return header{}, fmt.Errorf("%w: %d, this program reads %d", errVersion, v, fileVersion)
	}
	if err := b.Check(0); err != nil {
		return header{}, err
	}
	h := header{
		number:  binary.LittleEndian.Uint64(b[8:]),
		entries: binary.LittleEndian.Uint64(b[16:]),
		packs:   binary.LittleEndian.Uint32(b[24:]),
		sum:     binary.LittleEndian.Uint32(b[28:]),
	}
	// The counts are believed only as far as the file is long.
	if h.entries > uint64(size)/entryBytes || size/blockBytes > math.MaxUint32 || h.bytes() != size {
		return header{}, fmt.Errorf("%w: %d bytes, %d entries, %d packs", errSize, size, h.entries, h.packs)
	}
	if *h.encode() != *b || h.number == 0 || h.packs == 0 {
		return header{}, errHeader
	}
	return h, nil
}
