package repo

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"holdfast/repo/vfs"
)

// scrubAs scrubs as a reader, and fails the test if that can't be done.
func (s *sample) scrubAs(t *testing.T, fsys vfs.FS, keyless bool, opt ScrubOptions) *ScrubReport {
	t.Helper()
	o := s.options(t.Output())
	if keyless {
		o.Passphrase, o.Keyless = nil, true
	}
	r, err := Open(t.Context(), fsys, o)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close() //nolint:errcheck // nothing was written
	rep, err := r.Scrub(t.Context(), opt)
	if err != nil {
		t.Fatal(err)
	}
	return rep
}

func (s *sample) scrubOwned(t *testing.T, fsys vfs.FS, opt ScrubOptions) *ScrubReport {
	t.Helper()
	o := s.own(t, fsys)
	rep, err := o.Scrub(t.Context(), opt)
	if err = errors.Join(err, o.Close()); err != nil {
		t.Fatal(err)
	}
	return rep
}

// TestScrubClean reads a whole repository with and without its key: nothing is
// wrong, and every byte of every pack was read once.
func TestScrubClean(t *testing.T) {
	eachShape(t, func(t *testing.T, s *sample) {
		var bytes, packs int64
		for _, name := range s.files(t, packsDir) {
			packs++
			bytes += int64(len(s.data(t, name)))
		}
		for _, keyless := range []bool{false, true} {
			rep := s.scrubAs(t, s.clone(), keyless, ScrubOptions{})
			if !rep.Clean() || len(rep.Orphans) > 0 {
				t.Errorf("keyless %v: %+v", keyless, rep)
			}
			if rep.ReadBytes != bytes || rep.ReadPacks != packs || rep.Packs != packs || rep.Remembered {
				t.Errorf("keyless %v: read %d bytes of %d packs, want %d of %d", keyless, rep.ReadBytes, rep.ReadPacks, bytes, packs)
			}
		}
		rep := s.scrubAs(t, s.clone(), false, ScrubOptions{Deep: true})
		if !rep.Clean() || rep.Records < 20 {
			t.Errorf("deep: %+v", rep)
		}
		if s.shape.sealed {
			o := s.options(io.Discard)
			o.Passphrase, o.Keyless = nil, true
			r, err := Open(t.Context(), s.clone(), o)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := r.Scrub(t.Context(), ScrubOptions{Deep: true}); !errors.Is(err, ErrNeedKey) {
				t.Errorf("deep without a key: %v", err)
			}
			r.Close()
		}
	})
}

// TestScrubRemembers verifies a part, then the rest, and then nothing more.
func TestScrubRemembers(t *testing.T) {
	s := sampleOf(t, sampleShape{true, 3})
	mem := s.clone()
	all := int64(len(s.files(t, packsDir)))
	first := s.scrubOwned(t, mem, ScrubOptions{Sample: 0.3})
	if first.ReadPacks == 0 || first.ReadPacks == all || first.Verified.NeverPacks != all-first.ReadPacks || !first.Remembered {
		t.Fatalf("a sample: %+v", first)
	}
	rest := s.scrubOwned(t, mem, ScrubOptions{OlderThan: time.Hour})
	if rest.ReadPacks != all-first.ReadPacks || rest.Verified.NeverPacks != 0 {
		t.Errorf("read %d packs, want the other %d: %+v", rest.ReadPacks, all-first.ReadPacks, rest)
	}
	if again := s.scrubOwned(t, mem, ScrubOptions{OlderThan: time.Hour}); again.ReadPacks != 0 {
		t.Errorf("read %d packs a second time", again.ReadPacks)
	}
	if every := s.scrubOwned(t, mem, ScrubOptions{}); every.ReadPacks != all {
		t.Errorf("read %d packs, want all %d", every.ReadPacks, all)
	}
	r, err := Open(t.Context(), mem, s.options(io.Discard))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close() //nolint:errcheck // only read
	v, err := r.Verified(t.Context())
	if err != nil || v.Packs != all || v.NeverPacks != 0 || time.Since(v.Oldest) > time.Hour || !v.Begun.IsZero() {
		t.Errorf("%+v, %v", v, err)
	}
}

