package vmdk

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"sync"
	"testing"

	"holdfast/image/internal/disktest"
	"holdfast/internal/testreq"
)

func newStreamView(t testing.TB, src Source) *StreamView {
	t.Helper()
	v, err := NewStreamView(src, "disk.vmdk", 0x1234abcd)
	if err == nil {
		err = v.Load(context.Background())
	}
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// whole reads all of a view from front to back.
func whole(t testing.TB, v Source) []byte {
	t.Helper()
	b, err := io.ReadAll(io.NewSectionReader(v, 0, v.Size()))
	if err != nil || int64(len(b)) != v.Size() {
		t.Fatalf("%d bytes of %d: %v", len(b), v.Size(), err)
	}
	return b
}

// TestStreamView: a view has the same bytes however it is read, and our reader
// finds the disk in it, and its holes.
func TestStreamView(t *testing.T) {
	for _, tt := range streamDisks {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			v := newStreamView(t, disktest.Memory(tt.content))
			file := whole(t, v)
			disktest.Same(t, v, file)
			disktest.SameAtRandom(t, v, file, 1000, 8)
			want := padded(tt.content)
			d := openBytes(t, file)
			if got := d.CreateType(); got != "streamOptimized" {
				t.Fatalf("create type is %q", got)
			}
			if len(want) > 600 {
				holes := disktest.Same(t, d, want)
				if least := disktest.Holes(want, streamGrainBytes); holes < least {
					t.Fatalf("%d bytes of holes, want at least %d", holes, least)
				}
			}
			if !bytes.Equal(whole(t, newStreamView(t, disktest.Memory(tt.content))), file) {
				t.Fatal("another view of the same disk has other bytes")
			}
		})
	}
}

// TestStreamViewSplit reads single grains in two pieces, cut at every byte that
// is near a border of what a grain is packed in.
func TestStreamViewSplit(t *testing.T) {
	v := newStreamView(t, disktest.Memory(bytes.Repeat([]byte("0123456789abcde"), 20000)))
	file := whole(t, v)
	grain := int64(streamOverhead+viewGrainSectors) * sectorSize // the second one
	got := make([]byte, viewGrainSectors*sectorSize)
	for _, border := range []int64{0, markerBytes, grainStart, secondBlock, secondHalf, grainSum, grainEnd} {
		for cut := max(0, border-3); cut < border+4; cut++ {
			if _, err := v.ReadAt(got[:cut], grain); err != nil {
				t.Fatal(err)
			}
			if _, err := v.ReadAt(got[cut:], grain+cut); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, file[grain:grain+int64(len(got))]) {
				t.Fatalf("cut at %d the grain has other bytes", cut)
			}
		}
	}
}

func TestStreamViewQemu(t *testing.T) {
	testreq.Need(t, "qemu-img")
	for _, tt := range streamDisks {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			raw, out := filepath.Join(t.TempDir(), "disk.raw"), filepath.Join(t.TempDir(), "disk.vmdk")
			writeFile(t, raw, padded(tt.content))
			writeFile(t, out, whole(t, newStreamView(t, disktest.Memory(tt.content))))
			disktest.Run(t, "qemu-img", "check", "-f", "vmdk", out)
			disktest.Run(t, "qemu-img", "compare", "-f", "raw", "-F", "vmdk", raw, out)
		})
	}
}

// TestStreamViewGolden: the bytes are a promise, as whoever reads one half of a
// view today may read the other tomorrow.
func TestStreamViewGolden(t *testing.T) {
	const want = "bf2fda7fa949e013fece50342f83f4f14acd93115dadb7da73ec50475c84578d"
	got := fmt.Sprintf("%x", sha256.Sum256(whole(t, newStreamView(t, disktest.Memory(disktest.Pattern(40<<20+100, 11))))))
	if got != want {
		t.Fatalf("sha256 of the view is %s, want %s", got, want)
	}
}

// TestStreamViewAtOnce reads a view that nobody has loaded from several
// goroutines.
func TestStreamViewAtOnce(t *testing.T) {
	content := disktest.Memory(disktest.Pattern(5<<20, 12))
	file := whole(t, newStreamView(t, content))
	v, err := NewStreamView(content, "disk.vmdk", 0x1234abcd)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(i), 1))
			for range 50 {
				off := r.Int64N(int64(len(file)))
				b := make([]byte, min(r.Int64N(200<<10), int64(len(file))-off))
				if _, err := v.ReadAt(b, off); err != nil || !bytes.Equal(b, file[off:off+int64(len(b))]) {
					t.Errorf("%d bytes at %d differ: %v", len(b), off, err)
				}
			}
		})
	}
	wg.Wait()
}

