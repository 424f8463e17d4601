package repo_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sync/errgroup"

	"holdfast/repo"
	"holdfast/repo/repotest"
	"holdfast/repo/vfs"
)

func isNotRepository(err error) bool { return errors.Is(err, repo.ErrNotRepository) }

// A mix is a row of operations to be interrupted anywhere.
type mix struct {
	name   string
	before func(ctx context.Context, w *world) error // not interrupted
	do     func(ctx context.Context, w *world) error
	thin   bool // unless long, stop at every third operation only; sealed at every third of these
}

var mixes = []mix{
	{name: "init", do: initOnly},
	{name: "init again", before: initStopped, do: initOnly},
	{name: "first", before: initOnly, do: first},
	{name: "increment", before: initAndFirst, do: increment},
	{name: "failed", before: initAndFirst, do: failedThenAgain, thin: true},
	{name: "two at once", before: initAndFirst, do: twoAtOnce, thin: true},
	{name: "expire", before: threePoints, do: expireTwo},
	{name: "expire locked", before: threeLocked, do: expireTwo, thin: true},
	{name: "expire on a full volume", before: threeReserved, do: expireFull, thin: true},
	{name: "recall", before: twoRetired, do: recallBoth, thin: true},
	{name: "retain", before: threePoints, do: retainLast, thin: true},
	{name: "unlocked", before: unlockedAgain, do: func(ctx context.Context, w *world) error {
		return w.with(ctx, func(*repo.Owner) error { return nil })
	}},
	{name: "reopen", before: interrupted, do: func(ctx context.Context, w *world) error {
		return w.with(ctx, func(*repo.Owner) error { return nil })
	}},
	{name: "first sweep", before: worn, do: sweepOnce, thin: true},
	{name: "sweep", before: swept, do: sweepOnce},
	{name: "compact", before: swept, do: compactAll, thin: true},
	{name: "synthesize", before: worn, do: synthesizeLatest, thin: true},
	{name: "evacuate", before: lockedAndWorn, do: evacuateAll, thin: true},
	{name: "abandon", before: worn, do: abandonAll, thin: true},
	{name: "scrub", before: initAndFirst, do: scrubByTurns, thin: true},
	{name: "repair", before: bitsLost, do: repairAll, thin: true},
	{name: "repair from a copy", before: packsLost, do: repairFromCopy, thin: true},
	{name: "reindex", before: initAndFirst, do: reindexAll, thin: true},
}

func initOnly(ctx context.Context, w *world) error { return w.init(ctx) }

// initStopped is an init that was killed when one copy of the settings was there.
func initStopped(ctx context.Context, w *world) error {
	w.disk.OnOp(func(i int, op vfs.Op) {
		if op.To == "format.json.twin" {
			w.disk.CrashAt(i + 1)
		}
	})
	err := w.init(ctx)
	w.disk.OnOp(nil)
	w.disk.Heal()
	if !errors.Is(err, vfs.ErrCrashed) {
		return fmt.Errorf("init was to be stopped: %w", err)
	}
	return nil
}

func initAndFirst(ctx context.Context, w *world) error {
	if err := w.init(ctx); err != nil {
		return err
	}
	return first(ctx, w)
}

func first(ctx context.Context, w *world) error {
	return w.with(ctx, func(o *repo.Owner) error { return firstIn(ctx, w, o) })
}

// firstIn backs up two disks for the first time: several packs, holes, text.
func firstIn(ctx context.Context, w *world, o *repo.Owner) error {
	rng := rand.New(rand.NewPCG(1, 1))
	p := repotest.NewPoint("web",
		repotest.NamedDisk{Name: "root", Disk: repotest.New(rng, repotest.Dense, 1100<<10)},
		repotest.NamedDisk{Name: "data", Disk: repotest.New(rng, repotest.Zeros, 600<<10+77)})
	_, err := w.backup(ctx, o, p, nil)
	return err
}

