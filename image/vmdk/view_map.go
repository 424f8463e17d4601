package vmdk

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/bits"
	"sort"
)

// grainMap says where in a StreamView everything lies.
type grainMap struct {
	tables    []viewTable // that have grains, in rising order
	directory int64       // sector of the marker before the directory
	sectors   int64       // of the whole file
}

// viewTable is the part of a file that a grain table speaks of: its grains, and
// the table behind them.
type viewTable struct {
	number  uint32
	at      uint32 // sector of its first grain
	present [entriesPerTable / 64]uint64
}

// mapGrains asks src where data lies. The disk has so many tables.
func mapGrains(ctx context.Context, src Source, tables int64) (*grainMap, error) {
	m := &grainMap{directory: streamOverhead}
	for off := int64(0); off < src.Size(); {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		start, end, err := src.NextData(off)
		if err == io.EOF {
			break
		}
		if err == nil {
			err = checkData(src, off, start, end)
		}
		if err != nil {
			return nil, err
		}
		if err := m.add(start/streamGrainBytes, (end-1)/streamGrainBytes+1); err != nil {
			return nil, err
		}
		off = end
	}
	m.endTable()
	m.sectors = m.directory + 1 + sectorsOf(tables*4) + 3
	return m, m.fits(m.sectors)
}

// add notes that the grains in [first, end), none before the last one added,
// are present.
func (m *grainMap) add(first, end int64) error {
	for first < end {
		number := first / entriesPerTable
		if n := len(m.tables); n == 0 || int64(m.tables[n-1].number) != number {
			m.endTable()
			if err := m.fits(m.directory); err != nil {
				return err
			}
			m.tables = append(m.tables, viewTable{number: uint32(number), at: uint32(m.directory)})
		}
		next := min(end, (number+1)*entriesPerTable)
		m.tables[len(m.tables)-1].mark(first%entriesPerTable, next-number*entriesPerTable)
		first = next
	}
	return nil
}

// mark notes that entries [k, end) are present.
func (t *viewTable) mark(k, end int64) {
	for k < end {
		n := min(64-k%64, end-k)
		t.present[k/64] |= ^uint64(0) >> (64 - n) << (k % 64)
		k += n
	}
}

// endTable makes room for the last table and its grains.
func (m *grainMap) endTable() {
	if n := len(m.tables); n > 0 {
		m.directory += m.tables[n-1].sectors() + 1 + tableBytes/sectorSize
	}
}

func (m *grainMap) fits(sectors int64) error {
	if sectors > maxFileSectors {
		return fmt.Errorf("streamOptimized VMDK: the disk has more than 2 TiB of data: %w", ErrTooLarge)
	}
	return nil
}

// tableAt returns the table whose part of the file a sector lies in.
func (m *grainMap) tableAt(sector int64) *viewTable {
	i := sort.Search(len(m.tables), func(i int) bool { return int64(m.tables[i].at) > sector })
	return &m.tables[i-1]
}

// readDirectory fills p from byte off of the grain directory.
func (m *grainMap) readDirectory(p []byte, off int64) {
	clear(p)
	i := sort.Search(len(m.tables), func(i int) bool { return int64(m.tables[i].number) >= off/4 })
	for ; i < len(m.tables); i++ {
		t := &m.tables[i]
		at := int64(t.number)*4 - off
		if at >= int64(len(p)) {
			return
		}
		var e [4]byte
		binary.LittleEndian.PutUint32(e[:], uint32(int64(t.at)+t.sectors()+1))
		copy(p[max(at, 0):], e[max(-at, 0):])
	}
}

// sectors is how much of the file the grains take.
func (t *viewTable) sectors() int64 {
	n := 0
	for _, word := range t.present {
		n += bits.OnesCount64(word)
	}
	return int64(n) * viewGrainSectors
}

// grain is the number in the disk of the k-th grain that is present.
func (t *viewTable) grain(k int64) int64 {
	for i, word := range t.present {
		n := int64(bits.OnesCount64(word))
		if k >= n {
			k -= n
			continue
		}
		for ; k > 0; k-- {
			word &= word - 1
		}
		return int64(t.number)*entriesPerTable + int64(i)*64 + int64(bits.TrailingZeros64(word))
	}
	panic("vmdk: a table has fewer grains than its place in the file")
}

// encode is the marker of the table, and the table.
func (t *viewTable) encode() []byte {
	b := make([]byte, sectorSize+tableBytes)
	copy(b, marker(markerTable, tableBytes))
	at := t.at
	for k := range entriesPerTable {
		if t.present[k/64]>>(k%64)&1 != 0 {
			binary.LittleEndian.PutUint32(b[sectorSize+4*k:], at)
			at += viewGrainSectors
		}
	}
	return b
}
