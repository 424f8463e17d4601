package repo

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"

	"holdfast/repo/vfs"
)

// lendOf opens a disk of the sample's last point.
func (s *sample) lendOf(t *testing.T, fsys vfs.FS, name string, frames *FrameCache) (*Disk, *samplePoint) {
	t.Helper()
	opt := s.options(t.Output())
	opt.Frames = frames
	r, err := Open(t.Context(), fsys, opt)
	if err != nil {
		t.Fatal(err)
	}
	p := &s.points[len(s.points)-1]
	reader, err := r.OpenPoint(p.id)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(reader.Close(), r.Close()); err != nil {
			t.Error(err)
		}
	})
	d, err := reader.Disk(name)
	if err != nil {
		t.Fatal(err)
	}
	return d, p
}

// TestBorrow borrows everywhere, from many goroutines at once that hold what
// they have for a while, through a cache of a few frames.
func TestBorrow(t *testing.T) {
	eachShape(t, func(t *testing.T, s *sample) {
		frames := NewFrameCache(5*sampleFrame, 1)
		d, p := s.lendOf(t, s.clone(), smallDisk, frames)
		var wg sync.WaitGroup
		for g := range 4 {
			wg.Go(func() { borrowAround(t, d, p.small, uint64(g)) })
		}
		wg.Wait()
		if st := frames.Stats(); st.Bytes > st.BudgetBytes || st.Waiting != 0 {
			t.Errorf("nothing is lent, yet %+v", st)
		}
	})
}

func borrowAround(t *testing.T, d *Disk, want []byte, seed uint64) {
	type held struct {
		got     [][]byte
		off     int
		release func()
	}
	var holding []held
	check := func(h held) {
		if !bytes.Equal(bytes.Join(h.got, nil), want[h.off:h.off+len(bytes.Join(h.got, nil))]) {
			t.Errorf("seed %d: other bytes at %d", seed, h.off)
		}
		h.release()
	}
	rng := rand.New(rand.NewPCG(seed, 1))
	for range 60 {
		off, n := rng.IntN(len(want)), 1+rng.IntN(300<<10)
		got, pinned, release, err := d.Borrow(t.Context(), int64(off), n)
		if end := off + n; err != nil && (err != io.EOF || end <= len(want)) {
			t.Errorf("seed %d: borrow %d bytes at %d: %v", seed, n, off, err)
			return
		}
		sum := 0
		for _, s := range got {
			if len(s) == 0 {
				t.Error("an empty segment")
			}
			sum += len(s)
		}
		if sum != min(n, len(want)-off) || pinned > int64(len(got)*d.store.settings.Geometry.FrameBytes) {
			t.Errorf("seed %d: %d bytes of %d at %d, %d pinned", seed, sum, n, off, pinned)
		}
		if holding = append(holding, held{got, off, release}); len(holding) > 3 {
			check(holding[0])
			holding = holding[1:]
		}
	}
	for _, h := range holding {
		check(h)
	}
}

func TestBorrowEnds(t *testing.T) {
	s := sampleOf(t, sampleShapes()[0])
	d, p := s.lendOf(t, s.clone(), smallDisk, nil)
	for _, off := range []int64{d.Size(), d.Size() + 1} {
		got, pinned, release, err := d.Borrow(t.Context(), off, 10)
		if len(got) != 0 || pinned != 0 || err != io.EOF {
			t.Fatalf("at %d: %d segments, %d pinned, %v", off, len(got), pinned, err)
		}
		release()
	}
	if _, _, _, err := d.Borrow(t.Context(), -1, 10); err == nil || err == io.EOF {
		t.Errorf("a negative offset: %v", err)
	}
	got, _, release, err := d.Borrow(t.Context(), d.Size()-3, 10)
	if err != io.EOF || !bytes.Equal(bytes.Join(got, nil), p.small[len(p.small)-3:]) {
		t.Errorf("the end: %x, %v", got, err)
	}
	release()
}

// TestCached: holes are at hand once their nodes are, data once it was read.
func TestCached(t *testing.T) {
	s := sampleOf(t, sampleShapes()[0])
	d, p := s.lendOf(t, s.clone(), bigDisk, nil)
	data := d.Size() - int64(len(p.big))
	if d.Cached(0, 1) || d.Cached(data, 1) {
		t.Error("cached before anything was read")
	}
	buf := make([]byte, 1)
	for _, off := range []int64{0, data} {
		if _, err := d.ReadAt(buf, off); err != nil {
			t.Fatal(err)
		}
		if !d.Cached(off, 1) {
			t.Errorf("not cached at %d after it was read", off)
		}
	}
	for _, c := range []struct {
		off  int64
		n    int
		want bool
	}{
		{data - 4096, 4096, true}, {data - 4096, 8192, true}, {data, len(p.big), false},
		{d.Size(), 10, true}, {-1, 1, false},
	} {
		if got := d.Cached(c.off, c.n); got != c.want {
			t.Errorf("Cached(%d, %d) = %v", c.off-data, c.n, got)
		}
	}
}