// grown is the machine's next state: small writes to one disk, the other longer.
func grown(w *world) (p repotest.Point, changed []repo.Range) {
	old := w.latest("web")
	p = repotest.NewPoint("web", old.Disks...)
	root, data := p.Disks[0].Disk.Clone(), p.Disks[1].Disk.Clone()
	for _, off := range []int64{5000, 700_000, 1_100_000} {
		root.Write([]byte(strings.Repeat("changed ", 600)), off)
		changed = append(changed, repo.Range{Off: off, Len: 4800})
	}
	data.Resize(data.Size() + 300<<10)
	data.Write([]byte("the new end"), data.Size()-11)
	p.Disks[0].Disk, p.Disks[1].Disk = root, data
	return repotest.NewPoint("web", p.Disks...), changed
}

func increment(ctx context.Context, w *world) error {
	old := w.latest("web")
	p, changed := grown(w)
	return w.with(ctx, func(o *repo.Owner) error {
		run, err := w.backup(ctx, o, p, func(opt *repo.BackupOptions) {
			opt.Disks[0].Changes = &repo.Changes{Base: string(old.ID), SizeBytes: p.Disks[0].Disk.Size(), Ranges: changed}
			opt.Disks[1].Changes = &repo.Changes{Base: string(old.ID), SizeBytes: p.Disks[1].Disk.Size()}
			opt.RequireChanged = true
		})
		if err == nil && run.Point.Parent != old.ID {
			err = fmt.Errorf("parent %q, want %s", run.Point.Parent, old.ID)
		}
		return err
	})
}

// failedThenAgain backs up a disk whose end can't be read, and then the disk.
func failedThenAgain(ctx context.Context, w *world) error {
	rng := rand.New(rand.NewPCG(2, 2))
	old := w.latest("web")
	p := repotest.NewPoint("web", repotest.NamedDisk{Name: "root", Disk: repotest.New(rng, repotest.Dense, 1300<<10)}, old.Disks[1])
	return w.with(ctx, func(o *repo.Owner) error {
		_, err := w.backup(ctx, o, p, func(opt *repo.BackupOptions) {
			opt.Disks[0].Source.(*repotest.Source).FailAt = 1250 << 10
		})
		if !errors.Is(err, repotest.ErrSource) {
			return fmt.Errorf("the source failed: %w", err)
		}
		run, err := w.backup(ctx, o, p, nil)
		if err == nil && run.Disks[0].Counters.KnownBytes < 1<<20 {
			err = fmt.Errorf("the failed run had stored more than the %d bytes reused", run.Disks[0].Counters.KnownBytes)
		}
		return err
	})
}

// twoAtOnce backs up two more machines in one owner.
func twoAtOnce(ctx context.Context, w *world) error {
	return w.with(ctx, func(o *repo.Owner) error {
		var g errgroup.Group
		for i := range uint64(2) {
			rng := rand.New(rand.NewPCG(3, i))
			p := repotest.NewPoint(fmt.Sprintf("db%d", i),
				repotest.NamedDisk{Name: "d", Disk: repotest.New(rng, repotest.Dense, 300<<10)})
			g.Go(func() error {
				_, err := w.backup(ctx, o, p, nil)
				return err
			})
		}
		return g.Wait()
	})
}

// interrupted leaves much to tidy up: a run was stopped after its first packs,
// the commit of the next before its manifest was whole.
func interrupted(ctx context.Context, w *world) error {
	if err := initAndFirst(ctx, w); err != nil {
		return err
	}
	p, _ := grown(w)
	stopAt := func(wanted string) error {
		w.disk.OnOp(func(i int, op vfs.Op) {
			if strings.Contains(op.String(), wanted) {
				w.disk.CrashAt(i + 1)
			}
		})
		err := w.with(ctx, func(o *repo.Owner) error {
			_, err := w.backup(ctx, o, p, nil)
			return err
		})
		w.disk.OnOp(nil)
		w.disk.Heal()
		if !errors.Is(err, vfs.ErrCrashed) {
			return fmt.Errorf("stop at %s: %w", wanted, err)
		}
		return nil
	}
	return errors.Join(stopAt("rename tmp/packs-data"), stopAt("rename tmp/points"))
}

// A stop is the world after an interruption.
type stop struct {
	index int
	op    string
	crash vfs.CrashOptions
	world *world
}

