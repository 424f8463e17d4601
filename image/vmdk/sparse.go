package vmdk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"

	"holdfast/image/internal/fault"
	"holdfast/image/internal/lru"
)

const (
	// What one open disk keeps, of all its extents: directory pages, grain tables
	// (each speaks of 32 MiB with the usual grain) and unpacked grains.
	pageBytes      = 16 << 10
	cachedPages    = 64
	cachedTables   = 256
	cachedUnpacked = 16

	// maxRunGrains cuts an extent of NextData, 1 GiB with the usual grain, so
	// that no call reads the tables of a whole disk.
	maxRunGrains = 16 << 10
)

// Entries of a grain table that are no sector.
const (
	grainAbsent = 0
	grainZeros  = 1
)

// table is one grain table: the sector of each grain, or one of the above.
type table [entriesPerTable]uint32

// sparse is a hosted sparse extent. Tables are read when they are needed, so
// memory does not follow the size in the header.
type sparse struct {
	ra         io.ReaderAt
	fileBytes  int64
	h          *header
	sizeBytes  int64
	grainBytes int64
	grains     int64
	dirs       []int64  // where directories lie, the one to prefer first
	listed     []placed // instead of directories, from scan

	*caches
}

// caches is what the extents of a disk share, so that memory does not follow
// their number: a disk of some TiB may have thousands.
type caches struct {
	pages    *lru.Cache[place, []byte]
	tables   *lru.Cache[place, *table]
	unpacked *lru.Cache[place, []byte]
	inflate  sync.Pool // of *inflater
}

// place names what is kept: a byte, a sector, a grain of an extent.
type place struct {
	s  *sparse
	at int64
}

func newCaches() *caches {
	return &caches{
		pages:    lru.New[place, []byte](cachedPages),
		tables:   lru.New[place, *table](cachedTables),
		unpacked: lru.New[place, []byte](cachedUnpacked),
	}
}

