package repo_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sync/errgroup"

	"holdfast/repo"
	"holdfast/repo/repotest"
	"holdfast/repo/vfs"
)

// A trouble is a way in which an operation fails.
type trouble struct {
	name    string
	err     error // what the caller must be able to see in its own error
	forGood bool  // nothing can be written after it
	inject  func(w *world, at int)
}

func fault(f vfs.Fault) func(w *world, at int) {
	return func(w *world, at int) {
		f.At = at
		w.disk.Inject(f)
	}
}

var troubles = []trouble{
	{"i/o error", syscall.EIO, false, fault(vfs.Fault{Err: syscall.EIO})},
	{"full disk", syscall.ENOSPC, false, func(w *world, at int) {
		w.disk.OnOp(func(i int, _ vfs.Op) {
			if i == at {
				w.mem.SetCapacity(w.mem.Used())
			}
		})
	}},
	{"half a write", syscall.EIO, false, fault(vfs.Fault{Err: syscall.EIO, Partial: -1})},
	{"done, but reported as failed", syscall.EIO, false, fault(vfs.Fault{Err: syscall.EIO, Done: true})},
	{"disk gone", syscall.EIO, true, fault(vfs.Fault{Err: syscall.EIO, Sticky: true})},
}

// heal takes all trouble away.
func (w *world) heal() {
	w.disk.OnOp(nil)
	w.disk.Heal()
	w.mem.SetCapacity(math.MaxInt64)
}

// base is a repository with a point, to be forked.
func base(t *testing.T, sealed bool) *world {
	t.Helper()
	w := newWorld(sealed, 1)
	if err := initAndFirst(t.Context(), w); err != nil {
		t.Fatal(err)
	}
	return w
}

// another is the machine's next state, most of it new: more than a pack.
func another(w *world) repotest.Point {
	p, _ := grown(w)
	rng := rand.New(rand.NewPCG(5, 5))
	p.Disks[0].Disk = repotest.New(rng, repotest.Dense, 1300<<10)
	return repotest.NewPoint("web", p.Disks...)
}

// session opens the repository, backs up a point and closes it.
func (w *world) session(ctx context.Context, p repotest.Point) (run *repo.Run, err error) {
	err = w.with(ctx, func(o *repo.Owner) error {
		run, err = w.backup(ctx, o, p, nil)
		return err
	})
	return run, err
}

// operations counts what a session does.
func operations(t *testing.T, w *world) int {
	t.Helper()
	f := w.fork(keepAll)
	if _, err := f.session(t.Context(), another(f)); err != nil {
		t.Fatal(err)
	}
	return f.disk.Count()
}

// dataPacks lists the packs of chunks.
func (w *world) dataPacks() map[string]bool {
	packs := make(map[string]bool)
	_ = vfs.Walk(w.mem, "packs/data", func(name string, info vfs.Info) error {
		if !info.Dir {
			packs[name] = true
		}
		return nil
	})
	return packs
}

// each runs do for what it is given, as many at once as there are cores, and
// reports the first error of each.
func each(t *testing.T, n int, do func(ctx context.Context, i int) error) {
	t.Helper()
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0))
	for i := range n {
		g.Go(func() error {
			if err := do(t.Context(), i); err != nil {
				t.Error(err)
			}
			return nil
		})
	}
	_ = g.Wait()
}

// TestFaults lets every operation of a backup fail in each way. The backup
// succeeds or says what happened; what is there afterwards is what was there
// before, and what it stored is used by the next one.
func TestFaults(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(200))
	for _, sealed := range []bool{false, true} {
		t.Run(sealing(sealed), func(t *testing.T) {
			b := base(t, sealed)
			n := operations(t, b)
			t.Logf("failed at %d operations", n)
			each(t, n, func(ctx context.Context, i int) error {
				var errs []error
				for k, tr := range troubles {
					again := (i+k)%2 == 0
					if !long && (i+k)%len(troubles) != 0 || !long && (sealed || raceDetector) && i%4 != 0 {
						continue
					}
					w := b.fork(keepAll)
					if err := w.survive(ctx, tr, i, again); err != nil {
						errs = append(errs, fmt.Errorf("%s at operation %d, %v, again %v: %w", tr.name, i, w.disk.Ops()[i], again, err))
					}
				}
				return errors.Join(errs...)
			})
		})
	}
}

