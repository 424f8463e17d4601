package repo_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path"
	"slices"
	"testing"

	"holdfast/repo"
	"holdfast/repo/chunk"
	"holdfast/repo/repotest"
	"holdfast/repo/vfs"
)

// A pair is a repository to copy from and one to copy to.
type pair struct {
	name     string
	from, to *world
}

// pairs are all that may name chunks alike or otherwise.
func pairs(t *testing.T, seed uint64) []pair {
	made := func(w *world) *world {
		if err := w.init(t.Context()); err != nil {
			t.Fatal(err)
		}
		return w
	}
	shaped := func(w *world, chunkBytes, frameBytes int) *world {
		w.create.Geometry = chunk.Geometry{ChunkBytes: chunkBytes, FrameBytes: frameBytes}
		return made(w)
	}
	// Two with the same keys: one was a copy of the other's files.
	twin := made(newWorld(true, seed))
	return []pair{
		{"plain to plain", made(newWorld(false, seed)), made(newWorld(false, seed+1))},
		{"sealed to its twin", twin, twin.fork(keepAll)},
		{"sealed to sealed", made(newWorld(true, seed)), made(newWorld(true, seed+1))},
		{"plain to sealed", made(newWorld(false, seed)), made(newWorld(true, seed+1))},
		{"sealed to plain", made(newWorld(true, seed)), made(newWorld(false, seed+1))},
		{"to larger chunks", made(newWorld(false, seed)), shaped(newWorld(false, seed+1), 1<<20, 128<<10)},
		{"to smaller chunks", shaped(newWorld(false, seed), 1<<20, 64<<10), made(newWorld(false, seed+1))},
	}
}

func (p pair) alike() bool { return p.name == "plain to plain" || p.name == "sealed to its twin" }

