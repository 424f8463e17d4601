package repo_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"holdfast/repo"
	"holdfast/repo/chunk"
	"holdfast/repo/repotest"
	"holdfast/repo/seal"
)

// A shape is a repository and a way to open it. Whatever the shape, the same
// operations must give the same bytes.
type shape struct {
	name        string
	geometry    chunk.Geometry
	packBytes   int
	parity      int // negative: none
	compression seal.Compression
	sealed      bool
	cacheBytes  int64 // of each cache
}

var shapes = []shape{
	{"small chunks", chunk.Geometry{ChunkBytes: 256 << 10, FrameBytes: 64 << 10}, 1 << 20, 3, "s2", false, 1 << 20},
	{"sealed", chunk.Geometry{ChunkBytes: 256 << 10, FrameBytes: 64 << 10}, 1 << 20, -1, "zstd", true, 64 << 10},
	{"one frame a chunk", chunk.Geometry{ChunkBytes: 256 << 10, FrameBytes: 256 << 10}, 2 << 20, -1, "none", false, 1},
	{"as by default", chunk.Geometry{ChunkBytes: 1 << 20, FrameBytes: 128 << 10}, 4 << 20, 3, "auto", false, 0},
	{"large chunks, sealed", chunk.Geometry{ChunkBytes: 4 << 20, FrameBytes: 64 << 10}, 8 << 20, 10, "s2", true, 256 << 10},
}

// TestModel does random things to repositories and to plain bytes, while others
// read. HOLDFAST_SEED=n does again what seed n did.
func TestModel(t *testing.T) {
	list := []uint64{1}
	steps := 14
	if long {
		list, steps = nil, 60
		for s := range uint64(20) {
			list = append(list, s)
		}
	}
	for _, seed := range seeds(t, list...) {
		for _, s := range shapes {
			t.Run(fmt.Sprintf("%s seed %d", s.name, seed), func(t *testing.T) {
				t.Parallel()
				t.Logf("replay: HOLDFAST_SEED=%d go test -run '%s'", seed, t.Name())
				newActor(t, s, seed).run(steps)
			})
		}
	}
}

// An actor does what a seed says to one repository and to a model.
type actor struct {
	*world
	t     *testing.T
	shape shape
	rng   *rand.Rand // decides on what is done, whatever the shape
	owner *repo.Owner
	model repotest.Model
	disks map[string][]repotest.NamedDisk // of each machine, as they are now
}

func newActor(t *testing.T, s shape, seed uint64) *actor {
	w := newWorld(s.sealed, seed)
	w.create.Geometry, w.create.PackBytes = s.geometry, s.packBytes
	w.create.Parity, w.create.Compression = s.parity, s.compression
	a := &actor{
		world: w, t: t, shape: s, rng: rand.New(rand.NewPCG(seed, 77)),
		disks: make(map[string][]repotest.NamedDisk),
	}
	if err := w.init(t.Context()); err != nil {
		t.Fatal(err)
	}
	a.reopen()
	return a
}

func (a *actor) options() repo.Options {
	opt := a.world.options()
	opt.FrameCacheBytes, opt.NodeCacheBytes, opt.IndexCacheBytes = a.shape.cacheBytes, a.shape.cacheBytes, a.shape.cacheBytes
	return opt
}

// reopen closes the owner, looks at every file, and opens it again.
func (a *actor) reopen() {
	if a.owner != nil {
		if err := a.owner.Close(); err != nil {
			a.t.Fatal(err)
		}
		if err := repotest.Account(a.disk); err != nil {
			a.t.Fatal(err)
		}
	}
	var err error
	if a.owner, err = repo.Own(a.t.Context(), a.disk, a.options(), 0); err != nil {
		a.t.Fatal(err)
	}
}

