package vmdk

import (
	"fmt"
	"io"

	"holdfast/image/internal/fault"
	"holdfast/image/internal/layer"
)

// openHosted opens the sparse extent of VMware's hosted products, and of OVF.
func openHosted(ra io.ReaderAt, size int64, c *caches) (*sparse, error) {
	h, err := readHeader(ra, 0)
	if err != nil {
		return nil, err
	}
	s := newSparse(ra, size, int64(h.capacity), int64(h.grainSectors), h.layout(), c)
	s.h = h
	if h.directoryOffset == directoryAtEnd {
		return s, s.findDirectory()
	}
	err = s.useDirectory(h.directoryOffset)
	if h.flags&flagRedundant != 0 {
		if err2 := s.useDirectory(h.redundantOffset); err2 == nil {
			err = nil
		}
	}
	return s, err
}

func (h *header) layout() layout {
	return layout{
		entryBytes: 4,
		perTable:   entriesPerTable,
		tableOf:    func(e uint64) (int64, error) { return int64(e) * sectorSize, nil },
		grainOf: func(e uint64) (int64, error) {
			if e == grainZeros && h.flags&flagZeroGrains == 0 {
				return 0, fmt.Errorf("%w: it lies in the header", fault.ErrDamaged)
			}
			return int64(e), nil
		},
	}
}

// useDirectory adds the grain directory at a sector, if the file holds it.
func (s *sparse) useDirectory(sector uint64) error {
	need := s.directoryEntries() * s.entryBytes
	if sector == 0 || sector > uint64(s.fileBytes/sectorSize) || s.fileBytes-int64(sector)*sectorSize < need {
		return fmt.Errorf("%w: grain directory of %d bytes at sector %d", fault.ErrTruncated, need, sector)
	}
	s.dirs = append(s.dirs, int64(sector)*sectorSize)
	return nil
}

// descriptor returns the text inside the extent, "" if it has none.
func (s *sparse) descriptor() (string, error) {
	off, n := s.h.descriptorOffset, s.h.descriptorSectors
	switch {
	case off == 0 || n == 0:
		return "", nil
	case n > maxDescriptor/sectorSize:
		return "", fmt.Errorf("%w: a descriptor of %d sectors", fault.ErrDamaged, n)
	case off > uint64(s.fileBytes/sectorSize):
		return "", fmt.Errorf("%w: descriptor at sector %d", fault.ErrTruncated, off)
	}
	b := make([]byte, n*sectorSize)
	if err := layer.ReadFull(s.ra, b, int64(off)*sectorSize); err != nil {
		return "", fmt.Errorf("descriptor: %w", err)
	}
	return string(b), nil
}
