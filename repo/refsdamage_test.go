package repo_test

import (
	"errors"
	"strings"
	"testing"

	"holdfast/repo"
)

// TestSweepDamagedCounts: counts with a bad block are made anew, like counts that
// are missing.
func TestSweepDamagedCounts(t *testing.T) {
	w, o := owned(t)
	for i := range uint64(3) {
		w.must(t, o, oneDisk("web", dense(i, 2<<20)), nil)
	}
	sweep(t, o)
	infos, err := w.mem.ReadDir("index/refs")
	if err != nil {
		t.Fatal(err)
	}
	damaged := 0
	for _, info := range infos {
		if !strings.HasSuffix(info.Name, ".ref") {
			continue
		}
		f, err := w.mem.OpenWrite("index/refs/" + info.Name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt([]byte("damage"), 4096+100); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		damaged++
	}
	if damaged == 0 {
		t.Fatal("no counts to damage")
	}
	if f, err := o.FreedBy(t.Context(), pointIDs(w)); !errors.Is(err, repo.ErrSweepFirst) {
		t.Errorf("by damaged counts %+v would be free, %v", f, err)
	}
	if s, err := o.Stats(t.Context(), repo.StatsOptions{Machines: true}); err != nil || len(s.ByMachine) != 1 ||
		!errors.Is(errors.Join(s.Unknown, s.ByMachine[0].Unknown), repo.ErrSweepFirst) {
		t.Errorf("stats: %+v, %v", s, err)
	}
	w.expire(t, o, w.points[0].ID)
	if res := sweep(t, o); res.Packs == 0 {
		t.Errorf("nothing was freed: %+v", res)
	}
	if r := w.reach(t); r.DeadPacks != 0 {
		t.Errorf("%d packs hold nothing needed", r.DeadPacks)
	}
}
