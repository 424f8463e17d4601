package repo

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"holdfast/repo/chunk"
	"holdfast/repo/index"
	"holdfast/repo/ledger"
	"holdfast/repo/pack"
	"holdfast/repo/refcount"
)

// Freed says what would be free if points expired and nothing else kept what
// they hold. Packs that nothing needs already are not in it.
type Freed struct {
	Records     int64 // that nothing would need any more
	RecordBytes int64 // of them, as they are stored
	Chunks      int64 // of disks that no point would have any more

	Packs     int   // with nothing else in them: the next sweep removes their files
	PackBytes int64 // of these files

	LockedPacks int   // of Packs, those that wait for the end of their lock
	LockedBytes int64 // of these files

	DeadBytes int64 // of RecordBytes, what lies in packs that stay, for Compact
}

// FreedBy tells how much would be free if these points expired, all together.
// It writes nothing and needs no lock. A point that has expired and is still
// held counts as if it were let go. Some point that is not there is ErrNotFound.
//
// Memory is bounded: when there was no sweep for long, the counts are too far
// behind to be brought up in it, and that is ErrSweepFirst, as are counts that
// are damaged. ErrTooLarge is for
// points that alone hold more than can be counted.
func (r *Repository) FreedBy(ctx context.Context, ids []PointID) (f Freed, err error) {
	w, err := r.WhatIf(ctx)
	if err != nil {
		return Freed{}, err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	return w.FreedBy(ctx, ids...)
}

// A WhatIf answers many questions about one state of the repository: that of
// when it was made. Each takes time in proportion to what the points asked for
// don't share with their neighbours. Not safe for concurrent use.
type WhatIf struct {
	repo    *Repository
	now     weigher
	head    ledger.Head
	machine map[PointID]string  // counted point → its machine
	sizes   map[packKey]packSum // of packs asked about
}

// packSum is the length of a pack's file and of its records.
type packSum struct{ file, records int64 }

// maxWhatIf is how many ids one question may concern: up to 80 MB.
const maxWhatIf = 1 << 20

// WhatIf brings the counts of the last sweep up to now, in memory. Close lets go
// of its files.
func (r *Repository) WhatIf(ctx context.Context) (*WhatIf, error) {
	for try := 1; ; try++ {
		w, err := r.whatIf(ctx)
		if err == nil {
			return w, nil
		}
		if err = sweepFirst(err); errors.Is(err, ErrSweepFirst) {
			return nil, err
		}
		// A sweep may have removed what was being read.
		if try > 1 || ctx.Err() != nil {
			return nil, fmt.Errorf("count references: %w", err)
		}
	}
}

func (r *Repository) whatIf(ctx context.Context) (_ *WhatIf, err error) {
	if r.store.refresh != nil { // the owner's index is up to date
		if err := r.refresh(ctx); err != nil {
			return nil, err
		}
	}
	all, head, err := r.countable(ctx)
	if err != nil {
		return nil, err
	}
	gone, err := r.letGoNow(all)
	if err != nil {
		return nil, err
	}
	inv, err := r.inventory(ctx)
	if err != nil {
		return nil, err
	}
	c, err := readRefs(r.fsys, r.store)
	if err != nil {
		return nil, err
	}
	w := &WhatIf{repo: r, head: head, sizes: make(map[packKey]packSum), machine: make(map[PointID]string)}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.table.Close())
		}
	}()
	if w.now, err = r.newWeigher(c, inv.standing()); err != nil {
		return nil, err
	}
	if err := w.now.bring(ctx, head, all, gone); err != nil {
		return nil, err
	}
	if err := w.now.look(ctx); err != nil {
		return nil, err
	}
	for machine, of := range c.points {
		for i := range of {
			w.machine[of[i].id] = machine
		}
	}
	return w, nil
}

// Close lets go of the counts' files.
func (w *WhatIf) Close() error { return w.now.refs.table.Close() }

// Head is the ledger's, as of which the answers are.
func (w *WhatIf) Head() ledger.Head { return w.head }

// sweepFirst gives errors that a sweep ends their name.
func sweepFirst(err error) error {
	if errors.Is(err, refcount.ErrTooMany) || errors.Is(err, refcount.ErrDamaged) {
		return fmt.Errorf("%w: %w", ErrSweepFirst, err)
	}
	return err
}

// FreedBy is Repository.FreedBy as of when w was made.
func (w *WhatIf) FreedBy(ctx context.Context, ids ...PointID) (Freed, error) {
	f, err := w.freedBy(ctx, ids)
	return f, sweepFirst(err)
}

func (w *WhatIf) freedBy(ctx context.Context, ids []PointID) (Freed, error) {
	then, err := w.without(ctx, ids)
	if err != nil {
		return Freed{}, err
	}
	f := freeing{WhatIf: w, tally: then, then: w.now.needs, bases: make(map[prefix]bool), freed: make(map[packKey]int64)}
	f.then.tally = then
	if err := f.run(ctx); err != nil {
		return Freed{}, fmt.Errorf("what would be free: %w", err)
	}
	return f.res, f.sum()
}

