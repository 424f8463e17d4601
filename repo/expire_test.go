package repo_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"

	"holdfast/repo"
	"holdfast/repo/repotest"
	"holdfast/repo/retention"
	"holdfast/repo/vfs"
)

// threePoints is a machine with three points.
func threePoints(ctx context.Context, w *world) error {
	if err := initAndFirst(ctx, w); err != nil {
		return err
	}
	for range 2 {
		p, _ := grown(w)
		if _, err := w.session(ctx, p); err != nil {
			return err
		}
	}
	return nil
}

// lock locks both copies of manifests, or takes that back.
func (w *world) lock(on bool, ids ...repo.PointID) error {
	if err := w.mem.SyncDir("tmp"); err != nil { // where they have lost their first names
		return err
	}
	for _, id := range ids {
		for _, name := range []string{"points/" + string(id), "points/" + string(id) + ".twin"} {
			if err := w.mem.SetLocked(name, on); err != nil {
				return err
			}
		}
	}
	return nil
}

func threeLocked(ctx context.Context, w *world) error {
	if err := threePoints(ctx, w); err != nil {
		return err
	}
	return w.lock(true, pointIDs(w)[:2]...)
}

// expireTwo lets the two oldest expire at once.
func expireTwo(ctx context.Context, w *world) error {
	return w.with(ctx, func(o *repo.Owner) error {
		ids := pointIDs(w)[:2]
		return w.letGo(ids, func() error {
			_, err := o.ExpireAll(ctx, []repo.Expiry{{Point: ids[0], Reason: "old"}, {Point: ids[1], Reason: "old, too"}})
			return err
		})
	})
}

// threeReserved has a reserve that a few small files fit in.
func threeReserved(ctx context.Context, w *world) error {
	w.create.ReserveBytes = 64 << 10
	return threePoints(ctx, w)
}

// expireFull is expireTwo where there is no room for anything but the reserve.
func expireFull(ctx context.Context, w *world) error {
	return w.with(ctx, func(o *repo.Owner) error {
		w.mem.SetCapacity(w.mem.Used())
		ids := pointIDs(w)[:2]
		return w.letGo(ids, func() error {
			_, err := o.ExpireAll(ctx, []repo.Expiry{{Point: ids[0]}, {Point: ids[1]}})
			return err
		})
	})
}

// twoRetired has two points that expired and are locked.
func twoRetired(ctx context.Context, w *world) error {
	if err := threeLocked(ctx, w); err != nil {
		return err
	}
	return expireTwo(ctx, w)
}

func recallBoth(ctx context.Context, w *world) error {
	return w.with(ctx, func(o *repo.Owner) error {
		for _, p := range slices.Clone(w.gone) {
			if err := w.callBack(p.ID, func() error {
				_, err := o.Recall(ctx, p.ID)
				return err
			}); err != nil {
				return err
			}
		}
		return nil
	})
}

// unlockedAgain has two points whose lock has ended after they expired.
func unlockedAgain(ctx context.Context, w *world) error {
	if err := twoRetired(ctx, w); err != nil {
		return err
	}
	return w.lock(false, w.gone[0].ID, w.gone[1].ID)
}

// retainLast keeps the last point.
func retainLast(ctx context.Context, w *world) error {
	return w.with(ctx, func(o *repo.Owner) error {
		return w.letGo(pointIDs(w)[:2], func() error {
			_, err := o.Retain(ctx, repo.RetainOptions{Rule: retention.Rule{Last: 1}})
			return err
		})
	})
}

// listed returns the ids of points.
func listed(points []repo.Point, err error) ([]repo.PointID, error) {
	var ids []repo.PointID
	for _, p := range points {
		ids = append(ids, p.ID)
	}
	return ids, err
}

func wantPoints(t *testing.T, what string, points []repo.Point, err error, want ...repo.PointID) {
	t.Helper()
	if got, err := listed(points, err); err != nil || !slices.Equal(got, want) {
		t.Errorf("%s: %v, %v, want %v", what, got, err, want)
	}
}

