package repo_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"holdfast/repo"
	"holdfast/repo/repotest"
	"holdfast/repo/vfs"
)

// syncTo keeps a repository like w.
func (w *world) syncTo(ctx context.Context, to *world, opt repo.SyncOptions) (rep repo.SyncReport, err error) {
	src, err := repo.Open(ctx, w.disk, w.options())
	if err != nil {
		return rep, err
	}
	err = to.with(ctx, func(o *repo.Owner) error {
		plan, perr := o.PlanSync(ctx, src, opt)
		var err error
		rep, err = o.Sync(ctx, src, opt)
		if err == nil && (perr != nil || len(plan.Copy) != len(rep.Copied) || len(plan.Expire) != len(rep.Expired)) {
			err = errors.Join(perr, errors.New("the plan was otherwise"))
		}
		return err
	})
	return rep, errors.Join(err, src.Close())
}

// drop lets points of the world expire, by their place in points.
func (w *world) drop(t *testing.T, places ...int) {
	t.Helper()
	err := w.with(t.Context(), func(o *repo.Owner) error {
		for _, i := range places {
			if _, err := o.Expire(t.Context(), w.points[i].ID, "policy"); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	var left []repotest.Point
	for i, p := range w.points {
		if !slices.Contains(places, i) {
			left = append(left, p)
		}
	}
	w.points = left
}

func (w *world) holds(t *testing.T, want []repotest.Point) {
	t.Helper()
	r, err := repo.Open(t.Context(), w.disk, w.options())
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(repotest.Compare(t.Context(), r, want), r.Close()); err != nil {
		t.Error(err)
	}
}

// TestSync lives through what becomes of two repositories.
func TestSync(t *testing.T) {
	for _, p := range []pair{pairs(t, 20)[0], pairs(t, 20)[3]} {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			ctx, rng := t.Context(), rand.New(rand.NewPCG(20, 1))
			from, to := p.from, p.to
			from.history(t, rng, []string{"web"}, 5)
			from.history(t, rng, []string{"db"}, 2)
			sync := func(what string, opt repo.SyncOptions, copied, present, expired, pinned int) {
				t.Helper()
				rep, err := from.syncTo(ctx, to, opt)
				if err != nil {
					t.Fatalf("%s: %v", what, err)
				}
				if len(rep.Copied)+len(rep.Recalled) != copied || rep.Present != present || len(rep.Expired) != expired || len(rep.Plan.Pinned) != pinned {
					t.Errorf("%s: copied %d, recalled %d, present %d, expired %v, pinned %d, want %d copied, %d, %d, %d",
						what, len(rep.Copied), len(rep.Recalled), rep.Present, rep.Expired, len(rep.Plan.Pinned), copied, present, expired, pinned)
				}
			}
			with := func(do func(o *repo.Owner) error) {
				t.Helper()
				if err := to.with(ctx, do); err != nil {
					t.Fatal(err)
				}
			}
			web := repo.Selection{Machines: []string{"web"}, Last: 3}
			expiring := repo.SyncOptions{Expire: true}
			sync("the last three of web", repo.SyncOptions{Selection: web}, 3, 0, 0, 0)
			to.holds(t, from.points[2:5])
			sync("all", expiring, 4, 3, 0, 0)
			to.holds(t, from.points)
			sync("all again", expiring, 0, 7, 0, 0)

			// What is made here is nobody else's to expire.
			with(func(o *repo.Owner) error {
				_, err := to.backup(ctx, o, oneDisk("own", dense(1, 1000)), nil)
				return err
			})
			gone := from.points[0]
			from.drop(t, 0, 1)
			sync("without expiry", repo.SyncOptions{}, 0, 5, 0, 0)
			with(func(o *repo.Owner) error { return o.Pin(gone.ID, "court") })
			sync("with expiry", expiring, 0, 5, 1, 1)
			to.holds(t, slices.Concat([]repotest.Point{gone}, from.points, to.points))
			with(func(o *repo.Owner) error { return o.Unpin(gone.ID, "court") })
			db := expiring
			db.Machines = []string{"db"}
			sync("of the other machine", db, 0, 2, 0, 0)
			sync("without pin", expiring, 0, 5, 1, 0)
			to.holds(t, slices.Concat(from.points, to.points))

			// A source that lost its memory.
			old := from.fork(keepAll)
			from.history(t, rng, []string{"web", "db"}, 3)
			sync("more", expiring, 3, 5, 0, 0)
			_, err := old.syncTo(ctx, to, expiring)
			is(t, "a source set back", err, repo.ErrEmptied)
			if _, err = old.syncTo(ctx, to, repo.SyncOptions{}); err != nil {
				t.Errorf("a source set back, without expiry: %v", err)
			}
			to.holds(t, slices.Concat(from.points, to.points))

			// A source that somebody emptied.
			var places []int
			for i, q := range from.points {
				if q.Machine == "db" {
					places = append(places, i)
				}
			}
			kept := slices.Clone(from.points)
			from.drop(t, places...)
			_, err = from.syncTo(ctx, to, expiring)
			is(t, "an emptied source", err, repo.ErrEmptied)
			to.holds(t, slices.Concat(kept, to.points))
			sure := expiring
			sure.Force = true
			sync("an emptied source, surely", sure, 0, len(from.points), len(places), 0)
			to.holds(t, slices.Concat(from.points, to.points))

			_, err = from.syncTo(ctx, to, repo.SyncOptions{Selection: repo.Selection{Machines: []string{"nobody"}}})
			is(t, "a machine that nobody has", err, repo.ErrNotFound)
		})
	}
}

// TestCopyBringsBack copies a point that expired here: gone, it is copied again,
// and retired, recalled.
func TestCopyBringsBack(t *testing.T) {
	for _, p := range pairs(t, 21)[:4] {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			p.from.history(t, rand.New(rand.NewPCG(21, 1)), []string{"web"}, 3)
			if _, err := p.from.copyTo(ctx, p.to); err != nil {
				t.Fatal(err)
			}
			gone, retired := p.from.points[0].ID, p.from.points[2].ID
			files := []string{"points/" + string(retired), "points/" + string(retired) + ".twin"}
			lock := func(on bool) {
				for _, name := range files {
					if err := p.to.mem.SetLocked(name, on); err != nil {
						t.Fatal(err)
					}
				}
			}
			lock(true)
			err := p.to.with(ctx, func(o *repo.Owner) error {
				for _, id := range []repo.PointID{gone, retired} {
					if _, err := o.Expire(ctx, id, "test"); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			p.to.holds(t, p.from.points[1:2])
			rep, err := p.from.copyTo(ctx, p.to)
			if err != nil || len(rep.Copied) != 1 || len(rep.Recalled) != 1 || rep.Present != 1 {
				t.Fatalf("%+v, %v", rep, err)
			}
			if rep.Recalled[0].ID != retired || rep.Copied[0].Sequence != 1 {
				t.Errorf("recalled %s, copied number %d", rep.Recalled[0].ID, rep.Copied[0].Sequence)
			}
			lock(false)
			p.to.holds(t, p.from.points)
			rep, err = p.from.copyTo(ctx, p.to)
			if err != nil || rep.Present != 3 {
				t.Errorf("again: %+v, %v", rep, err)
			}
		})
	}
}

// TestCopyBesideExpiry lets everything expire in the source, and sweeps it, while
// the first point is being copied: that one is finished, the others are gone.
func TestCopyBesideExpiry(t *testing.T) {
	for _, p := range []pair{pairs(t, 22)[0], pairs(t, 22)[3]} {
		t.Run(p.name, func(t *testing.T) {
			ctx := t.Context()
			err := p.from.with(ctx, func(o *repo.Owner) error {
				for i := range uint64(3) {
					if _, err := p.from.backup(ctx, o, oneDisk("web", dense(i, 3<<20)), nil); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			owner, err := p.from.own(ctx)
			if err != nil {
				t.Fatal(err)
			}
			var once sync.Once
			var swept int64
			p.to.disk.OnOp(func(_ int, op vfs.Op) {
				if op.Kind != vfs.OpCreate || !strings.HasPrefix(op.Name, "tmp/packs-data") {
					return
				}
				once.Do(func() {
					for _, q := range p.from.points {
						if _, err := owner.Expire(ctx, q.ID, "test"); err != nil {
							t.Error(err)
						}
					}
					res, err := owner.Sweep(ctx, repo.SweepOptions{})
					if err != nil {
						t.Error(err)
					}
					swept = res.Bytes
				})
			})
			rep, err := p.from.copyTo(ctx, p.to)
			p.to.disk.OnOp(nil)
			if err := errors.Join(err, owner.Close()); err != nil {
				t.Fatal(err)
			}
			if len(rep.Copied) != 1 || len(rep.Gone) != 2 {
				t.Errorf("copied %v, gone %v", rep.Copied, rep.Gone)
			}
			if swept < 6<<20 {
				t.Errorf("%d bytes were swept meanwhile, less than the two that nobody read", swept)
			}
			p.to.equal(t, p.from.points[:1])
		})
	}
}

// TestCopyBesideSweep copies again what has just expired here, while it is swept:
// what the copy finds stored stays, and what was swept before is copied.
func TestCopyBesideSweep(t *testing.T) {
	for _, p := range []pair{pairs(t, 23)[0], pairs(t, 23)[3]} {
		t.Run(p.name, func(t *testing.T) {
			ctx := t.Context()
			p.from.history(t, rand.New(rand.NewPCG(23, 1)), []string{"web", "db"}, 6)
			if _, err := p.from.copyTo(ctx, p.to); err != nil {
				t.Fatal(err)
			}
			for at := range 4 {
				err := p.to.with(ctx, func(o *repo.Owner) error {
					for _, q := range p.from.points {
						if _, err := o.Expire(ctx, q.ID, "test"); err != nil {
							return err
						}
					}
					n := 0
					var sweeps sync.WaitGroup
					p.to.disk.OnOp(func(_ int, op vfs.Op) {
						if op.Kind == vfs.OpCreate && strings.HasPrefix(op.Name, "runs/") || strings.HasPrefix(op.Name, "tmp/runs") && op.Kind == vfs.OpCreate {
							if n++; n == at+1 {
								sweeps.Go(func() {
									if _, err := o.Sweep(ctx, repo.SweepOptions{}); err != nil {
										t.Error(err)
									}
								})
							}
						}
					})
					_, err := p.from.copyInto(ctx, o)
					sweeps.Wait()
					p.to.disk.OnOp(nil)
					return err
				})
				if err != nil {
					t.Fatal(err)
				}
				p.to.equal(t, p.from.points)
			}
			// All that is left over is freed.
			err := p.to.with(ctx, func(o *repo.Owner) error {
				_, err := o.Sweep(ctx, repo.SweepOptions{})
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			p.to.equal(t, p.from.points)
		})
	}
}
