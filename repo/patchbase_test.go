package repo_test

import (
	"fmt"
	"slices"
	"testing"

	"holdfast/repo"
	"holdfast/repo/repotest"
)

// TestSweepPatchWithoutBase: of a chunk's copies one is a patch whose base was
// freed while nothing needed the two. It stands for no other copy, wherever it
// lies.
func TestSweepPatchWithoutBase(t *testing.T) {
	for _, sealed := range []bool{false, true} {
		for seed := range uint64(6) { // which copy has the higher name is left to chance
			t.Run(fmt.Sprintf("%s seed %d", sealing(sealed), seed), func(t *testing.T) {
				t.Parallel()
				sweepPatchWithoutBase(t, newWorld(sealed, seed))
			})
		}
	}
}

func sweepPatchWithoutBase(t *testing.T, w *world) {
	const size = 256 << 10
	if err := w.init(t.Context()); err != nil {
		t.Fatal(err)
	}
	o, err := w.own(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	disk := func(first []byte, rest bool) repotest.Point {
		d := repotest.NewDisk(2 * size)
		d.Write(first, 0)
		if rest {
			d.Write(noise(9, size), size)
		}
		return oneDisk("web", d)
	}
	base := noise(1, size)
	patch := append(noise(2, size/4), base[size/4:]...)
	one := w.must(t, o, disk(base, false), nil)
	two := w.must(t, o, disk(patch, true), nil)
	if two.Point.Counters.Patches != 1 {
		t.Fatalf("no patch was made: %+v", two.Point.Counters)
	}
	w.must(t, o, disk(noise(3, size), true), nil)
	w.expire(t, o, one.Point.ID, two.Point.ID)
	if res := sweep(t, o); res.Packs == 0 {
		t.Fatalf("the base was not freed: %+v", res)
	}
	w.must(t, o, disk(patch, true), nil)
	for _, upkeep := range []func(){
		func() {},
		func() { sweep(t, o) },
		func() {
			if _, err := o.Compact(t.Context(), repo.CompactOptions{AnyDead: true}); err != nil {
				t.Error(err)
			}
		},
	} {
		upkeep()
		if err := repotest.Compare(t.Context(), o.Repository, w.model().Points()); err != nil {
			t.Fatal(err)
		}
	}
	if err := o.Close(); err != nil {
		t.Error(err)
	}
	if err := repotest.OpenAndCompare(t.Context(), w.disk, w.options(), w.model()); err != nil {
		t.Error(err)
	}
}

// TestPatchOverPatch: two runs find the same chunk new at the same time, one
// stores it whole and the other as a patch. Whichever copy is freed, what the
// machines store next can be read.
func TestPatchOverPatch(t *testing.T) {
	for _, sealed := range []bool{false, true} {
		for seed := range uint64(4) {
			t.Run(fmt.Sprintf("%s seed %d", sealing(sealed), seed), func(t *testing.T) {
				t.Parallel()
				patchOverPatch(t, newWorld(sealed, seed))
			})
		}
	}
}

func patchOverPatch(t *testing.T, w *world) {
	const size, frame = 256 << 10, 64 << 10
	if err := w.init(t.Context()); err != nil {
		t.Fatal(err)
	}
	o, err := w.own(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	point := func(machine string, chunks ...[]byte) repotest.Point {
		d := repotest.NewDisk(int64(len(chunks)) * size)
		for i, c := range chunks {
			d.Write(c, int64(i)*size)
		}
		return oneDisk(machine, d)
	}
	first := noise(1, size)
	same := append(noise(2, frame), first[frame:]...)
	next := append(noise(3, frame), same[frame:]...)
	old := w.must(t, o, point("b", first), nil)
	// Machine a stores it whole, and b, while a is still at work, over its first.
	done := make(chan error)
	paused, goOn := make(chan struct{}), make(chan struct{})
	go func() {
		p := point("a", same, noise(5, size), noise(6, size))
		_, err := w.backup(t.Context(), o, p, func(opt *repo.BackupOptions) {
			opt.Disks[0].Source.(*repotest.Source).OnRead = func(off int64) {
				if off == 2*size {
					close(paused)
					<-goOn
				}
			}
		})
		done <- err
	}()
	<-paused
	if run := w.must(t, o, point("b", same), nil); run.Point.Counters.Patches != 1 {
		t.Fatalf("no patch was made: %+v", run.Point.Counters)
	}
	close(goOn)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	check := func(what string) {
		t.Helper()
		if err := repotest.Compare(t.Context(), o.Repository, w.model().Points()); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		w.reach(t)
	}
	compact := func() {
		t.Helper()
		if _, err := o.Compact(t.Context(), repo.CompactOptions{AnyDead: true}); err != nil {
			t.Fatal(err)
		}
	}
	compact()
	check("one copy was freed")
	w.must(t, o, point("a", next, noise(5, size), noise(6, size)), nil)
	check("a went on")
	w.must(t, o, point("b", next), nil)
	check("b went on")
	w.expire(t, o, old.Point.ID)
	compact()
	check("the base expired")
	w.must(t, o, point("a", next, noise(7, size), noise(6, size)), nil)
	w.must(t, o, point("b", same), nil)
	check("both went on")
	ids := pointIDs(w)
	w.expire(t, o, slices.DeleteFunc(ids, func(id repo.PointID) bool { return id == ids[len(ids)-1] || id == ids[len(ids)-2] })...)
	compact()
	check("only the last are left")
	report, err := o.Scrub(t.Context(), repo.ScrubOptions{Deep: true})
	if err != nil || len(report.Damage)+len(report.Lost) > 0 {
		t.Errorf("scrub says %+v, %v", report, err)
	}
	if err := o.Close(); err != nil {
		t.Error(err)
	}
}
