package repo

import (
	"errors"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"holdfast/repo/chunk"
)

func TestParseChanges(t *testing.T) {
	tests := []struct {
		name, text string
		want       []Changes
	}{
		{"one disk", "base p size 100\n0 10\n20 5\n", []Changes{{Base: "p", SizeBytes: 100, Ranges: []Range{{0, 10}, {20, 5}}}}},
		{"no range", "base p size 0\n", []Changes{{Base: "p"}}},
		{"no newline at the end", "base p size 9\n1 2", []Changes{{Base: "p", SizeBytes: 9, Ranges: []Range{{1, 2}}}}},
		{"comments and blanks", "# by a script\n\n  base p\tsize 100 # its size\r\n\t0 10 # ten\r\n#5 5\n",
			[]Changes{{Base: "p", SizeBytes: 100, Ranges: []Range{{0, 10}}}}},
		{"overlap, touch, out of order", "base p size 100\n50 10\n0 10\n10 5\n55 20\n3 1\n",
			[]Changes{{Base: "p", SizeBytes: 100, Ranges: []Range{{0, 15}, {50, 25}}}}},
		{"ranges of nothing", "base p size 100\n50 0\n100 0\n", []Changes{{Base: "p", SizeBytes: 100}}},
		{"to the end", "base p size 100\n0 100\n", []Changes{{Base: "p", SizeBytes: 100, Ranges: []Range{{0, 100}}}}},
		{"two disks", "base p size 10 disk a\n0 1\nbase c7 size 20 disk b change c8\n1 2\n", []Changes{
			{Disk: "a", Base: "p", SizeBytes: 10, Ranges: []Range{{0, 1}}},
			{Disk: "b", Base: "c7", SizeBytes: 20, ChangeID: "c8", Ranges: []Range{{1, 2}}}}},
		{"fields in any order, after base", "base p disk a#1 change x\"y size 10\n",
			[]Changes{{Disk: "a#1", Base: "p", ChangeID: "x\"y", SizeBytes: 10}}},
		{"quotes", `base "p" size "10" disk "Hard disk 1.vmdk" change "52 3f/\"12\"" # "` + "\n\"0\" 5",
			[]Changes{{Disk: "Hard disk 1.vmdk", Base: "p", ChangeID: `52 3f/"12"`, SizeBytes: 10, Ranges: []Range{{0, 5}}}}},
		{"escapes", `base p size 1 disk "#1 caf\u00e9\t\\"`, []Changes{{Disk: "#1 café\t\\", Base: "p", SizeBytes: 1}}},
		{"the largest", "base p size 9223372036854775807\n9223372036854775806 1\n",
			[]Changes{{Base: "p", SizeBytes: math.MaxInt64, Ranges: []Range{{math.MaxInt64 - 1, 1}}}}},
	}
	for _, tt := range tests {
		got, err := ParseChanges(strings.NewReader(tt.text))
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		for i := range got.Disks {
			if len(got.Disks[i].Ranges) == 0 {
				got.Disks[i].Ranges = nil
			}
		}
		if !reflect.DeepEqual(got.Disks, tt.want) {
			t.Errorf("%s: got %+v, want %+v", tt.name, got.Disks, tt.want)
		}
	}
}

func TestParseChangesRefuses(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"nothing", "", "no line names a base"},
		{"only a comment", "# base p size 1\n", "no line names a base"},
		{"range first", "0 10\nbase p size 10\n", "line 1: a range before"},
		{"no size", "base p\n", "line 1: the disk's size is missing"},
		{"word without value", "base p size\n", `line 1: "size" has no value`},
		{"unknown word", "base p sise 3\n", `line 1: unknown word "sise"`},
		{"one number", "base p size 10\n5\n", "line 2: want offset and length, got 1 words"},
		{"three numbers", "base p size 10\n1 2 3\n", "line 2: want offset and length, got 3 words"},
		{"negative", "base p size 10\n-1 2\n", `line 2: "-1" is not a number`},
		{"hexadecimal", "base p size 10\n0x1 2\n", `line 2: "0x1" is not a number`},
		{"beyond 63 bits", "base p size 9223372036854775808\n", "line 1:"},
		{"past the end", "base p size 10\n\n5 6\n", "line 3: range of 6 bytes at 5 passes the disk's end at 10"},
		{"wraps", "base p size 10\n5 9223372036854775807\n", "line 2: range of"},
		{"starts past the end", "base p size 10\n11 0\n", "line 2: range of"},
		{"twice", "base p size 10 disk a\nbase p size 10 disk a\n", `disk "a" is named twice`},
		{"twice without name", "base p size 10\nbase p size 10\n", `disk "" is named twice`},
		{"open quote", "base p size 10 disk \"Hard disk\n", "line 1: a quote that does not end"},
		{"bad escape", `base p size 10 disk "\q"`, "line 1: a quote that does not end, or"},
		{"text behind a quote", `base p size 10 disk "a"b`, "line 1: no blank behind"},
		{"a long line", "base " + strings.Repeat("p", maxChangeLine), "bad change list"},
	}
	for _, tt := range tests {
		_, err := ParseChanges(strings.NewReader(tt.text))
		if !errors.Is(err, ErrChanges) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want ErrChanges with %q", tt.name, err, tt.want)
		}
	}
}

