package blockmap

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"holdfast/repo/chunk"
)

func sortedKeys(m map[int64]chunk.ID) []int64 { return slices.Sorted(maps.Keys(m)) }

// model is a disk as a plain map, of chunks that are not holes.
type model struct {
	chunks  int64
	content map[int64]chunk.ID
}

// pick returns a chunk number: near a border of the tree or of the disk, or
// anywhere.
func pick(r *rand.Rand, chunks int64) int64 {
	borders := []int64{0, 256, 65536, chunks, chunks / 2, 512, 300}
	n := borders[r.IntN(len(borders))] + r.Int64N(21) - 10
	if r.IntN(4) == 0 {
		n = r.Int64N(chunks)
	}
	return min(max(n, 0), chunks-1)
}

var modelSizes = []int64{1, 2, 200, 255, 256, 257, 700, 65535, 65536, 65537, 70000, 1 << 24, 1<<24 + 1, 1<<24 + 5000}

// mutate makes a new disk out of m: the editor does the same as the map.
func (m *model) mutate(t *testing.T, r *rand.Rand, s *memStore, old Tree) Tree {
	ctx, chunks := t.Context(), m.chunks
	if r.IntN(2) == 0 {
		chunks = modelSizes[r.IntN(len(modelSizes))]
	}
	ops := map[int64]int64{} // from → to of ranges
	for range r.IntN(12) {
		from := pick(r, chunks)
		ops[from] = min(from+1+r.Int64N(int64(1)<<r.IntN(9)), chunks)
	}
	if r.IntN(8) == 0 {
		from := pick(r, chunks)
		ops[from] = from + 1 + r.Int64N(chunks-from)
	}
	e := NewEditor(s, s.lay, old, chunks)
	next := int64(0)
	for _, from := range slices.Sorted(maps.Keys(ops)) {
		to := ops[from]
		from = max(from, next)
		if to <= from {
			continue
		}
		next = to
		if to-from > 600 || r.IntN(4) == 0 {
			if err := e.Clear(ctx, from, to); err != nil {
				t.Fatal(err)
			}
			maps.DeleteFunc(m.content, func(n int64, _ chunk.ID) bool { return n >= from && n < to })
			continue
		}
		for n := from; n < to; n++ {
			id, entry := chunk.Null, (*Entry)(nil)
			if r.IntN(6) > 0 {
				id = testID(r.Uint64N(8))
				if r.IntN(5) > 0 {
					entry = testEntry(s.lay, id, byte(r.IntN(20)/19))
				}
			}
			if err := e.Set(ctx, n, id, entry); err != nil {
				t.Fatal(err)
			}
			if m.content[n] = id; id.IsNull() {
				delete(m.content, n)
			}
		}
	}
	root, err := e.Finish(ctx)
	if err != nil {
		t.Fatal(err)
	}
	maps.DeleteFunc(m.content, func(n int64, _ chunk.ID) bool { return n >= chunks })
	m.chunks = chunks
	return Tree{Root: root, Chunks: chunks}
}

// check reads the whole tree and compares.
func (m *model) check(t *testing.T, s *memStore, tree Tree) {
	t.Helper()
	ctx := t.Context()
	if want := build(t, newMemStore(s.lay), s.lay, m.chunks, m.content); want.Root != tree.Root {
		t.Fatalf("root %s, but built from nothing %s", tree.Root.Short(), want.Root.Short())
	}
	c := NewCursor(s, tree)
	got := map[int64]chunk.ID{}
	for n, err := c.NextNonNull(ctx, 0); n < tree.Chunks || err != nil; n, err = c.NextNonNull(ctx, n+1) {
		if err != nil {
			t.Fatal(err)
		}
		id, e, err := c.At(ctx, n)
		if err != nil {
			t.Fatal(err)
		}
		if e != nil && !reflect.DeepEqual(e, testEntry(s.lay, id, 0)) && !reflect.DeepEqual(e, testEntry(s.lay, id, 1)) {
			t.Fatalf("chunk %d has the entry of another: %+v", n, e)
		}
		got[n] = id
	}
	if !maps.Equal(got, m.content) {
		t.Fatalf("tree of %d chunks has %d chunks that are not null, want %d, or they differ", m.chunks, len(got), len(m.content))
	}
}

// TestModel edits trees at random, in size and content, and compares each with
// a map and with a tree built from nothing.
func TestModel(t *testing.T) {
	for _, lay := range []Layout{{Frames: 1}, {Frames: 3, Sealed: true}} {
		for seed := range uint64(40) {
			t.Run(fmt.Sprintf("frames=%d/seed=%d", lay.Frames, seed), func(t *testing.T) {
				r := rand.New(rand.NewPCG(seed, 1))
				s := newMemStore(lay)
				m := &model{chunks: modelSizes[r.IntN(len(modelSizes))], content: map[int64]chunk.ID{}}
				tree := Tree{Chunks: m.chunks}
				for range 8 {
					before, old := maps.Clone(m.content), tree
					tree = m.mutate(t, r, s, old)
					m.check(t, s, tree)
					checkDiff(t, s, old, tree, before, m.content)
				}
			})
		}
	}
}

// checkDiff compares Diff with the difference of two maps.
func checkDiff(t *testing.T, s *memStore, a, b Tree, contentA, contentB map[int64]chunk.ID) {
	t.Helper()
	want := map[int64][2]chunk.ID{}
	for n, id := range contentA {
		want[n] = [2]chunk.ID{id, contentB[n]}
	}
	for n, id := range contentB {
		want[n] = [2]chunk.ID{contentA[n], id}
	}
	maps.DeleteFunc(want, func(_ int64, ids [2]chunk.ID) bool { return ids[0] == ids[1] })
	got := map[int64][2]chunk.ID{}
	last := int64(-1)
	err := Diff(t.Context(), s, a, b, func(n int64, idA, idB chunk.ID) error {
		if n <= last {
			return fmt.Errorf("chunk %d after %d", n, last)
		}
		last = n
		got[n] = [2]chunk.ID{idA, idB}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if !maps.Equal(got, want) {
		t.Fatalf("diff gives %d chunks, want %d, or they differ", len(got), len(want))
	}
}
