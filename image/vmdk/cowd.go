package vmdk

import (
	"encoding/binary"
	"fmt"
	"io"

	"holdfast/image/internal/fault"
	"holdfast/image/internal/layer"
)

const (
	cowdMagic   = "COWD"
	cowdVersion = 1

	// cowdHeader is how long the header is at least; four sectors are kept for it.
	cowdHeader  = 32
	cowdEntries = 4096 // of a grain table
)

// openCOWD opens an extent of kind VMFSSPARSE, which ESXi writes for snapshots on
// VMFS before version 6.
//
// Its header, little-endian, lengths and places in sectors:
//
//	 0  "COWD"
//	 4  uint32 version, 1
//	 8  uint32 flags
//	12  uint32 capacity
//	16  uint32 grain size, 1 as ESXi writes it
//	20  uint32 place of the grain directory
//	24  uint32 entries of the directory
//	28  uint32 the next free sector
//
// Behind it are who the parent is and a description, which the descriptor file
// says as well. A grain table has 4096 entries, and the directory and the tables
// are uint32 sectors, 0 where there is nothing. Nothing says "zeros".
//
// Source: VMware Virtual Disk Format 5.0, "ESX Server Sparse Extents".
func openCOWD(ra io.ReaderAt, size int64, c *caches) (*sparse, error) {
	b := make([]byte, cowdHeader)
	if err := layer.ReadFull(ra, b, 0); err != nil {
		return nil, fmt.Errorf("COWD header: %w", err)
	}
	word := func(off int) int64 { return int64(binary.LittleEndian.Uint32(b[off:])) }
	version, capacity, grain, directory, entries := word(4), word(12), word(16), word(20), word(24)
	bad := func(what string, got int64) error {
		return fmt.Errorf("%w: COWD header: %s is %d", fault.ErrDamaged, what, got)
	}
	switch {
	case string(b[:len(cowdMagic)]) != cowdMagic:
		return nil, fmt.Errorf("%w: no COWD header", fault.ErrDamaged)
	case version != cowdVersion:
		return nil, fmt.Errorf("COWD extent of version %d is %w", version, fault.ErrUnsupported)
	case capacity == 0:
		return nil, bad("capacity in sectors", capacity)
	case grain == 0 || grain > maxGrainSectors || grain&(grain-1) != 0:
		return nil, bad("grain size in sectors", grain)
	case directory == 0:
		return nil, bad("place of the grain directory", directory)
	}
	s := newSparse(ra, size, capacity, grain, layout{
		entryBytes: 4,
		perTable:   cowdEntries,
		tableOf:    func(e uint64) (int64, error) { return int64(e) * sectorSize, nil },
		grainOf: func(e uint64) (int64, error) {
			if e != grainAbsent && int64(e) <= directory {
				return 0, fmt.Errorf("%w: it lies in the header or the grain directory", fault.ErrDamaged)
			}
			return int64(e), nil
		},
	}, c)
	if entries < s.directoryEntries() {
		return nil, bad("number of entries of the grain directory", entries)
	}
	return s, s.useDirectory(uint64(directory))
}