// without returns what the counts would be without some of the points.
func (w *WhatIf) without(ctx context.Context, ids []PointID) (*changedTally, error) {
	then := &changedTally{now: w.now.refs.table, by: make(map[prefix]int32)}
	c := &refs{tally: then, loader: w.now.refs.loader, geo: w.now.refs.geo, points: make(map[string][]countedPoint)}
	ids = slices.Compact(slices.Sorted(slices.Values(ids)))
	for _, id := range ids {
		machine, ok := w.machine[id]
		if !ok {
			return nil, fmt.Errorf("point %s: %w", id, ErrNotFound)
		}
		if c.points[machine] == nil {
			c.points[machine] = slices.Clone(w.now.refs.points[machine])
		}
		p, _ := c.counted(machine, id)
		if err := c.remove(ctx, machine, p); err != nil {
			return nil, fmt.Errorf("without point %s: %w", id, err)
		}
	}
	return then, nil
}

// A changedTally is a tally with changes on top that are only in memory.
type changedTally struct {
	now tally
	by  map[prefix]int32 // none is 0
}

func (t *changedTally) Count(id chunk.ID) (int64, error) {
	n, err := t.now.Count(id)
	return n + int64(t.by[prefixOf(id)]), err
}

func (t *changedTally) Add(id chunk.ID, change int32) error {
	k := prefixOf(id)
	n := t.by[k] + change
	if n == 0 {
		delete(t.by, k)
		return nil
	}
	if t.by[k] = n; len(t.by) > maxWhatIf {
		return fmt.Errorf("%w: more than %d records", ErrTooLarge, maxWhatIf)
	}
	return nil
}

// falls reports whether the changes make a count 0.
func (t *changedTally) falls(k prefix) (bool, error) {
	if t.by[k] >= 0 {
		return false, nil
	}
	n, err := t.Count(prefixID(k))
	return n == 0, err
}

// freeing works out one answer.
type freeing struct {
	*WhatIf
	tally *changedTally
	then  needs             // by that tally
	bases map[prefix]bool   // looked at
	freed map[packKey]int64 // bytes of records that nothing would need
	res   Freed
}

// run goes over the records that no point would reference any more, and over
// what they lean on.
func (f *freeing) run(ctx context.Context) error {
	// In order of ids, as the index has them.
	for _, k := range slices.SortedFunc(maps.Keys(f.tally.by), comparePrefixes) {
		if err := ctx.Err(); err != nil {
			return err
		}
		falls, err := f.tally.falls(k)
		if err == nil && falls {
			err = f.look(prefixID(k), true)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func comparePrefixes(a, b prefix) int { return slices.Compare(a[:], b[:]) }

// look adds the copies of a record that serve now and would not then. falls says
// that no point would have it any more.
func (f *freeing) look(id chunk.ID, falls bool) error {
	now, needed, err := f.now.copies(id)
	if err != nil || !needed {
		return err
	}
	then, stillNeeded, err := f.then.copies(id)
	if err != nil {
		return err
	}
	places := now.places()
	if falls && len(places) > 0 && packKind(places[0].Kind) == pack.Data {
		f.res.Chunks++
	}
	for _, loc := range places {
		if stillNeeded && then.has(loc.Pack, loc.Off) {
			continue
		}
		f.res.Records++
		f.res.RecordBytes += int64(loc.Len)
		f.freed[packKey{packKind(loc.Kind), loc.Pack}] += int64(loc.Len)
		if err := f.lookAtBase(&loc); err != nil {
			return err
		}
	}
	return nil
}

func (f *freeing) lookAtBase(loc *index.Location) error {
	if loc.Kind == pack.Chunk {
		return nil
	}
	h, err := f.repo.store.headerAt(loc)
	if err != nil || h.Base.IsNull() {
		return nil // what can't be read leans on nothing that could be named
	}
	k := prefixOf(h.Base)
	if f.bases[k] {
		return nil
	}
	f.bases[k] = true
	if falls, err := f.tally.falls(k); falls || err != nil {
		return err // run comes to it
	}
	return f.look(h.Base, false)
}

// sum tells whole packs from others.
func (f *freeing) sum() error {
	for k, freed := range f.freed {
		size, err := f.size(k)
		if err != nil {
			return err
		}
		if freed+f.now.refs.dead[k.name].deadBytes < size.records {
			f.res.DeadBytes += freed
			continue
		}
		f.res.Packs++
		f.res.PackBytes += size.file
		locked, err := f.repo.fsys.Locked(k.name.Path(k.kind))
		if err := notThere(err); err != nil {
			return err
		}
		if locked {
			f.res.LockedPacks++
			f.res.LockedBytes += size.file
		}
	}
	return nil
}

// size returns how long a pack and its records are.
func (w *WhatIf) size(k packKey) (packSum, error) {
	if s, ok := w.sizes[k]; ok {
		return s, nil
	}
	var s packSum
	if d, ok := w.now.refs.dead[k.name]; ok {
		s = packSum{d.fileBytes, d.recordBytes}
	} else {
		entries, size, err := w.repo.packRecords(k)
		if err != nil {
			return s, fmt.Errorf("pack %s: %w", k.name, err)
		}
		s.file = size
		for i := range entries {
			s.records += int64(entries[i].Len)
		}
	}
	w.sizes[k] = s
	return s, nil
}