// scattered is a disk with a sector of data at some places, in rising order.
type scattered struct {
	size int64
	at   []int64
}

func (s *scattered) Size() int64 { return s.size }

func (s *scattered) ReadAt(p []byte, off int64) (int, error) {
	clear(p)
	for i, at := range s.at {
		for k := max(off, at); k < min(off+int64(len(p)), at+sectorSize); k++ {
			p[k-off] = byte(i + 1)
		}
	}
	return len(p), nil
}

func (s *scattered) NextData(off int64) (start, end int64, err error) {
	for _, at := range s.at {
		if off < at+sectorSize {
			return max(off, at), at + sectorSize, nil
		}
	}
	return 0, 0, io.EOF
}

// TestStreamViewLarge: a view of the largest disk costs as much as it has data.
func TestStreamViewLarge(t *testing.T) {
	const tib = 1 << 40
	src := &scattered{maxSizeBytes, []int64{0, 100 << 30, 33*tib + 512, 33*tib + 1<<20, maxSizeBytes - 512}}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	v := newStreamView(t, src)
	runtime.ReadMemStats(&after)
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 64<<10 {
		t.Errorf("%d bytes were allocated, want 64 KiB at most", grown)
	}
	d, err := Open(v, v.Size(), noExtents)
	if err != nil {
		t.Fatal(err)
	}
	got, want := make([]byte, 3*sectorSize), make([]byte, 3*sectorSize)
	for _, at := range src.at {
		start, _, err := d.NextData(at)
		if err != nil || start != at {
			t.Errorf("next data from %d is at %d, %v", at, start, err)
		}
		at = max(0, min(at-100, src.size-int64(len(got))))
		if _, err := d.ReadAt(got, at); err != nil {
			t.Fatal(err)
		}
		src.ReadAt(want, at)
		if !bytes.Equal(got, want) {
			t.Errorf("%d bytes at %d differ", len(got), at)
		}
	}
}

func TestStreamViewRefuses(t *testing.T) {
	const tib = 1 << 40
	for name, src := range map[string]Source{"too large": huge{62*tib + 1, 0}, "no bytes": huge{0, 0}} {
		if _, err := NewStreamView(src, "a", 1); err == nil {
			t.Errorf("%s: it was accepted", name)
		}
	}
	if _, err := NewStreamView(huge{512, 0}, `a"b`, 1); err == nil {
		t.Error("a name with a quote was accepted")
	}
	v, err := NewStreamView(huge{4 * tib, 2 * tib}, "a", 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := v.Load(context.Background()); !errors.Is(err, ErrTooLarge) {
		t.Errorf("2 TiB of data: %v, want %v", err, ErrTooLarge)
	}
	if _, err := v.ReadAt(make([]byte, 1), 0); !errors.Is(err, ErrTooLarge) || v.Size() != 0 {
		t.Errorf("read of 2 TiB of data: %v and a size of %d, want %v and 0", err, v.Size(), ErrTooLarge)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	v, err = NewStreamView(huge{tib, tib}, "a", 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := v.Load(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v, want %v", err, context.Canceled)
	}
	if err := v.Load(context.Background()); err != nil || v.Size() < tib {
		t.Errorf("loaded after it was cancelled: %v, %d bytes", err, v.Size())
	}
}

// TestStreamViewOfSick: a source that can't be read is an error, not zeros.
func TestStreamViewOfSick(t *testing.T) {
	sick := errors.New("bad sector")
	v := newStreamView(t, badSource{bytes.Repeat([]byte("some bytes"), 1<<20), sick})
	if _, err := v.ReadAt(make([]byte, v.Size()), 0); !errors.Is(err, sick) {
		t.Errorf("read: %v, want %v", err, sick)
	}
}

func TestFlatView(t *testing.T) {
	for _, size := range []int{1, 511, 512, 100<<10 + 1, 3<<20 + 77} {
		content := disktest.Pattern(size, 13)
		content[0] = 1
		v := FlatView{disktest.Memory(content)}
		want := padded(content)
		if got := whole(t, v); !bytes.Equal(got, want) {
			t.Fatalf("a flat view of %d bytes has other bytes", size)
		}
		disktest.Same(t, v, want)
	}
}
