package repo_test

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"holdfast/repo"
	"holdfast/repo/repotest"
	"holdfast/repo/vfs"
)

// scrubByTurns scrubs in parts, each of which is remembered.
func scrubByTurns(ctx context.Context, w *world) error {
	return w.with(ctx, func(o *repo.Owner) error {
		for _, opt := range []repo.ScrubOptions{{Sample: 0.4}, {Sample: 0.4}, {}} {
			if rep, err := o.Scrub(ctx, opt); err != nil || !rep.Clean() {
				return fmt.Errorf("scrub: %+v, %w", rep, err)
			}
		}
		return nil
	})
}

// damage keeps a copy of two points' repository and then changes its files.
func (w *world) damage(ctx context.Context, change func(name string, size int64) error) error {
	if err := errors.Join(initAndFirst(ctx, w), increment(ctx, w)); err != nil {
		return err
	}
	w.copy = w.mem.CrashClone(keepAll)
	// Damage comes long after everything is durable.
	w.mem = w.mem.CrashClone(keepAll)
	w.mount()
	return vfs.Walk(w.copy, ".", func(name string, info vfs.Info) error {
		if info.Dir {
			return nil
		}
		return change(name, info.Size)
	})
}

// bitsLost has a bad bit in some packs and in one copy of some of what else has
// two.
func bitsLost(ctx context.Context, w *world) error {
	turn := 0
	return w.damage(ctx, func(name string, size int64) error {
		base, twin := strings.CutSuffix(name, ".twin")
		if pack := strings.HasPrefix(name, "packs/"); !pack && !twin {
			return nil
		}
		if turn++; turn%4 != 0 {
			return nil // the more is damaged, the longer the test takes
		}
		if twin && turn%8 == 0 {
			name = base
		}
		return w.mem.Corrupt(name, size/3, 8)
	})
}

// packsLost has lost every other pack, and a manifest in both copies.
func packsLost(ctx context.Context, w *world) error {
	turn := 0
	return w.damage(ctx, func(name string, _ int64) error {
		if strings.HasPrefix(name, "packs/") {
			turn++
		}
		if strings.HasPrefix(name, "packs/") && turn%2 == 0 || strings.HasPrefix(name, "points/"+string(w.points[0].ID)) {
			return w.mem.Remove(name)
		}
		return nil
	})
}

func repairAll(ctx context.Context, w *world) error { return w.repair(ctx, nil) }

func repairFromCopy(ctx context.Context, w *world) error {
	opt := w.options()
	from, err := repo.Open(ctx, w.copy, opt)
	if err != nil {
		return err
	}
	return errors.Join(w.repair(ctx, from), from.Close())
}

// repair repairs everything.
func (w *world) repair(ctx context.Context, from *repo.Repository) error {
	return w.with(ctx, func(o *repo.Owner) error {
		rep, err := o.Repair(ctx, repo.RepairOptions{From: from})
		if err == nil && !rep.Whole() {
			err = fmt.Errorf("not whole: %+v", rep)
		}
		return err
	})
}

// mend is what somebody does who finds a damaged repository whose repair was
// interrupted: every point that could be read can still be, and a second repair
// ends what the first began.
func (w *world) mend(ctx context.Context) error {
	clean, err := w.reads(ctx)
	if err != nil {
		return err
	}
	if err := repairFromCopy(ctx, w); err != nil {
		return err
	}
	return w.with(ctx, func(o *repo.Owner) error {
		rep, err := o.Scrub(ctx, repo.ScrubOptions{})
		if err == nil && (!rep.Clean() || len(rep.Orphans) > 0) {
			err = fmt.Errorf("after the repair, clean before: %v: %+v", clean, rep)
		}
		return err
	})
}

// reads reports whether all points read. While nothing but bits is lost, they must.
func (w *world) reads(ctx context.Context) (bool, error) {
	err := repotest.OpenAndCompare(ctx, w.disk, w.options(), w.model())
	missing := false
	_ = vfs.Walk(w.copy, "packs", func(name string, info vfs.Info) error {
		if _, serr := w.mem.Stat(name); serr != nil && !info.Dir {
			missing = true
		}
		return nil
	})
	if err != nil && !missing {
		return false, fmt.Errorf("with every pack there: %w", err)
	}
	return err == nil, nil
}

// reindexAll makes the index anew.
func reindexAll(ctx context.Context, w *world) error {
	return w.with(ctx, func(o *repo.Owner) error {
		rep, err := o.Reindex(ctx)
		if err == nil && len(rep.Missing)+len(rep.Orphans) > 0 {
			err = fmt.Errorf("%+v", rep)
		}
		return err
	})
}