func (a *actor) run(steps int) {
	ctx, stop := context.WithCancel(a.t.Context())
	var readers sync.WaitGroup
	for i := range uint64(2) {
		readers.Go(func() {
			if err := a.read(ctx, rand.New(rand.NewPCG(i, 1))); err != nil && ctx.Err() == nil {
				a.t.Errorf("a reader beside the owner: %v", err)
			}
		})
	}
	for i := range steps {
		if a.t.Failed() {
			break
		}
		a.step(i)
	}
	stop()
	readers.Wait()
	if a.t.Failed() {
		return
	}
	if err := repotest.Compare(a.t.Context(), a.owner.Repository, a.model.Points()); err != nil {
		a.t.Error(err)
	}
	a.reopen()
	repotest.Check(a.t, a.disk, a.options(), &a.model)
	if err := a.owner.Close(); err != nil {
		a.t.Error(err)
	}
}

// read is another process: it opens the repository now and then, and reads in
// any point that was finished when it looked.
func (a *actor) read(ctx context.Context, rng *rand.Rand) error {
	for ctx.Err() == nil {
		r, err := repo.Open(ctx, a.disk, a.options())
		if err != nil {
			return err
		}
		for range 20 {
			if err = a.readOne(ctx, r, rng); err != nil || ctx.Err() != nil {
				break
			}
		}
		if err := errors.Join(err, r.Close()); err != nil {
			return err
		}
	}
	return nil
}

func (a *actor) readOne(ctx context.Context, r *repo.Repository, rng *rand.Rand) error {
	points := a.model.Points()
	if len(points) == 0 {
		return nil
	}
	p := points[rng.IntN(len(points))]
	pr, err := r.OpenPoint(p.ID)
	if errors.Is(err, repo.ErrNotFound) && !a.model.Has(p.ID) {
		return nil // expired meanwhile
	}
	if err != nil {
		return err
	}
	d := p.Disks[rng.IntN(len(p.Disks))]
	disk, err := pr.Disk(d.Name)
	for range 3 {
		if err == nil {
			err = repotest.CompareRead(ctx, disk, d.Disk, rng)
		}
	}
	if err != nil {
		err = fmt.Errorf("point %s, disk %s: %w", p.ID, d.Name, err)
	}
	return errors.Join(err, pr.Close())
}

// step does one thing, which chance decides.
func (a *actor) step(i int) {
	machine := []string{"web", "db"}[a.rng.IntN(2)]
	a.change(machine)
	switch n := a.rng.IntN(14); {
	case n < 4:
		a.back(i, machine, nil)
	case n < 7:
		a.changed(i, machine)
	case n == 7:
		a.back(i, machine, func(opt *repo.BackupOptions) { opt.Full = true })
	case n == 8:
		a.lie(i, machine)
	case n == 9:
		a.fails(i, machine)
	case n == 10:
		a.cancelled(i, machine)
	case n == 11:
		a.both(i)
	case n == 12:
		a.expires(i)
	case n == 13:
		a.recalls(i)
	}
	if a.rng.IntN(4) == 0 {
		a.reopen()
	}
}

// change makes the machine's disks what they are going to be: as at first, or
// changed, one more, one less.
func (a *actor) change(machine string) {
	disks := a.disks[machine]
	if len(disks) == 0 || len(disks) < 3 && a.rng.IntN(6) == 0 {
		size := []int64{0, 1, 300_000, 700 << 10, 1<<20 + 1}[a.rng.IntN(5)]
		disks = append(disks, repotest.NamedDisk{
			Name: fmt.Sprintf("disk%d", len(disks)),
			Disk: repotest.New(a.rng, repotest.Kind(a.rng.IntN(repotest.Kinds)), size),
		})
	} else if len(disks) > 1 && a.rng.IntN(12) == 0 {
		disks = disks[:len(disks)-1]
	}
	a.disks[machine] = disks
}

// mutate changes the machine's disks and returns in what.
func (a *actor) mutate(machine string) map[string][]repo.Range {
	changed := make(map[string][]repo.Range)
	for i, d := range a.disks[machine] {
		a.disks[machine][i].Disk, changed[d.Name] = repotest.Change(a.rng, d.Disk)
	}
	return changed
}

// point is the machine as it is now.
func (a *actor) point(machine string) repotest.Point {
	return repotest.NewPoint(machine, a.disks[machine]...)
}

