package repo_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"holdfast/repo"
	"holdfast/repo/repotest"
)

// TestFreedBy asks at random moments of random histories what some points alone
// hold, and holds the answer to what their expiry, a sweep and a compaction
// really free, on a copy.
func TestFreedBy(t *testing.T) {
	list := []uint64{2}
	if long {
		for s := range uint64(30) {
			list = append(list, 100+s)
		}
	}
	for _, seed := range seeds(t, list...) {
		for _, sealed := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s seed %d", sealing(sealed), seed), func(t *testing.T) {
				t.Parallel()
				freedHistory(t, sealed, seed)
			})
		}
	}
}

func freedHistory(t *testing.T, sealed bool, seed uint64) {
	w := newWorld(sealed, seed)
	if err := w.init(t.Context()); err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(seed, 6))
	state := map[string]*repotest.Disk{}
	asked, packs, records := 0, 0, 0
	for step := range 18 {
		err := w.with(t.Context(), func(o *repo.Owner) error {
			for range 1 + rng.IntN(3) {
				machine := []string{"web", "db"}[rng.IntN(2)]
				switch d := state[machine]; {
				case d == nil:
					state[machine] = repotest.New(rng, repotest.Dense, 600<<10+rng.Int64N(1<<20))
				case rng.IntN(3) == 0:
					state[machine], _ = repotest.Change(rng, d)
				default: // a page of a database, which is stored as a patch
					state[machine] = d.Clone()
					state[machine].Write([]byte(fmt.Sprint("page ", step)), rng.Int64N(max(1, d.Size())))
				}
				w.must(t, o, repotest.NewPoint(machine, repotest.NamedDisk{Name: "d", Disk: state[machine]}), nil)
			}
			if rng.IntN(2) == 0 {
				w.expire(t, o, w.points[rng.IntN(len(w.points))].ID)
			}
			switch rng.IntN(4) {
			case 0:
				sweep(t, o)
			case 1:
				_, err := o.Compact(t.Context(), repo.CompactOptions{AnyDead: rng.IntN(2) == 0})
				return err
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if step%3 != 2 || len(w.points) == 0 {
			continue
		}
		var ids []repo.PointID
		for range 1 + rng.IntN(3) {
			ids = append(ids, w.points[rng.IntN(len(w.points))].ID)
		}
		f := checkFreed(t, w, ids)
		asked++
		packs += f.Packs
		records += int(f.Records)
	}
	t.Logf("%d questions; %d packs and %d records would be free", asked, packs, records)
	if packs == 0 || records == 0 {
		t.Error("nothing would ever be free")
	}
}

// checkFreed asks what points hold and lets them expire on a copy.
func checkFreed(t *testing.T, w *world, ids []repo.PointID) repo.Freed {
	t.Helper()
	ctx := t.Context()
	r, err := repo.Open(ctx, w.disk, w.options())
	if err != nil {
		t.Fatal(err)
	}
	before := w.reach(t)
	used := w.mem.Used()
	f, err := r.FreedBy(ctx, ids)
	if err := errors.Join(err, r.Close()); err != nil {
		t.Fatal(err)
	}
	if w.mem.Used() != used {
		t.Errorf("asking has changed the repository")
	}
	then, plain := w.fork(keepAll), w.fork(keepAll)
	var swept, without repo.SweepResult
	if err := plain.with(ctx, func(o *repo.Owner) error { without = sweep(t, o); return nil }); err != nil {
		t.Fatal(err)
	}
	err = then.with(ctx, func(o *repo.Owner) error {
		then.expire(t, o, slices.Compact(slices.Sorted(slices.Values(ids)))...)
		swept = sweep(t, o)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	after := then.reach(t)
	if got, want := f.RecordBytes, before.NeededBytes-after.NeededBytes; got != want {
		t.Errorf("%d points: %d bytes of records would be free, and %d were", len(ids), got, want)
	}
	if got, want := f.Packs, swept.Packs-without.Packs; got != want {
		t.Errorf("%d points: %d packs would go, and %d did", len(ids), got, want)
	}
	if got, want := f.PackBytes, swept.Bytes-without.Bytes; got != want {
		t.Errorf("%d points: %d bytes of packs would go, and %d did", len(ids), got, want)
	}
	if got, want := f.DeadBytes, after.DeadBytes-plain.reach(t).DeadBytes; got > f.RecordBytes || f.Packs == 0 && got != want {
		t.Errorf("%d points: %d bytes would be dead, and %d are", len(ids), got, want)
	}
	err = then.with(ctx, func(o *repo.Owner) error {
		_, err := o.Compact(ctx, repo.CompactOptions{AnyDead: true})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if last := then.reach(t); last.DeadBytes != 0 || last.NeededBytes != before.NeededBytes-f.RecordBytes {
		t.Errorf("after a compaction %d bytes are left and %d dead, want %d and none", last.NeededBytes, last.DeadBytes, before.NeededBytes-f.RecordBytes)
	}
	return f
}
