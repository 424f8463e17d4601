package refcount

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"holdfast/repo/blockfile"
)

const (
	fileMagic   = "HFrf"
	fileVersion = 1
)

var (
	errMagic   = errors.New("not a file of reference counts")
	errVersion = errors.New("version is not known")
	errHeader  = errors.New("header contradicts itself")
	errSize    = errors.New("size is not what the header says")
)

// header is block 0 of a file. It is written last, when all the rest is known,
// and so stands for every byte of the file.
type header struct {
	number uint64
	rows   uint64
	sum    uint32 // CRC of the CRCs of the other blocks, in order
}

func (h header) rowBlocks() int64 { return blockfile.CeilDiv(int64(h.rows), rowsPerBlock) }
func (h header) fenceBlocks() int64 {
	return blockfile.CeilDiv(h.rowBlocks(), blockfile.FencesPerBlock)
}

// firstFence is the number of the first block of fences; that of the first
// block of rows is 1.
func (h header) firstFence() int64 { return 1 + h.rowBlocks() }
func (h header) blocks() int64     { return h.firstFence() + h.fenceBlocks() }
func (h header) bytes() int64      { return h.blocks() * blockBytes }

// encode returns block 0, sealed.
func (h header) encode() *block {
	var b block
	copy(b[:], fileMagic)
	binary.LittleEndian.PutUint16(b[4:], fileVersion)
	binary.LittleEndian.PutUint64(b[8:], h.number)
	binary.LittleEndian.PutUint64(b[16:], h.rows)
	binary.LittleEndian.PutUint32(b[24:], h.sum)
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
		number: binary.LittleEndian.Uint64(b[8:]),
		rows:   binary.LittleEndian.Uint64(b[16:]),
		sum:    binary.LittleEndian.Uint32(b[24:]),
	}
	// The count is believed only as far as the file is long.
	if h.rows > uint64(size)/rowBytes || size/blockBytes > math.MaxUint32 || h.bytes() != size {
		return header{}, fmt.Errorf("%w: %d bytes, %d rows", errSize, size, h.rows)
	}
	if *h.encode() != *b || h.number == 0 || h.rows == 0 {
		return header{}, errHeader
	}
	return h, nil
}