func openSparse(ra io.ReaderAt, size int64, c *caches) (*sparse, error) {
	h, err := readHeader(ra, 0)
	if err != nil {
		return nil, err
	}
	s := &sparse{
		ra:         ra,
		fileBytes:  size,
		h:          h,
		sizeBytes:  int64(h.capacity) * sectorSize,
		grainBytes: int64(h.grainSectors) * sectorSize,
		caches:     c,
	}
	s.grains = (s.sizeBytes + s.grainBytes - 1) / s.grainBytes
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

// useDirectory adds the grain directory at a sector, if the file holds it.
func (s *sparse) useDirectory(sector uint64) error {
	need := s.h.tables() * 4
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
	if err := readFull(s.ra, b, int64(off)*sectorSize); err != nil {
		return "", fmt.Errorf("descriptor: %w", err)
	}
	return string(b), nil
}

// table returns grain table i, nil where nothing it speaks of is present. A
// table that cannot be right is taken from the redundant directory if there is
// one.
func (s *sparse) table(i int64) (*table, error) {
	if s.listed != nil {
		return s.tableOfListed(i), nil
	}
	var first error
	for _, dir := range s.dirs {
		at, err := s.tableSector(dir, i)
		if err == nil && at == 0 {
			return nil, nil
		}
		var t *table
		if err == nil {
			t, err = s.tables.Get(place{s, at}, func() (*table, error) { return s.loadTable(at, i) })
		}
		if err == nil {
			return t, nil
		}
		if !errors.Is(err, fault.ErrTruncated) && !errors.Is(err, fault.ErrDamaged) {
			return nil, err
		}
		if first == nil {
			first = err
		}
	}
	return nil, fmt.Errorf("grain table %d: %w", i, first)
}

// nextTable returns the first table from i on that is present, or how many
// tables there are. A header may claim half a billion tables, all absent, so
// this looks at the entries of a page at once.
func (s *sparse) nextTable(i int64) (int64, error) {
	if s.listed != nil {
		k := s.listedFrom(i * entriesPerTable)
		if k == len(s.listed) {
			return s.h.tables(), nil
		}
		return s.listed[k].grain / entriesPerTable, nil
	}
	for n := s.h.tables(); i < n; {
		page, err := s.directoryPage(s.dirs[0] + 4*i)
		if err != nil {
			return 0, err
		}
		page = page[:min(int64(len(page)), 4*(n-i))]
		for k, b := range page {
			if b != 0 {
				return i + int64(k)/4, nil
			}
		}
		i += int64(len(page)) / 4
	}
	return i, nil
}

// tableSector reads entry i of the directory at byte dir.
func (s *sparse) tableSector(dir, i int64) (int64, error) {
	page, err := s.directoryPage(dir + 4*i)
	if err != nil {
		return 0, err
	}
	return int64(binary.LittleEndian.Uint32(page)), nil
}

// directoryPage returns what the file holds from byte off to the end of a page.
func (s *sparse) directoryPage(off int64) ([]byte, error) {
	start := off / pageBytes * pageBytes
	page, err := s.pages.Get(place{s, start}, func() ([]byte, error) {
		b := make([]byte, min(pageBytes, s.fileBytes-start))
		return b, readFull(s.ra, b, start)
	})
	if err != nil {
		return nil, err
	}
	return page[off-start:], nil
}

// loadTable reads grain table i at a sector and checks what it says.
func (s *sparse) loadTable(sector, i int64) (*table, error) {
	var b [tableBytes]byte
	if err := readFull(s.ra, b[:], sector*sectorSize); err != nil {
		return nil, err
	}
	t := new(table)
	for k := range min(entriesPerTable, s.grains-i*entriesPerTable) {
		e := binary.LittleEndian.Uint32(b[4*k:])
		switch {
		case e == grainZeros && s.h.flags&flagZeroGrains == 0:
			return nil, fmt.Errorf("%w: grain %d lies in the header", fault.ErrDamaged, i*entriesPerTable+k)
		case e > grainZeros && int64(e)*sectorSize >= s.fileBytes:
			return nil, fmt.Errorf("%w: grain %d lies at sector %d", fault.ErrTruncated, i*entriesPerTable+k, e)
		}
		t[k] = e
	}
	return t, nil
}

// ReadAt is called for what lies in the extent only.
func (s *sparse) ReadAt(p []byte, off int64) (n int, err error) {
	var t *table
	have := int64(-1) // the number of t
	for n < len(p) {
		at := off + int64(n)
		g, in := at/s.grainBytes, at%s.grainBytes
		if have != g/entriesPerTable {
			have = g / entriesPerTable
			if t, err = s.table(have); err != nil {
				return n, err
			}
		}
		piece := p[n:min(len(p), n+int(s.grainBytes-in))]
		switch e := t.entry(g); {
		case e == grainAbsent || e == grainZeros:
			clear(piece)
		case s.h.compressed():
			err = s.readPacked(piece, g, in, e)
		default:
			piece = p[n:min(len(p), n+int(s.runBytes(t, g)-in))]
			err = readFull(s.ra, piece, int64(e)*sectorSize+in)
		}
		if err != nil {
			return n, fmt.Errorf("grain %d: %w", g, err)
		}
		n += len(piece)
	}
	return n, nil
}

// entry is the entry of grain g, which t speaks of unless it is nil.
func (t *table) entry(g int64) uint32 {
	if t == nil {
		return grainAbsent
	}
	return t[g%entriesPerTable]
}

// runBytes is how much follows in the file from the start of grain g before the
// order of grains breaks or the table ends.
func (s *sparse) runBytes(t *table, g int64) int64 {
	k, first := g%entriesPerTable, t.entry(g)
	n := int64(1)
	for k+n < entriesPerTable && int64(t[k+n]) == int64(first)+n*int64(s.h.grainSectors) {
		n++
	}
	return n * s.grainBytes
}

// NextData has the meaning of image.Disk, with grains as its unit.
func (s *sparse) NextData(off int64) (start, end int64, err error) {
	first := int64(-1)
	g := off / s.grainBytes
scan:
	for g < s.grains {
		i := g / entriesPerTable
		if first < 0 {
			if i, err = s.nextTable(i); err != nil {
				return 0, 0, err
			}
			if g = max(g, i*entriesPerTable); g >= s.grains {
				break
			}
		}
		t, err := s.table(i)
		if err != nil {
			return 0, 0, err
		}
		last := min(s.grains, (i+1)*entriesPerTable)
		for ; g < last; g++ {
			e := t.entry(g)
			switch data := e != grainAbsent && e != grainZeros; {
			case data && first < 0:
				first = g
			case !data && first >= 0:
				break scan
			}
		}
		if first >= 0 && g-first >= maxRunGrains {
			break
		}
	}
	if first < 0 {
		return 0, 0, io.EOF
	}
	return max(off, first*s.grainBytes), min(g*s.grainBytes, s.sizeBytes), nil
}
