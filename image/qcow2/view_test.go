package qcow2

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"holdfast/image/internal/disktest"
	"holdfast/internal/testreq"
)

var viewDisks = []struct {
	name string
	disk []byte
}{
	{"one byte", []byte("x")},
	{"one sector", bytes.Repeat([]byte("x"), 512)},
	{"odd size", disktest.Pattern(3<<20+12345, 1)},
	{"whole clusters", disktest.Pattern(4<<20, 2)},
	{"only holes", make([]byte, 1<<20)},
	{"data at the end", append(make([]byte, 9<<20), "the end"...)},
}

func newView(t testing.TB, src Source) *View {
	t.Helper()
	v, err := NewView(src)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// whole reads all of a view from front to back.
func whole(t testing.TB, v *View) []byte {
	t.Helper()
	b, err := io.ReadAll(io.NewSectionReader(v, 0, v.Size()))
	if err != nil || int64(len(b)) != v.Size() {
		t.Fatalf("%d bytes of %d: %v", len(b), v.Size(), err)
	}
	return b
}

// TestView: a view has the same bytes however it is read, and our reader finds
// the disk in it, and its holes.
func TestView(t *testing.T) {
	for _, tt := range viewDisks {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			v := newView(t, disktest.Memory(tt.disk))
			file := whole(t, v)
			disktest.Same(t, v, file)
			want := make([]byte, ceil(int64(len(tt.disk)), sectorSize)*sectorSize)
			copy(want, tt.disk)
			if got := file[v.DataOffset():]; !bytes.Equal(got[:len(want)], want) {
				t.Error("the disk does not lie where DataOffset says")
			}
			d := openBytes(t, file, nil)
			holes := disktest.Same(t, d, want)
			if least := disktest.Holes(want, viewCluster); holes < least {
				t.Errorf("%d bytes of holes, want at least %d", holes, least)
			}
		})
	}
}

func TestViewQemu(t *testing.T) {
	testreq.Need(t, "qemu-img")
	for _, tt := range append(viewDisks, struct {
		name string
		disk []byte
	}{"empty", nil}) {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			raw, out := filepath.Join(t.TempDir(), "disk.raw"), filepath.Join(t.TempDir(), "disk.qcow2")
			if err := os.WriteFile(raw, tt.disk, 0o644); err != nil {
				t.Fatal(err)
			}
			store(t, newView(t, disktest.Memory(tt.disk)), out)
			disktest.Run(t, "qemu-img", "check", "-f", "qcow2", out)
			disktest.Run(t, "qemu-img", "compare", "-f", "raw", "-F", "qcow2", raw, out)
		})
	}
}

// store writes the data of a view to a file, and leaves out its holes.
func store(t testing.TB, v *View, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(v.Size()); err != nil {
		t.Fatal(err)
	}
	for off := int64(0); ; {
		start, end, err := v.NextData(off)
		if err == io.EOF {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, end-start)
		if _, err := v.ReadAt(b, start); err != nil && err != io.EOF {
			t.Fatal(err)
		}
		if _, err := f.WriteAt(b, start); err != nil {
			t.Fatal(err)
		}
		off = end
	}
}

// spots is a disk of any size with a sector of data at some places, in rising
// order; asked counts the calls of NextData.
type spots struct {
	size  int64
	at    []int64
	asked int
}

func (s *spots) Size() int64 { return s.size }

func (s *spots) ReadAt(p []byte, off int64) (int, error) {
	clear(p)
	for i, at := range s.at {
		for k := max(off, at); k < min(off+int64(len(p)), at+sectorSize); k++ {
			p[k-off] = byte(i + 1)
		}
	}
	return len(p), nil
}

func (s *spots) NextData(off int64) (start, end int64, err error) {
	s.asked++
	for _, at := range s.at {
		if off < at+sectorSize {
			return max(off, at), at + sectorSize, nil
		}
	}
	return 0, 0, io.EOF
}

// TestViewLarge: a view of 64 TiB with little in it is made, walked and read for
// nothing.
func TestViewLarge(t *testing.T) {
	const tib = 1 << 40
	src := &spots{size: 64 * tib, at: []int64{0, 512 << 20, 700 << 30, 700<<30 + 1<<20, 33*tib + 512, 64*tib - 512}}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	v := newView(t, src)
	var data int64
	for off := int64(0); ; {
		start, end, err := v.NextData(off)
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		data += end - start
		off = end
	}
	if data > 4<<20 || src.asked > 100 {
		t.Errorf("%d bytes of data found with %d questions to the source, want 4 MiB and 100 at most", data, src.asked)
	}
	d, err := Open(v, v.Size(), noBacking)
	if err != nil {
		t.Fatal(err)
	}
	var found []int64
	for off := int64(0); ; {
		start, end, err := d.NextData(off)
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, start)
		off = end
	}
	var want []int64
	for _, at := range src.at {
		want = append(want, at/viewCluster*viewCluster)
	}
	if fmt.Sprint(found) != fmt.Sprint(want) {
		t.Errorf("our reader finds data at %v, want %v", found, want)
	}
	got, from := make([]byte, 3*sectorSize), make([]byte, 3*sectorSize)
	for _, at := range src.at {
		at = max(0, min(at-100, src.size-int64(len(got))))
		if _, err := d.ReadAt(got, at); err != nil {
			t.Fatal(err)
		}
		src.ReadAt(from, at)
		if !bytes.Equal(got, from) {
			t.Errorf("%d bytes at %d differ", len(got), at)
		}
	}
	runtime.ReadMemStats(&after)
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 8<<20 {
		t.Errorf("%d bytes were allocated, want 8 MiB at most", grown)
	}
}