// backup backs up a point, which is then in the model if there is no error.
func (a *actor) backup(ctx context.Context, p repotest.Point, mod func(*repo.BackupOptions)) (*repo.Run, error) {
	opt := repo.BackupOptions{Machine: p.Machine, Disks: p.Sources()}
	if mod != nil {
		mod(&opt)
	}
	run, err := a.owner.Backup(ctx, opt)
	if err == nil {
		a.model.Add(p.WithID(run.Point.ID))
	}
	return run, err
}

func (a *actor) back(i int, machine string, mod func(*repo.BackupOptions)) {
	a.mutate(machine)
	run, err := a.backup(a.t.Context(), a.point(machine), mod)
	if err != nil {
		a.t.Fatalf("step %d: %v", i, err)
	}
	if err := counted(run); err != nil {
		a.t.Errorf("step %d: %v", i, err)
	}
}

// counted says whether the counters of a run add up.
func counted(run *repo.Run) error {
	for i, d := range run.Disks {
		c := d.Counters
		size := run.Point.Disks[i].SizeBytes
		if sum := c.HoleBytes + c.ReadBytes + c.SharedBytes; sum != size {
			return fmt.Errorf("disk %s: hole, read and shared are %d of %d bytes: %+v", d.Name, sum, size, c)
		}
		if sum := c.ZeroBytes + c.UnchangedBytes + c.KnownBytes + c.NewBytes; sum != c.ReadBytes {
			return fmt.Errorf("disk %s: what became of %d bytes read adds up to %d: %+v", d.Name, c.ReadBytes, sum, c)
		}
	}
	return nil
}

// changed backs up with lists that tell the truth about the disks that the last
// point has; the others are read.
func (a *actor) changed(i int, machine string) {
	last, ok := a.model.Latest(machine)
	if !ok {
		a.back(i, machine, nil)
		return
	}
	// What the last point has is not always what was there before this step.
	for n, d := range a.disks[machine] {
		for _, old := range last.Disks {
			if old.Name == d.Name {
				a.disks[machine][n].Disk = old.Disk
			}
		}
	}
	lists := a.mutate(machine)
	run, err := a.backup(a.t.Context(), a.point(machine), func(opt *repo.BackupOptions) { setChanges(opt, last, lists) })
	if err != nil {
		a.t.Fatalf("step %d: %v", i, err)
	}
	if err := counted(run); err != nil {
		a.t.Errorf("step %d: %v", i, err)
	}
	for _, d := range run.Disks {
		if want := hasDisk(last, d.Name); (d.Mode == repo.ReadChanged) != want {
			a.t.Errorf("step %d: disk %s was read as %s (%s); in the last point: %v", i, d.Name, d.Mode, d.Reason, want)
		}
	}
	if len(run.Warnings) > 0 {
		a.t.Errorf("step %d: warnings about lists that tell the truth: %q", i, run.Warnings)
	}
}

// hasDisk tells whether a point has a disk.
func hasDisk(p repotest.Point, disk string) bool {
	for _, d := range p.Disks {
		if d.Name == disk {
			return true
		}
	}
	return false
}

// setChanges gives each disk that the last point has its list.
func setChanges(opt *repo.BackupOptions, last repotest.Point, lists map[string][]repo.Range) {
	for n := range opt.Disks {
		d := &opt.Disks[n]
		if hasDisk(last, d.Name) {
			d.Changes = &repo.Changes{Base: string(last.ID), SizeBytes: d.Source.Size(), Ranges: lists[d.Name]}
		}
	}
}

// expires lets some point go, whichever it is.
func (a *actor) expires(i int) {
	points := a.model.Points()
	if len(points) == 0 {
		return
	}
	id := points[a.rng.IntN(len(points))].ID
	a.model.Expire(id)
	if _, err := a.owner.Expire(a.t.Context(), id, "by chance"); err != nil {
		a.t.Errorf("step %d: %v", i, err)
	}
}

