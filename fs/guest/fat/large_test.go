package fat_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"
	"time"

	"holdfast/fs"
	"holdfast/fs/guest/fat"
	"holdfast/fs/treetest"
)

// bigDir is an image with a directory of n files, of which every fourth was
// removed again.
func bigDir(bits, n int) []byte {
	var kids []*entry
	for i := range n {
		name, short := fmt.Sprintf("file number %d with a long name", i), fmt.Sprintf("N%07dTXT", i)
		if i%4 == 3 {
			gone := append(longSlots(name, short), slot(short, 0, 0, 0, 0)...)
			for at := 0; at < len(gone); at += 32 {
				gone[at] = 0xe5
			}
			kids = append(kids, &entry{slots: gone})
			continue
		}
		kids = append(kids, &entry{name: name, short: short})
	}
	m := maker{bits: bits, stride: 1}
	return m.make(&entry{slots: slot("A LABEL    ", 0x08, 0, 0, 0)}, dir("big", kids...), file("behind it", "x"))
}

// TestBigDirectory takes a directory as large as systems make them, and looks
// every name up.
func TestBigDirectory(t *testing.T) {
	const n = 16_000
	img := bigDir(32, n)
	conform(t, img)
	f := open(t, img)
	start := time.Now()
	for _, name := range names(t, f, "big") {
		if _, err := fs.Resolve(t.Context(), f, f.Root(), "big/"+name, true); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d names listed and looked up in %v", n*3/4, time.Since(start))
}

// TestFragmented reads a file of more pieces than are kept, here and there.
func TestFragmented(t *testing.T) {
	const pieces = 90_000
	data := make([]byte, pieces*512-100)
	for i := 0; i+8 <= len(data); i += 8 {
		binary.LittleEndian.PutUint64(data[i:], uint64(i))
	}
	m := maker{bits: 32, stride: 2, clusters: 2*pieces + 10}
	img := m.make(&entry{name: "f", data: data})
	f := open(t, img)
	a, err := f.Lookup(t.Context(), f.Root(), "f")
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 1))
	start := time.Now()
	const reads = 2000
	for range reads {
		off, p := r.Int64N(int64(len(data))), make([]byte, 1+r.IntN(3000))
		n, err := f.ReadAt(t.Context(), a.ID, p, off)
		if err != nil && (err != io.EOF || off+int64(len(p)) <= int64(len(data))) || !bytes.Equal(p[:n], data[off:off+int64(n)]) {
			t.Fatalf("%d bytes at %d: %d, %v", len(p), off, n, err)
		}
	}
	t.Logf("%d reads in %v", reads, time.Since(start))
	got, err := io.ReadAll(fs.File(t.Context(), f, a))
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("whole: %d bytes, %v", len(got), err)
	}
	extents, err := f.Extents(t.Context(), a.ID, 0, pieces+1)
	if err != nil || len(extents) != pieces {
		t.Errorf("%d extents, %v; want %d", len(extents), err, pieces)
	}
	for _, e := range extents[:100] {
		if !bytes.Equal(img[e.At:e.At+e.Len], data[e.Off:e.Off+e.Len]) {
			t.Fatalf("%+v is not where the bytes are", e)
		}
	}
}

