package blockmap

import (
	"bytes"
	"encoding/binary"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"holdfast/repo/chunk"
)

var update = flag.Bool("update", false, "rewrite testdata")

var (
	plainLayout  = Layout{Frames: 2}
	sealedLayout = Layout{Frames: 2, Sealed: true}
)

// counting is an id that is easy to find in a dump: bytes counting up from b.
func counting(b byte) (id chunk.ID) {
	for i := range id {
		id[i] = b + byte(i)
	}
	return id
}

// goldenNode has children at both ends, at the border of two bitmap bytes, and
// nowhere else.
func goldenNode(level uint8) *Node {
	n := &Node{Level: level}
	for i, child := range []int{0, 7, 8, 255} {
		n.Children[child] = counting(byte(0x10 * (i + 1)))
	}
	return n
}

// goldenTable has a chunk, a patch and a chunk, for children of goldenNode.
func goldenTable(tb testing.TB, lay Layout) *Table {
	tb.Helper()
	t := NewTable(lay)
	for _, child := range []int{0, 8, 255} {
		id := goldenNode(0).Children[child]
		id[0] = byte(child % 8) // a patch if 0
		if child == 0 {
			id[0] = 1
		}
		if err := t.Append(child, testEntry(lay, id, 0)); err != nil {
			tb.Fatal(err)
		}
	}
	return t
}

