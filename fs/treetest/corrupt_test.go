package treetest

import (
	"bytes"
	"context"
	"errors"
	"hash/crc32"
	"io"
	"strings"
	"testing"
	"time"

	"holdfast/fs"
)

// toy is an image of sectors, each with one file's byte, a checksum, and a
// byte that makes a careless reader do what it should not.
const (
	toyFiles  = 64
	toySector = 512
)

func toyImage() []byte {
	b := make([]byte, toyFiles*toySector)
	for i := range toyFiles {
		s := b[i*toySector:][:toySector]
		for k := range s[:toySector-4] {
			s[k] = byte(i + k)
		}
		sum := crc32.ChecksumIEEE(s[:toySector-4])
		s[508], s[509], s[510], s[511] = byte(sum), byte(sum>>8), byte(sum>>16), byte(sum>>24)
	}
	return b
}

// openToy reads a toy; bad is called with what damaged sectors hold.
func openToy(check bool, bad func(f *File)) func(io.ReaderAt, int64) (fs.Tree, error) {
	return func(dev io.ReaderAt, size int64) (fs.Tree, error) {
		files := Files{}
		for i := range toyFiles {
			s := make([]byte, toySector)
			if _, err := dev.ReadAt(s, int64(i)*toySector); err != nil {
				return nil, err
			}
			f := File{Data: bytes.Clone(s)}
			sum := crc32.ChecksumIEEE(s[:toySector-4])
			if !bytes.Equal(s[508:], []byte{byte(sum), byte(sum >> 8), byte(sum >> 16), byte(sum >> 24)}) {
				if check {
					f.Err = fs.ErrDamaged
				}
				if bad != nil {
					bad(&f)
				}
			}
			files["dir/"+string(rune('A'+i))] = f
		}
		return NewTree(files), nil
	}
}

func toyWant(t *testing.T) *Snapshot {
	tree, err := openToy(true, nil)(bytes.NewReader(toyImage()), 0)
	if err != nil {
		t.Fatal(err)
	}
	return Snap(t, tree, tree.Root())
}

func TestCorruptPasses(t *testing.T) {
	img := toyImage()
	Corrupt(t, Corruption{Image: bytes.NewReader(img), Size: int64(len(img)), N: 100, Open: openToy(true, nil), Want: toyWant(t)})
	Corrupt(t, Corruption{Image: bytes.NewReader(img), Size: int64(len(img)), N: 100, Open: openToy(false, nil)})
	refuse := func(io.ReaderAt, int64) (fs.Tree, error) { return nil, fs.ErrDamaged }
	Corrupt(t, Corruption{Image: bytes.NewReader(img), Size: int64(len(img)), N: 10, Open: refuse, Want: toyWant(t)})
}

// shortTree reads damaged files short, and says nothing.
type shortTree struct{ *Tree }

func (s shortTree) ReadAt(ctx context.Context, id fs.ID, p []byte, off int64) (int, error) {
	n, err := s.Tree.ReadAt(ctx, id, p, off)
	if errors.Is(err, fs.ErrDamaged) {
		return len(p) / 2, nil
	}
	return n, err
}

func TestCorruptFails(t *testing.T) {
	img := toyImage()
	var kept [][]byte
	tests := []struct {
		name string
		c    Corruption
		says string
	}{
		{"panic", Corruption{Open: openToy(true, func(*File) { panic("bug") })}, "panic: bug"},
		{"hang", Corruption{Open: openToy(true, func(*File) { select {} }), Limits: Limits{Time: 50 * time.Millisecond}}, "not done after"},
		{"memory held", Corruption{Open: openToy(true, func(*File) {
			for range 40 {
				kept = append(kept, bytes.Repeat([]byte{1}, 1<<20))
				time.Sleep(2 * time.Millisecond)
			}
		}), Limits: Limits{HeapBytes: 16 << 20}}, "of memory, more than"},
		{"memory in all", Corruption{Open: openToy(true, func(*File) {
			for range 40 {
				bytes.Repeat([]byte{1}, 1<<20)
			}
		}), Limits: Limits{AllocBytes: 16 << 20}}, "in all, more than"},
		{"damage unseen", Corruption{Open: openToy(false, nil), Want: toyWant(t)}, "content"},
		{"file lost", Corruption{Open: func(dev io.ReaderAt, size int64) (fs.Tree, error) { return NewTree(Files{"dir/A": {}}), nil }, Want: toyWant(t)}, "gone without an error"},
		{"file made up", Corruption{Open: openToy(true, func(f *File) { f.Err, f.Type = nil, fs.TypeFIFO }), Want: toyWant(t)}, "a fifo, was a file"},
		{"short read", Corruption{Open: func(dev io.ReaderAt, size int64) (fs.Tree, error) {
			tree, err := openToy(true, nil)(dev, size)
			return shortTree{tree.(*Tree)}, err
		}}, "short read"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := tt.c
			c.Image, c.Size, c.N, c.Seed = bytes.NewReader(img), int64(len(img)), 20, 99
			failed, said := record(t, func(tb testing.TB) { Corrupt(tb, c) })
			if !failed || !strings.Contains(said, tt.says) || !strings.Contains(said, "of seed 99") {
				t.Errorf("failed %v; want it, saying %q and the seed; said:\n%s", failed, tt.says, said)
			}
		})
	}
}

// TestCorruptReplays sees that a case depends on seed and number alone, and that
// damage stays where it may be done.
func TestCorruptReplays(t *testing.T) {
	img := toyImage()
	c := Corruption{Image: bytes.NewReader(img), Size: int64(len(img)), Meta: []Range{{700, 100}, {5120, 512}}, Seed: 5}
	different := map[string]bool{}
	for i := range 200 {
		a, b := c.damage(i), c.damage(i)
		if a.String() != b.String() {
			t.Fatalf("case %d: %v, then %v", i, a, b)
		}
		different[a.String()] = true
		got := make([]byte, len(img))
		if _, err := a.ReadAt(got, 0); err != nil {
			t.Fatal(err)
		}
		if bytes.Equal(got, img) {
			t.Errorf("case %d changes nothing", i)
		}
		for off := range got {
			if got[off] != img[off] && (off < 700 || off >= 800) && (off < 5120 || off >= 5632) {
				t.Errorf("case %d changes byte %d, which is not of a range", i, off)
			}
		}
	}
	if len(different) < 195 {
		t.Errorf("only %d damages in 200 cases", len(different))
	}
}
