package blockmap

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"

	"holdfast/repo/chunk"
)

// slotAt names a slot.
type slotAt struct {
	level int
	first int64
}

// slotsOf returns all slots of a tree that are not null.
func slotsOf(t *testing.T, s *memStore, tree Tree) map[slotAt]chunk.ID {
	t.Helper()
	all := map[slotAt]chunk.ID{}
	var visit func(id chunk.ID, level int, first int64)
	visit = func(id chunk.ID, level int, first int64) {
		if id.IsNull() {
			return
		}
		all[slotAt{level, first}] = id
		if level == ChunkLevel {
			return
		}
		n, err := s.Node(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		for i, child := range n.Children {
			visit(child, level-1, first+int64(i)<<(8*level))
		}
	}
	visit(tree.Root, tree.Levels()-1, 0)
	return all
}

// checkSlots compares Slots with the difference of all slots of both trees, and
// what it loads with the nodes in slots that differ.
func checkSlots(t *testing.T, s *memStore, a, b Tree) {
	t.Helper()
	allA, allB := slotsOf(t, s, a), slotsOf(t, s, b)
	want := map[slotAt][2]chunk.ID{}
	nodes := 0
	for _, all := range []map[slotAt]chunk.ID{allA, allB} {
		for at := range all {
			if allA[at] == allB[at] {
				continue
			}
			want[at] = [2]chunk.ID{allA[at], allB[at]}
			if at.level > ChunkLevel {
				nodes++ // for each tree that has one there
			}
		}
	}
	s.resetCounts()
	got := map[slotAt][2]chunk.ID{}
	lastFirst := int64(0)
	err := Slots(t.Context(), s, a, b, func(level int, first int64, idA, idB chunk.ID) error {
		at := slotAt{level, first}
		if _, ok := got[at]; ok || first < lastFirst || idA == idB {
			return fmt.Errorf("slot %v after %d, twice %v, ids %v %v", at, lastFirst, ok, idA.Short(), idB.Short())
		}
		lastFirst = first
		got[at] = [2]chunk.ID{idA, idB}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if !maps.Equal(got, want) {
		t.Fatalf("%d to %d chunks: %d slots differ, want %d, or they are others", a.Chunks, b.Chunks, len(got), len(want))
	}
	if s.nodesLoaded() != nodes || s.leafLoads != 0 {
		t.Errorf("loaded %d nodes and %d frame tables, want %d and none", s.nodesLoaded(), s.leafLoads, nodes)
	}
}

// TestSlots edits trees at random, over all borders of levels and both ways, and
// compares each with the one before, with the empty one and with itself.
func TestSlots(t *testing.T) {
	for seed := range uint64(40) {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 2))
			s := newMemStore(Layout{Frames: 1})
			m := &model{chunks: modelSizes[r.IntN(len(modelSizes))], content: map[int64]chunk.ID{}}
			tree := Tree{Chunks: m.chunks}
			for range 8 {
				old := tree
				tree = m.mutate(t, r, s, old)
				checkSlots(t, s, old, tree)
				checkSlots(t, s, tree, old)
				checkSlots(t, s, Tree{}, tree)
				checkSlots(t, s, tree, Tree{Chunks: 1 << 24})
				checkSlots(t, s, tree, tree)
			}
		})
	}
}

// TestSlotsGrown grows a disk over a border: the old root is a child of the new
// one, and nothing below it is loaded.
func TestSlotsGrown(t *testing.T) {
	s := newMemStore(Layout{Frames: 1})
	small := build(t, s, s.lay, 256, map[int64]chunk.ID{0: testID(1), 255: testID(2)})
	large := build(t, s, s.lay, 257, map[int64]chunk.ID{0: testID(1), 255: testID(2)})
	s.resetCounts()
	var got []string
	err := Slots(t.Context(), s, small, large, func(level int, first int64, oldID, newID chunk.ID) error {
		got = append(got, fmt.Sprintf("%d/%d %v %v", level, first, oldID.IsNull(), newID == large.Root))
		return nil
	})
	if err != nil || len(got) != 1 || got[0] != "1/0 true true" || s.nodesLoaded() != 1 {
		t.Errorf("got %v, %v, with %d loads; want the new root alone", got, err, s.nodesLoaded())
	}
}

func TestSlotsErrors(t *testing.T) {
	s := newMemStore(Layout{Frames: 1})
	a := build(t, s, s.lay, 300, map[int64]chunk.ID{0: testID(1), 299: testID(2)})
	b := build(t, s, s.lay, 300, map[int64]chunk.ID{0: testID(3), 299: testID(2)})
	all := func(int, int64, chunk.ID, chunk.ID) error { return nil }
	if err := Slots(t.Context(), s, a, Tree{Chunks: -1}, all); !errors.Is(err, ErrRange) {
		t.Errorf("got %v, want ErrRange", err)
	}
	for stop := range 3 { // roots, leaves, chunks
		n := 0
		err := Slots(t.Context(), s, a, b, func(int, int64, chunk.ID, chunk.ID) error {
			if n++; n > stop {
				return errBroken
			}
			return nil
		})
		if !errors.Is(err, errBroken) || n != stop+1 {
			t.Errorf("got %v after %d calls, want errBroken after %d", err, n, stop+1)
		}
	}
	for _, id := range []chunk.ID{a.Root, b.Root} {
		s.fail = id
		var ne *NodeError
		if err := Slots(t.Context(), s, a, b, all); !errors.As(err, &ne) || ne.ID != id || !errors.Is(err, errBroken) {
			t.Errorf("got %v, want a NodeError of %s", err, id.Short())
		}
	}
}
