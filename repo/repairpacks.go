package repo

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"holdfast/repo/index"
	"holdfast/repo/ledger"
	"holdfast/repo/pack"
	"holdfast/repo/vfs"
)

// repairPacks puts what can be had of every damaged pack into new ones.
func (r *repairer) repairPacks(ctx context.Context) error {
	if err := r.brokenPacks(); err != nil || len(r.packs) == 0 {
		return err
	}
	rows, err := r.indexed(ctx)
	if err != nil {
		return err
	}
	if r.mover, err = r.newMover(); err != nil {
		return err
	}
	for _, p := range r.packs {
		if err = r.repairPack(ctx, p, rows[p.Name]); err != nil {
			r.mover.abandon()
			return fmt.Errorf("pack %s: %w", p.Name, err)
		}
	}
	if err := r.fillFrom(ctx); err != nil {
		r.mover.abandon()
		return err
	}
	return r.recordRepairs()
}

// brokenPacks takes the packs to be repaired from the list of known damage.
func (r *repairer) brokenPacks() error {
	d := r.store.damage.Load()
	if d == nil {
		return nil
	}
	byName := make(map[pack.Name]*storedPack, len(r.inv.packs))
	for i := range r.inv.packs {
		byName[r.inv.packs[i].Name] = &r.inv.packs[i]
	}
	for _, k := range d.packs {
		p := byName[k.name]
		if p == nil || k.fault == FaultNone {
			continue // removed meanwhile; or sound itself
		}
		b := &brokenPack{PackRef: ledger.PackRef{Name: p.Name, Kind: p.Kind, Bytes: p.Bytes}, known: k}
		b.result = RepairedPack{Path: p.Name.Path(p.Kind), Bytes: p.Bytes, Fault: k.fault, Unfinished: p.unfinished}
		if p.unfinished {
			b.result.Lost = len(k.records)
			r.report.Packs = append(r.report.Packs, b.result)
			continue
		}
		r.packs = append(r.packs, b)
	}
	return nil
}

// indexed asks the index which records the damaged packs have.
func (r *repairer) indexed(ctx context.Context) (map[pack.Name][]badRecord, error) {
	rows := make(map[pack.Name][]badRecord)
	want := make(map[pack.Name]bool)
	for _, p := range r.packs {
		want[p.Name] = true
	}
	err := r.store.withIndex(func(x *index.Index) error {
		clear(rows)
		return x.Walk(func(_ uint64, e index.Entry) error {
			if want[e.Pack] {
				rows[e.Pack] = append(rows[e.Pack], badRecord{key: e.Prefix, off: e.Off, len: e.Len, kind: e.Kind})
			}
			return ctx.Err()
		})
	})
	return rows, err
}

// repairPack copies the records of one pack, in their order, into one pack that
// takes its place.
func (r *repairer) repairPack(ctx context.Context, p *brokenPack, rows []badRecord) error {
	f, pf := r.openBroken(p)
	if f != nil {
		defer f.Close() //nolint:errcheck // nothing was written
	}
	if pf != nil {
		rows = joinRows(rows, pf)
	}
	slices.SortFunc(rows, func(a, b badRecord) int { return cmp.Compare(a.off, b.off) })
	out := r.mover.data
	if p.Kind == pack.Meta {
		out = r.mover.meta
	}
	stored := out.onStore
	out.onStore = func(lp ledger.Pack) {
		p.stored = append(p.stored, lp.Name)
		stored(lp)
	}
	defer func() { out.onStore = stored }()
	for _, row := range rows {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := r.repairRecord(ctx, p, pf, row, out); err != nil {
			return err
		}
	}
	return out.finish()
}

// openBroken opens a damaged pack, as far as that goes.
func (r *repairer) openBroken(p *brokenPack) (vfs.File, *pack.File) {
	f, err := r.fsys.Open(p.Name.Path(p.Kind))
	if err != nil {
		return nil, nil
	}
	size, err := f.Size()
	if err != nil {
		return f, nil
	}
	pf, err := pack.Open(f, size)
	if err != nil || pf.Name() != p.Name || pf.Kind() != p.Kind {
		return f, nil
	}
	return f, pf
}

// joinRows adds the records that the pack itself lists.
func joinRows(rows []badRecord, pf *pack.File) []badRecord {
	have := make(map[uint32]bool, len(rows))
	for _, row := range rows {
		have[row.off] = true
	}
	entries, _ := pf.Records() // those that it finds are better than none
	for _, e := range entries {
		if !have[e.Off] {
			rows = append(rows, badRecord{key: keyOf(e.ID), off: e.Off, len: e.Len, kind: e.Kind})
		}
	}
	return rows
}

// repairRecord sees to it that one record of a damaged pack is somewhere else.
func (r *repairer) repairRecord(ctx context.Context, p *brokenPack, pf *pack.File, row badRecord, out *packWriter) error {
	locs, err := r.store.lookup(idOf(row.key))
	if err != nil {
		return err
	}
	for _, loc := range r.store.sound(locs) {
		stands, err := r.stands(loc, row.key)
		if err != nil {
			return err
		}
		if stands {
			p.result.Elsewhere++
			return nil
		}
	}
	h, rec, err := r.recordIn(ctx, p, pf, row)
	if err == nil {
		p.result.Copied++
	} else if h, rec, err = r.recordFrom(ctx, row.key); err == nil {
		p.result.FromOther++
	} else {
		p.lost = append(p.lost, row)
		return ctx.Err()
	}
	if _, done := out.has(h.ID); done {
		return nil
	}
	return out.add(h.ID, rec, nil)
}

