package blockmap

import (
	"context"
	"errors"
	"strings"
	"testing"

	"holdfast/repo/chunk"
)

// bigTree is a tree of 4 TiB in chunks of 1 MiB, 3 levels, with all chunks
// there. Its content repeats, so few nodes are stored.
func bigTree(tb testing.TB, s *memStore) Tree {
	tb.Helper()
	const chunks = 4 << 20
	t := Tree{Chunks: chunks}
	leaf, table := &Node{}, NewTable(s.lay)
	for i := range leaf.Children {
		leaf.Children[i] = testID(uint64(i))
		if err := table.Append(i, testEntry(s.lay, leaf.Children[i], 0)); err != nil {
			tb.Fatal(err)
		}
	}
	l, err := NewLeaf(leaf, table, chunk.Null)
	if err != nil {
		tb.Fatal(err)
	}
	if t.Root, err = s.PutLeaf(tb.Context(), l); err != nil {
		tb.Fatal(err)
	}
	for level := 1; level < t.Levels(); level++ {
		n := &Node{Level: uint8(level)}
		for i := int64(0); i < Fanout && i*span(level) < chunks; i++ {
			n.Children[i] = t.Root
		}
		if t.Root, err = s.PutNode(tb.Context(), n); err != nil {
			tb.Fatal(err)
		}
	}
	s.resetCounts()
	return t
}

// TestEditCost counts what an edit of a big disk loads and stores.
func TestEditCost(t *testing.T) {
	for _, c := range []struct {
		name               string
		chunks             int64 // of the new disk, the old has 4 Mi
		edit               func(ctx context.Context, e *Editor) error
		maxLoads, maxPuts  int
		wantNull, wantSame bool
	}{
		{name: "nothing", chunks: 4 << 20, wantSame: true},
		{
			name: "same again", chunks: 4 << 20, maxLoads: 3, wantSame: true,
			edit: func(ctx context.Context, e *Editor) error { return e.Set(ctx, 1000, testID(1000%256), nil) },
		},
		{
			name: "one chunk", chunks: 4 << 20, maxLoads: 3, maxPuts: 3,
			edit: func(ctx context.Context, e *Editor) error { return e.Set(ctx, 1000, testID(7777), nil) },
		},
		{
			name: "1 GiB in one place", chunks: 4 << 20, maxLoads: 7, maxPuts: 7,
			edit: func(ctx context.Context, e *Editor) error {
				for n := int64(70000); n < 71024; n++ {
					if err := e.Set(ctx, n, testID(uint64(n)), nil); err != nil {
						return err
					}
				}
				return nil
			},
		},
		{
			name: "one chunk in each of 100 leaves", chunks: 4 << 20, maxLoads: 201, maxPuts: 201,
			edit: func(ctx context.Context, e *Editor) error {
				for i := range int64(100) {
					if err := e.Set(ctx, i*40000, testID(7777), nil); err != nil {
						return err
					}
				}
				return nil
			},
		},
		{
			name: "1 TiB of holes", chunks: 4 << 20, maxLoads: 5, maxPuts: 5,
			edit: func(ctx context.Context, e *Editor) error { return e.Clear(ctx, 1000, 1000+1<<20) },
		},
		{
			name: "all holes", chunks: 4 << 20, maxLoads: 1, wantNull: true,
			edit: func(ctx context.Context, e *Editor) error { return e.Clear(ctx, 0, 4<<20) },
		},
		{
			name: "all holes of a higher disk", chunks: 1 << 32, maxLoads: 0, wantNull: true,
			edit: func(ctx context.Context, e *Editor) error { return e.Clear(ctx, 0, 1<<32) },
		},
		{
			name: "all holes of a disk two levels higher", chunks: 1 << 40, maxLoads: 0, wantNull: true,
			edit: func(ctx context.Context, e *Editor) error { return e.Clear(ctx, 0, 1<<40) },
		},
		{name: "a little bigger", chunks: 4<<20 + 1, wantSame: true},
		{name: "much bigger", chunks: 1 << 32, maxPuts: 1},
		{name: "a chunk less", chunks: 4<<20 - 1, maxLoads: 3, maxPuts: 3},
		{name: "a level less", chunks: 1 << 16, maxLoads: 1},
		{name: "a level and a chunk less", chunks: 1<<16 - 1, maxLoads: 3, maxPuts: 2},
		{name: "one chunk left", chunks: 1, maxLoads: 3, maxPuts: 1},
		{name: "empty", chunks: 0, maxLoads: 3, wantNull: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newMemStore(Layout{Frames: 2})
			old := bigTree(t, s)
			e := NewEditor(s, s.lay, old, c.chunks)
			if c.edit != nil {
				if err := c.edit(t.Context(), e); err != nil {
					t.Fatal(err)
				}
			}
			root, err := e.Finish(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if got := s.nodesLoaded(); got > c.maxLoads {
				t.Errorf("%d nodes loaded, want %d", got, c.maxLoads)
			}
			if s.puts > c.maxPuts {
				t.Errorf("%d nodes stored, want %d", s.puts, c.maxPuts)
			}
			if root.IsNull() != c.wantNull || (root == old.Root) != c.wantSame {
				t.Errorf("root is null %t, as before %t; want %t, %t", root.IsNull(), root == old.Root, c.wantNull, c.wantSame)
			}
		})
	}
}

