package index

import (
	"cmp"
	"io"
	"math"
	"slices"

	"holdfast/repo/blockfile"
	"holdfast/repo/pack"
)

// source is one sorted run of entries with its own table of packs. It is read
// twice, first the names, then the entries, and by one goroutine.
type source interface {
	// nextName returns the next pack in the order of names, its ordinal in
	// this source, and whether its entries still count; io.EOF at the end.
	nextName() (name pack.Name, ord uint32, live bool, err error)

	// next returns the next entry; io.EOF at the end.
	next() (entry, error)

	packs() int
	packName(ord uint32) (pack.Name, error)
}

// fileSource is an index file as a view shows it.
type fileSource struct {
	*file
	view    *view
	names   *blockfile.Scanner
	entries *blockfile.Scanner
	b       *block
	row     int
	nth     uint64 // of all names, then of all entries
	// What came before, for a file that is not in order must not be merged.
	lastName pack.Name
	last     entry
}

func newFileSource(f *file, v *view) *fileSource {
	return &fileSource{file: f, view: v, names: f.blocks.Scan(1, f.head.firstEntry()),
		entries: f.blocks.Scan(f.head.firstEntry(), f.head.firstFence())}
}

func (s *fileSource) packs() int { return int(s.head.packs) }

func (s *fileSource) nextName() (name pack.Name, ord uint32, live bool, err error) {
	if s.nth == uint64(s.head.packs) {
		s.b, s.row, s.nth = nil, 0, 0
		return name, 0, false, io.EOF
	}
	if err := s.load(s.names, namesPerBlock); err != nil {
		return name, 0, false, err
	}
	name = nameAt(s.b, s.row)
	if s.nth > 0 && slices.Compare(s.lastName[:], name[:]) >= 0 {
		return name, 0, false, s.damage(s.names.At()-1, errNames)
	}
	s.lastName = name
	ord = uint32(s.nth)
	s.row++
	s.nth++
	return name, ord, s.view.shows(s.file, name), nil
}

// load makes b the block of the next row.
func (s *fileSource) load(in *blockfile.Scanner, perBlock int) (err error) {
	if s.b == nil || s.row == perBlock {
		s.row = 0
		s.b, err = in.Next()
	}
	return err
}

func (s *fileSource) next() (entry, error) {
	if s.nth == s.head.entries {
		return entry{}, io.EOF
	}
	if err := s.load(s.entries, entriesPerBlock); err != nil {
		return entry{}, err
	}
	e := entryAt(s.b, s.row)
	if e.pack >= s.head.packs {
		return entry{}, s.damage(s.entries.At()-1, errOrdinal)
	}
	if s.nth > 0 && compareEntries(s.last, e) >= 0 {
		return entry{}, s.damage(s.entries.At()-1, errOrder)
	}
	s.last = e
	s.row++
	s.nth++
	return e, nil
}

// compareEntries is the order of the entries of one table of packs: by key, the
// higher pack first, the higher offset first, records before dependents.
func compareEntries(a, b entry) int {
	switch {
	case a.hi != b.hi:
		return cmp.Compare(a.hi, b.hi)
	case a.lo != b.lo:
		return cmp.Compare(a.lo, b.lo)
	}
	return cmp.Or(cmp.Compare(b.pack, a.pack), cmp.Compare(b.off, a.off), cmp.Compare(a.size&dependentBit, b.size&dependentBit))
}

// deltaSource is a delta that does not change any more.
type deltaSource struct {
	*delta
	nameOrder []uint32
	order     []uint32
}

func newDeltaSource(d *delta) *deltaSource {
	return &deltaSource{delta: d, nameOrder: d.sortedNames(), order: d.sorted()}
}

func (s *deltaSource) packs() int { return len(s.names) }

func (s *deltaSource) nextName() (name pack.Name, ord uint32, live bool, err error) {
	if len(s.nameOrder) == 0 {
		return name, 0, false, io.EOF
	}
	ord, s.nameOrder = s.nameOrder[0], s.nameOrder[1:]
	return s.names[ord], ord, true, nil
}

