package repo_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sync/errgroup"

	"holdfast/repo"
	"holdfast/repo/repotest"
	"holdfast/repo/vfs"
)

// TestCopyCrash loses power before every operation of a copy.
func TestCopyCrash(t *testing.T) {
	ways := vfs.Crashes(1, 2, 3, 4)
	for i, p := range pairs(t, 6) {
		if !long && i != 0 && i != 3 {
			continue
		}
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			p.from.history(t, rand.New(rand.NewPCG(6, 6)), []string{"web"}, 3)
			m := mix{name: "copy", do: func(ctx context.Context, w *world) error {
				_, err := p.from.copyTo(ctx, w)
				return err
			}}
			all, n, err := m.stops(t.Context(), p.to, func(i int, op string) []vfs.CrashOptions {
				switch {
				case long:
					return ways
				case i%7 != 0:
					return nil
				}
				return ways[i/4%len(ways):][:1]
			})
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("stopped at %d operations, %d crashes", n, len(all))
			if n < 50 {
				t.Errorf("stopped at %d operations only", n)
			}
			var g errgroup.Group
			g.SetLimit(2)
			for i := range all {
				s := all[i]
				all[i].world = nil
				g.Go(func() error {
					if err := s.copyAgain(t.Context(), p.from); err != nil {
						t.Errorf("%v: %v", s, err)
					}
					return nil
				})
			}
			_ = g.Wait()
		})
	}
}

// copyAgain uses the repository as it was found: what it has is whole, and the
// next copy completes it.
func (s stop) copyAgain(ctx context.Context, from *world) error {
	w := s.world
	if err := repotest.Reopen(ctx, w.disk, w.options()); err != nil {
		return err
	}
	if err := repotest.Account(w.disk); err != nil {
		return fmt.Errorf("reopened: %w", err)
	}
	r, err := repo.Open(ctx, w.disk, w.options())
	if err != nil {
		return err
	}
	points, err := r.Points(ctx)
	for _, p := range points {
		i := slices.IndexFunc(from.points, func(q repotest.Point) bool { return q.ID == p.ID })
		err = errors.Join(err, repotest.ComparePoint(ctx, r, from.points[i]))
	}
	if err := errors.Join(err, r.Close()); err != nil {
		return fmt.Errorf("reopened: %w", err)
	}
	if _, err := from.copyTo(ctx, w); err != nil {
		return fmt.Errorf("copy again: %w", err)
	}
	if err := repotest.Account(w.disk); err != nil {
		return fmt.Errorf("copied again: %w", err)
	}
	m := &repotest.Model{}
	for _, p := range from.points {
		m.Add(p)
	}
	return repotest.OpenAndCompare(ctx, w.disk, w.options(), m)
}

