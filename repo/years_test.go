package repo_test

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"holdfast/repo"
	"holdfast/repo/repotest"
	"holdfast/repo/retention"
)

// TestReaderOfCompactedPack: whoever has a point open, by a repository that was
// opened long ago, reads on when the packs that it knows are gone.
func TestReaderOfCompactedPack(t *testing.T) {
	for _, warm := range []bool{false, true} {
		t.Run(fmt.Sprint("has read before ", warm), func(t *testing.T) {
			w, o := owned(t)
			rng := rand.New(rand.NewPCG(1, 9))
			disk := repotest.New(rng, repotest.Text, 3<<20)
			for range 6 {
				w.must(t, o, oneDisk("web", disk), nil)
				for range 4 {
					disk, _ = repotest.Change(rng, disk)
				}
			}
			kept := w.points[3]
			r, err := repo.Open(t.Context(), w.disk, w.options())
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			reader, err := r.OpenPoint(kept.ID)
			if err != nil {
				t.Fatal(err)
			}
			if warm {
				if err := repotest.CompareReader(t.Context(), reader, kept); err != nil {
					t.Error(err)
				}
			}
			before := sweep(t, o)
			w.expire(t, o, w.points[0].ID, w.points[1].ID, w.points[2].ID, w.points[4].ID)
			res, err := o.Compact(t.Context(), repo.CompactOptions{AnyDead: true})
			if err != nil || res.Swept.Packs == before.Packs || res.MovedBytes == 0 {
				t.Fatalf("nothing was rewritten: %+v, %v", res, err)
			}
			if err := repotest.CompareReader(t.Context(), reader, kept); err != nil {
				t.Error(err)
			}
			if err := reader.Close(); err != nil {
				t.Error(err)
			}
			// What it opens anew, too.
			if err := repotest.Compare(t.Context(), r, w.model().Points()); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestClockBackForAWeek: the newest points stay whatever the clock says, latest
// is the newest, and when the clock is right again nothing has changed places.
func TestClockBackForAWeek(t *testing.T) {
	w := newWorld(false, 1)
	ctx := t.Context()
	start := time.Date(2026, 5, 1, 22, 0, 0, 0, time.UTC)
	var clock atomic.Int64
	now := func() time.Time { return time.Unix(0, clock.Load()).UTC() }
	w.create.Now = now
	clock.Store(start.UnixNano())
	if err := w.init(ctx); err != nil {
		t.Fatal(err)
	}
	opt := w.options()
	opt.Now = now
	o, err := repo.Own(ctx, w.disk, opt, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	disk := dense(1, 300<<10)
	rules := []retention.Rule{{Last: 5}, {Last: 3, Within: retention.Span{Count: 4, Unit: retention.Day}}, {Last: 2, Daily: 9, Weekly: 3}}
	var made [3][]repo.PointID // of each job, in order
	wrong := 0
	for day := range 40 {
		at := start.AddDate(0, 0, day)
		if day >= 15 && day < 22 {
			at = at.AddDate(0, 0, -7)
		}
		clock.Store(at.UnixNano())
		for i, rule := range rules {
			job := fmt.Sprint("job", i)
			disk = repotest.Scramble(disk, 128<<10)
			run, err := o.Backup(ctx, repo.BackupOptions{
				Machine: "web", Job: job, Slot: fmt.Sprint("day ", day), Disks: oneDisk("web", disk).Sources(),
			})
			if err != nil {
				t.Fatal(err)
			}
			if run.Point.ClockBack {
				wrong++
			}
			made[i] = append(made[i], run.Point.ID)
			latest, err := o.Find(ctx, "web@latest", time.UTC)
			if err != nil || latest.ID != run.Point.ID {
				t.Fatalf("day %d: latest is %s, %v, want %s", day, latest.ID, err, run.Point.ID)
			}
			res, err := o.Retain(ctx, repo.RetainOptions{Rule: rule, Job: job, Zone: "UTC"})
			if err != nil {
				t.Fatal(err)
			}
			kept := make(map[repo.PointID]bool)
			for _, d := range res.Decisions {
				kept[repo.PointID(d.ID)] = d.Keep
			}
			for n, id := range made[i][max(0, len(made[i])-rule.Last):] {
				if !kept[id] {
					t.Fatalf("day %d: of the last %d of %s, number %d went", day, rule.Last, job, n+1)
				}
			}
		}
	}
	if wrong == 0 {
		t.Error("nobody noticed that the clock had gone back")
	}
	points, err := o.Points(ctx)
	if err != nil {
		t.Fatal(err)
	}
	of := make(map[string]int)
	for _, p := range points {
		of[p.Job]++
	}
	// By day 40 everything is as if the clock had always been right: four days and
	// some milliseconds; 9 days and, of the third week, the last before those.
	for job, want := range map[string]int{"job0": 5, "job1": 5, "job2": 10} {
		if of[job] != want {
			t.Errorf("%d points of %s are kept, want %d", of[job], job, want)
		}
	}
}

// TestBaseStoredTwice: two runs stored the same chunks at once, compressed
// otherwise and sealed with other salts. Patches over one copy are read, copied
// and repaired when only the other one is left.
func TestBaseStoredTwice(t *testing.T) {
	for seed := range uint64(2) { // which copy is preferred is chance
		for _, sealed := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s seed %d", sealing(sealed), seed), func(t *testing.T) {
				t.Parallel()
				baseStoredTwice(t, sealed, seed)
			})
		}
	}
}

func baseStoredTwice(t *testing.T, sealed bool, seed uint64) {
	w := newWorld(sealed, seed)
	ctx := t.Context()
	if err := w.init(ctx); err != nil {
		t.Fatal(err)
	}
	o, err := w.own(ctx)
	if err != nil {
		t.Fatal(err)
	}
	disk := repotest.New(rand.New(rand.NewPCG(seed, 2)), repotest.Text, 3*256<<10)
	longer := disk.Clone() // by chunks that take next to nothing
	longer.Resize(40 * 256 << 10)
	for off := disk.Size(); off < longer.Size(); off += 256 << 10 {
		longer.Write([]byte(fmt.Sprint("chunk at ", off)), off)
	}
	// While the first run is at its last chunk and has stored no pack, the second
	// finds nothing and stores what both have again.
	var once sync.Once
	w.must(t, o, oneDisk("small", longer), func(opt *repo.BackupOptions) {
		opt.Compression = "zstd"
		opt.Disks[0].Source.(*repotest.Source).OnRead = func(off int64) {
			if off < longer.Size()-256<<10 {
				return
			}
			once.Do(func() {
				run, err := w.backup(ctx, o, oneDisk("large", disk), func(opt *repo.BackupOptions) { opt.Compression = "none" })
				if err != nil || run.Disks[0].Counters.Chunks != 3 {
					t.Errorf("not stored twice: %+v, %v", run, err)
				}
			})
		}
	})
	if t.Failed() {
		t.FailNow()
	}
	// Patches over either copy, whichever is preferred.
	next, patches := disk, int64(0)
	for i := range 3 {
		next = next.Clone()
		next.Write([]byte("changed"), int64(i*256<<10+5000))
		for _, machine := range []string{"small", "large"} {
			run := w.must(t, o, oneDisk(machine, next), nil)
			patches += run.Disks[0].Counters.Patches
		}
	}
	if patches != 3 {
		t.Errorf("%d patches, want 3", patches)
	}
	check := func(what string) {
		t.Helper()
		if err := repotest.Compare(ctx, o.Repository, w.model().Points()); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		w.reach(t)
	}
	check("stored twice")
	if _, err := o.Compact(ctx, repo.CompactOptions{AnyDead: true}); err != nil {
		t.Fatal(err)
	}
	if r := w.reach(t); r.DeadBytes != 0 {
		t.Errorf("%d bytes are stored twice or for nothing", r.DeadBytes)
	}
	check("one copy swept")
	// The first points, which had the copies in whole, go; patches stay.
	w.expire(t, o, w.points[0].ID, w.points[1].ID)
	if _, err := o.Compact(ctx, repo.CompactOptions{AnyDead: true}); err != nil {
		t.Fatal(err)
	}
	check("only patches need it")
	w.must(t, o, oneDisk("small", repotest.Scramble(next, 700<<10)), nil)
	if _, err := o.Synthesize(ctx, w.latest("large").ID, repo.SynthesizeOptions{}); err != nil {
		t.Fatal(err)
	}
	check("made a synthetic full")
	report, err := o.Scrub(ctx, repo.ScrubOptions{Deep: true})
	if err != nil || len(report.Damage)+len(report.Lost) > 0 {
		t.Errorf("deep scrub: %+v, %v", report, err)
	}
	if err := o.Close(); err != nil {
		t.Error(err)
	}
	if err := repotest.Account(w.disk); err != nil {
		t.Error(err)
	}
}