func (s *deltaSource) next() (entry, error) {
	if len(s.order) == 0 {
		return entry{}, io.EOF
	}
	e := s.at(int(s.order[0]))
	s.order = s.order[1:]
	return entry{key: key{e.hi, e.lo}, pack: e.pack, off: e.off, size: e.size}, nil
}

func (s *deltaSource) packName(ord uint32) (pack.Name, error) { return s.names[ord], nil }

// gone stands in a mapping for a pack whose entries no longer count.
const gone = math.MaxUint32

// mergeNames calls fn for the packs of all sources that still count, once each,
// in the order of names. It returns for each source and each of its ordinals the
// place of the pack in that order, or gone.
func mergeNames(srcs []source, fn func(pack.Name) error) ([][]uint32, error) {
	type head struct {
		name pack.Name
		ord  uint32
	}
	heads := make([]head, len(srcs))
	ended := make([]bool, len(srcs))
	places := make([][]uint32, len(srcs))
	advance := func(i int) error {
		for {
			name, ord, live, err := srcs[i].nextName()
			if err == io.EOF {
				ended[i] = true
				return nil
			}
			if err != nil {
				return err
			}
			if live {
				heads[i] = head{name, ord}
				return nil
			}
			places[i][ord] = gone
		}
	}
	for i, s := range srcs {
		places[i] = make([]uint32, s.packs())
		if err := advance(i); err != nil {
			return nil, err
		}
	}
	for n := uint32(0); ; n++ {
		low := -1
		for i := range srcs {
			if !ended[i] && (low < 0 || slices.Compare(heads[i].name[:], heads[low].name[:]) < 0) {
				low = i
			}
		}
		if low < 0 {
			return places, nil
		}
		name := heads[low].name
		if err := fn(name); err != nil {
			return nil, err
		}
		for i := range srcs {
			if !ended[i] && heads[i].name == name {
				places[i][heads[i].ord] = n
				if err := advance(i); err != nil {
					return nil, err
				}
			}
		}
	}
}

// merger yields the entries of all sources in the order of a file, without
// those that no longer count and without exact doubles.
type merger struct {
	srcs   []source // the newest first: of doubles, the first source's stays
	places [][]uint32
	heads  []mergeHead
	last   entry
	begun  bool // last is something
}

// mergeHead is the next entry of a source.
type mergeHead struct {
	entry        // pack is the place among all sources' packs
	ord   uint32 // the pack's ordinal in the source
	ended bool
}

func newMerger(srcs []source, places [][]uint32) (*merger, error) {
	m := &merger{srcs: srcs, places: places, heads: make([]mergeHead, len(srcs))}
	for i := range srcs {
		if err := m.advance(i); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// advance loads the next entry of a source that still counts.
func (m *merger) advance(i int) error {
	for {
		e, err := m.srcs[i].next()
		if err == io.EOF {
			m.heads[i].ended = true
			return nil
		}
		if err != nil {
			return err
		}
		ord := e.pack
		if e.pack = m.places[i][ord]; e.pack != gone {
			m.heads[i] = mergeHead{entry: e, ord: ord}
			return nil
		}
	}
}

// next returns the next entry, the source it is from and its pack's ordinal in
// that source; io.EOF at the end.
func (m *merger) next() (e entry, src int, ord uint32, err error) {
	for {
		src = -1
		for i := range m.heads {
			if !m.heads[i].ended && (src < 0 || compareEntries(m.heads[i].entry, m.heads[src].entry) < 0) {
				src = i
			}
		}
		if src < 0 {
			return entry{}, 0, 0, io.EOF
		}
		e, ord = m.heads[src].entry, m.heads[src].ord
		if err := m.advance(src); err != nil {
			return entry{}, 0, 0, err
		}
		if !m.begun || compareEntries(m.last, e) != 0 {
			m.last, m.begun = e, true
			return e, src, ord, nil
		}
	}
}
