package blockmap

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"testing"

	"holdfast/repo/chunk"
)

func TestLevels(t *testing.T) {
	g := chunk.Geometry{ChunkBytes: chunk.MinChunkBytes, FrameBytes: chunk.MinFrameBytes}
	const c = chunk.MinChunkBytes
	for _, x := range []struct {
		sizeBytes int64
		want      int
	}{
		{0, 1}, {1, 1}, {256 * c, 1}, {256*c + 1, 2}, {65536 * c, 2}, {65536*c + 1, 3},
		{1 << 24 * c, 3}, {1<<24*c + 1, 4}, {1<<63 - 1, 6},
	} {
		if got := Levels(x.sizeBytes, g); got != x.want {
			t.Errorf("%d bytes: %d levels, want %d", x.sizeBytes, got, x.want)
		}
	}
}

// TestCursorCost goes over a big disk: each node is loaded once, and those of
// null subtrees not at all.
func TestCursorCost(t *testing.T) {
	ctx := t.Context()
	s := newMemStore(Layout{Frames: 1})
	const chunks = 1 << 28
	content := map[int64]chunk.ID{300: testID(1), 301: testID(2), 1 << 20: testID(3), 1<<28 - 1: testID(4)}
	tree := build(t, s, s.lay, chunks, content)
	s.resetCounts()
	c := NewCursor(s, tree)
	var got []int64
	for n, err := c.NextNonNull(ctx, 0); n < chunks; n, err = c.NextNonNull(ctx, n+1) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, n)
	}
	if want := sortedKeys(content); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	for n := int64(1000); n < 200000; n++ {
		if id, err := c.ID(ctx, n); err != nil || !id.IsNull() {
			t.Fatalf("chunk %d: %v, %v", n, id, err)
		}
	}
	if n := s.nodesLoaded(); n > 12 || s.leafLoads != 0 {
		t.Errorf("%d nodes loaded, %d frame tables; want one load for each of 9 nodes, and the way back", n, s.leafLoads)
	}
	for n := range int64(2) {
		if _, e, err := c.At(ctx, 300+n); err != nil || e == nil {
			t.Fatal(e, err)
		}
	}
	if s.leafLoads != 1 {
		t.Errorf("%d frame tables loaded for two chunks of a leaf", s.leafLoads)
	}
}

func TestFind(t *testing.T) {
	ctx := t.Context()
	s := newMemStore(plainLayout)
	content := map[int64]chunk.ID{}
	for n := int64(250); n < 260; n++ {
		content[n] = testID(uint64(n))
	}
	content[262] = testID(1)
	tree := build(t, s, s.lay, 700, content)
	for n := range int64(800) {
		id, e, err := Find(ctx, s, tree, n)
		if err != nil || id != content[n] || (e == nil) != id.IsNull() {
			t.Fatalf("chunk %d: got %s, %v, %v; want %s", n, id.Short(), e, err, content[n].Short())
		}
	}
	for _, x := range []struct{ n, data, hole int64 }{
		{0, 250, 0}, {249, 250, 249}, {250, 250, 260}, {256, 256, 260}, {260, 262, 260}, {262, 262, 263}, {263, -1, 263}, {699, -1, 699}, {700, -1, 700},
	} {
		data, err := NextData(ctx, s, tree, x.n)
		if x.data < 0 && err != io.EOF || x.data >= 0 && (err != nil || data != x.data) {
			t.Errorf("next data from %d: got %d, %v; want %d", x.n, data, err, x.data)
		}
		if hole, err := NextHole(ctx, s, tree, x.n); err != nil || hole != x.hole {
			t.Errorf("next hole from %d: got %d, %v; want %d", x.n, hole, err, x.hole)
		}
	}
	for _, n := range []int64{-1, span(MaxLevels)} {
		if _, _, err := Find(ctx, s, tree, n); !errors.Is(err, ErrRange) {
			t.Errorf("chunk %d: got %v", n, err)
		}
	}
}

