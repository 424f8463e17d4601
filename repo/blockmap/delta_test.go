package blockmap

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"

	"holdfast/repo/chunk"
)

// leafOf returns the record of the only leaf of a tree of up to 256 chunks.
func (s *memStore) leafOf(t Tree) record { return s.records[t.Root] }

// change sets count chunks of a tree of one leaf from first on, to contents
// that nothing else has.
func change(tb testing.TB, s *memStore, old Tree, first, count int, version uint64) Tree {
	tb.Helper()
	e := NewEditor(s, s.lay, old, old.Chunks)
	for n := first; n < first+count; n++ {
		id := testID(version<<32 | uint64(n))
		if err := e.Set(tb.Context(), int64(n), id, testEntry(s.lay, id, 0)); err != nil {
			tb.Fatal(err)
		}
	}
	root, err := e.Finish(tb.Context())
	if err != nil {
		tb.Fatal(err)
	}
	return Tree{Root: root, Chunks: old.Chunks}
}

// TestDelta follows one leaf through changes, and where its entries are.
func TestDelta(t *testing.T) {
	ctx := t.Context()
	s := newMemStore(Layout{Frames: 2, Sealed: true})
	full := change(t, s, Tree{Chunks: 256}, 0, 256, 1)
	entries := func(tree Tree) int {
		table, err := ParseTable(s.leafOf(tree).table, s.lay)
		if err != nil {
			t.Fatal(err)
		}
		return table.Len()
	}
	check := func(name string, tree Tree, wantEntries int, wantBase chunk.ID) {
		t.Helper()
		if n, base := entries(tree), s.leafOf(tree).base; n != wantEntries || base != wantBase {
			t.Errorf("%s: %d entries, base %s; want %d, %s", name, n, base.Short(), wantEntries, wantBase.Short())
		}
		for n := range int64(256) {
			id, e, err := Find(ctx, s, tree, n)
			if err != nil {
				t.Fatal(err)
			}
			if e == nil || !reflect.DeepEqual(e, testEntry(s.lay, id, 0)) {
				t.Fatalf("%s: chunk %d has entry %+v", name, n, e)
			}
		}
	}
	check("first", full, 256, chunk.Null)
	ten := change(t, s, full, 0, 10, 2)
	check("ten changed", ten, 10, full.Root)
	check("the most that a delta holds", change(t, s, full, 0, 64, 3), 64, full.Root)
	check("one more", change(t, s, full, 0, 65, 4), 256, chunk.Null)

	thirty := change(t, s, ten, 100, 20, 5)
	check("a delta changed, over the first base", thirty, 30, full.Root)
	check("the same chunks changed again", change(t, s, thirty, 100, 20, 6), 30, full.Root)
	check("too far from the first base", change(t, s, thirty, 200, 40, 7), 256, chunk.Null)

	back := change(t, s, change(t, s, thirty, 0, 10, 1), 100, 20, 1)
	if back != full {
		t.Errorf("all changed back: root %s, want the first, %s", back.Root.Short(), full.Root.Short())
	}

	// The base is gone, and with it what it alone knew.
	delete(s.records, full.Root)
	next := change(t, s, thirty, 0, 1, 8)
	if n, base := entries(next), s.leafOf(next).base; n != 30 || !base.IsNull() {
		t.Errorf("without base: %d entries, base %s", n, base.Short())
	}
}

