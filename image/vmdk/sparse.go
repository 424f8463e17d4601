package vmdk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"

	"holdfast/image/internal/fault"
	"holdfast/image/internal/layer"
	"holdfast/image/internal/lru"
)

const (
	// What one open disk keeps, of all its extents: directory pages, grain tables
	// (each speaks of 32 MiB with the usual grain) and unpacked grains.
	pageBytes      = 16 << 10
	cachedPages    = 64
	cachedTables   = 256
	cachedUnpacked = 16
	cachedLarge    = 2 // unpacked grains of more than the usual size

	// maxRunGrains cuts an extent of NextData, to 1 GiB with the usual grain, so
	// that no call reads the tables of a whole disk.
	maxRunGrains = 16 << 10
)

// Entries of a grain table that are no sector.
const (
	grainAbsent = 0
	grainZeros  = 1
)

// table is 512 neighbouring entries of a grain table, all of a hosted one: the
// sector of each grain, or one of the above.
type table [entriesPerTable]int64

// sparse is an extent of grains that lie wherever its tables say. Tables are
// read when they are needed, so memory does not follow the size in the header.
type sparse struct {
	ra         io.ReaderAt
	fileBytes  int64
	sizeBytes  int64
	grainBytes int64
	grains     int64
	layout

	h      *header  // of a hosted extent
	dirs   []int64  // where directories lie, the one to prefer first
	listed []placed // instead of directories, from scan

	*caches
}

// layout is how the three kinds of extent write directories and tables.
type layout struct {
	entryBytes int64 // of directories and tables: 4 or 8
	perTable   int64 // entries of a grain table, a multiple of entriesPerTable

	// tableOf returns where the table of an entry of the directory, not 0,
	// begins in the file, in bytes.
	tableOf func(entry uint64) (int64, error)

	// grainOf returns what an entry of a grain table says: grainAbsent,
	// grainZeros or the sector of the grain.
	grainOf func(entry uint64) (int64, error)
}

func newSparse(ra io.ReaderAt, fileBytes, sectors, grainSectors int64, l layout, c *caches) *sparse {
	s := &sparse{
		ra:         ra,
		fileBytes:  fileBytes,
		sizeBytes:  sectors * sectorSize,
		grainBytes: grainSectors * sectorSize,
		layout:     l,
		caches:     c,
	}
	s.grains = (s.sizeBytes + s.grainBytes - 1) / s.grainBytes
	return s
}

// tables is how many tables speak of the extent, and directoryEntries how long
// its directory is.
func (s *sparse) tables() int64           { return (s.grains + entriesPerTable - 1) / entriesPerTable }
func (s *sparse) directoryEntries() int64 { return (s.grains + s.perTable - 1) / s.perTable }

// caches is what the extents of a disk share, so that memory does not follow
// their number: a disk of some TiB may have thousands.
type caches struct {
	pages    *lru.Cache[place, []byte]
	tables   *lru.Cache[place, *table]
	unpacked *lru.Cache[place, []byte]
	large    *lru.Cache[place, []byte]
	inflate  sync.Pool // of *inflater
}

// place names what is kept: a byte, a table, a grain of an extent.
type place struct {
	s  *sparse
	at int64
}

func newCaches() *caches {
	return &caches{
		pages:    lru.New[place, []byte](cachedPages),
		tables:   lru.New[place, *table](cachedTables),
		unpacked: lru.New[place, []byte](cachedUnpacked),
		large:    lru.New[place, []byte](cachedLarge),
	}
}

// table returns table i, nil where nothing it speaks of is present. A table that
// cannot be right is taken from the redundant directory if there is one.
func (s *sparse) table(i int64) (*table, error) {
	if s.listed != nil {
		return s.tableOfListed(i), nil
	}
	var first error
	for _, dir := range s.dirs {
		at, err := s.tablePlace(dir, i)
		if err == nil && at == 0 {
			return nil, nil
		}
		var t *table
		if err == nil {
			t, err = s.caches.tables.Get(place{s, i}, func() (*table, error) { return s.loadTable(at, i) })
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
			return s.tables(), nil
		}
		return s.listed[k].grain / entriesPerTable, nil
	}
	perEntry := s.perTable / entriesPerTable
	for e, n := i/perEntry, s.directoryEntries(); e < n; {
		page, err := s.directoryPage(s.dirs[0] + s.entryBytes*e)
		if err != nil {
			return 0, err
		}
		page = page[:min(int64(len(page)), s.entryBytes*(n-e))]
		for k, b := range page {
			if b != 0 {
				return min(max(i, (e+int64(k)/s.entryBytes)*perEntry), s.tables()), nil
			}
		}
		e += int64(len(page)) / s.entryBytes
	}
	return s.tables(), nil
}

