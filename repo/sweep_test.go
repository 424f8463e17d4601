package repo_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"holdfast/repo"
	"holdfast/repo/repotest"
	"holdfast/repo/vfs"
)

// reach fails the test if a point lacks something, and returns what lies in the
// packs.
func (w *world) reach(t *testing.T) repotest.Reach {
	t.Helper()
	r, err := repotest.Reachable(w.disk)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Missing) > 0 {
		t.Fatalf("%d records that points need are missing: %v", len(r.Missing), r.Missing[0])
	}
	return r
}

// expire makes points expire, here and in the model.
func (w *world) expire(t *testing.T, o *repo.Owner, ids ...repo.PointID) {
	t.Helper()
	for _, id := range ids {
		if _, err := o.Expire(t.Context(), id, "test"); err != nil {
			t.Fatal(err)
		}
		w.mu.Lock()
		w.points = slices.DeleteFunc(w.points, func(p repotest.Point) bool { return p.ID == id })
		w.mu.Unlock()
	}
}

func sweep(t *testing.T, o *repo.Owner) repo.SweepResult {
	t.Helper()
	res, err := o.Sweep(t.Context(), repo.SweepOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// TestSweepHistory makes points, expires some and sweeps, at random: whatever
// remains is whole, and what nothing needs is gone after a compaction.
func TestSweepHistory(t *testing.T) {
	list := []uint64{1, 2, 3}
	if raceDetector {
		list = list[:1]
	}
	if long {
		for s := range uint64(40) {
			list = append(list, 100+s)
		}
	}
	for _, seed := range seeds(t, list...) {
		for _, sealed := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s seed %d", sealing(sealed), seed), func(t *testing.T) {
				t.Parallel()
				sweepHistory(t, sealed, seed)
			})
		}
	}
}

