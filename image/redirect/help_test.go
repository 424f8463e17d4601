package redirect

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"

	"holdfast/repo/vfs"
)

// memBase is a base of random bytes with holes.
type memBase struct {
	data []byte
	bad  map[uint64]bool // grains that can't be read
}

func newBase(seed uint64, size int) *memBase {
	rng := rand.New(rand.NewPCG(seed, 99))
	b := &memBase{data: make([]byte, size)}
	for off := 0; off < size; off += 8 * grainBytes {
		if rng.IntN(3) > 0 {
			part := b.data[off:min(size, off+8*grainBytes)]
			for i := range part {
				part[i] = byte(rng.Uint32())
			}
		}
	}
	return b
}

func (b *memBase) Size() int64 { return int64(len(b.data)) }

func (b *memBase) ReadAt(p []byte, off int64) (int, error) {
	for g := uint64(off / grainBytes); g*grainBytes < uint64(off)+uint64(len(p)); g++ {
		if b.bad[g] {
			return 0, fmt.Errorf("grain %d is damaged", g)
		}
	}
	n := copy(p, b.data[min(off, b.Size()):])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (b *memBase) NextData(off int64) (int64, int64, error) {
	for at := off; at < b.Size(); at = align(at+1, grainBytes) {
		end := min(align(at+1, grainBytes), b.Size())
		if !bytes.Equal(b.data[at:end], make([]byte, end-at)) {
			return at, end, nil
		}
	}
	return 0, 0, io.EOF
}

// smallLog makes turns, checkpoints and rewritings of the map frequent.
var smallLog = Options{WALBytes: 64 * grainBytes, ReserveBytes: 96 * grainBytes, DirtyBytes: 64 * grainBytes}

func specs(bases ...*memBase) []DiskSpec {
	var list []DiskSpec
	for i, b := range bases {
		list = append(list, DiskSpec{
			Name: fmt.Sprintf("d%d", i), Base: b,
			Identity: Identity{Repository: "r", Point: "p", Root: fmt.Sprint("root", i), Size: b.Size()},
		})
	}
	return list
}

func mustCreate(t testing.TB, fsys vfs.FS, opt Options, bases ...*memBase) *Session {
	t.Helper()
	s, err := Create(fsys, specs(bases...), opt)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func mustOpen(t testing.TB, fsys vfs.FS, opt Options, bases ...*memBase) *Session {
	t.Helper()
	s, err := Open(fsys, specs(bases...), opt)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// same compares all of a disk with what it should be.
func same(d io.ReaderAt, want []byte) error {
	got := make([]byte, len(want))
	if _, err := d.ReadAt(got, 0); err != nil && err != io.EOF {
		return err
	}
	if bytes.Equal(got, want) {
		return nil
	}
	for i := range got {
		if got[i] != want[i] {
			return fmt.Errorf("byte %d (grain %d + %d) is %#x, want %#x", i, i/grainBytes, i%grainBytes, got[i], want[i])
		}
	}
	return nil
}

// randomWrite returns something a guest may write: a sector, a grain, odd bytes,
// many grains, zeros.
func randomWrite(rng *rand.Rand, size int) (off int64, p []byte) {
	var n int
	switch rng.IntN(6) {
	case 0:
		n, off = 512, int64(rng.IntN(size/512))*512
	case 1, 2:
		n, off = grainBytes, int64(rng.IntN(size/grainBytes))*grainBytes
	case 3:
		n, off = 1+rng.IntN(3*grainBytes), int64(rng.IntN(size))
	case 4:
		n, off = (1+rng.IntN(24))*grainBytes, int64(rng.IntN(size/grainBytes))*grainBytes
	case 5:
		n, off = (1+rng.IntN(4))*grainBytes, int64(rng.IntN(size/grainBytes))*grainBytes
		return off, make([]byte, min(n, size-int(off)))
	}
	p = make([]byte, min(n, size-int(off)))
	for i := range p {
		p[i] = byte(rng.Uint32())
	}
	return off, p
}