// TestEditorHistory reaches the same disk in several ways.
func TestEditorHistory(t *testing.T) {
	ctx := t.Context()
	lay := Layout{Frames: 1}
	s := newMemStore(lay)
	content := map[int64]chunk.ID{0: testID(1), 255: testID(2), 256: testID(3), 65535: testID(4), 65536: testID(5), 70000: testID(6)}
	want := build(t, s, lay, 70001, content)
	step := func(old Tree, chunks int64, set map[int64]chunk.ID) Tree {
		e := NewEditor(s, lay, old, chunks)
		for _, n := range sortedKeys(set) {
			if err := e.Set(ctx, n, set[n], nil); err != nil {
				t.Fatal(err)
			}
		}
		root, err := e.Finish(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return Tree{Root: root, Chunks: chunks}
	}
	high := step(want, 1<<30, map[int64]chunk.ID{1 << 29: testID(9)})
	if high.Levels() != 4 || high.Root == want.Root {
		t.Fatalf("%d levels", high.Levels())
	}
	if back := step(high, 70001, nil); back != want {
		t.Errorf("grown and shrunk: %v, want %v", back, want)
	}
	small := step(want, 1, nil)
	if back := step(small, 70001, map[int64]chunk.ID{255: testID(2), 256: testID(3), 65535: testID(4), 65536: testID(5), 70000: testID(6)}); back != want {
		t.Errorf("shrunk and grown: %v, want %v", back, want)
	}
	hole := map[int64]chunk.ID{}
	for n := range content {
		hole[n] = chunk.Null
	}
	if null := step(want, 70001, hole); !null.Root.IsNull() {
		t.Errorf("all chunks made holes: root %s", null.Root)
	}
}

func TestEditorOrder(t *testing.T) {
	ctx := t.Context()
	id := testID(1)
	for _, c := range []struct {
		name string
		edit func(e *Editor) error
		want error
	}{
		{"descending", func(e *Editor) error { return errors.Join(e.Set(ctx, 5, id, nil), e.Set(ctx, 4, id, nil)) }, ErrRange},
		{"twice", func(e *Editor) error { return errors.Join(e.Set(ctx, 5, id, nil), e.Set(ctx, 5, id, nil)) }, ErrRange},
		{"twice, a hole", func(e *Editor) error {
			return errors.Join(e.Set(ctx, 5, chunk.Null, nil), e.Set(ctx, 5, chunk.Null, nil))
		}, ErrRange},
		{"beyond the end", func(e *Editor) error { return e.Set(ctx, 1000, id, nil) }, ErrRange},
		{"a hole beyond the end", func(e *Editor) error { return e.Set(ctx, 1000, chunk.Null, nil) }, ErrRange},
		{"negative", func(e *Editor) error { return e.Set(ctx, -1, id, nil) }, ErrRange},
		{"after cleared", func(e *Editor) error { return errors.Join(e.Clear(ctx, 0, 10), e.Set(ctx, 9, id, nil)) }, ErrRange},
		{"cleared backwards", func(e *Editor) error { return e.Clear(ctx, 10, 9) }, ErrRange},
		{"cleared beyond the end", func(e *Editor) error { return e.Clear(ctx, 10, 1001) }, ErrRange},
		{"entry of a hole", func(e *Editor) error { return e.Set(ctx, 0, chunk.Null, testEntry(plainLayout, id, 0)) }, ErrFormat},
		{"entry of another layout", func(e *Editor) error { return e.Set(ctx, 0, id, testEntry(sealedLayout, id, 0)) }, ErrFormat},
		{"cleared nothing", func(e *Editor) error { return e.Clear(ctx, 1000, 1000) }, nil},
	} {
		e := NewEditor(newMemStore(plainLayout), plainLayout, Tree{}, 1000)
		if err := c.edit(e); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
		if _, err := e.Finish(ctx); c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: finished after the error with %v", c.name, err)
		}
	}
	for _, chunks := range []int64{-1, span(MaxLevels) + 1} {
		if err := NewEditor(nil, plainLayout, Tree{}, chunks).Set(ctx, 0, id, nil); !errors.Is(err, ErrRange) {
			t.Errorf("disk of %d chunks: got %v", chunks, err)
		}
	}
	e := NewEditor(newMemStore(plainLayout), plainLayout, Tree{}, 1000)
	if _, err := e.Finish(ctx); err != nil {
		t.Fatal(err)
	}
	if err := e.Set(ctx, 0, id, nil); !errors.Is(err, ErrRange) {
		t.Errorf("set after the end: got %v", err)
	}
}

