package vmdk

import (
	"encoding/binary"
	"fmt"
	"io"

	"holdfast/image/internal/fault"
	"holdfast/image/internal/layer"
)

const (
	seMagic         = 0x00000000cafebabe
	seVolatileMagic = 0x00000000cafecafe
	seVersion       = 0x0000000200000001

	seTableSectors = 64
	seEntries      = seTableSectors * sectorSize / 8 // of a grain table
)

// The words of the constant header of a seSparse extent, uint64 each, and what
// we use of them. Places and lengths are in sectors.
const (
	seWordMagic         = 0
	seWordVersion       = 1
	seWordCapacity      = 2
	seWordGrain         = 3 // grain size, 8
	seWordTable         = 4 // size of a grain table, 64
	seWordFlags         = 5 // 0
	seWordVolatile      = 10
	seWordDirectory     = 16
	seWordDirectorySize = 17
	seWordTables        = 18 // all tables lie here
	seWordGrains        = 24 // all grains lie here
	seWords             = 26
)

// States of an entry, in its highest four bits.
const (
	seUnmapped  = 1 // by the guest, reads as zeros
	seZeros     = 2
	seAllocated = 3

	seTableAllocated = 1 // of an entry of the directory
)

// openSeSparse opens an extent of kind SESPARSE, which ESXi writes for snapshots
// on VMFS 6 and of disks over 2 TiB.
//
// All numbers are uint64, little-endian. The constant header, in the first
// sector, says where everything lies; the volatile header says whether the
// journal has to be replayed, which we do not do: the disk was not closed then.
//
//	directory  per table: 0 absent, or 1 in the highest four bits and the number
//	           of the table in the lowest 32
//	tables     4096 entries: the state of a grain in the highest four bits; for
//	           an allocated one bits 48 to 59 are the lowest twelve bits of its
//	           number, bits 0 to 47 the others
//	grains     by their number
//
// Source: the layout as QEMU's reader of it documents it; VMware has published
// none.
func openSeSparse(ra io.ReaderAt, size int64, c *caches) (*sparse, error) {
	h, err := readSeHeader(ra)
	if err != nil {
		return nil, err
	}
	grain := int64(h[seWordGrain])
	s := newSparse(ra, size, int64(h[seWordCapacity]), grain, layout{
		entryBytes: 8,
		perTable:   seEntries,
		tableOf:    h.tableOf,
		grainOf:    h.grainOf,
	}, c)
	if have := h[seWordDirectorySize]; have < uint64(sectorsOf(s.directoryEntries()*s.entryBytes)) {
		return nil, fmt.Errorf("%w: seSparse header: a grain directory of %d sectors for %d tables",
			fault.ErrDamaged, have, s.directoryEntries())
	}
	return s, s.useDirectory(h[seWordDirectory])
}

type seHeader [seWords]uint64

func readSeHeader(ra io.ReaderAt) (*seHeader, error) {
	var b [sectorSize]byte
	if err := layer.ReadFull(ra, b[:], 0); err != nil {
		return nil, fmt.Errorf("seSparse header: %w", err)
	}
	var h seHeader
	for i := range h {
		h[i] = binary.LittleEndian.Uint64(b[8*i:])
	}
	if err := h.check(); err != nil {
		return nil, err
	}
	if err := layer.ReadFull(ra, b[:], int64(h[seWordVolatile])*sectorSize); err != nil {
		return nil, fmt.Errorf("seSparse volatile header: %w", err)
	}
	if m := binary.LittleEndian.Uint64(b[:]); m != seVolatileMagic {
		return nil, fmt.Errorf("%w: no seSparse volatile header", fault.ErrDamaged)
	}
	if replay := binary.LittleEndian.Uint64(b[24:]); replay != 0 {
		return nil, fmt.Errorf("seSparse extent that was not closed, so that its journal has to be replayed, is %w", fault.ErrUnsupported)
	}
	return &h, nil
}

func (h *seHeader) check() error {
	unsupported := func(what string, got uint64) error {
		return fmt.Errorf("seSparse extent with %s %#x is %w", what, got, fault.ErrUnsupported)
	}
	bad := func(what string, got uint64) error {
		return fmt.Errorf("%w: seSparse header: %s is %d", fault.ErrDamaged, what, got)
	}
	grain := h[seWordGrain]
	switch {
	case h[seWordMagic] != seMagic:
		return fmt.Errorf("%w: no seSparse header", fault.ErrDamaged)
	case h[seWordVersion] != seVersion:
		return unsupported("version", h[seWordVersion])
	case h[seWordFlags] != 0:
		return unsupported("flags", h[seWordFlags])
	case h[seWordTable] != seTableSectors:
		return unsupported("grain tables of so many sectors:", h[seWordTable])
	case h[seWordCapacity] == 0 || h[seWordCapacity] > maxReadSectors:
		return bad("capacity in sectors", h[seWordCapacity])
	case grain < minGrainSectors || grain > maxGrainSectors || grain&(grain-1) != 0:
		return bad("grain size in sectors", grain)
	}
	for _, w := range []struct {
		what string
		word int
	}{
		{"place of the volatile header", seWordVolatile},
		{"place of the grain tables", seWordTables},
		{"place of the grains", seWordGrains},
	} {
		if h[w.word] == 0 || h[w.word] > maxReadSectors || w.word == seWordGrains && h[w.word] <= grainZeros {
			return bad(w.what, h[w.word])
		}
	}
	return nil
}

func (h *seHeader) tableOf(e uint64) (int64, error) {
	if e>>32 != seTableAllocated<<28 {
		return 0, fmt.Errorf("%w: entry %016x of the grain directory", fault.ErrDamaged, e)
	}
	return int64(h[seWordTables]+e&0xffffffff*seTableSectors) * sectorSize, nil
}

func (h *seHeader) grainOf(e uint64) (int64, error) {
	switch state := e >> 60; {
	case e == 0:
		return grainAbsent, nil
	case state == seUnmapped || state == seZeros:
		return grainZeros, nil
	case state == seAllocated:
		if n := e>>48&0xfff | e&(1<<48-1)<<12; n <= maxReadSectors {
			return int64(h[seWordGrains] + n*h[seWordGrain]), nil
		}
	}
	return 0, fmt.Errorf("%w: entry %016x", fault.ErrDamaged, e)
}
