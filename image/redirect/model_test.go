package redirect

import (
	"bytes"
	"io"
	"math/rand/v2"
	"testing"

	"holdfast/repo/vfs"
)

// TestModel does random operations on two disks and on byte arrays.
func TestModel(t *testing.T) {
	for seed := range uint64(6) {
		rng := rand.New(rand.NewPCG(seed, 1))
		bases := []*memBase{newBase(seed, 300*grainBytes+1234), newBase(seed+100, 64*grainBytes)}
		want := [][]byte{bytes.Clone(bases[0].data), bytes.Clone(bases[1].data)}
		fsys := vfs.NewMem()
		s := mustCreate(t, fsys, smallLog, bases...)
		var err error
		for i := range 600 {
			k := rng.IntN(2)
			d := s.Disks()[k]
			switch op := rng.IntN(40); {
			case op < 28:
				off, p := randomWrite(rng, len(want[k]))
				if _, err = d.Write(p, off, rng.IntN(2) == 0); err == nil {
					copy(want[k][off:], p)
				}
			case op < 34:
				off := rng.IntN(len(want[k]))
				p := make([]byte, rng.IntN(len(want[k])-off)+5)
				n, readErr := d.ReadAt(p, int64(off))
				if readErr != nil && readErr != io.EOF {
					err = readErr
				}
				if wantN := min(len(p), len(want[k])-off); n != wantN || !bytes.Equal(p[:n], want[k][off:off+n]) {
					t.Fatalf("seed %d, step %d: read of %d bytes at %d differs", seed, i, n, off)
				}
			case op < 36:
				err = d.Commit()
			case op < 37:
				err = s.Checkpoint()
			case op < 38:
				if err = s.Close(); err == nil {
					s = mustOpen(t, fsys, smallLog, bases...)
				}
			default:
				err = same(d, want[k])
			}
			if err != nil {
				t.Fatalf("seed %d, step %d: %v", seed, i, err)
			}
		}
		for k, d := range s.Disks() {
			if err := same(d, want[k]); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if err := Discard(fsys); err != nil {
			t.Fatal(err)
		}
		if list, err := fsys.ReadDir("."); err != nil || len(list) > 0 {
			t.Fatalf("after discard: %v, %v", list, err)
		}
	}
}