func sweepHistory(t *testing.T, sealed bool, seed uint64) {
	w := newWorld(sealed, seed)
	ctx := t.Context()
	if err := w.init(ctx); err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(seed, 4))
	state := map[string][]repotest.NamedDisk{}
	o, err := w.own(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for step := range 40 {
		machine := []string{"web", "db", "mail"}[rng.IntN(3)]
		switch n := rng.IntN(10); {
		case n < 5:
			disks := slices.Clone(state[machine])
			for i := range disks {
				disks[i].Disk, _ = repotest.Change(rng, disks[i].Disk)
			}
			if len(disks) == 0 || rng.IntN(8) == 0 {
				disks = append(disks, repotest.NamedDisk{Name: fmt.Sprint("d", len(disks)),
					Disk: repotest.New(rng, repotest.Kind(rng.IntN(repotest.Kinds)), 200<<10+rng.Int64N(2<<20))})
			}
			state[machine] = disks
			w.must(t, o, repotest.NewPoint(machine, disks...), func(opt *repo.BackupOptions) { opt.Full = rng.IntN(6) == 0 })
		case n < 8 && len(w.points) > 0:
			for range 1 + rng.IntN(3) {
				if len(w.points) > 0 {
					w.expire(t, o, w.points[rng.IntN(len(w.points))].ID)
				}
			}
		case n == 8:
			res := sweep(t, o)
			if r := w.reach(t); r.DeadPacks != 0 {
				t.Fatalf("step %d: %d packs hold nothing needed after a sweep: %+v", step, r.DeadPacks, res)
			}
		case rng.IntN(2) == 0:
			if _, err := o.Compact(ctx, repo.CompactOptions{AnyDead: true}); err != nil {
				t.Fatal(err)
			}
			if r := w.reach(t); r.DeadBytes != 0 {
				t.Fatalf("step %d: %d of %d bytes are needed by nothing", step, r.DeadBytes, r.DeadBytes+r.NeededBytes)
			}
		default:
			if err := o.Close(); err != nil {
				t.Fatal(err)
			}
			if rng.IntN(3) == 0 {
				if err := w.forgetCounts(); err != nil && !errors.Is(err, fs.ErrNotExist) {
					t.Fatal(err)
				}
			}
			if o, err = w.own(ctx); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := o.Compact(ctx, repo.CompactOptions{AnyDead: true}); err != nil {
		t.Fatal(err)
	}
	if r := w.reach(t); r.DeadBytes != 0 {
		t.Errorf("%d of %d bytes are needed by nothing", r.DeadBytes, r.DeadBytes+r.NeededBytes)
	}
	if err := repotest.Compare(ctx, o.Repository, w.model().Points()); err != nil {
		t.Error(err)
	}
	w.expire(t, o, pointIDs(w)...)
	sweep(t, o)
	if r := w.reach(t); r.DeadBytes+r.NeededBytes != 0 {
		t.Errorf("all points have expired, and %d bytes are left", r.DeadBytes+r.NeededBytes)
	}
	if err := o.Close(); err != nil {
		t.Error(err)
	}
	if err := repotest.Account(w.disk); err != nil {
		t.Error(err)
	}
}

func pointIDs(w *world) (ids []repo.PointID) {
	for _, p := range w.points {
		ids = append(ids, p.ID)
	}
	return ids
}

// TestSweepAnew: a sweep that counts everything again finds what one finds that
// brings its counts up to date.
func TestSweepAnew(t *testing.T) {
	// worn, swept, and with two copies of what the last point needs.
	sweepAfter := func(sealed bool, seed uint64, forget bool) (res repo.SweepResult) {
		w := newWorld(sealed, seed)
		if err := errors.Join(worn(t.Context(), w), sweepOnce(t.Context(), w)); err != nil {
			t.Fatal(err)
		}
		err := w.with(t.Context(), func(o *repo.Owner) error {
			_, err := o.Synthesize(t.Context(), w.points[len(w.points)-1].ID, repo.SynthesizeOptions{})
			if forget {
				err = errors.Join(err, w.forgetCounts())
			}
			res = sweep(t, o)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return res
	}
	for _, sealed := range []bool{false, true} {
		for seed := range uint64(3) {
			kept, anew := sweepAfter(sealed, seed, false), sweepAfter(sealed, seed, true)
			kept.Points, anew.Points = 0, 0 // those that went before are new to who counts anew
			if kept.DeadBytes == 0 || kept.Packs == 0 || !cmp.Equal(kept, anew) {
				t.Errorf("%s seed %d: a sweep said %+v, counted anew %+v", sealing(sealed), seed, kept, anew)
			}
		}
	}
}

// forgetCounts removes all that is known of references.
func (w *world) forgetCounts() error {
	infos, err := w.disk.ReadDir("index/refs")
	for _, info := range infos {
		err = errors.Join(err, w.disk.Remove("index/refs/"+info.Name))
	}
	return err
}

// TestSweepLeased: what an expired point holds stays while somebody reads it,
// and is freed by the next sweep.
func TestSweepLeased(t *testing.T) {
	w, o := owned(t)
	p := oneDisk("web", dense(1, 3<<20))
	run := w.must(t, o, p, nil)
	reader, err := repo.Open(t.Context(), w.disk, w.options())
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	open, err := reader.OpenPoint(run.Point.ID)
	if err != nil {
		t.Fatal(err)
	}
	w.expire(t, o, run.Point.ID)
	for range 2 {
		if res := sweep(t, o); res.Packs != 0 || len(res.Held) != 1 {
			t.Fatalf("a point that is read was freed: %+v", res)
		}
	}
	d, err := open.Disk("d")
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 3<<20)
	if _, err := d.ReadAt(got, 0); err != nil {
		t.Error(err)
	}
	if err := open.Close(); err != nil {
		t.Error(err)
	}
	if res := sweep(t, o); res.Packs == 0 || len(res.Held) != 0 || res.Points != 1 {
		t.Errorf("nobody reads it any more: %+v", res)
	}
	if r := w.reach(t); r.DeadBytes != 0 {
		t.Errorf("%d bytes are left", r.DeadBytes)
	}
}

// TestSweepBesidePausedRun: a run that was told that a chunk is stored makes a
// whole point, however the sweep falls in between.
func TestSweepBesidePausedRun(t *testing.T) {
	for _, at := range []int64{0, 1 << 20, 2 << 20} {
		t.Run(fmt.Sprint("paused at ", at), func(t *testing.T) {
			w, o := owned(t)
			shared := dense(1, 3<<20)
			old := w.must(t, o, oneDisk("old", shared), nil)
			// The same bytes in another machine: all chunks are known.
			paused, goOn := make(chan struct{}), make(chan struct{})
			var seen atomic.Bool // several workers read
			done := make(chan error)
			go func() {
				_, err := w.backup(t.Context(), o, oneDisk("new", shared), func(opt *repo.BackupOptions) {
					opt.Disks[0].Source.(*repotest.Source).OnRead = func(off int64) {
						if off >= at && seen.CompareAndSwap(false, true) {
							close(paused)
							<-goOn
						}
					}
				})
				done <- err
			}()
			<-paused
			w.expire(t, o, old.Point.ID)
			res := sweep(t, o)
			t.Logf("%+v", res)
			close(goOn)
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			w.reach(t)
			if err := repotest.Compare(t.Context(), o.Repository, w.model().Points()); err != nil {
				t.Error(err)
			}
			if _, err := o.Compact(t.Context(), repo.CompactOptions{AnyDead: true}); err != nil {
				t.Error(err)
			}
			if r := w.reach(t); r.DeadBytes != 0 {
				t.Errorf("%d bytes are needed by nothing", r.DeadBytes)
			}
		})
	}
}

// TestTwoSweeps: the second waits and finds nothing.
func TestTwoSweeps(t *testing.T) {
	w, o := owned(t)
	for i := range uint64(4) {
		w.must(t, o, oneDisk("web", dense(i, 2<<20)), nil)
	}
	w.expire(t, o, w.points[0].ID)
	w.expire(t, o, w.points[0].ID)
	results := make(chan repo.SweepResult)
	for range 2 {
		go func() {
			res, err := o.Sweep(context.Background(), repo.SweepOptions{})
			if err != nil {
				t.Error(err)
			}
			results <- res
		}()
	}
	a, b := <-results, <-results
	if a.Packs+b.Packs == 0 || a.Packs > 0 && b.Packs > 0 || a.Points+b.Points != 2 {
		t.Errorf("one sweep freed %+v, the other %+v", a, b)
	}
	w.reach(t)
}

// TestSynthesize copies a point into disk order; what it replaces is freed, and
// every point stays as it is.
func TestSynthesize(t *testing.T) {
	for _, sealed := range []bool{false, true} {
		t.Run(sealing(sealed), func(t *testing.T) {
			w := newWorld(sealed, 5)
			ctx := t.Context()
			rng := rand.New(rand.NewPCG(5, 5))
			disk := repotest.New(rng, repotest.Dense, 4<<20)
			err := errors.Join(w.init(ctx), w.with(ctx, func(o *repo.Owner) error {
				for range 12 {
					w.must(t, o, oneDisk("web", disk), nil)
					disk, _ = repotest.Change(rng, disk)
				}
				before, used := w.reach(t), w.mem.Used()
				plan, err := o.PlanSynthesis(ctx, w.latest("web").ID)
				if err != nil {
					return err
				}
				if _, err := o.Synthesize(ctx, w.latest("web").ID, repo.SynthesizeOptions{}); err != nil {
					return err
				}
				after := w.reach(t)
				if grew := after.DeadBytes - before.DeadBytes; plan.Bytes < 1<<20 || grew != plan.Bytes {
					t.Errorf("planned %+v, and %d bytes more are dead", plan, grew)
				}
				if got := w.mem.Used() - used; got < plan.Bytes || got > plan.RoomBytes*21/20 {
					t.Errorf("planned %+v, and %d bytes more are used", plan, got)
				}
				if err := repotest.Compare(ctx, o.Repository, w.model().Points()); err != nil {
					return err
				}
				_, err = o.Compact(ctx, repo.CompactOptions{AnyDead: true})
				if r := w.reach(t); r.DeadBytes != 0 {
					t.Errorf("%d bytes are needed by nothing", r.DeadBytes)
				}
				return errors.Join(err, repotest.Compare(ctx, o.Repository, w.model().Points()))
			}), repotest.Account(w.disk))
			if err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestEvacuate empties locked packs, which go when their locks end.
func TestEvacuate(t *testing.T) {
	w, o := owned(t)
	disk := dense(1, 4<<20)
	w.must(t, o, oneDisk("web", disk), nil)
	var packs []string
	err := vfs.Walk(w.mem, "packs", func(name string, info vfs.Info) error {
		if !info.Dir {
			packs = append(packs, name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	lock := func(on bool) {
		for _, name := range packs {
			if err := w.mem.SetLocked(name, on); err != nil {
				t.Fatal(err)
			}
		}
	}
	lock(true)
	// All but a quarter of each MiB changes.
	for off := int64(0); off < disk.Size(); off += 256 << 10 {
		if off%(1<<20) != 0 {
			next := disk.Clone()
			next.Write(noise(uint64(off), 256<<10), off)
			disk = next
		}
	}
	w.must(t, o, oneDisk("web", disk), nil)
	w.expire(t, o, w.points[0].ID)
	if res := sweep(t, o); res.Packs != 0 {
		t.Errorf("locked packs were removed: %+v", res)
	}
	res, err := o.Evacuate(t.Context(), repo.CompactOptions{})
	if err != nil || res.Packs == 0 || res.Swept.LockedPacks == 0 {
		t.Errorf("evacuated %+v, %v", res, err)
	}
	w.reach(t)
	if again, err := o.Evacuate(t.Context(), repo.CompactOptions{}); err != nil || again.Packs != 0 {
		t.Errorf("evacuated again: %+v, %v", again, err)
	}
	lock(false)
	if res := sweep(t, o); res.Packs < len(packs)/2 || res.LockedPacks != 0 {
		t.Errorf("of %d packs with a lock that has ended %+v", len(packs), res)
	}
	w.reach(t)
}

func noise(seed uint64, n int) []byte {
	d := repotest.New(rand.New(rand.NewPCG(seed, 8)), repotest.Dense, int64(n))
	p := make([]byte, n)
	if _, err := d.ReadAt(p, 0); err != nil {
		panic(err)
	}
	return p
}

// TestSweepLateReader: somebody opens a point, and it expires, while a sweep
// looks at who reads what: what the reader needs stays.
func TestSweepLateReader(t *testing.T) {
	w, o := owned(t)
	disk := dense(1, 3<<20)
	id := w.must(t, o, oneDisk("web", disk), nil).Point.ID
	w.must(t, o, oneDisk("other", dense(2, 1<<20)), nil)
	other, err := repo.Open(t.Context(), w.mem, w.options())
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	var reader *repo.Reader
	lists := 0
	w.disk.CountReads()
	w.disk.OnOp(func(_ int, op vfs.Op) {
		if op.Kind != vfs.OpReadDir || op.Name != "leases" {
			return
		}
		if lists++; lists != 2 {
			return
		}
		if reader, err = other.OpenPoint(id); err != nil {
			t.Error(err)
		}
		w.expire(t, o, id)
	})
	res := sweep(t, o)
	w.disk.OnOp(nil)
	if reader == nil {
		t.Fatalf("leases were listed %d times", lists)
	}
	if res.Packs > 0 {
		t.Errorf("packs of a point that is read were removed: %+v", res)
	}
	if res := sweep(t, o); len(res.Held) != 1 || !res.Held[0].Read {
		t.Errorf("the point is read, and the next sweep says %+v", res)
	}
	d, err := reader.Disk("d")
	if err != nil {
		t.Fatal(err)
	}
	if err := repotest.CompareRead(t.Context(), d, disk, rand.New(rand.NewPCG(1, 1))); err != nil {
		t.Error(err)
	}
	if err := reader.Close(); err != nil {
		t.Error(err)
	}
	if res := sweep(t, o); res.Points != 1 || res.Packs == 0 {
		t.Errorf("nobody reads it any more: %+v", res)
	}
}
