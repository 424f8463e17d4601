package repo_test

import (
	"strings"
	"syscall"
	"testing"

	"holdfast/repo"
	"holdfast/repo/repotest"
	"holdfast/repo/vfs"
)

// stuck can't remove packs or take leases while it says so.
type stuck struct {
	vfs.FS
	packs, leases bool
}

func (s *stuck) Remove(name string) error {
	if s.packs && strings.HasPrefix(name, "packs/") {
		return syscall.EIO
	}
	return s.FS.Remove(name)
}

func (s *stuck) Lock(name string, m vfs.LockMode) (vfs.Unlocker, error) {
	if s.leases && strings.HasPrefix(name, "leases/") {
		return nil, syscall.ENOSPC
	}
	return s.FS.Lock(name, m)
}

// TestSweepCantRemove: a sweep says in the ledger that packs go, and then they
// can't. Whatever is committed after that, the next owner takes them away.
func TestSweepCantRemove(t *testing.T) {
	w := newWorld(false, 1)
	if err := w.init(t.Context()); err != nil {
		t.Fatal(err)
	}
	disk := &stuck{FS: w.disk}
	o, err := repo.Own(t.Context(), disk, w.options(), 0)
	if err != nil {
		t.Fatal(err)
	}
	old := w.must(t, o, oneDisk("web", dense(1, 1<<20)), nil)
	w.must(t, o, oneDisk("web", dense(2, 1<<20)), nil)
	w.expire(t, o, old.Point.ID)
	disk.packs = true
	_, err = o.Sweep(t.Context(), repo.SweepOptions{})
	is(t, "a sweep that can't remove", err, syscall.EIO)
	w.must(t, o, oneDisk("web", dense(3, 1<<20)), nil)
	if err := o.Close(); err != nil {
		t.Error(err)
	}
	if o, err = w.own(t.Context()); err != nil {
		t.Fatal(err)
	}
	if r := w.reach(t); r.DeadPacks > 0 {
		t.Errorf("%d packs are left that the ledger calls removed", r.DeadPacks)
	}
	if err := o.Close(); err != nil {
		t.Error(err)
	}
	if err := repotest.Account(w.disk); err != nil {
		t.Error(err)
	}
}

// TestParentWithoutLease: a run that can't lease its parent fails, for the parent
// might be freed under it.
func TestParentWithoutLease(t *testing.T) {
	w := newWorld(false, 1)
	if err := w.init(t.Context()); err != nil {
		t.Fatal(err)
	}
	disk := &stuck{FS: w.disk}
	o, err := repo.Own(t.Context(), disk, w.options(), 0)
	if err != nil {
		t.Fatal(err)
	}
	w.must(t, o, oneDisk("web", dense(1, 1<<20)), nil)
	disk.leases = true
	_, err = w.backup(t.Context(), o, oneDisk("web", dense(1, 1<<20)), nil)
	is(t, "a parent without a lease", err, syscall.ENOSPC)
	disk.leases = false
	w.must(t, o, oneDisk("web", dense(1, 1<<20)), nil)
	if err := o.Close(); err != nil {
		t.Error(err)
	}
}