// TestViewLargeQemu has QEMU check every reference of a large disk.
func TestViewLargeQemu(t *testing.T) {
	testreq.Need(t, "qemu-img")
	const gib = 1 << 30
	src := &spots{size: 6000*gib + 512, at: []int64{0, gib / 2, 700 * gib, 700*gib + 1<<20, 3000*gib + 512, 6000 * gib}}
	dir := t.TempDir()
	out := filepath.Join(dir, "disk.qcow2")
	store(t, newView(t, src), out)
	disktest.Run(t, "qemu-img", "check", "-f", "qcow2", out)
	// The same disk as QEMU writes it.
	theirs := filepath.Join(dir, "theirs.qcow2")
	disktest.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", theirs, fmt.Sprint(src.size))
	var args []string
	for i, at := range src.at {
		args = append(args, "-c", fmt.Sprintf("write -P %d %d 512", i+1, at))
	}
	testreq.Need(t, "qemu-io")
	disktest.Run(t, "qemu-io", append(args, theirs)...)
	disktest.Run(t, "qemu-img", "compare", "-f", "qcow2", "-F", "qcow2", theirs, out)
}

// TestViewTables compares what a window of any place and length shows of the
// tables with the whole of them.
func TestViewTables(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 5))
	src := &spots{size: 9 << 30}
	for at := int64(0); at < src.size; at += 1 + r.Int64N(300<<20) {
		at = at / sectorSize * sectorSize
		src.at = append(src.at, at)
	}
	v := newView(t, src)
	tables := make([]byte, v.DataOffset())
	if _, err := v.ReadAt(tables, 0); err != nil {
		t.Fatal(err)
	}
	for range 3000 {
		off := r.Int64N(int64(len(tables)))
		b := make([]byte, min(1+r.Int64N(1<<r.IntN(18)), int64(len(tables))-off))
		if _, err := v.ReadAt(b, off); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(b, tables[off:off+int64(len(b))]) {
			t.Fatalf("%d bytes at %d differ", len(b), off)
		}
	}
}

func TestViewRefuses(t *testing.T) {
	for _, size := range []int64{-1, maxSize + 1} {
		if _, err := NewView(&spots{size: size}); err == nil {
			t.Errorf("a disk of %d bytes was accepted", size)
		}
	}
	if v := newView(t, &spots{size: maxSize}); v.Size() < maxSize {
		t.Errorf("a view of %d bytes of a disk of %d", v.Size(), int64(maxSize))
	}
}

// sick fails when it is asked where data is, or lies.
type sick struct {
	spots
	start, end int64
	err        error
}

func (s *sick) NextData(int64) (start, end int64, err error) { return s.start, s.end, s.err }

// TestViewOfSick: what is wrong with the source is told, and never shown as a
// table without entries.
func TestViewOfSick(t *testing.T) {
	bad := errors.New("bad sector")
	for name, src := range map[string]*sick{
		"fails":    {spots{size: 1 << 20}, 0, 0, bad},
		"no end":   {spots{size: 1 << 20}, 100, 100, nil},
		"too far":  {spots{size: 1 << 20}, 100, 2 << 20, nil},
		"too soon": {spots{size: 1 << 20}, -5, 2, nil},
	} {
		v := newView(t, src)
		_, err := v.ReadAt(make([]byte, v.DataOffset()), 0)
		if err == nil || (src.err != nil && !errors.Is(err, bad)) {
			t.Errorf("%s: read: %v", name, err)
		}
		if _, _, err := v.NextData(v.DataOffset()); err == nil || err == io.EOF {
			t.Errorf("%s: next data: %v", name, err)
		}
	}
	if !strings.Contains(fmt.Sprint(newView(t, &spots{size: 1}).NextData(-1)), "invalid") {
		t.Error("an offset of -1 was accepted")
	}
}

// TestViewGolden: the bytes are a promise, as whoever reads one half of a view
// today may read the other tomorrow.
func TestViewGolden(t *testing.T) {
	const want = "a0d817e1265a22c00cf8a737a8544601d1db6e796f8d498a066e5faacfaa3bc5"
	got := fmt.Sprintf("%x", sha256.Sum256(whole(t, newView(t, disktest.Memory(disktest.Pattern(5<<20+100, 11))))))
	if got != want {
		t.Fatalf("sha256 of the view is %s, want %s", got, want)
	}
}