// survive backs up in trouble, then, if again is set, without it in the same
// process, and then after reopening.
func (w *world) survive(ctx context.Context, tr trouble, at int, again bool) error {
	p, before := another(w), w.dataPacks()
	tr.inject(w, at)
	o, err := w.own(ctx)
	if err == nil {
		_, err = w.backup(ctx, o, p, nil)
		if again {
			w.heal()
			_, aerr := w.backup(ctx, o, p, nil)
			if aerr != nil && !strings.Contains(aerr.Error(), "open the repository again") {
				return fmt.Errorf("backup once more: %w", aerr)
			}
		}
		cerr := o.Close()
		if again && cerr != nil {
			return fmt.Errorf("close: %w", cerr)
		}
		if err == nil {
			err = cerr
		}
	}
	w.heal()
	if err != nil && !errors.Is(err, tr.err) {
		return fmt.Errorf("does not say what happened: %w", err)
	}
	stored := w.dataPacks()
	maps.DeleteFunc(stored, func(name string, _ bool) bool { return before[name] })

	err = w.with(ctx, func(o *repo.Owner) error {
		if !tr.forGood {
			return nil
		}
		// What a dead disk has of a manifest can't be taken back.
		w.doing = append(w.doing, p)
		_, err := w.adopt(ctx, o.Repository)
		return err
	})
	if err != nil {
		return fmt.Errorf("reopen: %w", err)
	}
	if err := repotest.Account(w.disk); err != nil {
		return fmt.Errorf("reopened: %w", err)
	}
	if err := repotest.OpenAndCompare(ctx, w.disk, w.options(), w.model()); err != nil {
		return fmt.Errorf("reopened: %w", err)
	}
	finished := len(w.points) > 1
	run, err := w.session(ctx, p)
	if err != nil {
		return fmt.Errorf("next backup: %w", err)
	}
	if c := run.Point.Counters; !finished && len(stored) > 0 && c.KnownBytes == 0 {
		return fmt.Errorf("next backup: %d packs were stored, and nothing of them reused: %+v", len(stored), c)
	}
	if err := repotest.Account(w.disk); err != nil || !long {
		return err
	}
	return repotest.OpenAndCompare(ctx, w.disk, w.options(), w.model())
}

// TestKilled kills the process at every operation of a backup and cuts the
// power once the next process has opened the repository: what that one found
// it must also have made durable.
func TestKilled(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(200))
	for _, sealed := range []bool{false, true} {
		t.Run(sealing(sealed), func(t *testing.T) {
			b := base(t, sealed)
			n := operations(t, b)
			t.Logf("killed at %d operations", n)
			each(t, n+1, func(ctx context.Context, i int) error {
				if !long && (sealed || raceDetector) && i%4 != 0 {
					return nil
				}
				w := b.fork(keepAll)
				w.disk.CrashAt(i)
				_, err := w.session(ctx, another(w))
				if i < n && !errors.Is(err, vfs.ErrCrashed) && err != nil {
					return fmt.Errorf("killed at operation %d: %w", i, err)
				}
				w.disk.Heal()
				for _, next := range []bool{false, true} {
					if !long && next == (i%2 == 0) {
						continue
					}
					if err := w.powerCutLater(ctx, i, next); err != nil {
						return fmt.Errorf("killed at operation %d, %v, next backup %v: %w", i, lastOp(w), next, err)
					}
				}
				return nil
			})
		})
	}
}

func lastOp(w *world) vfs.Op { ops := w.disk.Ops(); return ops[len(ops)-1] }

// powerCutLater uses the repository, then loses power and recovers.
func (w *world) powerCutLater(ctx context.Context, i int, backup bool) error {
	err := w.with(ctx, func(o *repo.Owner) error {
		if _, err := w.adopt(ctx, o.Repository); err != nil || !backup {
			return err
		}
		_, err := w.backup(ctx, o, w.next(), nil)
		return err
	})
	if err != nil {
		return err
	}
	ways := []vfs.CrashOptions{{}, {AnyOrder: true}}
	return w.fork(ways[i%2]).recover(ctx)
}

// TestInitFaults lets operations of init fail. Init can be called again.
func TestInitFaults(t *testing.T) {
	counted := newWorld(true, 1)
	if err := counted.init(t.Context()); err != nil {
		t.Fatal(err)
	}
	ops := counted.disk.Ops()
	each(t, len(ops), func(ctx context.Context, i int) error {
		if !long && strings.HasPrefix(ops[i].Name, "packs/") && i%64 != 0 {
			return nil
		}
		tr := troubles[i%len(troubles)]
		w := newWorld(true, uint64(i))
		tr.inject(w, i)
		err := w.init(ctx)
		w.heal()
		if err != nil && !errors.Is(err, tr.err) {
			return fmt.Errorf("%s at operation %d, %v, of init: %w", tr.name, i, ops[i], err)
		}
		if err := w.recover(ctx); err != nil {
			return fmt.Errorf("%s at operation %d, %v, of init: %w", tr.name, i, ops[i], err)
		}
		return nil
	})
}