// TestDecoders: no more goroutines decode than are let, what is in memory and
// holes wait for none, and who wants the same frame waits for the same load.
func TestDecoders(t *testing.T) {
	s := sampleOf(t, sampleShapes()[0])
	synctest.Test(t, func(t *testing.T) {
		frames := NewFrameCache(1<<20, 1)
		d, p := s.lendOf(t, s.clone(), smallDisk, frames)
		frame := int64(d.store.settings.Geometry.FrameBytes)
		buf := make([]byte, 1)
		if _, err := d.ReadAt(buf, 0); err != nil { // nodes, too
			t.Fatal(err)
		}
		frames.decoding.enter()
		before := d.store.fetched.Load()
		done := make(chan error, 3)
		for _, off := range []int64{frame, frame + 1, 2 * frame} {
			go func() {
				b := make([]byte, 1)
				_, err := d.ReadAt(b, off)
				if err == nil && b[0] != p.small[off] {
					err = errDigest
				}
				done <- err
			}()
		}
		synctest.Wait()
		if len(done) != 0 || frames.Stats().Waiting != 3 {
			t.Fatalf("%d were decoded without their turn; %+v", len(done), frames.Stats())
		}
		_, entry, err := d.chunk(t.Context(), 0)
		if err != nil {
			t.Fatal(err)
		}
		if got := d.store.fetched.Load() - before; got != int64(entry.Frames[1].Stored+entry.Frames[2].Stored) {
			t.Errorf("%d bytes were fetched for two frames of %d and %d", got, entry.Frames[1].Stored, entry.Frames[2].Stored)
		}
		if _, err := d.ReadAt(buf, 5); err != nil || buf[0] != p.small[5] {
			t.Errorf("a frame in memory: %x, %v", buf, err)
		}
		frames.decoding.leave()
		for range 3 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	})
}

// TestWarm: a warmed frame is there for who asks, and a hole takes nothing.
func TestWarm(t *testing.T) {
	s := sampleOf(t, sampleShapes()[0])
	frames := NewFrameCache(1<<20, 1)
	d, p := s.lendOf(t, s.clone(), bigDisk, frames)
	data := d.Size() - int64(len(p.big))
	for _, off := range []int64{0, data, data, data + 1} {
		if ok, err := d.Warm(t.Context(), off, func(s FrameStats, n int64) bool { return s.WarmBytes == 0 && n == sampleFrame }); !ok || err != nil {
			t.Fatalf("at %d: %v, %v", off, ok, err)
		}
	}
	frame := int64(d.store.settings.Geometry.FrameBytes)
	if st := frames.Stats(); st.WarmBytes != frame || st.Misses != 0 || !d.Cached(data, int(frame)) {
		t.Errorf("warmed one frame: %+v", st)
	}
	buf := make([]byte, 1)
	if _, err := d.ReadAt(buf, data); err != nil || buf[0] != p.big[0] {
		t.Fatalf("%x, %v", buf, err)
	}
	if st := frames.Stats(); st.WarmBytes != 0 || st.Hits != 1 || st.Misses != 0 {
		t.Errorf("asked for it: %+v", st)
	}
	if ok, err := d.Warm(t.Context(), data+frame, func(FrameStats, int64) bool { return false }); ok || err != nil || d.Cached(data+frame, 1) {
		t.Errorf("warmed what may not be: %v, %v", ok, err)
	}
	if _, err := d.Warm(t.Context(), d.Size(), nil); err != io.EOF {
		t.Errorf("beyond the end: %v", err)
	}
}

// TestMissing tells what is not there from what is damaged.
func TestMissing(t *testing.T) {
	s := sampleOf(t, sampleShapes()[0])
	for _, c := range []struct {
		name    string
		err     error
		missing bool
	}{
		{"no file", syscall.ENOENT, true},
		{"no descriptors", syscall.EMFILE, true},
		{"a bad medium", syscall.EIO, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			fsys := vfs.NewFaulty(s.clone())
			d, p := s.lendOf(t, fsys, smallDisk, nil)
			buf := make([]byte, len(p.small))
			fsys.FailReads("packs/data/*/*", c.err)
			_, err := d.ReadAt(buf, 0)
			var bad *CorruptError
			if !errors.As(err, &bad) || bad.Missing != c.missing {
				t.Fatalf("got %v, missing %v", err, bad != nil && bad.Missing)
			}
			if _, _, _, err := d.Borrow(t.Context(), 0, 10); !errors.As(err, &bad) || bad.Missing != c.missing || bad.Off != 0 {
				t.Errorf("borrowed: %v", err)
			}
			fsys.Heal()
			if _, err := d.ReadAt(buf, 0); err != nil || !bytes.Equal(buf, p.small) {
				t.Errorf("when it is back: %v", err)
			}
		})
	}
}