// TestDiffCost wants the nodes on the way to what differs, and no others.
func TestDiffCost(t *testing.T) {
	ctx := t.Context()
	for _, c := range []struct {
		name     string
		edit     []int64
		chunks   int64 // of the new disk, the old has 4 Mi
		want     int
		maxLoads int
	}{
		{"the same", nil, 4 << 20, 0, 0},
		{"one chunk", []int64{123456}, 4 << 20, 1, 6},
		{"three chunks in two leaves", []int64{5, 6, 3 << 20}, 4 << 20, 3, 10},
		{"two levels more", nil, 1 << 32, 0, 2},
		{"two levels more and a chunk", []int64{1 << 31}, 1 << 32, 1, 5},
		{"cut by two leaves", nil, 4<<20 - 512, 512, 6},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newMemStore(Layout{Frames: 1})
			a := bigTree(t, s)
			e := NewEditor(s, s.lay, a, c.chunks)
			for _, n := range c.edit {
				if err := e.Set(ctx, n, testID(9999), nil); err != nil {
					t.Fatal(err)
				}
			}
			root, err := e.Finish(ctx)
			if err != nil {
				t.Fatal(err)
			}
			b := Tree{Root: root, Chunks: c.chunks}
			for _, pair := range [][2]Tree{{a, b}, {b, a}} {
				s.resetCounts()
				got := 0
				if err := Diff(ctx, s, pair[0], pair[1], func(int64, chunk.ID, chunk.ID) error { got++; return nil }); err != nil {
					t.Fatal(err)
				}
				if got != c.want || s.nodesLoaded() > c.maxLoads || s.leafLoads != 0 {
					t.Errorf("%d chunks with %d nodes and %d frame tables loaded, want %d with %d and 0", got, s.nodesLoaded(), s.leafLoads, c.want, c.maxLoads)
				}
			}
		})
	}
	stop := errors.New("enough")
	s := newMemStore(Layout{Frames: 1})
	low := build(t, s, s.lay, 100, map[int64]chunk.ID{1: testID(1)})
	if err := Diff(ctx, s, low, Tree{Root: low.Root, Chunks: 1000}, nil); !errors.Is(err, ErrFormat) {
		t.Errorf("one leaf as root of two levels: got %v, want ErrFormat and not that they are equal", err)
	}
	if err := Diff(ctx, s, bigTree(t, s), Tree{}, func(int64, chunk.ID, chunk.ID) error { return stop }); err != stop {
		t.Errorf("got %v, want the function's own error", err)
	}
	if err := Diff(ctx, s, Tree{}, Tree{Chunks: -1}, nil); !errors.Is(err, ErrRange) {
		t.Errorf("a disk of -1 chunks: %v", err)
	}
}