func (s stop) String() string {
	return fmt.Sprintf("power lost before operation %d, %s, %v", s.index, s.op, s.crash)
}

// stops runs a mix once and returns the world as it would be after losing power
// at any operation: before each and after the last. crashes says in which ways.
func (m mix) stops(ctx context.Context, w *world, crashes func(index int, op string) []vfs.CrashOptions) (all []stop, indexes int, err error) {
	if m.before != nil {
		if err := m.before(ctx, w); err != nil {
			return nil, 0, err
		}
	}
	var mu sync.Mutex // guards all and indexes
	note := func(op string) {
		mu.Lock()
		defer mu.Unlock()
		for _, c := range crashes(indexes, op) {
			all = append(all, stop{indexes, op, c, w.fork(c)})
		}
		indexes++
	}
	w.disk.OnOp(func(_ int, op vfs.Op) { note(op.String()) })
	w.keys.OnOp(func(_ int, op vfs.Op) { note("state: " + op.String()) })
	err = m.do(ctx, w)
	w.disk.OnOp(nil)
	w.keys.OnOp(nil)
	note("the end")
	return all, indexes, err
}

func sealing(sealed bool) string {
	if sealed {
		return "sealed"
	}
	return "plain"
}

// TestPowerLoss cuts the power before every operation of each mix.
func TestPowerLoss(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(200)) // hundreds of short-lived repositories
	ways := vfs.Crashes(1, 2, 3, 4)
	counts := make(map[string]int)
	for _, m := range mixes {
		for _, sealed := range []bool{false, true} {
			name := m.name + " " + sealing(sealed)
			t.Run(name, func(t *testing.T) {
				step := 1
				if m.thin {
					step = 3
				}
				if sealed {
					step *= 3
				}
				if raceDetector {
					step *= 2
				}
				all, n, err := m.stops(t.Context(), newWorld(sealed, 1), func(i int, op string) []vfs.CrashOptions {
					manyAlike := strings.HasPrefix(op, "mkdir packs/") // 512
					switch {
					case long && (!manyAlike || i%16 == 0):
						return ways
					case long || manyAlike && i%16 != 0 || !manyAlike && i%step != 0:
						return nil
					}
					return ways[i/step%len(ways):][:1]
				})
				if err != nil {
					t.Fatal(err)
				}
				t.Logf("stopped at %d operations, %d crashes", n, len(all))
				counts[name] = n
				checkStops(t, all)
			})
		}
	}
	if !t.Failed() {
		checkCounts(t, counts)
	}
}

// checkStops recovers from each stop.
func checkStops(t *testing.T, all []stop) {
	t.Helper()
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for i, s := range all {
		all[i].world = nil // the memory goes with the check
		g.Go(func() error {
			if ctx.Err() != nil {
				return nil
			}
			if err := s.world.recover(ctx); err != nil && ctx.Err() == nil {
				t.Errorf("%v: %v", s, err)
				if !long {
					cancel()
				}
			}
			return nil
		})
	}
	_ = g.Wait()
}

// checkCounts compares at how many operations each mix was stopped with the
// golden list: fewer means that something is not looked at any more.
func checkCounts(t *testing.T, counts map[string]int) {
	t.Helper()
	golden := filepath.Join("testdata", "crash-counts.golden")
	if rewrite() {
		var b bytes.Buffer
		for _, m := range mixes {
			for _, sealed := range []bool{false, true} {
				name := m.name + " " + sealing(sealed)
				n := counts[name]
				if m.name == "two at once" {
					n = n * 9 / 10 // which of the two commits first makes a difference
				}
				fmt.Fprintf(&b, "%s: %d\n", name, n)
			}
		}
		if err := os.WriteFile(golden, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		name, number, _ := strings.Cut(strings.TrimSpace(line), ": ")
		var want int
		if _, err := fmt.Sscan(number, &want); err != nil {
			t.Fatalf("%s: %q: %v", golden, line, err)
		}
		if got, ran := counts[name]; ran && got < want {
			t.Errorf("%s: stopped at %d operations, want at least %d", name, got, want)
		}
	}
}
