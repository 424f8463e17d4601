//go:build linux

package main

import (
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"holdfast/internal/testreq"
)

func TestParseSize(t *testing.T) {
	tests := []struct {
		in   string
		want int64 // 0: refused
	}{
		{"4096", 4096},
		{"64K", 64 << 10},
		{"1.5M", 3 << 19},
		{"2G", 2 << 30},
		{"2GiB", 2 << 30},
		{"4T", 4 << 40},
		{"", 0}, {"0", 0}, {"-1G", 0}, {"G", 0}, {"1X", 0}, {"1 G", 0}, {"1KM", 0},
	}
	for _, tt := range tests {
		var got int64
		err := parseSize(&got, tt.in)
		if (err == nil) != (tt.want > 0) || got != tt.want {
			t.Errorf("parseSize(%q) = %d, %v, want %d", tt.in, got, err, tt.want)
		}
	}
}

func TestMedian(t *testing.T) {
	got := median([]figures{{Wall: 9, CPU: 1, RSS: 5}, {Wall: 1, CPU: 4, RSS: 9}, {Wall: 3, CPU: 2, RSS: 1}})
	if got.Wall != 3 || got.CPU != 2 || got.RSS != 9 || got.WallMin != 1 || got.WallMax != 9 || got.Times != 3 {
		t.Errorf("median of three is %+v", got)
	}
	if got := median([]figures{{Wall: 1}, {Wall: 2}}); got.Wall != 1.5 {
		t.Errorf("median of 1 and 2 is %v", got.Wall)
	}
}

func TestStatusBytes(t *testing.T) {
	status := []byte("Name:\tx\nVmHWM:\t    1024 kB\nRssAnon:\t 12 kB\n")
	if n := statusBytes(status, "VmHWM:"); n != 1<<20 {
		t.Errorf("VmHWM is %d, want %d", n, 1<<20)
	}
	if n := statusBytes(status, "RssFile:"); n != 0 {
		t.Errorf("a field that is not there is %d", n)
	}
}

// TestTwiceAsFast checks whom a goal compares with: only peers that store no
// more, and only plain with plain.
func TestTwiceAsFast(t *testing.T) {
	ours := figures{Tool: "ours", Wall: 10, Stored: 103, Parity: 3}
	tests := []struct {
		name    string
		peers   []figures
		reached bool
		got     string
	}{
		{"nobody stores as little", []figures{{Tool: "a", Peer: true, Wall: 1, Stored: 101}}, true, "no such peer"},
		{"encrypts", []figures{{Tool: "a", Peer: true, Sealed: true, Wall: 1, Stored: 50}}, true, "no such peer"},
		{"half as fast", []figures{{Tool: "a", Peer: true, Wall: 20, Stored: 100}}, true, "2.00"},
		{"the fastest counts", []figures{{Tool: "a", Peer: true, Wall: 40, Stored: 90}, {Tool: "b", Peer: true, Wall: 15, Stored: 90}}, false, "1.50"},
	}
	for _, tt := range tests {
		r := &result{Rows: append([]figures{ours}, tt.peers...)}
		r.twiceAsFast("plain", ours)
		if g := r.Goals[0]; g.Reached != tt.reached || g.Got != tt.got {
			t.Errorf("%s: got %s, reached %v; want %s, %v", tt.name, g.Got, g.Reached, tt.got, tt.reached)
		}
	}
}

func TestGoalsOfNothing(t *testing.T) {
	var r result
	r.atLeast("a ratio of nothing", math.NaN(), 1)
	r.atMost("a ratio of nothing", math.NaN(), 1)
	for _, g := range r.Goals {
		if g.Reached {
			t.Errorf("%+v is reached", g)
		}
	}
}