// TestWalk visits each node once with its place, in order, and leaves out what
// the visitor has seen.
func TestWalk(t *testing.T) {
	ctx := t.Context()
	s := newMemStore(plainLayout)
	tree := build(t, s, s.lay, 1<<20, map[int64]chunk.ID{3: testID(1), 300: testID(2), 1<<20 - 1: testID(3)})
	var got []string
	note := func(what string, at Place) { got = append(got, fmt.Sprintf("%s %d@%d", what, at.Level, at.First)) }
	v := Visitor{
		Enter: func(at Place) (bool, error) { note("enter", at); return at.First != 256, nil },
		Node:  func(at Place, n *Node) error { note("node", at); return nil },
		Leaf: func(at Place, l *Leaf) error {
			note("leaf", at)
			if l.Table.Len() != 1 {
				t.Errorf("leaf at %d has %d entries", at.First, l.Table.Len())
			}
			return nil
		},
	}
	if err := Walk(ctx, s, tree, v); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"enter 2@0", "node 2@0", "enter 1@0", "node 1@0", "enter 0@0", "leaf 0@0", "enter 0@256",
		"enter 1@983040", "node 1@983040", "enter 0@1048320", "leaf 0@1048320",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}

	// Over many trees, each node is loaded once.
	big := bigTree(t, s)
	seen := map[chunk.ID]bool{}
	dedupe := Visitor{
		Enter: func(at Place) (bool, error) { known := seen[at.ID]; seen[at.ID] = true; return !known, nil },
		Leaf:  func(Place, *Leaf) error { return nil },
	}
	for range 2 {
		if err := Walk(ctx, s, big, dedupe); err != nil {
			t.Fatal(err)
		}
	}
	if s.nodesLoaded() != 3 {
		t.Errorf("%d nodes loaded, want 3", s.nodesLoaded())
	}

	stop := errors.New("enough")
	for name, v := range map[string]Visitor{
		"enter": {Enter: func(Place) (bool, error) { return true, stop }},
		"node":  {Node: func(Place, *Node) error { return stop }},
		"leaf":  {Leaf: func(Place, *Leaf) error { return stop }},
	} {
		if err := Walk(ctx, s, tree, v); err != stop {
			t.Errorf("%s: got %v, want the visitor's own error", name, err)
		}
	}
	if err := Walk(ctx, s, Tree{Chunks: 1 << 60}, Visitor{}); !errors.Is(err, ErrRange) {
		t.Errorf("got %v", err)
	}
}

func benchTree(b *testing.B, chunks int64) (*memStore, Tree) {
	s := newMemStore(Layout{Frames: 8})
	t := bigTree(b, s)
	e := NewEditor(s, s.lay, t, chunks)
	root, err := e.Finish(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	return s, Tree{Root: root, Chunks: chunks}
}

// BenchmarkEditor changes 1024 chunks of a disk of 64 TiB.
func BenchmarkEditor(b *testing.B) {
	for _, c := range []struct {
		name   string
		spread int64
	}{{"together", 1}, {"apart", 4000}} {
		b.Run(c.name, func(b *testing.B) {
			s, tree := benchTree(b, 64<<20)
			entry := testEntry(s.lay, testID(0), 0)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				e := NewEditor(s, s.lay, tree, tree.Chunks)
				for n := range int64(1024) {
					var id chunk.ID
					id[0], id[1], id[2], id[3] = byte(n), byte(n>>8), byte(i), byte(i>>8)|1
					if err := e.Set(b.Context(), n*c.spread, id, entry); err != nil {
						b.Fatal(err)
					}
				}
				if _, err := e.Finish(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(s.puts)/float64(b.N), "nodes/op")
		})
	}
}

func BenchmarkParseLeaf(b *testing.B) {
	for _, lay := range []Layout{{Frames: 8}, {Frames: 8, Sealed: true}} {
		b.Run(fmt.Sprintf("sealed=%t", lay.Sealed), func(b *testing.B) {
			payload, table := fullLeaf(b, lay)
			b.SetBytes(int64(len(payload) + len(table)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := ParseLeaf(payload, table, chunk.Null, lay); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkLeafEntry(b *testing.B) {
	lay := Layout{Frames: 8}
	payload, table := fullLeaf(b, lay)
	l, err := ParseLeaf(payload, table, chunk.Null, lay)
	if err != nil {
		b.Fatal(err)
	}
	var e Entry
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if !l.Entry(i%256, &e) {
			b.Fatal("no entry")
		}
	}
}

func BenchmarkCursorID(b *testing.B) {
	s, tree := benchTree(b, 64<<20)
	r := rand.New(rand.NewPCG(1, 1))
	for _, name := range []string{"sequential", "random"} {
		b.Run(name, func(b *testing.B) {
			c := NewCursor(s, tree)
			for i := int64(0); b.Loop(); i++ {
				n := i % (4 << 20)
				if name == "random" {
					n = r.Int64N(4 << 20)
				}
				if id, err := c.ID(b.Context(), n); err != nil || id.IsNull() {
					b.Fatal(id, err)
				}
			}
		})
	}
}