// TestDeltaWithoutEntries wants no base for a leaf that would take nothing from
// it, and an entry given later for a chunk that stayed to be kept.
func TestDeltaWithoutEntries(t *testing.T) {
	ctx := t.Context()
	s := newMemStore(plainLayout)
	edit := func(old Tree, n int64, v uint64, e *Entry, also int64) Tree {
		ed := NewEditor(s, s.lay, old, 256)
		if err := ed.Set(ctx, n, testID(v), nil); err != nil {
			t.Fatal(err)
		}
		if e != nil {
			id, _, err := Find(ctx, s, old, also)
			if err != nil {
				t.Fatal(err)
			}
			if err := ed.Set(ctx, also, id, e); err != nil {
				t.Fatal(err)
			}
		}
		root, err := ed.Finish(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return Tree{Root: root, Chunks: 256}
	}
	first := edit(Tree{}, 7, 1, nil, 0)
	second := edit(first, 5, 2, nil, 0)
	if base := s.leafOf(second).base; !base.IsNull() {
		t.Errorf("a base %s that has no entries", base.Short())
	}
	entry := testEntry(s.lay, testID(1), 0)
	third := edit(second, 5, 3, entry, 7)
	if _, e, err := Find(ctx, s, third, 7); err != nil || !reflect.DeepEqual(e, entry) {
		t.Errorf("got %+v, %v; want the entry that was given", e, err)
	}
	full := change(t, s, Tree{Chunks: 256}, 0, 256, 1)
	id, _, err := Find(ctx, s, full, 7)
	if err != nil {
		t.Fatal(err)
	}
	moved := testEntry(s.lay, id, 1)
	fourth := edit(full, 5, 3, moved, 7)
	if _, e, err := Find(ctx, s, fourth, 7); err != nil || !reflect.DeepEqual(e, moved) {
		t.Errorf("got %+v, %v; want the new entry of a chunk that stayed", e, err)
	}
	if s.leafOf(fourth).base != full.Root {
		t.Error("no base for two entries that differ")
	}

	// Chunk 5 becomes what it was in the base, which alone has its entry, and so
	// much else changes that the table is full.
	ed := NewEditor(s, s.lay, change(t, s, full, 5, 1, 2), 256)
	if err := ed.Set(ctx, 5, testID(1<<32|5), nil); err != nil {
		t.Fatal(err)
	}
	for n := int64(100); n < 170; n++ {
		if err := ed.Set(ctx, n, testID(3<<32|uint64(n)), testEntry(s.lay, testID(3<<32|uint64(n)), 0)); err != nil {
			t.Fatal(err)
		}
	}
	root, err := ed.Finish(ctx)
	if err != nil {
		t.Fatal(err)
	}
	fifth := Tree{Root: root, Chunks: 256}
	id, e, err := Find(ctx, s, fifth, 5)
	if err != nil || !s.leafOf(fifth).base.IsNull() || !reflect.DeepEqual(e, testEntry(s.lay, id, 0)) {
		t.Errorf("got %+v, %v; want the base's entry in a full table", e, err)
	}
}

// TestDeltaBaseWithBase meets a base that was stored again as a delta: its own
// table counts, and nothing new is built on it.
func TestDeltaBaseWithBase(t *testing.T) {
	s := newMemStore(Layout{Frames: 1})
	full := change(t, s, Tree{Chunks: 256}, 0, 256, 1)
	delta := change(t, s, full, 0, 10, 2)
	again := change(t, s, full, 10, 10, 3)
	r := s.records[full.Root]
	r.table, r.base = NewTable(s.lay).Bytes(), again.Root
	s.records[full.Root] = r

	if _, e, err := Find(t.Context(), s, delta, 3); err != nil || e == nil {
		t.Errorf("own entry: %v, %v", e, err)
	}
	if _, e, err := Find(t.Context(), s, delta, 30); err != nil || e != nil {
		t.Errorf("entry that the base does not have any more: %v, %v", e, err)
	}
	if next := change(t, s, delta, 20, 1, 4); !s.leafOf(next).base.IsNull() {
		t.Error("a delta on a base that has a base")
	}
}

// TestDeltaShare measures what deltaShare is chosen by. It fails if another
// share would store clearly less over the mix of change rates; -v prints all.
func TestDeltaShare(t *testing.T) {
	const payload, entry, runs = 36 + 256*32, 4 + 8*40, 200
	cost := func(share, perRun int, r *rand.Rand) int {
		bytes, changed := 0, map[int]bool{}
		for range runs {
			for range perRun {
				changed[r.IntN(256)] = true
			}
			if len(changed)*share > 256 {
				clear(changed) // a full table, the next base
				bytes += payload + 256*entry
				continue
			}
			bytes += payload + len(changed)*entry
		}
		return bytes / runs
	}
	best, totals := 0, map[int]int{}
	shares := []int{2, 3, 4, 6, 8, 16, 32}
	for _, share := range shares {
		line := ""
		for _, perRun := range []int{1, 2, 4, 8, 16, 32} {
			c := cost(share, perRun, rand.New(rand.NewPCG(1, 2)))
			line += fmt.Sprintf("%8d", c)
			totals[share] += c
		}
		t.Logf("1/%-3d%s  mean %d", share, line, totals[share]/6)
		if best == 0 || totals[share] < totals[best] {
			best = share
		}
	}
	if totals[deltaShare]*10 > totals[best]*11 {
		t.Errorf("a share of 1/%d stores %d bytes a run, 1/%d %d", deltaShare, totals[deltaShare]/6, best, totals[best]/6)
	}
}