// TestScrubGoesOn stops a scrub in the middle: the next one reads the rest.
func TestScrubGoesOn(t *testing.T) {
	s := sampleOf(t, sampleShape{false, -1})
	mem := s.clone()
	all := int64(len(s.files(t, packsDir)))
	o := s.own(t, mem)
	ctx, cancel := context.WithCancel(t.Context())
	stopped, err := o.Scrub(ctx, ScrubOptions{Share: 0.9, Progress: func(p ScrubProgress) {
		if p.DoneBytes > p.TotalBytes/2 {
			cancel()
		}
	}})
	if !errors.Is(err, context.Canceled) || stopped.ReadPacks == 0 || stopped.ReadPacks == all {
		t.Fatalf("%+v, %v", stopped, err)
	}
	if err := o.Close(); err != nil {
		t.Fatal(err)
	}
	rest := s.scrubOwned(t, mem, ScrubOptions{})
	if rest.ReadPacks != all-stopped.ReadPacks || rest.Continued.IsZero() {
		t.Errorf("read %d packs after %d, of %d; goes on with %v", rest.ReadPacks, stopped.ReadPacks, all, rest.Continued)
	}
	if every := s.scrubOwned(t, mem, ScrubOptions{}); every.ReadPacks != all || !every.Continued.IsZero() {
		t.Errorf("the one after is a scrub of its own: %+v", every)
	}
}

// TestScrubOnce lets one owner scrub once at a time.
func TestScrubOnce(t *testing.T) {
	s := sampleOf(t, sampleShape{false, -1})
	o := s.own(t, s.clone())
	defer o.Close() //nolint:errcheck // not what is tested
	tried := false
	_, err := o.Scrub(t.Context(), ScrubOptions{Progress: func(ScrubProgress) {
		if tried {
			return
		}
		tried = true
		if _, err := o.Scrub(t.Context(), ScrubOptions{}); !errors.As(err, new(*BusyError)) {
			t.Errorf("a second scrub: %v", err)
		}
	}})
	if err != nil || !tried {
		t.Error(err, tried)
	}
}

// TestScrubFinds damages packs so that records are lost: the scrub names the
// pack and the ranges of disks, whether it has a key or not, and what it says is
// what can't be read.
func TestScrubFinds(t *testing.T) {
	eachShape(t, func(t *testing.T, s *sample) {
		for turn, name := range s.files(t, packsDir) {
			file := s.data(t, name)
			damages := wholeFileDamages(int64(len(file)))
			for _, e := range packRecords(t, file)[:1] {
				damages = append(damages, overwrite(int64(e.Off), int64(e.Len)))
			}
			for _, d := range some(damages, 3, turn) {
				s.mustFind(t, name, d)
			}
		}
	})
}

// overwrite is damage beyond what parity heals.
func overwrite(off, n int64) damage {
	return damage{"overwritten", func(t *testing.T, fsys *vfs.Mem, file string) vfs.FS {
		f, err := fsys.OpenWrite(file)
		if err == nil {
			_, err = f.WriteAt([]byte(strings.Repeat("overwritten ", int(n)/12+1)), off)
			err = errors.Join(err, f.Close())
		}
		if err != nil {
			t.Fatal(err)
		}
		return fsys
	}}
}

func (s *sample) mustFind(t *testing.T, name string, d damage) {
	t.Helper()
	what := name + " " + d.name
	fsys := d.do(t, s.clone(), name)
	with, without := s.scrubAs(t, fsys, false, ScrubOptions{}), s.scrubAs(t, fsys, true, ScrubOptions{})
	for _, rep := range []*ScrubReport{with, without} {
		if len(rep.Damage) != 1 || rep.Damage[0].Path != name || len(rep.Files) > 0 {
			t.Errorf("%s: %+v", what, rep)
			return
		}
	}
	f := s.readAll(t, fsys)
	if hurts := len(f.errs) > 0; hurts && len(with.Lost) == 0 || with.Damage[0].Healable && len(with.Lost) > 0 {
		t.Errorf("%s: the scrub says %+v and %+v; reading gives %v", what, with.Damage, with.Lost, f)
	}
	// Every range that can't be read lies in one that the scrub names.
	for _, err := range f.errs {
		var c *CorruptError
		if !errors.As(err, &c) || !covers(with.Lost, c) {
			t.Errorf("%s: %v is not in %+v", what, err, with.Lost)
		}
	}
	if len(without.Lost) != len(with.Lost) {
		t.Errorf("%s: without a key %d ranges are lost, with it %d", what, len(without.Lost), len(with.Lost))
	}
}