// TestStoreErrors breaks each node on the way, and wants the chunks named.
func TestStoreErrors(t *testing.T) {
	ctx := t.Context()
	s := newMemStore(Layout{Frames: 1})
	content := map[int64]chunk.ID{65536 + 256: testID(1), 5: testID(2)}
	tree := build(t, s, s.lay, 100000, content)
	other := build(t, s, s.lay, 100000, map[int64]chunk.ID{65536 + 256: testID(3), 5: testID(2)})
	var path []Place
	err := Walk(ctx, s, tree, Visitor{Enter: func(at Place) (bool, error) {
		if at.First <= 65536+256 && 65536+256 < at.First+span(at.Level+1) {
			path = append(path, at)
		}
		return true, nil
	}})
	if err != nil || len(path) != 3 {
		t.Fatal(path, err)
	}
	for _, at := range path {
		s.fail = at.ID
		uses := map[string]error{
			"diff": Diff(ctx, s, tree, other, func(int64, chunk.ID, chunk.ID) error { return nil }),
			"walk": Walk(ctx, s, tree, Visitor{Leaf: func(Place, *Leaf) error { return nil }}),
		}
		_, _, uses["find"] = Find(ctx, s, tree, 65536+256)
		_, uses["next hole"] = NextHole(ctx, s, tree, 65536+256)
		_, uses["next data"] = NextData(ctx, s, tree, 65536)
		e := NewEditor(s, s.lay, tree, tree.Chunks)
		uses["editor"] = e.Set(ctx, 65536+256, testID(9), nil)
		for name, err := range uses {
			var ne *NodeError
			if !errors.Is(err, errBroken) || !errors.As(err, &ne) || ne.ID != at.ID || ne.Level != at.Level || ne.First != at.First {
				t.Errorf("%s, level %d: got %v", name, at.Level, err)
			}
		}
	}
	s.fail = chunk.Null
	s.failPut = true
	e := NewEditor(s, s.lay, tree, tree.Chunks)
	if err := e.Set(ctx, 5, testID(9), nil); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Finish(ctx); !errors.Is(err, errBroken) || !strings.Contains(err.Error(), "write node of level 0, chunks 0 to 255") {
		t.Errorf("put: got %v", err)
	}
}

// TestCancelled wants the end of the context as error, before the next load.
func TestCancelled(t *testing.T) {
	s := newMemStore(Layout{Frames: 1})
	tree := bigTree(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, _, err := Find(ctx, s, tree, 0)
	e := NewEditor(s, s.lay, tree, tree.Chunks)
	for _, err := range []error{
		err, e.Set(ctx, 0, testID(9), nil), Walk(ctx, s, tree, Visitor{}),
		Diff(ctx, s, tree, Tree{Chunks: 1}, func(int64, chunk.ID, chunk.ID) error { return nil }),
	} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	}
	if s.nodesLoaded() != 0 {
		t.Errorf("%d nodes loaded", s.nodesLoaded())
	}
}

// TestMisplaced gives trees whose nodes verify but do not belong.
func TestMisplaced(t *testing.T) {
	ctx := t.Context()
	s := newMemStore(Layout{Frames: 1})
	tree := bigTree(t, s)
	for _, c := range []struct {
		name string
		tree Tree
	}{
		{"a root too high", Tree{Root: tree.Root, Chunks: 100}},
		{"a root too low", Tree{Root: tree.Root, Chunks: 1 << 30}},
		{"children beyond the end", Tree{Root: tree.Root, Chunks: tree.Chunks - 1<<16}},
		{"chunks beyond the end", Tree{Root: tree.Root, Chunks: tree.Chunks - 1}},
	} {
		_, _, err := Find(ctx, s, c.tree, c.tree.Chunks-1)
		walkErr := Walk(ctx, s, c.tree, Visitor{Leaf: func(at Place, _ *Leaf) error { return nil }})
		for _, err := range []error{err, walkErr} {
			var ne *NodeError
			if !errors.Is(err, ErrFormat) || !errors.As(err, &ne) {
				t.Errorf("%s: got %v", c.name, err)
			}
		}
	}
}