func TestSameDisk(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, size, at int64, data string) string {
		path := filepath.Join(dir, name)
		f, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := f.Truncate(size); err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt([]byte(data), at); err != nil {
			t.Fatal(err)
		}
		return path
	}
	const size = 16 << 20
	a := write("a", size, 5<<20, "data")
	tests := []struct {
		name string
		b    string
		same bool
	}{
		{"equal", write("b", size, 5<<20, "data"), true},
		{"one byte", write("c", size, 5<<20, "dada"), false},
		{"data in a hole", write("d", size, 9<<20, "x"), false},
		{"zeros in a hole", write("e", size, 5<<20, "data"+strings.Repeat("\x00", 1<<20)), true},
		{"longer", write("f", size+4096, 5<<20, "data"), false},
	}
	for _, tt := range tests {
		if err := sameDisk(a, tt.b); (err == nil) != tt.same {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

func TestChangedRanges(t *testing.T) {
	dir := t.TempDir()
	a, b := make([]byte, 10000), make([]byte, 10000)
	b[4095], b[4096], b[9999] = 1, 1, 1
	for name, p := range map[string][]byte{"a": a, "b": b} {
		if err := os.WriteFile(filepath.Join(dir, name), p, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := changedRanges(filepath.Join(dir, "a"), filepath.Join(dir, "b"), 2048)
	if err != nil || len(got) != 2 || got[0] != [2]int64{2048, 4096} || got[1] != [2]int64{8192, 1808} {
		t.Errorf("changed ranges are %v, %v", got, err)
	}
}

// TestDatabasePages checks that pages are full, differ, and come back the same
// with the same seed.
func TestDatabasePages(t *testing.T) {
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	for _, path := range []string{a, b} {
		if err := makeDatabase(path, 1<<20, 7); err != nil {
			t.Fatal(err)
		}
	}
	if err := sameDisk(a, b); err != nil {
		t.Fatal(err)
	}
	frames, err := writePages(b, 3, frameBytes, 7)
	if err != nil || frames < 1 || frames > 3 {
		t.Fatalf("three writes touched %d frames, %v", frames, err)
	}
	got, err := changedRanges(a, b, pageBytes)
	if err != nil || len(got) < 1 || len(got) > 3 {
		t.Errorf("three writes changed %v, %v", got, err)
	}
}

func TestIOField(t *testing.T) {
	text := []byte("rchar: 12\nwchar: 34\nread_bytes: 56\nwrite_bytes: 78\ncancelled_write_bytes: 9\n")
	for field, want := range map[string]int64{"rchar": 12, "read_bytes": 56, "write_bytes": 78, "bytes": 0, "none": 0} {
		if got := ioField(text, field); got != want {
			t.Errorf("%s is %d, want %d", field, got, want)
		}
	}
}

// TestUsageOfReads checks that what a process read and wrote is counted, though
// it has ended.
func TestUsageOfReads(t *testing.T) {
	const n = 3 << 20
	u, out, err := command{args: []string{"head", "-c", "3145728"}, in: make([]byte, n)}.run(t.Context())
	if err != nil || len(out) != n {
		t.Fatalf("%d bytes, %v", len(out), err)
	}
	if u.in < n || u.in > n+1<<20 || u.out < n || u.out > n+1<<20 {
		t.Errorf("it read %d and wrote %d bytes, want %d and a little more", u.in, u.out, n)
	}
}

// TestHistory checks that a version differs from the one before in what it says,
// half of it always in the same places, and comes back the same.
func TestHistory(t *testing.T) {
	dir := t.TempDir()
	src := filepath.Join(dir, "src")
	if err := makeDatabase(src, 4<<20, 7); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(src)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := history{size: 2 << 20, extent: 16 << 10, count: 8}
	disk := func(name string, versions int) (path string, last [][2]int64) {
		path = filepath.Join(dir, name)
		if err := copyHead(path, f, h.size); err != nil {
			t.Fatal(err)
		}
		for n := range versions {
			if last, err = h.change(path, f, 4<<20, 1, n+1); err != nil {
				t.Fatal(err)
			}
		}
		return path, last
	}
	one, first := disk("one", 1)
	two, second := disk("two", 2)
	again, _ := disk("again", 2)
	if err := sameDisk(two, again); err != nil {
		t.Error(err)
	}
	got, err := changedRanges(one, two, int(h.extent))
	if err != nil {
		t.Fatal(err)
	}
	var changed, said int64
	for i := range got {
		changed += got[i][1]
	}
	common := 0
	for _, x := range second {
		said += x[1]
		if slices.Contains(first, x) {
			common++
		}
	}
	if changed != said || said != int64(h.count)*h.extent || common < h.count/2 || common == h.count {
		t.Errorf("%d bytes changed, %d were said, %d of %d places as before", changed, said, common, h.count)
	}
}

func TestLock(t *testing.T) {
	testreq.Need(t, "root")
	s := site{t.TempDir()}
	path := filepath.Join(s.repo(), "packs", "meta", "00", "x.pack")
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unlock(s.dir); err != nil {
			t.Error(err)
		}
	})
	locked, err := s.lock()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); locked == (err == nil) {
		t.Errorf("locked: %v; removing it: %v", locked, err)
	}
	if err := unlock(filepath.Join(s.dir, "none")); err != nil {
		t.Error(err)
	}
}
