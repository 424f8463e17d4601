package repo_test

import (
	"errors"
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

// TestFailedFirstRun: what the failed first run of a machine has stored is that
// machine's, though nobody gave it an id, in the same process and in another.
func TestFailedFirstRun(t *testing.T) {
	for _, sealed := range []bool{false, true} {
		t.Run(sealing(sealed), func(t *testing.T) {
			w := newWorld(sealed, 1)
			ctx := t.Context()
			p := oneDisk("web", dense(1, 3<<20))
			fails := func(o *repo.Owner) error {
				_, err := w.backup(ctx, o, p, func(opt *repo.BackupOptions) {
					opt.Disks[0].Source.(*repotest.Source).FailAt = 2900 << 10
				})
				is(t, "a source that fails", err, repotest.ErrSource)
				return nil
			}
			err := errors.Join(w.init(ctx), w.with(ctx, fails), w.with(ctx, func(o *repo.Owner) error {
				if err := fails(o); err != nil {
					return err
				}
				w.must(t, o, p, nil)
				runs, err := o.UnfinishedRuns(ctx)
				if len(runs) > 0 {
					t.Errorf("the machine has a point, and these are unfinished: %+v", runs)
				}
				_, cerr := o.Compact(ctx, repo.CompactOptions{AnyDead: true})
				if r := w.reach(t); r.DeadBytes > 0 {
					t.Errorf("%d bytes are needed by nothing", r.DeadBytes)
				}
				return errors.Join(err, cerr)
			}), repotest.Account(w.disk))
			if err != nil {
				t.Fatal(err)
			}
		})
	}
}
