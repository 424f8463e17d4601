package repo_test

import (
	"errors"
	"io/fs"
	"slices"
	"testing"

	"holdfast/repo"
)

// TestSweepAfterRepair: of two copies the better one is damaged, and a repair
// takes it away. What the other one holds is needed from then on.
func TestSweepAfterRepair(t *testing.T) {
	w, o := owned(t)
	disk := dense(1, 2<<20)
	w.must(t, o, oneDisk("web", disk), nil)
	old := w.packFiles(t)
	lock := func(on bool) {
		for _, name := range old {
			if err := w.mem.SetLocked(name, on); err != nil {
				t.Fatal(err)
			}
		}
	}
	lock(true)
	if _, err := o.Synthesize(t.Context(), w.points[0].ID, repo.SynthesizeOptions{}); err != nil {
		t.Fatal(err)
	}
	copies := slices.DeleteFunc(w.packFiles(t), func(name string) bool { return slices.Contains(old, name) })
	// Of both copies some is no longer needed.
	disk = disk.Clone()
	disk.Write(noise(1, 1<<20), 512<<10)
	w.must(t, o, oneDisk("web", disk), nil)
	w.expire(t, o, w.points[0].ID)
	if res := sweep(t, o); res.LockedPacks == 0 || res.DeadPacks == 0 {
		t.Fatalf("want the old copies to wait: %+v", res)
	}
	for _, name := range copies {
		if err := w.mem.Corrupt(name, 1000, 1); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
	res, err := o.Repair(t.Context(), repo.RepairOptions{})
	if err != nil || len(res.Packs) == 0 || res.Packs[0].Elsewhere == 0 {
		t.Fatalf("want the old copies to stand for the damaged ones: %+v, %v", res, err)
	}
	lock(false)
	if res := sweep(t, o); res.DeadPacks == 0 || res.DeadBytes == 0 {
		t.Errorf("swept %+v, want what the old copies hold in vain", res)
	}
	if _, err := o.Compact(t.Context(), repo.CompactOptions{AnyDead: true}); err != nil {
		t.Fatal(err)
	}
	if r := w.reach(t); r.DeadBytes != 0 || r.DeadPacks != 0 {
		t.Errorf("%d dead bytes and %d dead packs after a compaction", r.DeadBytes, r.DeadPacks)
	}
}