// TestGolden keeps the format, byte for byte.
func TestGolden(t *testing.T) {
	for _, c := range []struct {
		name string
		got  []byte
	}{
		{"node", goldenNode(1).AppendPayload(nil)},
		{"leaf", goldenNode(0).AppendPayload(nil)},
		{"table-plain", goldenTable(t, plainLayout).Bytes()},
		{"table-sealed", goldenTable(t, sealedLayout).Bytes()},
		{"table-empty", NewTable(plainLayout).Bytes()},
	} {
		name := filepath.Join("testdata", c.name)
		if *update {
			if err := os.WriteFile(name, c.got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(c.got, want) {
			t.Errorf("%s differs from what is written now:\n got %x\nwant %x", name, c.got, want)
		}
	}
}

func readGolden(tb testing.TB, name string) []byte {
	tb.Helper()
	p, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

func TestParseNode(t *testing.T) {
	good := readGolden(t, "node")
	n, err := ParseNode(good)
	if err != nil || *n != *goldenNode(1) {
		t.Fatalf("got %v, %v", n, err)
	}
	change := func(f func(p []byte) []byte) []byte { return f(bytes.Clone(good)) }
	for _, c := range []struct {
		name string
		p    []byte
	}{
		{"nothing", nil},
		{"head only", good[:nodeHead]},
		{"cut short", good[:len(good)-1]},
		{"a byte more", append(bytes.Clone(good), 0)},
		{"an id more", append(bytes.Clone(good), good[len(good)-32:]...)},
		{"level too high", change(func(p []byte) []byte { p[0] = MaxLevels; return p })},
		{"reserved byte", change(func(p []byte) []byte { p[3] = 1; return p })},
		{"a bit more", change(func(p []byte) []byte { p[10] = 1; return p })},
		{"a bit less", change(func(p []byte) []byte { p[4] &^= 1; return p })},
		{"no child", make([]byte, nodeHead)},
		{"null id", change(func(p []byte) []byte { clear(p[len(p)-32:]); return p })},
	} {
		if _, err := ParseNode(c.p); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: got %v, want ErrFormat", c.name, err)
		}
	}
}

func TestParseTable(t *testing.T) {
	for _, lay := range []Layout{plainLayout, sealedLayout} {
		want := goldenTable(t, lay)
		good := want.Bytes()
		got, err := ParseTable(bytes.Clone(good), lay)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("got %v, %v", got, err)
		}
		frames := tableHead + entryHead
		if lay.Sealed {
			frames += 24
		}
		patch := tableHead + lay.entryBytes(false)
		base := frames - tableHead + patch
		last := patch + lay.entryBytes(true)
		change := func(f func(p []byte)) []byte {
			p := bytes.Clone(good)
			f(p)
			return p
		}
		for _, c := range []struct {
			name string
			p    []byte
		}{
			{"nothing", nil},
			{"head cut", good[:tableHead-1]},
			{"entry cut", good[:last+2]},
			{"frames cut", good[:len(good)-1]},
			{"a byte more", append(bytes.Clone(good), 0)},
			{"version", change(func(p []byte) { p[0] = 2 })},
			{"frames a chunk", change(func(p []byte) { p[1] = 3 })},
			{"an entry fewer", change(func(p []byte) { p[2] = 2 })},
			{"an entry more", change(func(p []byte) { p[2] = 4 })},
			{"65535 entries", change(func(p []byte) { p[2], p[3] = 0xff, 0xff })},
			{"reserved in head", change(func(p []byte) { p[7] = 1 })},
			{"unknown flag", change(func(p []byte) { p[last+1] = 2 })},
			{"reserved in entry", change(func(p []byte) { p[last+3] = 1 })},
			{"same child twice", change(func(p []byte) { p[last] = 8 })},
			{"children descend", change(func(p []byte) { p[tableHead] = 9 })},
			{"codec", change(func(p []byte) { p[frames+39] = 4 })},
			{"zeros of some length", change(func(p []byte) { p[frames+39] = 3 })},
			{"in a base without one", change(func(p []byte) { p[frames+39] |= 0x80 })},
			{"patch without frames in the base", change(func(p []byte) { p[len(good)-lay.entryBytes(false)-41] &^= 0x80 })},
			{"patch with all frames in the base", change(func(p []byte) { p[last-1] |= 0x80; p[last-41] |= 0x80 })},
			{"patch with a null base", change(func(p []byte) { clear(p[base : base+32]) })},
		} {
			if _, err := ParseTable(c.p, lay); !errors.Is(err, ErrFormat) {
				t.Errorf("sealed %t, %s: got %v, want ErrFormat", lay.Sealed, c.name, err)
			}
		}
	}
}

// TestTableRoundTrip reads each entry back.
func TestTableRoundTrip(t *testing.T) {
	for _, lay := range []Layout{{Frames: 1}, {Frames: 8}, {Frames: 64, Sealed: true}} {
		table := NewTable(lay)
		for child := 0; child < Fanout; child += 1 + child%3 {
			if err := table.Append(child, testEntry(lay, testID(uint64(child)), 0)); err != nil {
				t.Fatal(err)
			}
		}
		parsed, err := ParseTable(table.Bytes(), lay)
		if err != nil {
			t.Fatal(err)
		}
		n, e := 0, Entry{}
		for child := range Fanout {
			had, has := table.Has(child), parsed.Entry(child, &e)
			if had != has {
				t.Fatalf("child %d: entry %t, was %t", child, has, had)
			}
			if !has {
				continue
			}
			n++
			if want := testEntry(lay, testID(uint64(child)), 0); !reflect.DeepEqual(&e, want) {
				t.Fatalf("child %d: got %+v, want %+v", child, e, want)
			}
		}
		if n != parsed.Len() || n == 0 {
			t.Errorf("%d entries, Len says %d", n, parsed.Len())
		}
	}
}

func TestTableAppendRefuses(t *testing.T) {
	id := testID(1)
	id[0] = 0 // a patch
	chunkID := id
	chunkID[0] = 1
	change := func(lay Layout, f func(e *Entry)) *Entry {
		e := testEntry(lay, id, 0)
		f(e)
		return e
	}
	for _, c := range []struct {
		name  string
		lay   Layout
		child int
		e     *Entry
	}{
		{"child again", plainLayout, 5, testEntry(plainLayout, id, 0)},
		{"child before", plainLayout, 4, testEntry(plainLayout, id, 0)},
		{"child too high", plainLayout, 256, testEntry(plainLayout, id, 0)},
		{"child negative", plainLayout, -1, testEntry(plainLayout, id, 0)},
		{"frames", plainLayout, 6, testEntry(Layout{Frames: 3}, id, 0)},
		{"salt", plainLayout, 6, testEntry(sealedLayout, id, 0)},
		{"base salt", plainLayout, 6, change(plainLayout, func(e *Entry) { e.BaseSalt[0] = 1 })},
		{"patch without base", plainLayout, 6, change(plainLayout, func(e *Entry) { e.Base = chunk.Null })},
		{"base of no patch", plainLayout, 6, change(plainLayout, func(e *Entry) { e.Patch = false })},
		{"stored length", plainLayout, 6, change(plainLayout, func(e *Entry) { e.Frames[0].Stored = 0 })},
		{"codec", plainLayout, 6, change(plainLayout, func(e *Entry) { e.Frames[0].Codec = 9 })},
	} {
		table := NewTable(c.lay)
		if err := table.Append(5, testEntry(c.lay, chunkID, 0)); err != nil {
			t.Fatal(err)
		}
		before := bytes.Clone(table.Bytes())
		if err := table.Append(c.child, c.e); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: got %v, want ErrFormat", c.name, err)
		}
		if !bytes.Equal(table.Bytes(), before) {
			t.Errorf("%s: the table changed", c.name)
		}
	}
}