// stands reports whether another copy of a record may stand for one in a damaged
// pack: it is whole, in a pack that is not damaged, and what it is based on is
// there. It is read, for the copy in the damaged pack may be the only good one.
func (r *repairer) stands(loc index.Location, key [index.PrefixBytes]byte) (bool, error) {
	if r.isBroken(loc.Pack) {
		return false, nil
	}
	h, _, err := r.store.copyAt(loc, key)
	if err != nil || h.Base.IsNull() {
		return err == nil, nil
	}
	bases, err := r.store.lookup(h.Base)
	return len(r.store.sound(bases)) > 0, err
}

func (r *repairer) isBroken(name pack.Name) bool {
	return slices.ContainsFunc(r.packs, func(p *brokenPack) bool { return p.Name == name })
}

var errLost = errors.New("lost")

// recordIn reads a record of a damaged pack, healed if need be. In a file whose
// checksums can't be trusted, or that is another one, digests decide.
func (r *repairer) recordIn(ctx context.Context, p *brokenPack, pf *pack.File, row badRecord) (h pack.Header, rec []byte, err error) {
	switch {
	case p.known.fault == FaultMissing, p.known.has(row.off):
		return h, nil, errLost
	case pf != nil:
		h, rec, err = pf.ReadRecord(pack.Entry{ID: idOf(row.key), Kind: row.kind, Off: row.off, Len: row.len})
		if err != nil {
			// An entry of the index has half the id, and no flags.
			h, rec, err = r.store.copyAt(index.Location{Pack: p.Name, Off: row.off, Len: row.len, Kind: row.kind}, row.key)
		}
	default:
		h, rec, err = r.store.copyAt(index.Location{Pack: p.Name, Off: row.off, Len: row.len, Kind: row.kind}, row.key)
	}
	if err == nil && p.known.fault == FaultForeign {
		if r.store.keyless() {
			return h, nil, ErrNeedKey
		}
		err = newRecordDecoder(r.store).check(ctx, &h, rec)
	}
	return h, rec, err
}

// recordRepairs writes into the ledger which packs stand in for which.
func (r *repairer) recordRepairs() error {
	if err := errors.Join(r.mover.data.finish(), r.mover.meta.finish()); err != nil {
		r.mover.abandon()
		return err
	}
	var records []ledger.Record
	for _, p := range r.packs {
		rec := &ledger.Repair{Pack: p.PackRef, Lost: len(p.lost)}
		if len(p.stored) > 0 {
			rec.By = p.stored[0].String()
		}
		if rec.By != "" || p.result.Elsewhere+p.result.Copied+p.result.FromOther > 0 {
			records = append(records, rec)
		}
	}
	if err := r.record(records...); err != nil {
		r.mover.abandon()
		return err
	}
	return r.mover.finish()
}

// settleDamage removes the damaged packs of which nothing is needed any more,
// and notes what is left.
func (r *repairer) settleDamage(ctx context.Context) error {
	old := r.store.damage.Load()
	if old == nil {
		return nil
	}
	d := &damageList{at: old.at}
	for _, k := range old.packs {
		if k.fault != FaultNone {
			d.packs = append(d.packs, k)
		}
	}
	if err := r.store.addDependents(d); err != nil {
		return err
	}
	g, err := newGone(r.store, d, len(r.inv.noSegments) > 0)
	if err != nil {
		return err
	}
	miss := new(missing)
	if !g.nothing() {
		if miss, err = r.missing(ctx, g); err != nil {
			return err
		}
	}
	r.report.Lost = miss.ranges
	removed, err := r.removeBroken(ctx, g, miss)
	if err != nil {
		return err
	}
	d.packs = slices.DeleteFunc(d.packs, func(k knownBad) bool { return removed[k.name] || k.fault == FaultNone })
	if err := r.store.addDependents(d); err != nil {
		return err
	}
	return r.store.saveDamage(d)
}

// removeBroken removes the damaged packs whose records are all elsewhere, or are
// needed by no restore point. One that is locked, or that a run relies on, stays: it is
// dead, and goes with the next sweep that may have it.
func (r *repairer) removeBroken(ctx context.Context, g *gone, miss *missing) (map[pack.Name]bool, error) {
	var refs []ledger.PackRef
	removed := make(map[pack.Name]bool)
	for _, p := range r.packs {
		lost := 0
		for _, row := range p.lost {
			if _, still := g.keys[row.key]; still || g.all {
				lost++
			}
		}
		p.result.Lost = lost
		locked, err := r.fsys.Locked(p.result.Path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		p.result.Locked = locked
		if r.mustStay(p, g, miss) || locked || !r.guard.condemn(p.Name) {
			continue
		}
		p.result.Removed, removed[p.Name] = true, true
		refs = append(refs, p.PackRef)
	}
	for _, p := range r.packs {
		for _, name := range p.stored {
			p.result.By = append(p.result.By, name.Path(p.Kind))
		}
		r.report.Packs = append(r.report.Packs, p.result)
	}
	return removed, r.removePacks(ctx, refs)
}

// mustStay reports whether a damaged pack holds what is left of something that
// is needed and can't be had whole.
func (r *repairer) mustStay(p *brokenPack, g *gone, miss *missing) bool {
	if g.all {
		return len(p.lost) > 0 || len(p.known.records) == 0 && !p.known.healable && len(miss.ranges) > 0
	}
	for _, row := range p.lost {
		if _, still := g.keys[row.key]; !still {
			continue
		}
		// Of the bases of patches that are needed, any may be this one.
		if miss.needed[row.key] || row.kind == pack.Chunk && g.needsBase(miss) {
			return true
		}
	}
	return false
}

// needsBase reports whether some restore point needs a patch whose base is lost.
func (g *gone) needsBase(miss *missing) bool {
	for i := range g.d.packs {
		for _, row := range g.d.packs[i].records {
			if row.base && miss.needed[row.key] {
				return true
			}
		}
	}
	return false
}