// recalls lets a point go whose manifest is locked, and calls it back.
func (a *actor) recalls(i int) {
	points := a.model.Points()
	if len(points) == 0 {
		return
	}
	id := points[a.rng.IntN(len(points))].ID
	if err := a.lock(true, id); err != nil {
		a.t.Fatal(err)
	}
	a.expires(i) // perhaps another, which is no harm
	if a.model.Has(id) {
		a.model.Expire(id)
		if res, err := a.owner.Expire(a.t.Context(), id, "locked"); err != nil || len(res.Retired) != 1 {
			a.t.Errorf("step %d: %+v, %v", i, res, err)
		}
	}
	if a.rng.IntN(3) == 0 {
		a.reopen()
	}
	if _, err := a.owner.Recall(a.t.Context(), id); err != nil {
		a.t.Errorf("step %d: %v", i, err)
	}
	a.model.Recall(id)
	if err := a.lock(false, id); err != nil {
		a.t.Fatal(err)
	}
}

// lie says that nothing changed where every chunk has.
func (a *actor) lie(i int, machine string) {
	last, ok := a.model.Latest(machine)
	if !ok {
		return
	}
	lied := 0
	for n, d := range a.disks[machine] {
		for _, old := range last.Disks {
			if old.Name == d.Name {
				a.disks[machine][n].Disk = repotest.Scramble(old.Disk, 256<<10)
				if old.Disk.Size() > 0 {
					lied++
				}
			}
		}
	}
	run, err := a.backup(a.t.Context(), a.point(machine), func(opt *repo.BackupOptions) { setChanges(opt, last, nil) })
	if err != nil {
		a.t.Fatalf("step %d: %v", i, err)
	}
	if len(run.Warnings) != lied {
		a.t.Errorf("step %d: %d lists lied, warnings: %q", i, lied, run.Warnings)
	}
}

// fails backs up a disk that can't be read to its end.
func (a *actor) fails(i int, machine string) {
	a.mutate(machine)
	p := a.point(machine)
	n := a.rng.IntN(len(p.Disks))
	size := p.Disks[n].Disk.Size()
	if size == 0 {
		return
	}
	at := 1 + a.rng.Int64N(size)
	short := a.rng.IntN(2) == 0
	_, err := a.backup(a.t.Context(), p, func(opt *repo.BackupOptions) {
		src := opt.Disks[n].Source.(*repotest.Source)
		src.NoHoles = true
		if src.FailAt = at; short {
			src.FailAt, src.EndAt = 0, at
		}
	})
	switch {
	case short && at == size:
		if err != nil {
			a.t.Errorf("step %d: a source of its size: %v", i, err)
		}
	case at == size: // FailAt is the first byte that fails: there is none
		if err != nil {
			a.t.Errorf("step %d: nothing failed: %v", i, err)
		}
	case short && !errors.Is(err, repo.ErrShortSource), !short && !errors.Is(err, repotest.ErrSource):
		a.t.Errorf("step %d: source fails at %d of %d: %v", i, at, size, err)
	case !strings.Contains(err.Error(), "disk "+p.Disks[n].Name):
		a.t.Errorf("step %d: the error does not name the disk: %v", i, err)
	}
}

// cancelled loses interest in a backup when some byte is read, if it is.
func (a *actor) cancelled(i int, machine string) {
	a.mutate(machine)
	p := a.point(machine)
	at := a.rng.Int64N(1 << 20)
	ctx, cancel := context.WithCancel(a.t.Context())
	defer cancel()
	var fired atomic.Bool
	_, err := a.backup(ctx, p, func(opt *repo.BackupOptions) {
		for _, d := range opt.Disks {
			d.Source.(*repotest.Source).OnRead = func(off int64) {
				if off >= at {
					fired.Store(true)
					cancel()
				}
			}
		}
	})
	if fired.Load() != errors.Is(err, context.Canceled) || !fired.Load() && err != nil {
		a.t.Errorf("step %d: cancelled %v: %v", i, fired.Load(), err)
	}
}

// both backs up both machines at once.
func (a *actor) both(i int) {
	var wg sync.WaitGroup
	for _, machine := range []string{"web", "db"} {
		if len(a.disks[machine]) == 0 {
			continue
		}
		a.mutate(machine)
		p := a.point(machine)
		wg.Go(func() {
			if _, err := a.backup(a.t.Context(), p, nil); err != nil {
				a.t.Errorf("step %d: %s: %v", i, machine, err)
			}
		})
	}
	wg.Wait()
}
