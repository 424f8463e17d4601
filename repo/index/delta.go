package index

import (
	"cmp"
	"slices"

	"holdfast/repo/pack"
)

// delta is the part of an index that is only in memory: entries in the order
// they came, in segments that never move, chained by a hash table. An entry
// costs 32 bytes and its share of the table 2 to 4.
//
// The Index guards it: it has no lock of its own.
type delta struct {
	names []pack.Name // by ordinal
	ords  map[pack.Name]uint32

	segs  [][]deltaEntry
	n     int
	heads []uint32 // by hash: 1 + place of the newest entry, 0 for none
}

// deltaEntry is an entry flattened, so that it has no padding.
type deltaEntry struct {
	hi, lo          uint64
	pack, off, size uint32
	next            uint32 // 1 + place of the next older entry of the chain
}

const (
	segEntries = 1024
	minHeads   = 1024
)

func newDelta() *delta { return &delta{ords: make(map[pack.Name]uint32)} }

// pack returns the ordinal of a pack, a new one if need be.
func (d *delta) pack(name pack.Name) uint32 {
	ord, ok := d.ords[name]
	if !ok {
		ord = uint32(len(d.names))
		d.names = append(d.names, name)
		d.ords[name] = ord
	}
	return ord
}

func (d *delta) hasPack(name pack.Name) bool {
	_, ok := d.ords[name]
	return ok
}

func (d *delta) at(i int) *deltaEntry { return &d.segs[i/segEntries][i%segEntries] }

func (d *delta) add(k key, ord, off, size uint32) {
	if d.n >= 2*len(d.heads) {
		d.grow()
	}
	if d.n == len(d.segs)*segEntries {
		d.segs = append(d.segs, make([]deltaEntry, segEntries))
	}
	e := d.at(d.n)
	*e = deltaEntry{hi: k.hi, lo: k.lo, pack: ord, off: off, size: size}
	d.chain(d.n, e)
	d.n++
}

// chain makes the entry at place i the head of its chain.
func (d *delta) chain(i int, e *deltaEntry) {
	head := &d.heads[e.lo&uint64(len(d.heads)-1)]
	e.next, *head = *head, uint32(i)+1
}

// grow doubles the table.
func (d *delta) grow() {
	d.heads = make([]uint32, max(minHeads, 2*len(d.heads)))
	for i := range d.n {
		d.chain(i, d.at(i))
	}
}

// find appends the places sought, the latest added first. It passes over no pack.
func (d *delta) find(q query, hits []found, age int) []found {
	if d.n == 0 {
		return hits
	}
	limit := len(hits) + q.limit
	for i := d.heads[q.lo&uint64(len(d.heads)-1)]; i != 0 && len(hits) < limit; {
		e := d.at(int(i) - 1)
		if e.lo == q.lo && e.hi == q.hi && q.wants(e.size) {
			hits = append(hits, found{location(d.names[e.pack], e.off, e.size), age})
		}
		i = e.next
	}
	return hits
}

func location(name pack.Name, off, size uint32) Location {
	return Location{Pack: name, Off: off, Len: size & MaxRecordBytes, Kind: pack.RecordKind(size &^ dependentBit >> lengthBits)}
}

// without returns a copy that lacks some packs.
func (d *delta) without(drop map[pack.Name]bool) *delta {
	c := newDelta()
	ords := make([]uint32, len(d.names))
	dropped := make([]bool, len(d.names))
	for i, name := range d.names {
		if dropped[i] = drop[name]; !dropped[i] {
			ords[i] = c.pack(name)
		}
	}
	for i := range d.n {
		if e := d.at(i); !dropped[e.pack] {
			c.add(key{e.hi, e.lo}, ords[e.pack], e.off, e.size)
		}
	}
	return c
}

// sorted returns the places of all entries in the order of a file: by key, then
// the higher pack name, the higher offset, records before dependents, the later
// added.
func (d *delta) sorted() []uint32 {
	order := make([]uint32, d.n)
	for i := range order {
		order[i] = uint32(i)
	}
	slices.SortFunc(order, func(i, j uint32) int {
		a, b := d.at(int(i)), d.at(int(j))
		switch {
		case a.hi != b.hi:
			return cmp.Compare(a.hi, b.hi)
		case a.lo != b.lo:
			return cmp.Compare(a.lo, b.lo)
		case a.pack != b.pack:
			return slices.Compare(d.names[b.pack][:], d.names[a.pack][:])
		}
		return cmp.Or(cmp.Compare(b.off, a.off), cmp.Compare(a.size&dependentBit, b.size&dependentBit), cmp.Compare(j, i))
	})
	return order
}

// sortedNames returns the ordinals of the packs in the order of their names.
func (d *delta) sortedNames() []uint32 {
	order := make([]uint32, len(d.names))
	for i := range order {
		order[i] = uint32(i)
	}
	slices.SortFunc(order, func(i, j uint32) int { return slices.Compare(d.names[i][:], d.names[j][:]) })
	return order
}
