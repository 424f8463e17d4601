package repo_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"

	"holdfast/repo"
	"holdfast/repo/repotest"
	"holdfast/repo/vfs"
)

// worn leaves a repository with work for every kind of upkeep: points of two
// machines that share bytes, patches over patches' bases, the oldest expired,
// packs that are half dead, and a run that failed.
func worn(ctx context.Context, w *world) error {
	if err := initAndFirst(ctx, w); err != nil {
		return err
	}
	return w.with(ctx, func(o *repo.Owner) error {
		rng := rand.New(rand.NewPCG(6, 6))
		for range 3 {
			old := w.latest("web")
			p := repotest.NewPoint("web", old.Disks...)
			p.Disks[0].Disk, _ = repotest.Change(rng, p.Disks[0].Disk)
			if _, err := w.backup(ctx, o, p, nil); err != nil {
				return err
			}
		}
		twin := repotest.NewPoint("twin", w.latest("web").Disks[0])
		_, err := w.backup(ctx, o, twin, nil)
		failed := repotest.NewPoint("db", repotest.NamedDisk{Name: "d", Disk: repotest.New(rng, repotest.Dense, 1200<<10)})
		if err == nil {
			_, ferr := w.backup(ctx, o, failed, func(opt *repo.BackupOptions) {
				opt.Disks[0].Source.(*repotest.Source).FailAt = 1100 << 10
			})
			if !errors.Is(ferr, repotest.ErrSource) {
				err = fmt.Errorf("the source failed: %w", ferr)
			}
		}
		for _, i := range []int{0, 1} {
			if err == nil {
				_, err = o.Expire(ctx, w.points[i].ID, "test")
			}
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		w.points = slices.Delete(w.points, 0, 2)
		return err
	})
}

func sweepOnce(ctx context.Context, w *world) error {
	return w.with(ctx, func(o *repo.Owner) error {
		_, err := o.Sweep(ctx, repo.SweepOptions{})
		return err
	})
}

// swept is worn and swept, so that counts are there to be brought up, and one
// more point expired.
func swept(ctx context.Context, w *world) error {
	if err := errors.Join(worn(ctx, w), sweepOnce(ctx, w)); err != nil {
		return err
	}
	return w.with(ctx, func(o *repo.Owner) error {
		p := w.next()
		if _, err := w.backup(ctx, o, p, nil); err != nil {
			return err
		}
		_, err := o.Expire(ctx, w.points[0].ID, "test")
		w.mu.Lock()
		defer w.mu.Unlock()
		w.points = slices.Delete(w.points, 0, 1)
		return err
	})
}

func compactAll(ctx context.Context, w *world) error {
	return w.with(ctx, func(o *repo.Owner) error {
		_, err := o.Compact(ctx, repo.CompactOptions{AnyDead: true})
		return err
	})
}

func synthesizeLatest(ctx context.Context, w *world) error {
	return w.with(ctx, func(o *repo.Owner) error {
		_, err := o.Synthesize(ctx, w.latest("web").ID, repo.SynthesizeOptions{})
		return err
	})
}

// lockedAndWorn is worn with every pack locked.
func lockedAndWorn(ctx context.Context, w *world) error {
	if err := worn(ctx, w); err != nil {
		return err
	}
	// Locks come long after everything about a pack is durable.
	w.mem = w.mem.CrashClone(keepAll)
	w.mount()
	return vfs.Walk(w.mem, "packs", func(name string, info vfs.Info) error {
		if info.Dir {
			return nil
		}
		return w.mem.SetLocked(name, true)
	})
}

func evacuateAll(ctx context.Context, w *world) error {
	return w.with(ctx, func(o *repo.Owner) error {
		_, err := o.Evacuate(ctx, repo.CompactOptions{LiveShare: 1})
		return err
	})
}

func abandonAll(ctx context.Context, w *world) error {
	return w.with(ctx, func(o *repo.Owner) error {
		runs, err := o.UnfinishedRuns(ctx)
		if err != nil || len(runs) != 1 {
			return fmt.Errorf("unfinished runs %v: %w", runs, err)
		}
		if _, err := o.AbandonRuns(runs[0].MachineID); err != nil {
			return err
		}
		_, err = o.Sweep(ctx, repo.SweepOptions{})
		return err
	})
}