// tablePlace is where table i begins by the directory at byte dir, 0 if it is
// absent.
func (s *sparse) tablePlace(dir, i int64) (int64, error) {
	first := i * entriesPerTable
	page, err := s.directoryPage(dir + s.entryBytes*(first/s.perTable))
	if err != nil {
		return 0, err
	}
	e := s.entry(page)
	if e == 0 {
		return 0, nil
	}
	at, err := s.tableOf(e)
	return at + first%s.perTable*s.entryBytes, err
}

// entry decodes the first entry of b.
func (s *sparse) entry(b []byte) uint64 {
	if s.entryBytes == 8 {
		return binary.LittleEndian.Uint64(b)
	}
	return uint64(binary.LittleEndian.Uint32(b))
}

// directoryPage returns what the file holds from byte off to the end of a page.
func (s *sparse) directoryPage(off int64) ([]byte, error) {
	start := off / pageBytes * pageBytes
	page, err := s.pages.Get(place{s, start}, func() ([]byte, error) {
		b := make([]byte, min(pageBytes, s.fileBytes-start))
		return b, layer.ReadFull(s.ra, b, start)
	})
	if err != nil {
		return nil, err
	}
	return page[off-start:], nil
}

// loadTable reads table i at byte off and checks what it says.
func (s *sparse) loadTable(off, i int64) (*table, error) {
	b := make([]byte, entriesPerTable*s.entryBytes)
	if err := layer.ReadFull(s.ra, b, off); err != nil {
		return nil, err
	}
	t := new(table)
	for k := range min(entriesPerTable, s.grains-i*entriesPerTable) {
		at, err := s.grainOf(s.entry(b[k*s.entryBytes:]))
		if err != nil {
			return nil, fmt.Errorf("grain %d: %w", i*entriesPerTable+k, err)
		}
		if at > grainZeros && at >= (s.fileBytes+sectorSize-1)/sectorSize {
			return nil, fmt.Errorf("%w: grain %d lies at sector %d", fault.ErrTruncated, i*entriesPerTable+k, at)
		}
		t[k] = at
	}
	return t, nil
}

// ReadAt is called for what lies in the extent only. What is absent reads as
// zeros.
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
		case s.compressed():
			err = s.readPacked(piece, g, in, e)
		default:
			piece = p[n:min(len(p), n+int(s.runBytes(t, g)-in))]
			err = layer.ReadFull(s.ra, piece, e*sectorSize+in)
		}
		if err != nil {
			return n, fmt.Errorf("grain %d: %w", g, err)
		}
		n += len(piece)
	}
	return n, nil
}

func (s *sparse) compressed() bool { return s.h != nil && s.h.compressed() }

// entry is the entry of grain g, which t speaks of unless it is nil.
func (t *table) entry(g int64) int64 {
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
	for k+n < entriesPerTable && t[k+n] == first+n*(s.grainBytes/sectorSize) {
		n++
	}
	return n * s.grainBytes
}

// run says how the extent is held from byte off, and up to where one table, or
// the directory, says the same.
func (s *sparse) run(off int64) (h held, end int64, err error) {
	g := off / s.grainBytes
	i := g / entriesPerTable
	t, err := s.table(i)
	if err != nil {
		return 0, 0, err
	}
	last := min(s.grains, (i+1)*entriesPerTable)
	if t == nil {
		if i, err = s.nextTable(i + 1); err != nil {
			return 0, 0, err
		}
		return absent, min(i*entriesPerTable*s.grainBytes, s.sizeBytes), nil
	}
	for h = heldAs(t.entry(g)); g < last && heldAs(t.entry(g)) == h; {
		g++
	}
	return h, min(g*s.grainBytes, s.sizeBytes), nil
}

// NextData has the meaning of image.Disk, with grains as its unit.
func (s *sparse) NextData(off int64) (start, end int64, err error) {
	return layer.NextData(off, s.sizeBytes, s.maxRun(), func(off int64) (data bool, end int64, err error) {
		h, end, err := s.run(off)
		return h == stored, end, err
	})
}

func (s *sparse) maxRun() int64 { return maxRunGrains * s.grainBytes }
