//go:build linux

package e2e

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"holdfast/repo"
	"holdfast/repo/repotest"
)

// TestLocked has packs and manifests immutable while retention goes on.
func TestLocked(t *testing.T) {
	for _, fs := range []string{"xfs", "ext4"} {
		t.Run(fs, func(t *testing.T) {
			begin(t, "loop", "losetup", "mkfs."+fs)
			keepLocked(t, fs, fs == "xfs")
		})
	}
}

// swept is a part of what "repo sweep --json" prints.
type swept struct {
	Packs, LockedPacks int
	Bytes, LockedBytes int64
	Held               []struct{ Point string }
}

func keepLocked(t *testing.T, fs string, sealed bool) {
	rng := random(t)
	v := newVolume(t, fs, 1<<30)
	u := newUpkeep(t, rng, v, t.TempDir(), sealed)
	m := u.machines[1]
	for range 4 {
		m.change(t, rng)
		u.finished(m)
	}
	lockAll := func() {
		manifests, err := filepath.Glob(filepath.Join(u.dir, "points/*"))
		if err != nil {
			t.Fatal(err)
		}
		files := u.packFiles()
		for _, name := range manifests {
			files = append(files, strings.TrimPrefix(name, u.dir+"/"))
		}
		for _, name := range files {
			if err := u.setLocked(name, true); err != nil {
				t.Fatal(err)
			}
			u.locked[name] = true
		}
	}
	lockAll()
	there := len(u.packFiles())

	// Retention takes points out of the list, and nothing away.
	before := u.model.Points()
	u.must("retain", "--keep-last", "1")
	var gone []repotest.Point
	for i, p := range before {
		if slices.ContainsFunc(before[i+1:], func(q repotest.Point) bool { return q.Machine == p.Machine }) {
			gone = append(gone, p)
			u.model.Expire(p.ID)
		}
	}
	u.check(nil)
	retired := func() (ids []repo.PointID) {
		for _, p := range decode[listing](t, u.must("points", "--retired", "--json")).Points {
			ids = append(ids, repo.PointID(p.ID))
		}
		slices.Sort(ids)
		return ids
	}
	var want []repo.PointID
	for _, p := range gone {
		want = append(want, p.ID)
	}
	slices.Sort(want)
	if got := retired(); !slices.Equal(got, want) {
		t.Fatalf("retired are %s, want %s", got, want)
	}
	for _, p := range gone {
		u.restore(p)
	}
	u.must("recall", string(gone[0].ID))
	u.model.Recall(gone[0].ID)
	u.check(nil)
	u.restore(gone[0])
	u.must("expire", string(gone[0].ID))
	u.model.Expire(gone[0].ID)
	u.check(nil)

	// Nothing can be freed; and while the manifests are locked, points hold all.
	r := decode[swept](t, u.must("sweep", "--json"))
	if r.Packs != 0 || len(r.Held) != len(gone) || len(u.packFiles()) != there {
		t.Fatalf("sweep: %+v; %d packs of %d are there; want %d points held", r, len(u.packFiles()), there, len(gone))
	}
	// With the manifests' locks gone, the packs wait for theirs.
	for name := range u.locked {
		if strings.HasPrefix(name, "points/") {
			u.unlockOne(name)
		}
	}
	r = decode[swept](t, u.must("sweep", "--json"))
	if r.Packs != 0 || r.LockedPacks == 0 || r.LockedBytes == 0 || len(r.Held) != 0 || len(u.packFiles()) != there {
		t.Fatalf("sweep: %+v; %d packs of %d are there; want some that wait for their lock", r, len(u.packFiles()), there)
	}
	if got := retired(); len(got) > 0 {
		t.Fatalf("%s are retired without a manifest", got)
	}
	waiting := r

	// What little lives in others moves out, so that they can go as well.
	moved := decode[struct{ MovedBytes int64 }](t, u.must("evacuate", "--live", "99%", "--json")).MovedBytes
	if moved == 0 || len(u.packFiles()) <= there {
		t.Fatalf("evacuate moved %d bytes; %d packs are there, %d before; want something moved", moved, len(u.packFiles()), there)
	}
	u.compare()
	r = decode[swept](t, u.must("sweep", "--json"))
	if r.Packs != 0 || r.LockedPacks <= waiting.LockedPacks {
		t.Fatalf("sweep: %+v; want more to wait than %d", r, waiting.LockedPacks)
	}
	waiting = r
	u.must("compact", "--dead", "0")
	for name := range u.locked {
		if _, err := os.Lstat(filepath.Join(u.dir, name)); err != nil {
			t.Fatalf("a locked file is gone: %v", err)
		}
	}

	u.unlock()
	r = decode[swept](t, u.must("sweep", "--json"))
	if r.Packs < waiting.LockedPacks || r.Bytes < waiting.LockedBytes || r.LockedPacks != 0 {
		t.Fatalf("sweep after the locks: %+v, want the %d packs that waited to go", r, waiting.LockedPacks)
	}
	u.rest()
	t.Logf("%d of %d packs and %d points were locked and kept, %d packs of %d bytes waited, %d bytes moved out of others; %d points compared, %d disks restored",
		there, there, len(gone), waiting.LockedPacks, waiting.LockedBytes, moved, u.compared, u.restored)
}

// unlockOne takes the lock of a file away.
func (u *upkeep) unlockOne(name string) {
	u.t.Helper()
	if err := u.setLocked(name, false); err != nil {
		u.t.Fatal(err)
	}
	delete(u.locked, name)
}
