package repo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"

	"holdfast/repo/chunk"
	"holdfast/repo/ledger"
	"holdfast/repo/pack"
)

// A weigher brings reference counts up to the ledger's head and works out what
// of each pack is needed then. A sweep does so to free the rest; a reader, with
// counts that it changes in memory alone, to tell what would be free if. Not
// safe for concurrent use.
type weigher struct {
	needs
	repo     *Repository
	refs     *refs
	progress func(SweepProgress) // or nil

	dirty   map[packKey]bool // packs to be looked at
	weighed map[packKey]bool // packs that were
	looked  int
}

func (r *Repository) newWeigher(c *refs, in standing) (w weigher, err error) {
	w = weigher{
		needs: needs{store: r.store, tally: c.table, packs: in}, repo: r, refs: c,
		dirty: make(map[packKey]bool), weighed: make(map[packKey]bool),
	}
	w.unknownBase, err = r.store.hasUnknownBase()
	return w, err
}

// ownWeigher is one whose counts are there to be changed. The caller closes
// their table and holds upkeep.
func (o *Owner) ownWeigher() (weigher, error) {
	c, err := o.ownRefs()
	if err != nil {
		return weigher{}, err
	}
	w, err := o.newWeigher(c, o.guard)
	if err != nil {
		err = errors.Join(err, c.table.Close())
	}
	return w, err
}

// bring makes the counts those of a ledger head, of the points in all but those
// gone, and marks the packs that this concerns. Counts of another ledger are
// begun anew.
func (w *weigher) bring(ctx context.Context, head ledger.Head, all []ledger.PointState, gone map[PointID]bool) error {
	if err := w.follows(head); err != nil {
		return err
	}
	fresh := w.refs.head.Number == 0
	want, err := w.wanted(all, gone)
	if err != nil {
		return err
	}
	if err := w.refs.bring(ctx, want); err != nil {
		return err
	}
	if err := w.markNew(ctx, w.refs.head.Number+1, head.Number, !fresh); err != nil {
		return err
	}
	if fresh {
		return w.screen() // every pack is marked
	}
	return w.refs.table.Touched(func(p prefix, _ int64) error {
		return w.mark(prefixID(p))
	})
}

// follows drops counts that are not those of an earlier head of this ledger.
func (w *weigher) follows(head ledger.Head) error {
	h := w.refs.head
	if h.Number == 0 || h == head {
		return nil
	}
	var why error
	if h.Number > head.Number {
		why = fmt.Errorf("they are of segment %d, the ledger ends at %d", h.Number, head.Number)
	} else if seg, err := readSegment(w.repo.fsys, h.Number); err != nil {
		why = err
	} else if seg.Sum != h.Sum {
		why = fmt.Errorf("they are of another segment %d", h.Number)
	}
	if why == nil {
		return nil
	}
	w.repo.log.Warn("reference counts are made anew", "err", why)
	return w.refs.reset()
}

// wanted is what is to be counted: live points, and expired ones still held.
func (w *weigher) wanted(all []ledger.PointState, gone map[PointID]bool) (map[string][]countedPoint, error) {
	want := make(map[string][]countedPoint)
	for i := range all {
		ps := &all[i]
		id := PointID(ps.ID)
		if gone[id] && ps.Expired != 0 { // a copy may have brought it back since
			continue
		}
		p := countedPoint{id: id, sequence: ps.Sequence, roots: ps.Roots}
		if known, ok := w.refs.counted(ps.Machine, id); ok {
			p.roots = known.roots
		} else if ps.Expired == 0 {
			point, err := w.repo.described(ps)
			if err != nil {
				return nil, &CorruptError{Point: id, Err: fmt.Errorf("what it needs isn't known: %w", err)}
			}
			p.roots = rootsOf(&point)
		}
		want[ps.Machine] = append(want[ps.Machine], p)
	}
	return want, nil
}

