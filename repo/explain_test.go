package repo_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"path"
	"slices"
	"testing"

	"holdfast/repo"
	"holdfast/repo/repotest"
	"holdfast/repo/vfs"
)

// packFiles lists the packs that are there.
func (w *world) packFiles(t *testing.T) []string {
	t.Helper()
	var list []string
	err := vfs.Walk(w.mem, "packs", func(name string, info vfs.Info) error {
		if !info.Dir {
			list = append(list, name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// TestExplain asks about every pack and every point of random histories: what
// lives in packs adds up to what manifests lead to, a point is among those that
// need a pack until it has expired, and what becomes of packs comes true.
func TestExplain(t *testing.T) {
	for _, seed := range seeds(t, 7) {
		for _, sealed := range []bool{false, true} {
			t.Run(sealing(sealed), func(t *testing.T) {
				t.Parallel()
				explainHistory(t, sealed, seed)
			})
		}
	}
}

func explainHistory(t *testing.T, sealed bool, seed uint64) {
	w := newWorld(sealed, seed)
	if err := w.init(t.Context()); err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(seed, 7))
	disks := map[string]*repotest.Disk{}
	fates := map[repo.PackFate]int{}
	for round := range 4 {
		err := w.with(t.Context(), func(o *repo.Owner) error {
			for range 4 {
				machine := []string{"web", "db"}[rng.IntN(2)]
				if disks[machine] == nil {
					disks[machine] = repotest.New(rng, repotest.Dense, 1<<20)
				} else if disks[machine] = disks[machine].Clone(); rng.IntN(2) == 0 {
					disks[machine], _ = repotest.Change(rng, disks[machine])
				}
				disks[machine].Write([]byte(fmt.Sprint("page ", round)), rng.Int64N(max(1, disks[machine].Size())))
				w.must(t, o, repotest.NewPoint(machine, repotest.NamedDisk{Name: "d", Disk: disks[machine]}), nil)
			}
			if round == 2 {
				sweep(t, o)
			}
			for range round {
				w.expire(t, o, w.points[rng.IntN(len(w.points))].ID)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		w.explainAll(t, fates)
	}
	t.Logf("%v", fates)
	if fates[repo.PackSweep] == 0 || fates[repo.PackNeeded] == 0 || fates[repo.PackCompact] == 0 {
		t.Errorf("not everything became of packs: %v", fates)
	}
}

// explainAll holds what is said of all packs and points to what a sweep does on a
// copy, and to a walk with other eyes.
func (w *world) explainAll(t *testing.T, fates map[repo.PackFate]int) {
	t.Helper()
	r, err := repo.Open(t.Context(), w.disk, w.options())
	if err != nil {
		t.Fatal(err)
	}
	points, err := r.Points(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var living, dead int64
	told := map[string]repo.PackFate{}
	needers := map[string]int{} // machine → most points that need a pack
	for _, name := range w.packFiles(t) {
		s, err := r.ExplainPack(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		living, dead = living+s.LivingBytes, dead+s.DeadBytes()
		told[name] = s.Fate
		fates[s.Fate]++
		if (s.LivingBytes > 0) != (len(s.Needers) > 0) {
			t.Errorf("%s: %d bytes are needed by %v", name, s.LivingBytes, s.Needers)
		}
		for _, n := range s.Needers {
			needers[n.Machine] = max(needers[n.Machine], n.Points)
			for _, id := range []repo.PointID{n.First, n.Last} {
				if !slices.ContainsFunc(points, func(p repo.Point) bool { return p.ID == id && p.Machine == n.Machine }) {
					t.Errorf("%s: %s is said to need it, which is no point of %s", name, id, n.Machine)
				}
			}
		}
	}
	if got := w.reach(t); living != got.NeededBytes || dead != got.DeadBytes {
		t.Errorf("packs hold %d bytes that live and %d dead, want %d and %d", living, dead, got.NeededBytes, got.DeadBytes)
	}
	counts := map[string]int{}
	for _, p := range points {
		counts[p.Machine]++
		s, err := r.ExplainPoint(t.Context(), p.ID)
		if err := errors.Join(err, s.Unknown); err != nil {
			t.Fatal(err)
		}
		alone, err := r.FreedBy(t.Context(), []repo.PointID{p.ID})
		if err != nil || s.Freed != alone || s.State != repo.PointLive || s.Packs == 0 || s.Chain == 0 {
			t.Errorf("point %s: %+v, %v", p.ID, s, err)
		}
	}
	for machine, n := range needers {
		if n > counts[machine] {
			t.Errorf("%d points of %s need a pack, of %d", n, machine, counts[machine])
		}
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	then := w.fork(keepAll)
	if err := then.with(t.Context(), func(o *repo.Owner) error { sweep(t, o); return nil }); err != nil {
		t.Fatal(err)
	}
	left := then.packFiles(t)
	for name, fate := range told {
		if slices.Contains(left, name) != (fate != repo.PackSweep) {
			t.Errorf("%s was to become %s; after a sweep there are %d of %d packs", name, fate, len(left), len(told))
		}
	}
}

// TestExplainHolds names what keeps a point that has expired, and the packs it
// needs: a pin, a lock, a reader.
func TestExplainHolds(t *testing.T) {
	ctx := t.Context()
	w := newWorld(false, 3)
	if err := w.init(ctx); err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(3, 3))
	o, err := w.own(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close() //nolint:errcheck // in memory
	w.must(t, o, repotest.NewPoint("m", repotest.NamedDisk{Name: "d", Disk: repotest.New(rng, repotest.Dense, 1<<20)}), nil)
	packs := w.packFiles(t)
	id := w.points[0].ID
	file := "points/" + string(id)
	reader, err := o.OpenPoint(id)
	if err != nil {
		t.Fatal(err)
	}
	check := func(state repo.PointState, fate repo.PackFate, want ...repo.Hold) {
		t.Helper()
		p, err := o.ExplainPoint(ctx, id)
		if state == "" {
			if !errors.Is(err, repo.ErrNotFound) {
				t.Errorf("the point that is gone: %+v, %v", p, err)
			}
		} else if err != nil || p.State != state || !slices.Equal(p.Holds, want) || p.Freed.Packs != len(packs) {
			t.Errorf("point: state %s, holds %v, freed %+v, %v, want %s, %v", p.State, p.Holds, p.Freed, err, state, want)
		}
		s, err := o.ExplainPack(ctx, path.Base(packs[0]))
		if state == repo.PointLive {
			want = nil
		}
		if err != nil || s.Fate != fate || !slices.Equal(s.Holds, want) {
			t.Errorf("pack: fate %s, holds %v, %v, want %s, %v", s.Fate, s.Holds, err, fate, want)
		}
	}
	if err := o.Pin(id, "case 7"); err != nil {
		t.Fatal(err)
	}
	check(repo.PointLive, repo.PackNeeded, repo.Hold{By: repo.HoldPin, Name: "case 7"})
	if err := o.Unpin(id, "case 7"); err != nil {
		t.Fatal(err)
	}
	if err := w.mem.SetLocked(file, true); err != nil {
		t.Fatal(err)
	}
	w.expire(t, o, id)
	check(repo.PointRetired, repo.PackNeeded, repo.Hold{By: repo.HoldLock, Name: file})
	if err := w.mem.SetLocked(file, false); err != nil {
		t.Fatal(err)
	}
	sweep(t, o)
	check(repo.PointHeld, repo.PackNeeded, repo.Hold{By: repo.HoldReader, Name: "leases/" + string(id)})
	if err := reader.Close(); err != nil {
		t.Fatal(err)
	}
	check("", repo.PackSweep)
	if err := w.mem.SetLocked(packs[0], true); err != nil {
		t.Fatal(err)
	}
	check("", repo.PackHeld, repo.Hold{By: repo.HoldLock, Name: packs[0]})
	if res := sweep(t, o); res.LockedPacks != 1 {
		t.Errorf("%+v", res)
	}
	s, err := o.Stats(ctx, repo.StatsOptions{})
	if err != nil || s.Swept == nil || s.Swept.LockedPacks != 1 || s.Swept.EmptyPacks != 1 || s.Packs != 1 {
		t.Errorf("stats: %+v, %+v, %v", s, s.Swept, err)
	}
	if _, err := o.ExplainPack(ctx, packs[1]); !errors.Is(err, repo.ErrNotFound) {
		t.Errorf("a pack that was removed: %v", err)
	}
}
