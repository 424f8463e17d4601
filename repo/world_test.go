package repo_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"holdfast/repo"
	"holdfast/repo/chunk"
	"holdfast/repo/repotest"
	"holdfast/repo/vfs"
)

// long tells whether tests may take minutes: HOLDFAST_LONG=1, as make e2e has it.
var long = os.Getenv("HOLDFAST_LONG") != ""

// rewrite tells whether golden files are to be written, by -update.
func rewrite() bool { return updateFlag.Value.String() == "true" }

var updateFlag = func() *flag.Flag {
	if flag.Lookup("update") == nil {
		flag.Bool("update", false, "rewrite the golden files")
	}
	return flag.Lookup("update")
}()

// seeds returns those to test with: the given ones, or the one in HOLDFAST_SEED.
func seeds(t *testing.T, list ...uint64) []uint64 {
	t.Helper()
	if s := os.Getenv("HOLDFAST_SEED"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return []uint64{n}
	}
	return list
}

// A world is a repository in memory, behind faults, and what it must hold.
type world struct {
	mem, state *vfs.Mem
	disk, keys *vfs.Faulty // before mem and before state
	sealed     bool
	create     repo.CreateOptions
	ticks      *atomic.Int64
	copy       *vfs.Mem // the repository before it was damaged; nil: it was not

	mu      sync.Mutex // guards all below
	created bool       // Create has returned
	points  []repotest.Point
	doing   []repotest.Point // being backed up
	unsure  []repotest.Point // being let go, or called back
	gone    []repotest.Point // expired
}

// small is a geometry in which a few hundred KiB are several chunks.
var small = chunk.Geometry{ChunkBytes: 256 << 10, FrameBytes: 64 << 10}

const passphrase = "correct horse"

func newWorld(sealed bool, seed uint64) *world {
	w := &world{mem: vfs.NewMem(), state: vfs.NewMem(), sealed: sealed, ticks: new(atomic.Int64)}
	w.create = repo.CreateOptions{
		Geometry: small, PackBytes: repo.MinPackBytes, Compression: "s2", ReserveBytes: 8192,
		WorkFactor: 4, Now: w.now, Rand: repotest.NewRand(seed),
	}
	if sealed {
		w.create.Passphrase = []byte(passphrase)
	}
	w.mount()
	return w
}

func (w *world) mount() {
	w.disk, w.keys = vfs.NewFaulty(w.mem), vfs.NewFaulty(w.state)
	w.create.State = w.keys
}

// now is a clock that goes on by a second whenever somebody looks.
func (w *world) now() time.Time {
	return time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC).Add(time.Duration(w.ticks.Add(1)) * time.Second)
}

func (w *world) options() repo.Options {
	opt := repo.Options{
		State: w.keys, Now: w.now, Rand: w.create.Rand,
		FrameCacheBytes: 1 << 20, NodeCacheBytes: 1 << 20, IndexCacheBytes: 1 << 16,
	}
	if w.sealed {
		opt.Passphrase = []byte(passphrase)
	}
	return opt
}

func (w *world) init(ctx context.Context) error {
	_, err := repo.Create(ctx, w.disk, w.create)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.created = err == nil
	return err
}

func (w *world) own(ctx context.Context) (*repo.Owner, error) {
	return repo.Own(ctx, w.disk, w.options(), 0)
}

// with opens the repository as owner for do, and closes it.
func (w *world) with(ctx context.Context, do func(o *repo.Owner) error) error {
	o, err := w.own(ctx)
	if err != nil {
		return err
	}
	err = do(o)
	if cerr := o.Close(); err == nil {
		err = cerr
	}
	return err
}

// backup backs up a point to be. While it does, the point may be there or not;
// when it has returned nil, the point is.
func (w *world) backup(ctx context.Context, o *repo.Owner, p repotest.Point, mod func(*repo.BackupOptions)) (*repo.Run, error) {
	opt := repo.BackupOptions{Machine: p.Machine, Disks: p.Sources()}
	if mod != nil {
		mod(&opt)
	}
	w.mu.Lock()
	w.doing = append(w.doing, p)
	w.mu.Unlock()
	run, err := o.Backup(ctx, opt)
	w.mu.Lock()
	defer w.mu.Unlock()
	if !errors.Is(err, vfs.ErrCrashed) { // if the process died, nobody was told
		w.doing = slices.DeleteFunc(w.doing, func(q repotest.Point) bool { return q.Machine == p.Machine })
	}
	if err == nil {
		w.points = append(w.points, p.WithID(run.Point.ID))
	}
	return run, err
}

// letGo makes points expire by do. While it does, each may be there or not; when
// it has returned nil, none is.
func (w *world) letGo(ids []repo.PointID, do func() error) error {
	w.mu.Lock()
	away := func(p repotest.Point) bool { return slices.Contains(ids, p.ID) }
	for _, p := range w.points {
		if away(p) {
			w.unsure = append(w.unsure, p)
		}
	}
	w.points = slices.DeleteFunc(w.points, away)
	w.mu.Unlock()
	return w.sure(do(), func(p repotest.Point) { w.gone = append(w.gone, p) }, w.keep)
}

// callBack takes an expiry back by do. While it does, the point may be there or
// not; when it has returned nil, it is.
func (w *world) callBack(id repo.PointID, do func() error) error {
	w.mu.Lock()
	back := func(p repotest.Point) bool { return p.ID == id }
	w.unsure = append(w.unsure, w.gone[slices.IndexFunc(w.gone, back)])
	w.gone = slices.DeleteFunc(w.gone, back)
	w.mu.Unlock()
	return w.sure(do(), w.keep, func(p repotest.Point) { w.gone = append(w.gone, p) })
}

