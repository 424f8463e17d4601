package repo_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"

	"holdfast/repo"
	"holdfast/repo/pack"
	"holdfast/repo/repotest"
	"holdfast/repo/vfs"
)

// TestStats makes points whose shares are known: two machines with the same
// disk, of which one then changes a chunk.
func TestStats(t *testing.T) {
	ctx := t.Context()
	w := newWorld(true, 8)
	if err := w.init(ctx); err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(8, 8))
	chunkBytes := int64(small.ChunkBytes)
	disk := repotest.New(rng, repotest.Dense, 4*chunkBytes)
	changed := disk.Clone()
	p := make([]byte, chunkBytes)
	for i := range p {
		p[i] = byte(rng.Uint32())
	}
	changed.Write(p, chunkBytes)
	point := func(machine string, d *repotest.Disk) repotest.Point {
		return repotest.NewPoint(machine, repotest.NamedDisk{Name: "d", Disk: d})
	}
	err := w.with(ctx, func(o *repo.Owner) error {
		w.must(t, o, point("a", disk), nil)
		w.must(t, o, point("b", disk), nil)
		w.must(t, o, point("a", changed), nil)
		s, err := o.Stats(ctx, repo.StatsOptions{})
		if err != nil || s.Swept != nil || s.ByMachine != nil || s.ByPoint != nil {
			t.Errorf("before a sweep: %+v, %v", s, err)
		}
		sweep(t, o)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	r, err := repo.Open(ctx, w.disk, w.options())
	if err != nil {
		t.Fatal(err)
	}
	steps := 0
	s, err := r.Stats(ctx, repo.StatsOptions{Machines: true, Points: true, Progress: func(done, total int) {
		if steps++; done != steps || total != 5 {
			t.Errorf("progress %d of %d at step %d", done, total, steps)
		}
	}})
	if err := errors.Join(err, s.Unknown, r.Close()); err != nil || steps != 5 {
		t.Fatal(steps, err)
	}
	if s.Machines != 2 || s.Points != 3 || s.LogicalBytes != 12*chunkBytes || s.ReferencedBytes != 12*chunkBytes ||
		s.UniqueBytes != 5*chunkBytes || s.DedupeRatio() != 12./5 || s.PacksPerTiB() != 0 {
		t.Errorf("whole: %+v", s)
	}
	var packBytes, parity int64
	for _, name := range w.packFiles(t) {
		p, err := vfs.ReadFile(w.mem, name, 1<<30)
		if err != nil {
			t.Fatal(err)
		}
		f, err := pack.Open(bytes.NewReader(p), int64(len(p)))
		if err != nil {
			t.Fatal(err)
		}
		l, ok := f.Layout()
		if !ok {
			t.Fatal(name)
		}
		packBytes, parity = packBytes+int64(len(p)), parity+l.ParityBytes()
	}
	if s.PackBytes != packBytes || s.ParityBytes != parity || parity == 0 {
		t.Errorf("%d bytes of packs, %d of parity, want %d and %d", s.PackBytes, s.ParityBytes, packBytes, parity)
	}
	if s.Swept == nil || s.Swept.Segment != s.Head.Number || s.Swept.At.IsZero() || s.Swept.DeadBytes+s.Swept.EmptyBytes != 0 {
		t.Errorf("swept: %+v, head %d", s.Swept, s.Head.Number)
	}
	if s.Verified.NeverPacks != s.Packs || s.Signer == "" {
		t.Errorf("%+v, signer %q", s.Verified, s.Signer)
	}
	a, b := s.ByMachine[0], s.ByMachine[1]
	if a.Machine != "a" || a.Points != 2 || a.UniqueBytes != chunkBytes || a.ReferencedBytes != 8*chunkBytes || a.AddedBytes == 0 {
		t.Errorf("machine a: %+v", a)
	}
	if b.Machine != "b" || b.UniqueBytes != 0 || b.Freed.RecordBytes != 0 {
		t.Errorf("machine b: %+v", b)
	}
	for i, want := range []int64{0, 0, chunkBytes} {
		if p := s.ByPoint[i]; p.UniqueBytes != want || p.SharedBytes() != 4*chunkBytes-want || (p.Freed.RecordBytes > 0) != (want > 0) {
			t.Errorf("point %d of %s: %+v", i, p.Point.Machine, p)
		}
	}
	if got := s.ByPoint[2].Freed; got.Packs != 2 || got.Records != 3-1 {
		t.Errorf("the point with a chunk of its own: %+v", got)
	}
}