// TestCopyFull: a copy that ran out of room goes on where it was.
func TestCopyFull(t *testing.T) {
	for _, p := range pairs(t, 7)[:4] {
		t.Run(p.name, func(t *testing.T) {
			ctx := t.Context()
			q := oneDisk("big", dense(7, 6<<20))
			err := p.from.with(ctx, func(o *repo.Owner) error {
				_, err := p.from.backup(ctx, o, q, nil)
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			// The volume is full once three packs are there.
			packs := 0
			p.to.disk.OnOp(func(i int, op vfs.Op) {
				if op.Kind == vfs.OpCreate && strings.HasPrefix(op.Name, "tmp/packs-data") {
					if packs++; packs == 4 {
						p.to.disk.Inject(vfs.Fault{At: i + 1, Err: syscall.ENOSPC, Sticky: true})
					}
				}
			})
			_, err = p.from.copyTo(ctx, p.to)
			p.to.disk.OnOp(nil)
			p.to.disk.Heal()
			is(t, "full", err, syscall.ENOSPC)
			rep, err := p.from.copyTo(ctx, p.to)
			if err != nil {
				t.Fatal(err)
			}
			if rep.Stored > 5<<20 {
				t.Errorf("of 6 MiB, half of which was stored before, %d bytes were stored again", rep.Stored)
			}
			if p.alike() && rep.Read > 5<<20 {
				t.Errorf("%d bytes were read again", rep.Read)
			}
			p.to.equal(t, p.from.points)
		})
	}
}

// TestCopyDamaged: a point of which the source has lost a chunk is named and not
// copied, those without it are.
func TestCopyDamaged(t *testing.T) {
	for _, sealed := range []bool{false, true} {
		for _, toSealed := range []bool{false, true} {
			t.Run(sealing(sealed)+" to "+sealing(toSealed), func(t *testing.T) {
				ctx := t.Context()
				from, to := newWorld(sealed, 8), newWorld(toSealed, 9)
				from.create.Parity = -1
				if err := errors.Join(from.init(ctx), to.init(ctx)); err != nil {
					t.Fatal(err)
				}
				var lost []string
				err := from.with(ctx, func(o *repo.Owner) error {
					for i, m := range []string{"a", "b", "c"} {
						before := from.packs(t)
						if _, err := from.backup(ctx, o, oneDisk(m, dense(uint64(20+i), 700<<10)), nil); err != nil {
							return err
						}
						if m == "b" {
							lost = slices.DeleteFunc(from.packs(t), func(s string) bool { return slices.Contains(before, s) })
						}
					}
					return nil
				})
				if err != nil || len(lost) != 1 {
					t.Fatal(lost, err)
				}
				for off := range int64(30) {
					if err := from.mem.Corrupt(lost[0], 300<<10+off*977, 0x10); err != nil {
						t.Fatal(err)
					}
				}
				rep, err := from.copyTo(ctx, to)
				var damage *repo.CorruptError
				if !errors.As(err, &damage) {
					t.Fatalf("got %v", err)
				}
				if damage.Point != from.points[1].ID || damage.Disk != "d" || damage.Off != 256<<10 || damage.Len != 256<<10 || damage.Pack != lost[0] {
					t.Errorf("got %+v", damage)
				}
				if len(rep.Copied) != 2 || len(rep.Damaged) != 1 || rep.Damaged[0].Point.ID != damage.Point {
					t.Errorf("report %+v", rep)
				}
				to.equal(t, []repotest.Point{from.points[0], from.points[2]})
			})
		}
	}
}

// packs lists the data packs.
func (w *world) packs(t *testing.T) (list []string) {
	t.Helper()
	err := vfs.Walk(w.mem, "packs/data", func(name string, info vfs.Info) error {
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

// TestCopyDamagedHere: where the point here is damaged that a copy is compared
// with, its map or a chunk that a patch leans on, copies come without it.
func TestCopyDamagedHere(t *testing.T) {
	for _, p := range pairs(t, 10)[:4] {
		t.Run(p.name, func(t *testing.T) {
			ctx := t.Context()
			p.from.history(t, rand.New(rand.NewPCG(10, 1)), []string{"web"}, 1)
			if _, err := p.from.copyTo(ctx, p.to); err != nil {
				t.Fatal(err)
			}
			p.from.history(t, rand.New(rand.NewPCG(10, 2)), []string{"web"}, 1)
			err := vfs.Walk(p.to.mem, "packs/meta", func(name string, info vfs.Info) error {
				for off := int64(0); off < info.Size; off += 512 {
					if err := p.to.mem.Corrupt(name, off, 1); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := p.from.copyTo(ctx, p.to, p.from.points[1].ID); err != nil {
				t.Fatal(err)
			}
			r, err := repo.Open(ctx, p.to.disk, p.to.options())
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(repotest.ComparePoint(ctx, r, p.from.points[1]), r.Close()); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestCopyHeals: what a scrub found to be lost here is taken from the source by
// the next copy of the machine, though nothing there has changed.
func TestCopyHeals(t *testing.T) {
	for _, p := range pairs(t, 14)[:4] {
		t.Run(p.name, func(t *testing.T) {
			ctx := t.Context()
			d := dense(14, 3<<20)
			add := func() {
				err := p.from.with(ctx, func(o *repo.Owner) error {
					_, err := p.from.backup(ctx, o, oneDisk("web", d), nil)
					return err
				})
				if err != nil {
					t.Fatal(err)
				}
			}
			add()
			if _, err := p.from.copyTo(ctx, p.to); err != nil {
				t.Fatal(err)
			}
			for off := int64(0); off < 300<<10; off += 512 {
				if err := p.to.mem.Corrupt(p.to.packs(t)[0], 10<<10+off, 4); err != nil {
					t.Fatal(err)
				}
			}
			add()
			err := p.to.with(ctx, func(o *repo.Owner) error {
				if _, err := o.Scrub(ctx, repo.ScrubOptions{}); err != nil {
					return err
				}
				if err := repotest.ComparePoint(ctx, o.Repository, p.from.points[0]); err == nil {
					t.Error("the damage does no harm")
				}
				rep, err := p.from.copyInto(ctx, o)
				if err == nil && (rep.Stored == 0 || rep.Stored > 2<<20) {
					t.Errorf("stored %d bytes", rep.Stored)
				}
				return errors.Join(err, repotest.Compare(ctx, o.Repository, p.from.points))
			})
			if err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestCopyTwoAtOnce copies two machines at the same time into one owner, beside a
// backup, and is told of one that is under way.
func TestCopyTwoAtOnce(t *testing.T) {
	for _, p := range pairs(t, 11)[:4] {
		t.Run(p.name, func(t *testing.T) {
			ctx := t.Context()
			p.from.history(t, rand.New(rand.NewPCG(11, 1)), []string{"web", "db"}, 8)
			ids := make(map[string][]repo.PointID)
			for _, q := range p.from.points {
				ids[q.Machine] = append(ids[q.Machine], q.ID)
			}
			err := p.to.with(ctx, func(o *repo.Owner) error {
				var g errgroup.Group
				for _, list := range ids {
					g.Go(func() error {
						_, err := p.from.copyInto(ctx, o, list...)
						return err
					})
				}
				g.Go(func() error {
					_, err := p.to.backup(ctx, o, oneDisk("own", dense(3, 900<<10)), nil)
					return err
				})
				return g.Wait()
			})
			if err != nil {
				t.Fatal(err)
			}
			p.to.equal(t, append(p.to.points, p.from.points...))
		})
	}
}

// TestCopyBesideWriter copies while the source is being written.
func TestCopyBesideWriter(t *testing.T) {
	p := pairs(t, 12)[0]
	p.from.history(t, rand.New(rand.NewPCG(12, 1)), []string{"web"}, 4)
	points := slices.Clone(p.from.points)
	ids := make([]repo.PointID, len(points))
	for i := range points {
		ids[i] = points[i].ID
	}
	var g errgroup.Group
	g.Go(func() error {
		p.from.history(t, rand.New(rand.NewPCG(12, 2)), []string{"web"}, 4)
		return nil
	})
	if _, err := p.from.copyTo(t.Context(), p.to, ids...); err != nil {
		t.Error(err)
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
	p.to.equal(t, points)
}

// TestCopyCancel: a copy that is cancelled makes no point it did not finish, and
// the next one goes on.
func TestCopyCancel(t *testing.T) {
	p := pairs(t, 13)[0]
	p.from.history(t, rand.New(rand.NewPCG(13, 1)), []string{"web"}, 4)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	err := p.to.with(t.Context(), func(o *repo.Owner) error {
		src, err := repo.Open(t.Context(), p.from.disk, p.from.options())
		if err != nil {
			return err
		}
		defer src.Close() //nolint:errcheck // only read
		var ids []repo.PointID
		for _, q := range p.from.points {
			ids = append(ids, q.ID)
		}
		rep, err := o.Copy(ctx, src, ids, repo.CopyOptions{Progress: func(c repo.CopyProgress) {
			if c.Points == 2 {
				cancel()
			}
		}})
		is(t, "cancelled", err, context.Canceled)
		if len(rep.Copied) != 2 {
			t.Errorf("%d points were copied before", len(rep.Copied))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	p.to.equal(t, p.from.points[:2])
	if _, err := p.from.copyTo(t.Context(), p.to); err != nil {
		t.Fatal(err)
	}
	p.to.equal(t, p.from.points)
}