// TestManyDirectories asks for inodes of a tree that was never listed.
func TestManyDirectories(t *testing.T) {
	var top []*entry
	for i := range 60 {
		d := dir(fmt.Sprint("d", i))
		for k := range 60 {
			d.kids = append(d.kids, dir(fmt.Sprint("e", k), file("f", "x")))
		}
		top = append(top, d)
	}
	m := maker{bits: 32}
	img := m.make(top...)
	var ids []fs.ID
	first := open(t, img)
	if err := fs.Walk(t.Context(), first, first.Root(), func(_ string, a fs.Attr, err error) error {
		ids = append(ids, a.ID)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if want := 1 + 60 + 2*60*60; len(ids) != want {
		t.Fatalf("%d inodes, want %d", len(ids), want)
	}
	f := open(t, img)
	rand.New(rand.NewPCG(2, 2)).Shuffle(len(ids), func(i, k int) { ids[i], ids[k] = ids[k], ids[i] })
	for _, id := range ids {
		a, err := f.Attr(t.Context(), id)
		if err != nil || a.ID != id {
			t.Fatalf("%v: %v, %v", id, a.ID, err)
		}
		if a.IsDir() {
			if up, err := f.Lookup(t.Context(), id, ".."); err != nil || !up.IsDir() {
				t.Fatalf("above %v: %+v, %v", id, up, err)
			}
		}
	}
}

// TestCorrupt damages boot sector, FATs and directories.
func TestCorrupt(t *testing.T) {
	for _, bits := range []int{12, 16, 32} {
		t.Run(fmt.Sprint(bits), func(t *testing.T) {
			m := maker{bits: bits, stride: 2}
			var kids []*entry
			for i := range 40 {
				kids = append(kids, file(fmt.Sprintf("file %d", i), string(make([]byte, 50*i))))
			}
			if bits != 12 {
				kids = append(kids, dir("below", dir("and below", file("x", "x")), file("y", "y")))
			}
			img := m.make(dir("sub dir", kids...), file("f", "f"), dir("another", file("g", "g")))
			meta := []treetest.Range{{Off: 0, Len: 512}, {Off: int64(m.fatOff), Len: 2048}, {Off: int64(m.rootOff), Len: 512}, {Off: int64(m.dataOff), Len: 40 * 512}}
			treetest.Corrupt(t, treetest.Corruption{
				Image: bytes.NewReader(img), Size: int64(len(img)), Meta: meta, N: 340, Seed: uint64(bits),
				Open:   func(dev io.ReaderAt, size int64) (fs.Tree, error) { return fat.Open(dev, size) },
				Limits: treetest.Limits{HeapBytes: 64 << 20},
			})
		})
	}
}

func FuzzOpen(f *testing.F) {
	for _, bits := range []int{12, 16, 32} {
		img := sample(bits)
		if bits == 16 {
			img = img[:200<<10]
		}
		f.Add(img)
	}
	f.Fuzz(func(t *testing.T, img []byte) {
		tree, err := fat.Open(bytes.NewReader(img), int64(len(img)))
		if err != nil {
			return
		}
		defer tree.Close()
		left := 300
		_ = fs.Walk(t.Context(), tree, tree.Root(), func(_ string, a fs.Attr, err error) error {
			if left--; left < 0 {
				return io.EOF
			}
			if err != nil {
				return nil
			}
			if again, err := tree.Attr(t.Context(), a.ID); err != nil || again != a {
				t.Errorf("Attr of %v: %+v, %v; before %+v", a.ID, again, err, a)
			}
			if a.Type == fs.TypeFile {
				p := make([]byte, 3000)
				n, err := tree.ReadAt(t.Context(), a.ID, p, a.Size/2)
				if n < len(p) && err == nil {
					t.Errorf("%d bytes of %d without an error", n, len(p))
				}
				_, _ = tree.Extents(t.Context(), a.ID, a.Size/3, 10)
			}
			return nil
		})
		_, _ = tree.StatFS(t.Context(), tree.Root())
		_, _ = tree.Attr(t.Context(), fs.ID{Ino: uint64(len(img)) / 40})
	})
}

func BenchmarkReadTree(b *testing.B) {
	m := maker{bits: 32, perClus: 8}
	var kids []*entry
	total := 0
	r := rand.NewChaCha8([32]byte{})
	for i := range 2000 {
		data := make([]byte, i*40)
		_, _ = r.Read(data)
		total += len(data)
		kids = append(kids, &entry{name: fmt.Sprint("file ", i), data: data})
	}
	img := m.make(dir("d", kids...))
	f := open(b, img)
	b.SetBytes(int64(total))
	p := make([]byte, 128<<10)
	for b.Loop() {
		if err := fs.Walk(b.Context(), f, f.Root(), func(_ string, a fs.Attr, err error) error {
			if err == nil && a.Type == fs.TypeFile {
				_, err = f.ReadAt(b.Context(), a.ID, p[:a.Size], 0)
			}
			return err
		}); err != nil {
			b.Fatal(err)
		}
	}
}
