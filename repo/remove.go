package repo

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"holdfast/repo/index"
	"holdfast/repo/ledger"
	"holdfast/repo/pack"
)

// sweepBatch is how many packs one ledger record names as removed. Nothing
// commits while they go.
const sweepBatch = 100

// removePacks removes packs that nothing needs: the ledger says so first, then
// the index forgets them, then the files go. Interrupted on the way, the rest is
// done when the owner opens again: the index on disk never claims to cover the
// segment before the files are gone. The caller holds upkeep and has condemned
// the packs; none of them is locked.
func (o *Owner) removePacks(ctx context.Context, packs []ledger.PackRef) error {
	for len(packs) > 0 {
		if err := ctx.Err(); err != nil {
			o.acquitAll(packs)
			return err
		}
		batch := packs[:min(sweepBatch, len(packs))]
		packs = packs[len(batch):]
		if err := o.removeBatch(batch); err != nil {
			o.acquitAll(packs) // those of the batch may be recorded
			return err
		}
	}
	return nil
}

// acquitAll lets packs stay that were condemned.
func (o *Owner) acquitAll(packs []ledger.PackRef) {
	for i := range packs {
		o.guard.acquit(packs[i].Name)
	}
}

func (o *Owner) removeBatch(packs []ledger.PackRef) error {
	o.commit.Lock()
	defer o.commit.Unlock()
	if err := o.recordNow(&ledger.Sweep{Packs: packs}); err != nil {
		return err
	}
	err := o.dropPacks(packs)
	if err != nil {
		// The next owner goes on from this segment, so the index must not claim to
		// go further: it may have them still, and nothing would tell of them.
		o.lackFrom(o.state.Head().Number)
	}
	return err
}

// dropPacks takes packs that the ledger calls removed out of the index and then
// away. Those that are gone already cost nothing.
func (o *Owner) dropPacks(packs []ledger.PackRef) error {
	names := make([]pack.Name, len(packs))
	for i := range packs {
		names[i] = packs[i].Name
	}
	if err := o.store.withIndex(func(x *index.Index) error { return x.Remove(names...) }); err != nil {
		return fmt.Errorf("take removed packs out of the index: %w", err)
	}
	var dirs []string
	for _, p := range packs {
		o.store.packs.forget(packKey{p.Kind, p.Name})
		if err := o.fsys.Remove(p.Name.Path(p.Kind)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove pack %s: %w", p.Name, err)
		}
		dirs = append(dirs, p.Name.Dir(p.Kind))
	}
	slices.Sort(dirs)
	for _, dir := range slices.Compact(dirs) {
		if err := o.fsys.SyncDir(dir); err != nil {
			return fmt.Errorf("remove packs of %s: %w", dir, err)
		}
	}
	for _, name := range names {
		o.guard.acquit(name)
	}
	return nil
}

// finishRemovals takes away packs of the ledger's sweep records that are still
// there, but for locked ones, which stay until a sweep finds them unlocked.
func (o *Owner) finishRemovals(packs []ledger.PackRef) error {
	var left []ledger.PackRef
	for _, p := range packs {
		path := p.Name.Path(p.Kind)
		if _, err := o.fsys.Stat(path); errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			return err
		}
		if locked, err := o.fsys.Locked(path); err != nil {
			return err
		} else if !locked {
			left = append(left, p)
		}
	}
	if len(left) == 0 {
		return nil
	}
	return o.dropPacks(left)
}