// TestLeafEntry takes entries from the leaf's own table, then from the base's if
// the chunk is the same.
func TestLeafEntry(t *testing.T) {
	lay := plainLayout
	ids := [5]chunk.ID{testID(1), testID(2), testID(3), testID(4), testID(5)}
	leaf := func(base chunk.ID, children, entries map[int]chunk.ID, variant byte) *Leaf {
		n, table := &Node{}, NewTable(lay)
		for i := range Fanout {
			n.Children[i] = children[i]
			if id, ok := entries[i]; ok {
				if err := table.Append(i, testEntry(lay, id, variant)); err != nil {
					t.Fatal(err)
				}
			}
		}
		l, err := NewLeaf(n, table, base)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	// Child:                       0 own    1 both   2 base   3 other chunk  4 neither
	old := leaf(chunk.Null, map[int]chunk.ID{1: ids[1], 2: ids[2], 3: ids[0], 4: ids[4]}, map[int]chunk.ID{1: ids[1], 2: ids[2], 3: ids[0]}, 0)
	l := leaf(testID(99), map[int]chunk.ID{0: ids[0], 1: ids[1], 2: ids[2], 3: ids[3], 4: ids[4]}, map[int]chunk.ID{0: ids[0], 1: ids[1]}, 1)
	check := func(l *Leaf, want map[int]*Entry) {
		t.Helper()
		for i := range 6 {
			var e Entry
			ok := l.Entry(i, &e)
			if ok != (want[i] != nil) || ok && !reflect.DeepEqual(&e, want[i]) {
				t.Errorf("child %d: got %t %+v, want %+v", i, ok, e, want[i])
			}
		}
	}
	own := map[int]*Entry{0: testEntry(lay, ids[0], 1), 1: testEntry(lay, ids[1], 1)}
	check(l, own)
	own[2] = testEntry(lay, ids[2], 0)
	check(l.WithBase(old), own)
}

func TestNewLeafRefuses(t *testing.T) {
	if _, err := NewLeaf(goldenNode(1), NewTable(plainLayout), chunk.Null); !errors.Is(err, ErrFormat) {
		t.Errorf("level 1: got %v", err)
	}
	n := goldenNode(0)
	n.Children[8] = chunk.Null
	if _, err := NewLeaf(n, goldenTable(t, plainLayout), chunk.Null); !errors.Is(err, ErrFormat) {
		t.Errorf("entry of a hole: got %v", err)
	}
	for _, c := range []struct {
		name           string
		payload, table []byte
	}{
		{"payload", readGolden(t, "leaf")[1:], nil},
		{"table", readGolden(t, "leaf"), []byte{1}},
		{"level", readGolden(t, "node"), readGolden(t, "table-plain")},
	} {
		if _, err := ParseLeaf(c.payload, c.table, chunk.Null, plainLayout); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: got %v, want ErrFormat", c.name, err)
		}
	}
	l, err := ParseLeaf(readGolden(t, "leaf"), nil, chunk.Null, plainLayout)
	if err != nil || l.Table.Len() != 0 {
		t.Errorf("a leaf without table: %v", err)
	}
}

// TestLeafMemory keeps a parsed leaf near the size of its record, since caches
// hold many.
func TestLeafMemory(t *testing.T) {
	lay := Layout{Frames: 8}
	payload, table := fullLeaf(t, lay)
	l, err := ParseLeaf(payload, table, chunk.Null, lay)
	if err != nil {
		t.Fatal(err)
	}
	if got := l.MemoryBytes(); got > 100_000 {
		t.Errorf("a leaf of 256 chunks of 8 frames takes %d bytes", got)
	}
}

// fullLeaf is a leaf's record with 256 chunks.
func fullLeaf(tb testing.TB, lay Layout) (payload, table []byte) {
	n, t := &Node{}, NewTable(lay)
	for i := range n.Children {
		n.Children[i] = testID(uint64(i))
		n.Children[i][0] = 1 // no patch
		if err := t.Append(i, testEntry(lay, n.Children[i], 0)); err != nil {
			tb.Fatal(err)
		}
	}
	return n.AppendPayload(nil), bytes.Clone(t.Bytes())
}

func FuzzParseNode(f *testing.F) {
	f.Add(readGolden(f, "node"))
	f.Add(readGolden(f, "leaf"))
	f.Fuzz(func(t *testing.T, p []byte) {
		n, err := ParseNode(p)
		if err != nil {
			if !errors.Is(err, ErrFormat) {
				t.Errorf("got %v", err)
			}
			return
		}
		if got := n.AppendPayload(nil); !bytes.Equal(got, p) {
			t.Errorf("read %x, writes %x", p, got)
		}
	})
}

func FuzzParseTable(f *testing.F) {
	f.Add(readGolden(f, "table-plain"), false)
	f.Add(readGolden(f, "table-sealed"), true)
	f.Add(readGolden(f, "table-empty"), false)
	f.Fuzz(func(t *testing.T, p []byte, sealed bool) {
		lay := Layout{Frames: 2, Sealed: sealed}
		table, err := ParseTable(p, lay)
		if err != nil {
			if !errors.Is(err, ErrFormat) {
				t.Errorf("got %v", err)
			}
			return
		}
		again, e := NewTable(lay), Entry{}
		for i := range Fanout {
			if !table.Entry(i, &e) {
				continue
			}
			if err := again.Append(i, &e); err != nil {
				t.Fatalf("read but not written: %v", err)
			}
		}
		if !bytes.Equal(again.Bytes(), p) || int(binary.LittleEndian.Uint16(p[2:])) != table.Len() {
			t.Errorf("read %x, writes %x", p, again.Bytes())
		}
	})
}

func TestNodeErrorText(t *testing.T) {
	err := nodeError("read", testID(1), 1, 65536, ErrFormat)
	for _, part := range []string{"read node " + testID(1).Short(), "level 1", "chunks 65536 to 131071", "bad block map"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not say %q", err, part)
		}
	}
}
