package vmdk

import (
	"encoding/binary"
	"fmt"
	"io"
	"math/bits"

	"holdfast/image/internal/fault"
	"holdfast/image/internal/layer"
)

const (
	sectorSize = 512

	// maxSizeBytes is the largest disk vSphere knows, 62 TiB. Nothing larger is
	// written.
	maxSizeBytes = 62 << 40

	// maxReadSectors bounds what a header may claim, at 1 PiB.
	maxReadSectors = 1 << 50 / sectorSize

	sparseMagic = "KDMV"

	// entriesPerTable is fixed by the format, though the header repeats it.
	entriesPerTable = 512
	tableBytes      = entriesPerTable * 4

	// directoryAtEnd in the header sends the reader to the footer.
	directoryAtEnd = ^uint64(0)

	minGrainSectors, maxGrainSectors = 8, 2048
)

// Bits of header.flags.
const (
	flagNewlines   = 1 << 0 // the newline check is valid
	flagRedundant  = 1 << 1 // the redundant directory is kept too
	flagZeroGrains = 1 << 2 // table entry 1 is a grain of zeros
	flagCompressed = 1 << 16
	flagMarkers    = 1 << 17
)

const compressionDeflate = 1

// newlines is what a transfer in text mode would change.
const newlines = "\n \r\n"

// header is the first sector of a hosted sparse extent, and its footer.
// Source: VMware Virtual Disk Format 5.0, "Hosted Sparse Extent Header".
type header struct {
	version           uint32 // at 4
	flags             uint32 // 8
	capacity          uint64 // 12; this and what follows in sectors
	grainSectors      uint64 // 20
	descriptorOffset  uint64 // 28
	descriptorSectors uint64 // 36
	entriesPerTable   uint32 // 44; a number
	redundantOffset   uint64 // 48
	directoryOffset   uint64 // 56
	overhead          uint64 // 64; where grains may begin
	// at 72 a byte that is 1 while the disk is open for writing, then newlines
	compression uint16 // 77
}

func (h *header) encode() []byte {
	b := make([]byte, sectorSize)
	le := binary.LittleEndian
	copy(b, sparseMagic)
	le.PutUint32(b[4:], h.version)
	le.PutUint32(b[8:], h.flags)
	le.PutUint64(b[12:], h.capacity)
	le.PutUint64(b[20:], h.grainSectors)
	le.PutUint64(b[28:], h.descriptorOffset)
	le.PutUint64(b[36:], h.descriptorSectors)
	le.PutUint32(b[44:], h.entriesPerTable)
	le.PutUint64(b[48:], h.redundantOffset)
	le.PutUint64(b[56:], h.directoryOffset)
	le.PutUint64(b[64:], h.overhead)
	copy(b[73:], newlines)
	le.PutUint16(b[77:], h.compression)
	return b
}

func decodeHeader(b []byte) header {
	le := binary.LittleEndian
	return header{
		version:           le.Uint32(b[4:]),
		flags:             le.Uint32(b[8:]),
		capacity:          le.Uint64(b[12:]),
		grainSectors:      le.Uint64(b[20:]),
		descriptorOffset:  le.Uint64(b[28:]),
		descriptorSectors: le.Uint64(b[36:]),
		entriesPerTable:   le.Uint32(b[44:]),
		redundantOffset:   le.Uint64(b[48:]),
		directoryOffset:   le.Uint64(b[56:]),
		overhead:          le.Uint64(b[64:]),
		compression:       le.Uint16(b[77:]),
	}
}

// readHeader reads and checks the header or footer at byte off.
func readHeader(ra io.ReaderAt, off int64) (*header, error) {
	b := make([]byte, sectorSize)
	if err := layer.ReadFull(ra, b, off); err != nil {
		return nil, fmt.Errorf("sparse header: %w", err)
	}
	if string(b[:4]) != sparseMagic {
		return nil, fmt.Errorf("%w: no sparse header", fault.ErrDamaged)
	}
	h := decodeHeader(b)
	if h.flags&flagNewlines != 0 && string(b[73:77]) != newlines {
		return nil, fmt.Errorf("%w: it was copied as text, which changed its bytes", fault.ErrDamaged)
	}
	return &h, h.check()
}

func (h *header) check() error {
	bad := func(what string, got uint64) error {
		return fmt.Errorf("%w: sparse header: %s is %d", fault.ErrDamaged, what, got)
	}
	switch {
	case h.version < 1 || h.version > 3:
		return fmt.Errorf("sparse extent version %d is %w", h.version, fault.ErrUnsupported)
	case h.capacity == 0 || h.capacity > maxReadSectors:
		return bad("capacity in sectors", h.capacity)
	case bits.OnesCount64(h.grainSectors) != 1 || h.grainSectors < minGrainSectors || h.grainSectors > maxGrainSectors:
		return bad("grain size in sectors", h.grainSectors)
	case h.entriesPerTable != entriesPerTable:
		return bad("number of entries of a grain table", uint64(h.entriesPerTable))
	case h.compression > compressionDeflate:
		return fmt.Errorf("sparse extent with compression %d is %w", h.compression, fault.ErrUnsupported)
	case h.flags&flagCompressed != 0 && (h.compression == 0 || h.flags&flagMarkers == 0):
		return fmt.Errorf("sparse extent compressed without markers is %w", fault.ErrUnsupported)
	}
	return nil
}

func (h *header) compressed() bool { return h.flags&flagCompressed != 0 }

// tables is the number of grain tables, and of entries of the directory.
func (h *header) tables() int64 {
	perTable := h.grainSectors * entriesPerTable
	return int64((h.capacity + perTable - 1) / perTable)
}