func covers(list []Lost, c *CorruptError) bool {
	for _, l := range list {
		if l.Point == c.Point && l.Disk == c.Disk && l.Off < c.Off+c.Len && c.Off < l.Off+l.Len {
			return true
		}
	}
	return false
}

// TestScrubBudget takes its time.
func TestScrubBudget(t *testing.T) {
	s := sampleOf(t, sampleShape{false, -1})
	free := s.scrubAs(t, s.clone(), false, ScrubOptions{})
	rate := free.ReadBytes * 4 // a quarter of a second
	if slow := s.scrubAs(t, s.clone(), false, ScrubOptions{BytesPerSecond: rate}); slow.Duration < 150*time.Millisecond {
		t.Errorf("%d bytes at %d a second took %v", slow.ReadBytes, rate, slow.Duration)
	}
}

// TestNextRunHeals loses a chunk that nothing changes: the next run of the disk
// asks for it again, by whatever way it reads, and every point that needs it
// reads.
func TestNextRunHeals(t *testing.T) {
	eachShape(t, func(t *testing.T, s *sample) {
		last := &s.points[len(s.points)-1]
		for _, name := range s.files(t, packsDir) {
			for _, listed := range []bool{false, true} {
				mem := s.clone()
				if err := mem.Remove(name); err != nil {
					t.Fatal(err)
				}
				o := s.own(t, mem)
				if _, err := o.Scrub(t.Context(), ScrubOptions{}); err != nil {
					t.Fatal(err)
				}
				opt := BackupOptions{Machine: "web 1", Disks: []SourceDisk{
					{Name: smallDisk, Source: memSource(last.small)}, {Name: bigDisk, Source: bigSource(last.big)}}}
				if listed {
					opt.Disks[0].Changes = &Changes{Base: string(last.id), SizeBytes: int64(len(last.small))}
					opt.Disks[1].Changes = &Changes{Base: string(last.id), SizeBytes: bigSize}
				}
				run, err := o.Backup(t.Context(), opt)
				if err != nil {
					t.Fatalf("%s is gone, listed %v: %v", name, listed, err)
				}
				fresh := *last
				fresh.id = run.Point.ID
				for _, p := range []*samplePoint{last, &fresh} {
					if errs := s.readPoint(t, o.Repository, p, bigSize); len(errs) > 0 {
						t.Errorf("%s is gone, listed %v, point %s: %v", name, listed, p.id, errs)
					}
				}
				if err := o.Close(); err != nil {
					t.Fatal(err)
				}
			}
		}
	})
}

// TestScrubEndsWithOwner closes the owner while it scrubs.
func TestScrubEndsWithOwner(t *testing.T) {
	s := sampleOf(t, sampleShape{false, -1})
	mem := s.clone()
	o := s.own(t, mem)
	begun, ended := make(chan struct{}), make(chan error)
	go func() {
		var once sync.Once
		_, err := o.Scrub(t.Context(), ScrubOptions{BytesPerSecond: 1 << 20, Progress: func(ScrubProgress) { once.Do(func() { close(begun) }) }})
		ended <- err
	}()
	<-begun
	start := time.Now()
	if err := o.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, ErrClosed) || time.Since(start) > 2*time.Second {
		t.Errorf("%v after %v", err, time.Since(start))
	}
	if rep := s.scrubOwned(t, mem, ScrubOptions{}); !rep.Clean() {
		t.Errorf("%+v", rep)
	}
}
