package repo

import (
	"errors"
	"strings"
	"sync"
	"testing"
)

// TestScrubBesideSweep takes packs away while a scrub is about to read them.
// They are not missed, nor is what a run stores meanwhile a stranger.
func TestScrubBesideSweep(t *testing.T) {
	eachShape(t, func(t *testing.T, s *sample) {
		for _, owned := range []bool{true, false} {
			mem := s.clone()
			o := s.own(t, mem)
			var once sync.Once
			meanwhile := func(ScrubProgress) {
				once.Do(func() {
					for i := range s.points[:2] {
						if _, err := o.Expire(t.Context(), s.points[i].id, "test"); err != nil {
							t.Error(err)
						}
					}
					last := &s.points[2]
					_, err := o.Backup(t.Context(), BackupOptions{Machine: "new", Disks: []SourceDisk{
						{Name: "d", Source: memSource([]byte(strings.Repeat("something new ", 50_000)))},
						{Name: smallDisk, Source: memSource(last.small)}}})
					if err != nil {
						t.Error(err)
					}
					if res, err := o.Compact(t.Context(), CompactOptions{AnyDead: true}); err != nil || res.Swept.Packs == 0 {
						t.Errorf("nothing was swept: %+v, %v", res, err)
					}
				})
			}
			var rep *ScrubReport
			var err error
			if owned {
				rep, err = o.Scrub(t.Context(), ScrubOptions{Share: 0.99, Progress: meanwhile})
			} else {
				r, oerr := Open(t.Context(), mem, s.options(t.Output()))
				if oerr != nil {
					t.Fatal(oerr)
				}
				rep, err = r.Scrub(t.Context(), ScrubOptions{Share: 0.99, Progress: meanwhile})
				err = errors.Join(err, r.Close())
			}
			if err != nil || !rep.Clean() || len(rep.Orphans) > 0 {
				t.Errorf("owned %v: %+v, %v", owned, rep, err)
			}
			if err := o.Close(); err != nil {
				t.Fatal(err)
			}
			if rep := s.scrubOwned(t, mem, ScrubOptions{Deep: true}); !rep.Clean() || len(rep.Orphans) > 0 {
				t.Errorf("afterwards: %+v", rep)
			}
		}
	})
}

// TestRepairBesideRuns repairs while backups go on and a point is read.
func TestRepairBesideRuns(t *testing.T) {
	s := sampleOf(t, sampleShape{true, 3})
	mem := s.clone()
	for _, name := range s.files(t, packsDir) {
		if err := mem.Corrupt(name, 6000, 1); err != nil {
			t.Fatal(err)
		}
	}
	o := s.own(t, mem)
	last := &s.points[len(s.points)-1]
	var all sync.WaitGroup
	for _, machine := range []string{"web 1", "another", "a third"} {
		all.Go(func() {
			for range 3 {
				run, err := o.Backup(t.Context(), BackupOptions{Machine: machine, Disks: []SourceDisk{
					{Name: smallDisk, Source: memSource(last.small)}, {Name: bigDisk, Source: bigSource(last.big)}}})
				if err != nil {
					t.Error(machine, err)
					return
				}
				fresh := *last
				fresh.id = run.Point.ID
				if errs := s.readPoint(t, o.Repository, &fresh, bigSize); len(errs) > 0 {
					t.Error(machine, errs)
				}
			}
		})
	}
	all.Go(func() {
		for range 5 {
			for i := range s.points {
				if errs := s.readPoint(t, o.Repository, &s.points[i], bigSize); len(errs) > 0 {
					t.Error(errs)
				}
			}
		}
	})
	for range 2 {
		all.Go(func() {
			if rep, err := o.Repair(t.Context(), RepairOptions{Known: false}); err != nil && !errors.As(err, new(*BusyError)) {
				t.Error(rep, err)
			}
		})
		all.Go(func() {
			if _, err := o.Sweep(t.Context(), SweepOptions{}); err != nil {
				t.Error(err)
			}
		})
		all.Go(func() {
			if _, err := o.Reindex(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if err := o.Close(); err != nil {
		t.Fatal(err)
	}
	// Repairs pass over what an unfinished run has stored or a run relies on. Now
	// there is none of either.
	s.repair(t, mem, false, RepairOptions{})
	if f := s.readAll(t, mem); len(f.errs) > 0 {
		t.Error(f)
	}
}