// TestExpire follows points from expiry to recall and to their end, in the eyes
// of the owner and of a reader that was there before.
func TestExpire(t *testing.T) {
	for _, sealed := range []bool{false, true} {
		t.Run(sealing(sealed), func(t *testing.T) {
			w := newWorld(sealed, 1)
			if err := threePoints(t.Context(), w); err != nil {
				t.Fatal(err)
			}
			o, err := w.own(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			r, err := repo.Open(t.Context(), w.disk, w.options())
			if err != nil {
				t.Fatal(err)
			}
			ids := pointIDs(w)
			if err := w.lock(true, ids[0]); err != nil {
				t.Fatal(err)
			}
			res, err := o.ExpireAll(t.Context(), []repo.Expiry{{Point: ids[0], Reason: "too old"}, {Point: ids[2], Reason: "a mistake"}})
			if err != nil || !slices.Equal(res.Expired, []repo.PointID{ids[0], ids[2]}) || !slices.Equal(res.Retired, ids[:1]) || res.Head.Number == 0 {
				t.Fatalf("%+v, %v", res, err)
			}
			for what, r := range map[string]*repo.Repository{"owner": o.Repository, "reader": r} {
				points, err := r.Points(t.Context())
				wantPoints(t, what+" lists", points, err, ids[1])
				points, err = r.Retired(t.Context())
				wantPoints(t, what+" lists as retired", points, err, ids[0])
				if len(points) == 1 && (!points[0].Expired || points[0].Reason != map[bool]string{false: "too old"}[sealed]) {
					t.Errorf("%s: expired %t, because %q", what, points[0].Expired, points[0].Reason)
				}
				if err := repotest.ComparePoint(t.Context(), r, w.points[0]); err != nil {
					t.Errorf("%s: a retired point: %v", what, err)
				}
				if p, err := r.Find(t.Context(), "web@latest", nil); err != nil || p.ID != ids[1] {
					t.Errorf("%s: latest is %s, %v", what, p.ID, err)
				}
				if p, err := r.Find(t.Context(), string(ids[0]), nil); err != nil || p.ID != ids[0] {
					t.Errorf("%s: a retired point is found as %s, %v", what, p.ID, err)
				}
				_, err = r.OpenPoint(ids[2])
				is(t, what+": open a point that expired", err, repo.ErrNotFound)
			}
			// Again, and what is no point.
			if res, err := o.Expire(t.Context(), ids[0], ""); err != nil || len(res.Expired) > 0 {
				t.Errorf("again: %+v, %v", res, err)
			}
			_, err = o.Expire(t.Context(), "aaaaaaaaaaaaaaaaaaaa", "")
			is(t, "expire what is no point", err, repo.ErrNotFound)
			_, err = o.Recall(t.Context(), "aaaaaaaaaaaaaaaaaaaa")
			is(t, "recall what is no point", err, repo.ErrNotFound)
			_, err = o.Recall(t.Context(), ids[2])
			is(t, "recall what is gone", err, repo.ErrNotFound)
			is(t, "pin a retired point", r.Pin(ids[0], "why"), repo.ErrExpired)

			// The next run goes on from the newest that is kept, and counts on.
			run := w.must(t, o, w.next(), nil)
			if run.Point.Parent != ids[1] || run.Point.Sequence != 4 {
				t.Errorf("the next point is number %d, its parent %s", run.Point.Sequence, run.Point.Parent)
			}
			if _, err := o.Recall(t.Context(), ids[0]); err != nil {
				t.Error(err)
			}
			if _, err := o.Recall(t.Context(), ids[0]); err != nil {
				t.Errorf("again: %v", err)
			}
			if err := errors.Join(r.Close(), o.Close()); err != nil {
				t.Fatal(err)
			}
			w.points = slices.Delete(w.points, 2, 3)
			if err := repotest.Account(w.disk); err != nil {
				t.Error(err)
			}
			repotest.Check(t, w.disk, w.options(), w.model())

			// When the lock has ended, the manifest goes with the next owner.
			if err := w.with(t.Context(), func(o *repo.Owner) error {
				_, err := o.Expire(t.Context(), ids[0], "")
				return err
			}); err != nil {
				t.Fatal(err)
			}
			if err := w.lock(false, ids[0]); err != nil {
				t.Fatal(err)
			}
			w.points = slices.Delete(w.points, 0, 1)
			repotest.CheckAccount(t, w.disk, w.options())
			if _, err := w.mem.Stat("points/" + string(ids[0])); err == nil {
				t.Error("the manifest is still there")
			}
			repotest.Check(t, w.disk, w.options(), w.model())
		})
	}
}

// TestExpireAll: all or none of a batch, more than one batch, one point twice.
func TestExpireAll(t *testing.T) {
	w, o := owned(t)
	for i := range 3 {
		w.must(t, o, oneDisk("web", dense(uint64(i), 1000)), nil)
	}
	ids := pointIDs(w)
	if err := o.Pin(ids[1], "restore drill"); err != nil {
		t.Fatal(err)
	}
	_, err := o.ExpireAll(t.Context(), []repo.Expiry{{Point: ids[0]}, {Point: ids[1]}})
	is(t, "a pinned point", err, repo.ErrPinned)
	if err == nil || !strings.Contains(err.Error(), "restore drill") {
		t.Errorf("the error does not name the pin: %v", err)
	}
	_, err = o.ExpireAll(t.Context(), []repo.Expiry{{Point: ids[0]}, {Point: "aaaaaaaaaaaaaaaaaaaa"}})
	is(t, "what is no point", err, repo.ErrNotFound)
	points, err := o.Points(t.Context())
	wantPoints(t, "after that", points, err, ids...)
	if err := o.Unpin(ids[1], "restore drill"); err != nil {
		t.Fatal(err)
	}
	var many []repo.Expiry
	for range 700 {
		many = append(many, repo.Expiry{Point: ids[0]}, repo.Expiry{Point: ids[1]})
	}
	res, err := o.ExpireAll(t.Context(), many)
	if err != nil || len(res.Expired) != 2 {
		t.Errorf("%+v, %v", res, err)
	}
	w.points = w.points[2:]
}

// TestExpireLost gets rid of a point whose manifest can't be read.
func TestExpireLost(t *testing.T) {
	for _, what := range []string{"lost", "damaged"} {
		w := newWorld(false, 1)
		if err := threePoints(t.Context(), w); err != nil {
			t.Fatal(err)
		}
		id := pointIDs(w)[1]
		for _, name := range []string{"points/" + string(id), "points/" + string(id) + ".twin"} {
			if err := w.mem.Remove(name); err != nil {
				t.Fatal(err)
			}
			if what == "damaged" {
				if err := vfs.WriteFile(w.mem, name, []byte("damaged")); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := w.with(t.Context(), func(o *repo.Owner) error {
			_, err := o.Expire(t.Context(), id, "it is "+what)
			return err
		}); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		w.points = slices.Delete(w.points, 1, 2)
		repotest.CheckAccount(t, w.disk, w.options())
		repotest.Check(t, w.disk, w.options(), w.model())
	}
}

// TestRetain plans, pins, and lets go.
func TestRetain(t *testing.T) {
	w, o := owned(t)
	for i := range 5 {
		w.must(t, o, oneDisk("web", dense(uint64(i), 1000)), func(opt *repo.BackupOptions) { opt.Job = []string{"nightly", "manual"}[i%2] })
	}
	w.must(t, o, oneDisk("db", dense(9, 1000)), nil)
	ids := pointIDs(w)
	if err := o.Pin(ids[0], "why"); err != nil {
		t.Fatal(err)
	}
	opt := repo.RetainOptions{Rule: retention.Rule{Last: 1}, Machine: "web", Job: "nightly", Zone: "UTC"}
	plan, err := o.PlanRetention(t.Context(), opt)
	var say []string
	for _, d := range plan {
		say = append(say, fmt.Sprintf("%d %t %s", slices.Index(ids, repo.PointID(d.ID)), d.Keep, strings.Join(d.Reasons, "; ")))
	}
	if err != nil || len(plan) != 3 || plan[0].Keep == false || plan[1].Keep || !plan[2].Keep {
		t.Errorf("%v: %q", err, say)
	}
	res, err := o.Retain(t.Context(), opt)
	if err != nil || !slices.Equal(res.Expired, ids[2:3]) || len(res.Decisions) != 3 {
		t.Errorf("%+v, %v", res, err)
	}
	points, err := o.Points(t.Context())
	wantPoints(t, "left", points, err, ids[0], ids[1], ids[3], ids[4], ids[5])
	for _, bad := range []struct {
		opt  repo.RetainOptions
		want error
	}{
		{repo.RetainOptions{Machine: "webb", Rule: opt.Rule}, repo.ErrNotFound},
		{repo.RetainOptions{Machine: "web", Job: "daily", Rule: opt.Rule}, repo.ErrNotFound},
		{repo.RetainOptions{Rule: retention.Rule{Last: -1}}, retention.ErrRule},
	} {
		_, err := o.Retain(t.Context(), bad.opt)
		is(t, fmt.Sprintf("%+v", bad.opt), err, bad.want)
	}
	if _, err := o.Retain(t.Context(), repo.RetainOptions{Rule: opt.Rule, Zone: "Nowhere/At all"}); err == nil {
		t.Error("a zone that is nowhere")
	}
	w.points = slices.Delete(w.points, 2, 3)
}

// TestExpireOverlap lets points expire that somebody is using.
func TestExpireOverlap(t *testing.T) {
	t.Run("the parent of a run", func(t *testing.T) {
		w, o := owned(t)
		w.must(t, o, oneDisk("web", dense(1, 700<<10)), nil)
		old := pointIDs(w)[0]
		p := oneDisk("web", dense(1, 900<<10))
		run := w.must(t, o, p, func(opt *repo.BackupOptions) {
			opt.Disks[0].Source.(*repotest.Source).OnRead = func(int64) {
				if _, err := o.Expire(t.Context(), old, ""); err != nil {
					t.Error(err)
				}
			}
		})
		if run.Point.Parent != old {
			t.Errorf("parent %s, want %s", run.Point.Parent, old)
		}
		w.points = w.points[1:]
	})
	t.Run("a point that is read", func(t *testing.T) {
		w, o := owned(t)
		w.must(t, o, oneDisk("web", dense(1, 700<<10)), nil)
		r, err := repo.Open(t.Context(), w.disk, w.options())
		if err != nil {
			t.Fatal(err)
		}
		pr, err := r.OpenPoint(w.points[0].ID)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := o.Expire(t.Context(), w.points[0].ID, ""); err != nil {
			t.Fatal(err)
		}
		if _, err := o.Sweep(t.Context(), repo.SweepOptions{}); err != nil {
			t.Fatal(err)
		}
		d, err := pr.Disk("")
		if err != nil {
			t.Fatal(err)
		}
		got, want := make([]byte, 700<<10), make([]byte, 700<<10)
		_, _ = w.points[0].Disks[0].Disk.ReadAt(want, 0)
		if n, err := d.ReadAt(got, 0); n != len(got) || !slices.Equal(got, want) {
			t.Errorf("%d bytes, %v", n, err)
		}
		if err := errors.Join(pr.Close(), r.Close()); err != nil {
			t.Error(err)
		}
		w.points = nil
	})
	t.Run("two at once, beside commits", func(t *testing.T) {
		w, o := owned(t)
		for i := range 6 {
			w.must(t, o, oneDisk("web", dense(uint64(i), 1000)), nil)
		}
		ids := pointIDs(w)
		done := make(chan error, 3)
		for range 2 {
			go func() {
				var err error
				for _, id := range ids[:5] {
					_, e := o.Expire(t.Context(), id, "")
					err = errors.Join(err, e)
				}
				done <- err
			}()
		}
		go func() {
			var err error
			for i := range 5 {
				_, e := w.backup(t.Context(), o, oneDisk("db", dense(uint64(10+i), 1000)), nil)
				err = errors.Join(err, e)
			}
			done <- err
		}()
		for range 3 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		w.points = w.points[5:]
	})
}

// TestReserve lets a point go on a full volume, and another after there was room
// for a while: the reserve is set aside again.
func TestReserve(t *testing.T) {
	w := newWorld(false, 1)
	if err := threeReserved(t.Context(), w); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		w.mem.SetCapacity(w.mem.Used())
		_, err := w.session(t.Context(), oneDisk("db", dense(1, 1000)))
		is(t, "a backup on a full volume", err, syscall.ENOSPC)
		w.doing = nil
		w.mem.SetCapacity(w.mem.Used())
		id := pointIDs(w)[0]
		if err := w.with(t.Context(), func(o *repo.Owner) error {
			_, err := o.Expire(t.Context(), id, "")
			return err
		}); err != nil {
			t.Fatal(err)
		}
		w.points = w.points[1:]
		w.mem.SetCapacity(1 << 40)
		repotest.CheckAccount(t, w.disk, w.options())
		repotest.Check(t, w.disk, w.options(), w.model())
	}
}