// history backs up machines as they change, from the state they are in.
func (w *world) history(t *testing.T, rng *rand.Rand, machines []string, steps int) {
	t.Helper()
	err := w.with(t.Context(), func(o *repo.Owner) error {
		for range steps {
			machine := machines[rng.IntN(len(machines))]
			var disks []repotest.NamedDisk
			for i := range 2 {
				disks = append(disks, repotest.NamedDisk{
					Name: fmt.Sprintf("d%d", i), Disk: repotest.New(rng, repotest.Kind(rng.IntN(repotest.Kinds)), rng.Int64N(1500<<10))})
			}
			if slices.ContainsFunc(w.points, func(p repotest.Point) bool { return p.Machine == machine }) && rng.IntN(6) > 0 {
				disks = slices.Clone(w.latest(machine).Disks)
				for i := range disks {
					if rng.IntN(3) > 0 {
						disks[i].Disk, _ = repotest.Change(rng, disks[i].Disk)
					}
				}
			}
			full := rng.IntN(8) == 0
			_, err := w.backup(t.Context(), o, repotest.NewPoint(machine, disks...), func(opt *repo.BackupOptions) {
				opt.Full, opt.Job, opt.Slot = full, "nightly", fmt.Sprint(rng.IntN(9))
				opt.Disks[0].Format, opt.Disks[0].Path = "raw", "/dev/x"
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// copyTo copies points, all if there are none given.
func (w *world) copyTo(ctx context.Context, to *world, ids ...repo.PointID) (rep repo.CopyReport, err error) {
	err = to.with(ctx, func(o *repo.Owner) error {
		rep, err = w.copyInto(ctx, o, ids...)
		return err
	})
	return rep, err
}

func (w *world) copyInto(ctx context.Context, o *repo.Owner, ids ...repo.PointID) (rep repo.CopyReport, err error) {
	src, err := repo.Open(ctx, w.disk, w.options())
	if err != nil {
		return rep, err
	}
	if len(ids) == 0 {
		points, err := src.Points(ctx)
		if err != nil {
			return rep, errors.Join(err, src.Close())
		}
		for _, p := range points {
			ids = append(ids, p.ID)
		}
	}
	rep, err = o.Copy(ctx, src, ids, repo.CopyOptions{Actor: "tester"})
	return rep, errors.Join(err, src.Close())
}

// equal holds a repository to the points, bit for bit, and to its files.
func (w *world) equal(t *testing.T, want []repotest.Point) {
	t.Helper()
	if err := repotest.Account(w.disk); err != nil {
		t.Error(err)
	}
	r, err := repo.Open(t.Context(), w.disk, w.options())
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(repotest.Compare(t.Context(), r, want), r.Close()); err != nil {
		t.Error(err)
	}
}

func (w *world) listed(t *testing.T) []repo.Point {
	t.Helper()
	r, err := repo.Open(t.Context(), w.disk, w.options())
	if err != nil {
		t.Fatal(err)
	}
	points, err := r.Points(t.Context())
	if err := errors.Join(err, r.Close()); err != nil {
		t.Fatal(err)
	}
	return points
}

// TestCopyHistory copies random histories, in two goes with more history between,
// and then once more.
func TestCopyHistory(t *testing.T) {
	list := []uint64{1}
	if long {
		for s := range uint64(30) {
			list = append(list, s+2)
		}
	}
	for _, seed := range seeds(t, list...) {
		for _, p := range pairs(t, seed) {
			t.Run(fmt.Sprintf("%s seed %d", p.name, seed), func(t *testing.T) {
				t.Parallel()
				rng := rand.New(rand.NewPCG(seed, 5))
				for range 2 {
					p.from.history(t, rng, []string{"web", "db"}, 5)
					rep, err := p.from.copyTo(t.Context(), p.to)
					if err != nil {
						t.Fatal(err)
					}
					p.to.equal(t, p.from.points)
					if (rep.Records > 0) != p.alike() || rep.Read == 0 || rep.Stored == 0 || rep.Packs < rep.Stored || len(rep.Copied) != 5 || len(rep.Warnings) > 0 {
						t.Errorf("report %+v", rep)
					}
				}
				p.same(t)
				rep, err := p.from.copyTo(t.Context(), p.to)
				if err != nil || rep.Present != 10 || len(rep.Copied) != 0 || rep.Read != 0 || rep.Stored != 0 {
					t.Errorf("a third time: %+v, %v", rep, err)
				}
				// Life goes on here, with the copies as parents.
				p.to.points = slices.Clone(p.from.points)
				p.to.history(t, rng, []string{"web", "db"}, 3)
				p.to.equal(t, p.to.points)
			})
		}
	}
}

// same holds what is said of points to what the source says.
func (p pair) same(t *testing.T) {
	t.Helper()
	from, to := p.from.listed(t), p.to.listed(t)
	info := p.from.info(t)
	for i := range from {
		a, b := from[i], to[i]
		if b.CopiedFrom != info.ID || !b.Signed {
			t.Errorf("%s is copied from %q, signed %t", b.ID, b.CopiedFrom, b.Signed)
		}
		if a.Full != b.Full || (b.Parent == "") != b.Full {
			t.Errorf("%s: full %t, parent %q, in the source full %t", b.ID, b.Full, b.Parent, a.Full)
		}
		said := func(q repo.Point) string {
			s := fmt.Sprint(q.ID, q.Sequence, q.Machine, q.MachineID, q.Job, q.Slot, q.Actor, q.Host, q.Time, q.ClockBack, q.Consistency, q.Counters, q.Extensions)
			for _, d := range q.Disks {
				s += fmt.Sprint(d.Name, d.SizeBytes, d.Format, d.Source, d.ChangeID)
			}
			return s
		}
		if said(a) != said(b) {
			t.Errorf("the source says\n%s, the copy\n%s", said(a), said(b))
		}
	}
}

func (w *world) info(t *testing.T) repo.Info {
	t.Helper()
	r, err := repo.Open(t.Context(), w.disk, w.options())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close() //nolint:errcheck // only read
	return r.Info()
}

// TestCopyBackwards copies points one by one, newest first, and then those with
// odd numbers before the others: patches come without their bases.
func TestCopyBackwards(t *testing.T) {
	for _, p := range pairs(t, 3) {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			from, ctx := p.from, t.Context()
			from.history(t, rand.New(rand.NewPCG(3, 3)), []string{"web"}, 3)
			err := from.with(ctx, func(o *repo.Owner) error {
				d := dense(3, 900<<10)
				for i := range int64(6) {
					d = d.Clone()
					d.Write([]byte("changed"), i*100<<10)
					d.Write([]byte("changed"), i)
					if _, err := from.backup(ctx, o, oneDisk("db", d), nil); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			n := len(from.points)
			order := []int{n - 1, n - 3, n - 5, n - 2}
			for i := range n {
				if !slices.Contains(order, n-1-i) {
					order = append(order, n-1-i)
				}
			}
			encoded := int64(0)
			for _, i := range order {
				rep, err := from.copyTo(ctx, p.to, from.points[i].ID)
				if err != nil {
					t.Fatal(err)
				}
				encoded += rep.Encoded
			}
			if encoded == 0 {
				t.Error("no chunk was compressed anew, so no patch came without its base")
			}
			p.to.equal(t, from.points)
		})
	}
}

// TestCopyOntoOther: a machine that is backed up in both repositories, so that
// numbers meet.
func TestCopyOntoOther(t *testing.T) {
	p := pairs(t, 4)[0]
	p.from.history(t, rand.New(rand.NewPCG(4, 4)), []string{"web"}, 3)
	if _, err := p.from.copyTo(t.Context(), p.to, p.from.points[0].ID); err != nil {
		t.Fatal(err)
	}
	p.to.points = slices.Clone(p.from.points[:1])
	p.to.history(t, rand.New(rand.NewPCG(5, 4)), []string{"web"}, 1)
	rep, err := p.from.copyTo(t.Context(), p.to)
	if err != nil {
		t.Fatal(err)
	}
	if len(rep.Warnings) != 2 || rep.Copied[0].Sequence != 3 || rep.Copied[1].Sequence != 4 {
		t.Errorf("numbers: %v, points %+v", rep.Warnings, rep.Copied)
	}
	p.to.equal(t, append(p.to.points, p.from.points[1:]...))
}

// TestCopyRefuses what can't be copied.
func TestCopyRefuses(t *testing.T) {
	p := pairs(t, 5)[0]
	ctx := t.Context()
	p.from.history(t, rand.New(rand.NewPCG(5, 5)), []string{"web"}, 1)
	_, err := p.from.copyTo(ctx, p.to, "aaaaaaaaaaaaaaaaaaaa")
	is(t, "a point that isn't", err, repo.ErrNotFound)
	other := repotest.NewPoint("web", repotest.NamedDisk{Name: "d", Disk: dense(1, 1000)})
	err = p.to.with(ctx, func(o *repo.Owner) error {
		_, err := p.to.backup(ctx, o, other, nil)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	_, err = p.from.copyTo(ctx, p.to)
	is(t, "a machine of that name", err, repo.ErrMachine)
	err = p.to.with(ctx, func(o *repo.Owner) error {
		src, err := repo.Open(ctx, p.from.disk, p.from.options())
		if err != nil {
			return err
		}
		defer src.Close() //nolint:errcheck // only read
		if _, err := o.Copy(ctx, src, []repo.PointID{p.from.points[0].ID}, repo.CopyOptions{Adopt: true}); err != nil {
			return err
		}
		// The name is still that of the machine that had it.
		run, err := p.to.backup(ctx, o, other, nil)
		if err == nil && run.Point.Sequence != 2 {
			t.Errorf("the next backup of web is number %d", run.Point.Sequence)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	p.to.equal(t, append(p.to.points, p.from.points...))
}

// BenchmarkCopy copies a machine of a gigabyte, of which little is data: for the
// first time, with nothing new, with one new point that is the same, and with
// one that differs in a few frames.
func BenchmarkCopy(b *testing.B) {
	for _, toSealed := range []bool{false, true} {
		b.Run("plain to "+sealing(toSealed), func(b *testing.B) { benchCopy(b, toSealed) })
	}
}

func benchCopy(b *testing.B, toSealed bool) {
	ctx := b.Context()
	from, to := newWorld(false, 1), newWorld(toSealed, 2)
	for _, w := range []*world{from, to} {
		w.create.Geometry, w.create.PackBytes = chunk.Geometry{}, 0
		if err := w.init(ctx); err != nil {
			b.Fatal(err)
		}
	}
	disk := repotest.NewDisk(1 << 30)
	noise := dense(1, 64<<20)
	p := make([]byte, 1<<20)
	for off := int64(0); off < noise.Size(); off += int64(len(p)) {
		_, _ = noise.ReadAt(p, off) // lies within
		disk.Write(p, off*8)
	}
	add := func(d *repotest.Disk) {
		err := from.with(ctx, func(o *repo.Owner) error {
			_, err := from.backup(ctx, o, oneDisk("web", d), nil)
			return err
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	add(disk)
	changed := disk.Clone()
	for i := range int64(20) {
		changed.Write([]byte("changed"), i*40<<20+5000)
	}
	cases := []struct {
		name string
		add  *repotest.Disk
	}{{"first", nil}, {"nothing new", nil}, {"the same again", disk}, {"twenty frames", changed}}
	for _, c := range cases {
		if c.add != nil {
			add(c.add)
		}
		base := to.fork(keepAll)
		b.Run(c.name, func(b *testing.B) {
			var read, data int64
			for range b.N {
				b.StopTimer()
				to = base.fork(keepAll)
				counting := vfs.NewFaulty(from.mem)
				counting.CountReads()
				b.StartTimer()
				src, err := repo.Open(ctx, counting, from.options())
				if err != nil {
					b.Fatal(err)
				}
				err = to.with(ctx, func(o *repo.Owner) error {
					var ids []repo.PointID
					for _, q := range from.points {
						ids = append(ids, q.ID)
					}
					_, err := o.Copy(ctx, src, ids, repo.CopyOptions{})
					return err
				})
				if err := errors.Join(err, src.Close()); err != nil {
					b.Fatal(err)
				}
				for _, op := range counting.Ops() {
					if op.Kind == vfs.OpRead {
						read += op.Len
						if ok, _ := path.Match("packs/*/*/*", op.Name); ok {
							data += op.Len
						}
					}
				}
			}
			b.ReportMetric(float64(read)/float64(b.N), "B-read/op")
			b.ReportMetric(float64(data)/float64(b.N), "B-packs/op")
		})
	}
}

// TestCopyMeanwhile: a point that another copy brings while this one is about to
// is there, and no failure.
func TestCopyMeanwhile(t *testing.T) {
	p := pairs(t, 8)[0]
	if err := p.from.with(t.Context(), func(o *repo.Owner) error {
		p.from.must(t, o, oneDisk("web", dense(1, 600<<10)), nil)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	src, err := repo.Open(t.Context(), p.from.disk, p.from.options())
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close() //nolint:errcheck // only read
	err = p.to.with(t.Context(), func(o *repo.Owner) error {
		ids, first := pointIDs(p.from), true
		rep, err := o.Copy(t.Context(), src, ids, repo.CopyOptions{Progress: func(repo.CopyProgress) {
			if !first {
				return
			}
			first = false
			if rep, err := o.Copy(t.Context(), src, ids, repo.CopyOptions{}); err != nil || len(rep.Copied) != 1 {
				t.Errorf("the other copy: %+v, %v", rep, err)
			}
		}})
		if err != nil || rep.Present != 1 || len(rep.Copied) != 0 {
			t.Errorf("%+v, %v", rep, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	repotest.Check(t, p.to.disk, p.to.options(), p.from.model())
}