// markNew marks the packs of segments, and with them the other copies of what
// they hold. A repair may have taken a copy away that was preferred to others, so
// after one all packs with dead bytes are marked: more of them may be needed.
func (w *weigher) markNew(ctx context.Context, first, last uint64, copies bool) error {
	swept := make(map[pack.Name]bool)
	var added []packKey
	repaired := false
	err := readLedger(w.repo.fsys, first, last, func(seg *ledger.Segment) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		for _, p := range seg.Packs {
			added = append(added, packKey{p.Kind, p.Name})
		}
		for _, r := range seg.Records {
			switch r := r.(type) {
			case *ledger.Sweep:
				for _, p := range r.Packs {
					swept[p.Name] = true
				}
			case *ledger.Repair:
				repaired = true
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("read ledger: %w", err)
	}
	if repaired {
		for name, d := range w.refs.dead {
			w.dirty[packKey{d.kind, name}] = true
		}
	}
	for _, k := range added {
		if swept[k.name] {
			continue
		}
		w.dirty[k] = true
		if !copies {
			continue
		}
		entries, _, err := w.repo.packRecords(k)
		if err != nil {
			w.repo.log.Error("pack can't be read", "pack", k.name.Path(k.kind), "err", err)
			continue
		}
		for i := range entries {
			if err := w.mark(entries[i].ID); err != nil {
				return err
			}
		}
	}
	return nil
}

// packRecords lists a pack's records and its length.
func (r *Repository) packRecords(k packKey) (_ []pack.Entry, size int64, err error) {
	f, err := r.fsys.Open(k.name.Path(k.kind))
	if err != nil {
		return nil, 0, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if size, err = f.Size(); err != nil {
		return nil, 0, err
	}
	entries, err := packEntries(f)
	return entries, size, err
}

// mark marks every pack that has a record of this id.
func (w *weigher) mark(id chunk.ID) error {
	locs, err := w.store.lookup(id)
	if err != nil {
		return err
	}
	for _, loc := range locs {
		if k := (packKey{packKind(loc.Kind), loc.Pack}); !w.weighed[k] {
			w.dirty[k] = true
		}
	}
	return nil
}

// look works out what of each marked pack is needed.
func (w *weigher) look(ctx context.Context) error {
	for len(w.dirty) > 0 {
		for _, k := range slices.SortedFunc(maps.Keys(w.dirty), comparePacks) {
			if err := ctx.Err(); err != nil {
				return err
			}
			delete(w.dirty, k)
			w.weighed[k] = true
			w.looked++
			if w.progress != nil {
				w.progress(SweepProgress{Packs: w.looked, Of: w.looked + len(w.dirty)})
			}
			if err := w.weigh(k); err != nil {
				return fmt.Errorf("pack %s: %w", k.name, err)
			}
		}
	}
	return nil
}

func comparePacks(a, b packKey) int { return comparePackNames(a.name, b.name) }

func comparePackNames(a, b pack.Name) int { return bytes.Compare(a[:], b[:]) }

// weigh works out how many of a pack's bytes are needed. A pack that can't be
// read is left alone: scrub finds it.
func (w *weigher) weigh(k packKey) error {
	entries, size, err := w.repo.packRecords(k)
	if errors.Is(err, fs.ErrNotExist) {
		delete(w.refs.dead, k.name)
		return nil
	}
	if err != nil {
		w.repo.log.Error("pack can't be read", "pack", k.name.Path(k.kind), "err", err)
		delete(w.refs.dead, k.name)
		return nil
	}
	d := deadPack{kind: k.kind, fileBytes: size}
	for i := range entries {
		e := &entries[i]
		alive, err := w.alive(k.name, e)
		if err != nil {
			return err
		}
		// Whether its base is needed may have changed with it.
		if !e.Base.IsNull() {
			if err := w.mark(e.Base); err != nil {
				return err
			}
		}
		d.recordBytes += int64(e.Len)
		if !alive {
			d.deadBytes += int64(e.Len)
		}
	}
	if d.deadBytes == 0 && len(entries) > 0 {
		delete(w.refs.dead, k.name)
	} else {
		w.refs.dead[k.name] = d
	}
	return nil
}
