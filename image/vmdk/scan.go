package vmdk

import (
	"encoding/binary"
	"fmt"
	"sort"

	"holdfast/image/internal/fault"
	"holdfast/image/internal/layer"
)

// Kinds of a marker that is not a grain's.
const (
	markerEnd       = 0
	markerTable     = 1
	markerDirectory = 2
	markerFooter    = 3
)

// maxListed bounds the grains of a stream without a directory: half a TiB of
// data with the usual grain, 128 MiB of memory.
const maxListed = 8 << 20

// placed is where a grain lies.
type placed struct {
	grain  int64
	sector uint32
}

// findDirectory finds the directory of an extent whose header says that it is
// at the end. The footer stands before the end-of-stream marker; if it is not
// there, because the file was padded or the writer wrote none, the stream is
// walked from the front.
func (s *sparse) findDirectory() error {
	if foot := s.fileBytes - 2*sectorSize; foot > sectorSize {
		if f, err := readHeader(s.ra, foot); err == nil && f.directoryOffset != directoryAtEnd {
			return s.useDirectory(f.directoryOffset)
		}
	}
	if !s.h.compressed() {
		return fmt.Errorf("%w: no footer, which would say where the grain directory is", fault.ErrTruncated)
	}
	return s.scan()
}

// scan walks the markers of a stream up to its directory. A stream that ends
// without one is listed grain by grain.
func (s *sparse) scan() error {
	s.listed = []placed{}
	at := int64(max(s.h.overhead, 1))
	if at < 0 {
		return fmt.Errorf("%w: overhead of %d sectors", fault.ErrDamaged, s.h.overhead)
	}
	var b [sectorSize]byte
	for {
		if at >= s.fileBytes/sectorSize {
			return fmt.Errorf("%w: the stream has no end marker", fault.ErrTruncated)
		}
		if err := layer.ReadFull(s.ra, b[:], at*sectorSize); err != nil {
			return err
		}
		value, size := binary.LittleEndian.Uint64(b[:]), int64(binary.LittleEndian.Uint32(b[8:]))
		if size != 0 {
			if err := s.list(value, at); err != nil {
				return err
			}
			at += (markerBytes + size + sectorSize - 1) / sectorSize
			continue
		}
		switch kind := binary.LittleEndian.Uint32(b[12:]); kind {
		case markerEnd:
			return nil
		case markerDirectory:
			s.listed = nil
			return s.useDirectory(uint64(at + 1))
		case markerTable, markerFooter:
			if value > uint64(s.fileBytes/sectorSize) {
				return fmt.Errorf("%w: a marker of %d sectors at sector %d", fault.ErrTruncated, value, at)
			}
			at += 1 + int64(value)
		default:
			return fmt.Errorf("%w: a marker of kind %d at sector %d", fault.ErrDamaged, kind, at)
		}
	}
}

// list notes the grain that begins at a disk sector and lies at a file sector.
func (s *sparse) list(disk uint64, at int64) error {
	g := int64(disk / s.h.grainSectors)
	switch {
	case disk >= s.h.capacity || disk%s.h.grainSectors != 0:
		return fmt.Errorf("%w: a grain at disk sector %d", fault.ErrDamaged, disk)
	case len(s.listed) > 0 && s.listed[len(s.listed)-1].grain >= g:
		return fmt.Errorf("%w: the grain at disk sector %d is out of order", fault.ErrDamaged, disk)
	case len(s.listed) == maxListed || at > int64(^uint32(0)):
		return fmt.Errorf("stream of more than %d grains without a directory is %w", maxListed, fault.ErrUnsupported)
	}
	s.listed = append(s.listed, placed{g, uint32(at)})
	return nil
}

// tableOfListed makes grain table i from the list, nil if it has no entry.
func (s *sparse) tableOfListed(i int64) *table {
	var t *table
	for _, p := range s.listed[s.listedFrom(i*entriesPerTable):] {
		if p.grain >= (i+1)*entriesPerTable {
			break
		}
		if t == nil {
			t = new(table)
		}
		t[p.grain%entriesPerTable] = int64(p.sector)
	}
	return t
}

// listedFrom is the index of the first listed grain from g on.
func (s *sparse) listedFrom(g int64) int {
	return sort.Search(len(s.listed), func(k int) bool { return s.listed[k].grain >= g })
}