// TestMergeAndWiden compares with a byte map.
func TestMergeAndWiden(t *testing.T) {
	const size, chunkBytes = 200, 16
	rng := rand.New(rand.NewPCG(5, 6))
	for range 2000 {
		var rs []Range
		var bytes [size]bool
		for range rng.IntN(8) {
			r := Range{rng.Int64N(size), 0}
			r.Len = 1 + rng.Int64N(size-r.Off)
			if rng.IntN(2) == 0 {
				r.Len = min(r.Len, 1+rng.Int64N(20))
			}
			rs = append(rs, r)
			for i := range r.Len {
				bytes[r.Off+i] = true
			}
		}
		count := int64((size + chunkBytes - 1) / chunkBytes)
		want := make([]bool, count)
		for i, on := range bytes {
			want[i/chunkBytes] = want[i/chunkBytes] || on
		}
		merged := mergeRanges(slices.Clone(rs))
		checkRanges(t, merged, bytes[:])
		checkRanges(t, widen(merged, chunkBytes, count), want)
		// A disk that shrank since: nothing past its end.
		checkRanges(t, widen(merged, chunkBytes, 5), want[:5])
	}
}

// checkRanges demands ascending ranges that don't touch and cover just want.
func checkRanges(t *testing.T, rs []Range, want []bool) {
	t.Helper()
	got := make([]bool, len(want))
	last := int64(-1)
	for _, r := range rs {
		if r.Len <= 0 || r.Off <= last || r.Off+r.Len > int64(len(want)) {
			t.Fatalf("%v: not ascending, or touching, or past %d", rs, len(want))
		}
		last = r.Off + r.Len
		for i := range r.Len {
			got[r.Off+i] = true
		}
	}
	if !slices.Equal(got, want) {
		t.Fatalf("%v covers %v, want %v", rs, got, want)
	}
}

// TestChunksToRead has the rules of resizing: the chunks with the old and the
// new end are read, and all that was added.
func TestChunksToRead(t *testing.T) {
	const c = sampleChunk
	r := &run{store: &store{settings: Settings{Geometry: chunk.Geometry{ChunkBytes: c, FrameBytes: sampleFrame}}}}
	tests := []struct {
		name      string
		old, size int64
		ranges    []Range
		want      []Range // chunks
	}{
		{"same size, nothing", 10 * c, 10 * c, nil, nil},
		{"one byte", 10 * c, 10 * c, []Range{{3*c + 5, 1}}, []Range{{3, 1}}},
		{"across a border", 10 * c, 10 * c, []Range{{4*c - 1, 2}}, []Range{{3, 2}}},
		{"neighbours join", 10 * c, 10 * c, []Range{{0, 1}, {c, 1}}, []Range{{0, 2}}},
		{"grown at a border", 10 * c, 12 * c, nil, []Range{{9, 3}}},
		{"grown within a chunk", 10*c + 5, 10*c + 9, nil, []Range{{10, 1}}},
		{"grown far", 2*c - 1, 6*c + 1, nil, []Range{{1, 6}}},
		{"shrunk to a border", 10 * c, 4 * c, nil, []Range{{3, 1}}},
		{"shrunk within", 10 * c, 4*c + 1, []Range{{0, 5}}, []Range{{0, 1}, {4, 1}}},
		{"from nothing", 0, 2 * c, nil, []Range{{0, 2}}},
		{"to nothing", 2 * c, 0, nil, nil},
	}
	for _, tt := range tests {
		got := r.chunksToRead(
			SourceDisk{Source: memSource(make([]byte, tt.size)), Changes: &Changes{Ranges: tt.ranges}},
			&parentDisk{info: DiskInfo{SizeBytes: tt.old}})
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestRefuseChanges(t *testing.T) {
	parent := &parentDisk{point: "ppppp", info: DiskInfo{SizeBytes: 100, ChangeID: "52/7"}}
	src := memSource(make([]byte, 100))
	tests := []struct {
		name   string
		parent *parentDisk
		c      Changes
		want   string
	}{
		{"by point", parent, Changes{Base: "ppppp", SizeBytes: 100}, ""},
		{"by change id", parent, Changes{Base: "52/7", SizeBytes: 100}, ""},
		{"no parent", nil, Changes{Base: "ppppp", SizeBytes: 100}, "no earlier point"},
		{"no base", parent, Changes{SizeBytes: 100}, "names no base"},
		{"no base, no change id", &parentDisk{point: "p"}, Changes{SizeBytes: 100}, "names no base"},
		{"an older point", parent, Changes{Base: "ooooo", SizeBytes: 100}, `starts from "ooooo"`},
		{"another size", parent, Changes{Base: "ppppp", SizeBytes: 99}, "99 bytes, the source has 100"},
	}
	r := &run{}
	for _, tt := range tests {
		got := r.refuseChanges(SourceDisk{Source: src, Changes: &tt.c}, tt.parent)
		if (got == "") != (tt.want == "") || !strings.Contains(got, tt.want) {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}
