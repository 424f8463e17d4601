package index

import (
	"cmp"
	"encoding/binary"
	"flag"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"holdfast/repo/chunk"
	"holdfast/repo/pack"
	"holdfast/repo/vfs"

	gocmp "github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite the golden files")

const dir = "index"

// newMem returns a file system with what a repository has around an index.
func newMem(tb testing.TB) *vfs.Mem {
	tb.Helper()
	m := vfs.NewMem()
	must(tb, m.Mkdir(vfs.TempDir))
	must(tb, m.SyncDir("."))
	return m
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

func own(tb testing.TB, fsys vfs.FS, opt Options) *Index {
	tb.Helper()
	x, err := Own(fsys, dir, opt)
	must(tb, err)
	return x
}

func read(tb testing.TB, fsys vfs.FS, opt Options) *Index {
	tb.Helper()
	x, err := Open(fsys, dir, opt)
	must(tb, err)
	return x
}

func lookup(tb testing.TB, x *Index, id chunk.ID) []Location {
	tb.Helper()
	list, err := x.Lookup(id)
	must(tb, err)
	return list
}

// testID returns the i-th id, which looks like a digest.
func testID(i uint64) (id chunk.ID) {
	r := rand.New(rand.NewPCG(i, 1))
	for p := id[:]; len(p) > 0; p = p[8:] {
		binary.BigEndian.PutUint64(p, r.Uint64())
	}
	return id
}

// testPack returns the i-th pack's name.
func testPack(epoch uint32, i uint64) (n pack.Name) {
	r := rand.New(rand.NewPCG(i, 2))
	binary.BigEndian.PutUint32(n[:], epoch)
	binary.BigEndian.PutUint32(n[4:], r.Uint32())
	binary.BigEndian.PutUint64(n[8:], r.Uint64())
	return n
}

func chunkAt(id chunk.ID, off, n uint32) pack.Entry {
	return pack.Entry{ID: id, Kind: 1, Off: off, Len: n}
}

// model is an index as a map.
type model struct {
	at    places // by id
	deps  places // by base
	packs map[pack.Name]bool
	head  uint64
}

type places map[[PrefixBytes]byte]map[place]Location

type place struct {
	pack pack.Name
	off  uint32
}

func newModel() *model {
	return &model{at: make(places), deps: make(places), packs: make(map[pack.Name]bool)}
}

func (m *model) clone() *model {
	c := newModel()
	c.head = m.head
	for p := range m.packs {
		c.packs[p] = true
	}
	c.at, c.deps = m.at.clone(), m.deps.clone()
	return c
}

func (l places) clone() places {
	c := make(places)
	for k, set := range l {
		c[k] = maps.Clone(set)
	}
	return c
}

func (l places) add(id chunk.ID, loc Location) {
	k := [PrefixBytes]byte(id[:])
	if l[k] == nil {
		l[k] = make(map[place]Location)
	}
	l[k][place{loc.Pack, loc.Off}] = loc
}

func (l places) remove(name pack.Name) {
	for _, set := range l {
		maps.DeleteFunc(set, func(p place, _ Location) bool { return p.pack == name })
	}
}

func (m *model) add(name pack.Name, entries []pack.Entry) {
	m.packs[name] = true
	for _, e := range entries {
		loc := Location{name, e.Off, e.Len, e.Kind}
		m.at.add(e.ID, loc)
		if e.Flags&pack.HasBase != 0 {
			m.deps.add(e.Base, loc)
		}
	}
}

func (m *model) remove(name pack.Name) {
	delete(m.packs, name)
	m.at.remove(name)
	m.deps.remove(name)
}

func (l places) lookup(id chunk.ID) []Location {
	var list []Location
	for _, loc := range l[[PrefixBytes]byte(id[:])] {
		list = append(list, loc)
	}
	slices.SortFunc(list, func(a, b Location) int {
		return cmp.Or(slices.Compare(b.Pack[:], a.Pack[:]), cmp.Compare(b.Off, a.Off))
	})
	return list
}

// walk returns what Walk must show.
func (m *model) walk() []Entry {
	var list []Entry
	for k, set := range m.at {
		for _, loc := range set {
			list = append(list, Entry{k, loc})
		}
	}
	slices.SortFunc(list, func(a, b Entry) int {
		return cmp.Or(slices.Compare(a.Prefix[:], b.Prefix[:]),
			slices.Compare(b.Pack[:], a.Pack[:]), cmp.Compare(b.Off, a.Off))
	})
	return list
}

// check compares everything that an index says with the model.
func (m *model) check(tb testing.TB, x *Index, ids []chunk.ID, packs []pack.Name) {
	tb.Helper()
	if got := x.Covers(); got != m.head {
		tb.Fatalf("covers %d, want %d", got, m.head)
	}
	for _, id := range ids {
		if want, got := m.at.lookup(id), lookup(tb, x, id); !slices.Equal(want, got) {
			tb.Fatalf("lookup %s (-want +got):\n%s", id.Short(), gocmp.Diff(want, got))
		}
		m.checkDependents(tb, x, id)
	}
	m.checkDependents(tb, x, chunk.ID{})
	for _, name := range packs {
		if got, err := x.HasPack(name); err != nil || got != m.packs[name] {
			tb.Fatalf("has pack %s: %v, %v, want %v", name, got, err, m.packs[name])
		}
	}
	var each, sorted []pack.Name
	must(tb, x.EachPack(func(name pack.Name) error { each = append(each, name); return nil }))
	for name := range m.packs {
		sorted = append(sorted, name)
	}
	slices.SortFunc(sorted, func(a, b pack.Name) int { return slices.Compare(a[:], b[:]) })
	if !slices.Equal(each, sorted) {
		tb.Fatalf("each pack: got %v, want %v", each, sorted)
	}
	var got []Entry
	must(tb, x.Walk(func(ordinal uint64, e Entry) error {
		if ordinal != uint64(len(got)) {
			tb.Fatalf("ordinal %d, want %d", ordinal, len(got))
		}
		got = append(got, e)
		return nil
	}))
	if want := m.walk(); !slices.Equal(want, got) {
		tb.Fatalf("walk (-want +got):\n%s", gocmp.Diff(want, got))
	}
}

// checkDependents compares the dependents of one base, also without those of
// every pack in turn.
func (m *model) checkDependents(tb testing.TB, x *Index, base chunk.ID) {
	tb.Helper()
	want := m.deps.lookup(base)
	got, err := x.Dependents(base)
	if err != nil || !slices.Equal(want, got) {
		tb.Fatalf("dependents of %s, %v (-want +got):\n%s", base.Short(), err, gocmp.Diff(want, got))
	}
	has, err := x.HasDependents(base, nil)
	if err != nil || has != (len(want) > 0) {
		tb.Fatalf("has dependents of %s: %v, %v, want %v", base.Short(), has, err, want)
	}
	gone := make(map[pack.Name]bool)
	for i, loc := range want {
		gone[loc.Pack] = true
		left := slices.ContainsFunc(want[i+1:], func(l Location) bool { return !gone[l.Pack] })
		has, err := x.HasDependents(base, func(name pack.Name) bool { return gone[name] })
		if err != nil || has != left {
			tb.Fatalf("has dependents of %s but for %d packs: %v, %v, want %v", base.Short(), len(gone), has, err, left)
		}
	}
}