// sure does with the points that were unsure what befits the outcome.
func (w *world) sure(err error, done, failed func(repotest.Point)) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if errors.Is(err, vfs.ErrCrashed) {
		return err // nobody was told
	}
	for _, p := range w.unsure {
		if err == nil {
			done(p)
		} else {
			failed(p)
		}
	}
	w.unsure = nil
	return err
}

// keep adds a point where it belongs: ids sort by time.
func (w *world) keep(p repotest.Point) {
	i, _ := slices.BinarySearchFunc(w.points, p, func(a, b repotest.Point) int { return strings.Compare(string(a.ID), string(b.ID)) })
	w.points = slices.Insert(w.points, i, p)
}

// latest is the machine's last finished point.
func (w *world) latest(machine string) repotest.Point {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range slices.Backward(w.points) {
		if p.Machine == machine {
			return p
		}
	}
	panic("no point of " + machine)
}

// fork returns the world as it would be after losing power like that, or, with
// everything kept, a copy of it.
func (w *world) fork(crash vfs.CrashOptions) *world {
	w.mu.Lock()
	defer w.mu.Unlock()
	f := &world{
		mem: w.mem.CrashClone(crash), state: w.state.CrashClone(crash), sealed: w.sealed,
		create: w.create, ticks: w.ticks, copy: w.copy, created: w.created,
		points: slices.Clone(w.points), doing: slices.Clone(w.doing), unsure: slices.Clone(w.unsure),
	}
	f.mem.SetCapacity(1 << 40) // who finds it full makes room
	f.mount()
	return f
}

var keepAll = vfs.CrashOptions{Data: vfs.KeepAll, Sizes: vfs.KeepAll, Names: vfs.KeepAll}

// adopt takes the points that are there for those that were being made: a point
// that was on its way may have arrived, whole. It returns what must be there.
func (w *world) adopt(ctx context.Context, r *repo.Repository) ([]repotest.Point, error) {
	got, err := r.Points(ctx)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range w.unsure {
		if slices.ContainsFunc(got, func(q repo.Point) bool { return q.ID == p.ID }) {
			w.keep(p)
		}
	}
	w.unsure = nil
	for _, p := range got {
		known := func(q repotest.Point) bool { return q.ID == p.ID }
		onItsWay := func(q repotest.Point) bool { return q.Machine == p.Machine }
		if slices.ContainsFunc(w.points, known) {
			continue
		}
		if i := slices.IndexFunc(w.doing, onItsWay); i >= 0 {
			w.points = append(w.points, w.doing[i].WithID(p.ID))
			w.doing = slices.Delete(w.doing, i, i+1)
		}
	}
	w.doing = nil
	return slices.Clone(w.points), nil
}

// recover does what somebody does who finds the repository after an
// interruption, which is nothing but using it: it must be openable, hold the
// finished points and no others but whole ones, leave no trace of what was
// interrupted, and take the next backup.
func (w *world) recover(ctx context.Context) error {
	if !w.created {
		switch again, err := w.initAgain(ctx); {
		case err != nil:
			return fmt.Errorf("init again: %w", err)
		case again:
			w.created = true
		}
	}
	if w.copy != nil {
		if err := w.mend(ctx); err != nil {
			return fmt.Errorf("repair: %w", err)
		}
	}
	err := w.with(ctx, func(o *repo.Owner) error {
		points, err := w.adopt(ctx, o.Repository)
		if err != nil {
			return err
		}
		return repotest.Compare(ctx, o.Repository, points)
	})
	if err == nil {
		err = whole(w.disk)
	}
	if err == nil {
		err = repotest.Account(w.disk)
	}
	if err != nil {
		return fmt.Errorf("reopened: %w", err)
	}
	err = w.with(ctx, func(o *repo.Owner) error {
		run, err := w.backup(ctx, o, w.next(), nil)
		if err != nil {
			return err
		}
		return repotest.ComparePoint(ctx, o.Repository, w.points[len(w.points)-1].WithID(run.Point.ID))
	})
	if err == nil && long {
		err = errors.Join(repotest.Account(w.disk), repotest.OpenAndCompare(ctx, w.disk, w.options(), w.model()))
	}
	if err != nil {
		return fmt.Errorf("after the next backup: %w", err)
	}
	return nil
}

// whole says what points need that isn't there, now or once nothing is left but
// what they need.
func whole(fsys vfs.FS) error {
	r, err := repotest.Reachable(fsys)
	if err == nil && len(r.Missing) > 0 {
		err = fmt.Errorf("%d records that points need are missing: %s", len(r.Missing), r.Missing[0].Short())
	}
	return err
}

// initAgain makes the repository if there is none, as an interrupted init says
// there isn't.
func (w *world) initAgain(ctx context.Context) (bool, error) {
	r, err := repo.Open(ctx, w.disk, w.options())
	if err == nil {
		return false, r.Close()
	}
	if !isNotRepository(err) {
		return false, err
	}
	return true, w.init(ctx)
}

func (w *world) model() *repotest.Model {
	m := new(repotest.Model)
	for _, p := range w.points {
		m.Add(p)
	}
	return m
}

// next is a point to come: the last one with a few bytes changed, or some other.
func (w *world) next() repotest.Point {
	rng := rand.New(rand.NewPCG(uint64(len(w.points)), 99))
	if len(w.points) == 0 {
		return repotest.NewPoint("next", repotest.NamedDisk{Name: "d", Disk: repotest.New(rng, repotest.Sparse, 600<<10)})
	}
	p := w.points[len(w.points)-1]
	p = repotest.NewPoint(p.Machine, p.Disks...)
	d := p.Disks[0].Disk.Clone()
	d.Write([]byte("next"), d.Size()/2)
	p.Disks[0].Disk = d
	return p
}
