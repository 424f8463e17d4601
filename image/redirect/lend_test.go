package redirect

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"testing"

	"holdfast/repo/vfs"
)

// lendBase is a base that lends, in pieces of a frame, and counts what is lent.
type lendBase struct {
	*memBase
	lent   int
	cached bool
}

const lendFrame = 5 * grainBytes

var errBase = errors.New("the base is damaged")

func (b *lendBase) Borrow(_ context.Context, off int64, n int) (segments [][]byte, pinned int64, release func(), err error) {
	if off+int64(n) > b.Size() {
		n, err = int(b.Size()-off), io.EOF
	}
	for n > 0 {
		if b.bad[uint64(off/grainBytes)] {
			return nil, 0, nil, errBase
		}
		part := min(int64(n), lendFrame-off%lendFrame)
		segments = append(segments, b.data[off:off+part])
		pinned += lendFrame
		off, n = off+part, n-int(part)
	}
	b.lent++
	return segments, pinned, func() { b.lent-- }, err
}

func (b *lendBase) Cached(int64, int) bool { return b.cached }

func lendSession(t *testing.T, fsys vfs.FS, b *lendBase) (*Session, *Disk) {
	t.Helper()
	list := specs(b.memBase)
	list[0].Base = b
	s, err := Create(fsys, list, smallLog)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s, s.Disks()[0]
}

// TestLendModel writes and borrows at random: what is lent is what was written
// last, what was written is not lent, and what is lent stays.
func TestLendModel(t *testing.T) {
	for seed := range uint64(4) {
		rng := rand.New(rand.NewPCG(seed, 3))
		b := &lendBase{memBase: newBase(seed, 300*grainBytes+77), cached: true}
		want, written := bytes.Clone(b.data), make([]bool, 301)
		_, d := lendSession(t, vfs.NewMem(), b)
		lent, refused := 0, 0
		for i := range 500 {
			if rng.IntN(8) == 0 {
				off, p := randomWrite(rng, len(want))
				if len(p) > 2*grainBytes {
					p = p[:2*grainBytes] // leave something to lend
				}
				if _, err := d.Write(p, off, rng.IntN(2) == 0); err != nil {
					t.Fatal(err)
				}
				copy(want[off:], p)
				for g := off / grainBytes; g*grainBytes < off+int64(len(p)); g++ {
					written[g] = true
				}
				continue
			}
			off, n := rng.IntN(len(want)), 1+rng.IntN(12*grainBytes)
			end := min(off+n, len(want))
			above := false
			for g := off / grainBytes; g*grainBytes < end; g++ {
				above = above || written[g]
			}
			segments, _, release, ok, err := d.Borrow(t.Context(), int64(off), n)
			if ok == above || err != nil && (err != io.EOF || off+n <= len(want)) {
				t.Fatalf("seed %d, step %d: %d bytes at %d, written: %v, lent: %v, %v", seed, i, n, off, above, ok, err)
			}
			if !ok {
				refused++
				continue
			}
			lent++
			if !bytes.Equal(bytes.Join(segments, nil), want[off:end]) {
				t.Fatalf("seed %d, step %d: other bytes at %d", seed, i, off)
			}
			release()
		}
		if lent < 50 || refused < 20 || b.lent != 0 {
			t.Errorf("seed %d: %d lent, %d refused, %d never given back", seed, lent, refused, b.lent)
		}
	}
}

func TestLendRefusals(t *testing.T) {
	b := &lendBase{memBase: newBase(1, 20*grainBytes), cached: true}
	b.bad = map[uint64]bool{7: true}
	s, d := lendSession(t, vfs.NewMem(), b)
	if _, _, _, ok, err := d.Borrow(t.Context(), 7*grainBytes, 10); !ok || !errors.Is(err, errBase) {
		t.Errorf("a damaged grain: %v, %v", ok, err)
	}
	if _, err := d.Write(make([]byte, grainBytes), 7*grainBytes, true); err != nil {
		t.Fatal(err)
	}
	for _, off := range []int64{7 * grainBytes, -1, d.Size(), d.Size() + grainBytes} {
		if _, _, _, ok, err := d.Borrow(t.Context(), off, 10); ok || err != nil {
			t.Errorf("at %d: %v, %v", off, ok, err)
		}
	}
	for _, c := range []struct {
		name   string
		off    int64
		n      int
		base   bool
		cached bool
	}{
		{"the base's", 0, 100, true, true},
		{"not at hand", 0, 100, false, false},
		{"zeros above", 7 * grainBytes, 100, false, true},
		{"some of both", 7*grainBytes - 1, 2, true, true},
		{"some of both, not at hand", 7*grainBytes - 1, 2, false, false},
		{"the end", d.Size(), 10, false, true},
	} {
		b.cached = c.base
		if got := d.Cached(c.off, c.n); got != c.cached {
			t.Errorf("%s: cached %v", c.name, got)
		}
	}
	b.cached = true
	s.gate.Lock()
	if d.Cached(0, 1) {
		t.Error("cached, and yet whoever reads has to wait")
	}
	s.gate.Unlock()
	p := bytes.Repeat([]byte{1}, grainBytes)
	if _, err := d.Write(p, 0, true); err != nil {
		t.Fatal(err)
	}
	if err := s.Checkpoint(); err != nil {
		t.Fatal(err)
	}
	if d.Cached(0, 1) {
		t.Error("bytes in a file count as in memory")
	}
}
