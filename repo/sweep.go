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
	"holdfast/repo/index"
	"holdfast/repo/ledger"
	"holdfast/repo/pack"
	"holdfast/repo/refcount"
	"holdfast/repo/vfs"
)

// SweepOptions say how to sweep. The zero value is good.
type SweepOptions struct {
	Progress func(SweepProgress) // called now and then, from the calling goroutine
}

// SweepProgress says how far a sweep is.
type SweepProgress struct {
	Packs int // looked at
	Of    int // known so far that have to be
}

// SweepResult says what a sweep freed and what it could not.
type SweepResult struct {
	Points int       // expired points whose bytes are no longer kept for them
	Held   []PointID // expired points that are still read, pinned or locked

	Packs int   // removed
	Bytes int64 // of them

	DeadPacks int   // packs with bytes that nothing needs beside others: what Compact can free
	DeadBytes int64 // of these

	LockedPacks int   // packs that nothing needs and that are locked
	LockedBytes int64 // of them

	BusyPacks int // packs that nothing needs but that a run under way may use
}

// Sweep frees what no restore point needs: it counts what expired points no
// longer reference and removes the packs that have nothing left, in time
// proportional to what changed around those points. It may be interrupted at
// any moment, and runs beside backups and readers; a second one waits.
//
// A point whose manifest or map can't be read is a *CorruptError, and nothing
// more is freed until it is repaired or expired, for what it needs isn't known.
func (o *Owner) Sweep(ctx context.Context, opt SweepOptions) (SweepResult, error) {
	o.upkeep.Lock()
	defer o.upkeep.Unlock()
	res, err := o.sweepThen(ctx, opt, nil)
	if err != nil {
		return res, fmt.Errorf("sweep: %w", readOnly(err))
	}
	return res, nil
}

// sweepThen is Sweep for those who hold upkeep. At its end it lets then, unless
// nil, look at the counts.
func (o *Owner) sweepThen(ctx context.Context, opt SweepOptions, then func(*sweeper) error) (res SweepResult, err error) {
	err = o.withReserve(func() error {
		s := &sweeper{owner: o, opt: opt, then: then, dirty: make(map[packKey]bool), weighed: make(map[packKey]bool)}
		err := s.run(ctx)
		s.res.Packs += res.Packs // of a first try without room
		s.res.Bytes += res.Bytes
		res = s.res
		return err
	})
	return res, err
}

// A sweeper is one sweep under way.
type sweeper struct {
	owner *Owner
	opt   SweepOptions
	then  func(*sweeper) error
	refs  *refs
	res   SweepResult

	dirty   map[packKey]bool // packs to be looked at
	weighed map[packKey]bool // packs that were
	looked  int

	// unknownBase is set while some record's base isn't known, for its header is
	// lost: any record could be it.
	unknownBase bool
}

func (s *sweeper) run(ctx context.Context) (err error) {
	defer s.owner.guard.sweep()()
	if s.refs, err = s.owner.ownRefs(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.refs.table.Close()) }()
	head, err := s.count(ctx)
	if err != nil && ctx.Err() == nil && s.refs.head.Number != 0 {
		// Counts that are damaged or too old to be brought up: what the points
		// taken out of them held may be gone.
		s.owner.log.Warn("reference counts are made anew", "err", err)
		clear(s.dirty)
		if err = s.refs.reset(); err == nil {
			head, err = s.count(ctx)
		}
	}
	if err != nil {
		return err
	}
	if s.unknownBase, err = s.owner.hasUnknownBase(); err != nil {
		return err
	}
	if s.unknownBase {
		s.owner.log.Warn("nothing can be freed: of a damaged record it isn't known which one it is based on; repair the repository")
	}
	if err := s.look(ctx); err != nil {
		return err
	}
	// Before anything goes that older counts would need to be brought up.
	if err := s.refs.commit(head); err != nil {
		return err
	}
	if err := s.remove(ctx); err != nil {
		return err
	}
	for _, d := range s.refs.dead {
		if !d.empty() {
			s.res.DeadPacks++
			s.res.DeadBytes += d.deadBytes
		}
	}
	if s.then == nil {
		return nil
	}
	return s.then(s)
}

// count brings the counts up to the ledger's head, which it returns, and marks
// the packs that this concerns.
func (s *sweeper) count(ctx context.Context) (ledger.Head, error) {
	o := s.owner
	// What unfinished runs have left is looked at like everything else.
	if err := o.record(); err != nil {
		return ledger.Head{}, err
	}
	// Expired points are let go before the head is taken: a run that had such a
	// point as its parent has committed by then, and its point is counted.
	gone, err := s.release()
	if err != nil {
		return ledger.Head{}, err
	}
	o.commit.Lock()
	all, head := o.pointStates()
	o.commit.Unlock()
	if err := s.follows(head); err != nil {
		return head, err
	}
	fresh := s.refs.head.Number == 0
	want, err := s.wanted(all, gone)
	if err != nil {
		return head, err
	}
	if err := s.refs.bring(ctx, want); err != nil {
		return head, err
	}
	if err := s.markNew(ctx, s.refs.head.Number+1, head.Number, !fresh); err != nil {
		return head, err
	}
	if fresh {
		return head, nil // every pack is marked
	}
	return head, s.refs.table.Touched(func(prefix [refcount.PrefixBytes]byte, _ int64) error {
		return s.mark(prefixID(prefix))
	})
}

// prefixID is an id that the index takes for every one with that prefix.
func prefixID(prefix [refcount.PrefixBytes]byte) (id chunk.ID) {
	copy(id[:], prefix[:])
	return id
}

// follows drops counts that are not those of an earlier head of this ledger.
func (s *sweeper) follows(head ledger.Head) error {
	h := s.refs.head
	if h.Number == 0 || h == head {
		return nil
	}
	var why error
	if h.Number > head.Number {
		why = fmt.Errorf("they are of segment %d, the ledger ends at %d", h.Number, head.Number)
	} else if seg, err := readSegment(s.owner.fsys, h.Number); err != nil {
		why = err
	} else if seg.Sum != h.Sum {
		why = fmt.Errorf("they are of another segment %d", h.Number)
	}
	if why == nil {
		return nil
	}
	s.owner.log.Warn("reference counts are made anew", "err", why)
	return s.refs.reset()
}

// release finds the expired points that nobody keeps any more.
func (s *sweeper) release() (map[PointID]bool, error) {
	o := s.owner
	leased, err := o.leased()
	if err != nil {
		return nil, err
	}
	pins, err := o.pins()
	if err != nil {
		return nil, err
	}
	points, _ := o.pointStates()
	fresh := s.refs.head.Number == 0
	s.res.Points, s.res.Held = 0, nil
	gone := make(map[PointID]bool)
	for i := range points {
		p := &points[i]
		if p.Expired == 0 {
			continue
		}
		id := PointID(p.ID)
		free, err := o.letGo(id, leased[id], len(pins[id]) > 0)
		if err != nil {
			return nil, fmt.Errorf("point %s: %w", id, err)
		}
		if !free {
			s.res.Held = append(s.res.Held, id)
			continue
		}
		gone[id] = true
		if fresh || s.refs.counts(p.Machine, id) {
			s.res.Points++
		}
	}
	return gone, nil
}

// letGo reports whether an expired point's bytes may be freed: its manifest is
// gone, nobody reads it and nobody has pinned it.
func (o *Owner) letGo(id PointID, leased, pinned bool) (bool, error) {
	if hasManifest(o.fsys, id) {
		retired, err := o.dropManifest(id)
		if err != nil || retired {
			return false, err
		}
	}
	switch {
	case pinned:
		return false, nil
	case !leased:
		// Whoever comes now finds no manifest.
		return true, nil
	}
	l, err := o.fsys.Lock(leasePath(id), vfs.Exclusive)
	if errors.Is(err, vfs.ErrLocked) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, errors.Join(notThere(o.fsys.Remove(leasePath(id))), l.Unlock())
}

// notThere takes the error away that something to be removed is gone.
func notThere(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// leased lists the points that have a lease, held or not.
func (o *Owner) leased() (map[PointID]bool, error) {
	infos, err := o.fsys.ReadDir(leasesDir)
	if err != nil {
		return nil, fmt.Errorf("list leases: %w", err)
	}
	leased := make(map[PointID]bool)
	for _, info := range infos {
		leased[PointID(info.Name)] = true
	}
	return leased, nil
}

// pointStates returns what the ledger says of each point, void ones left out,
// and its head. Of a point that came again it is the last that counts.
func (o *Owner) pointStates() ([]ledger.PointState, ledger.Head) {
	o.mu.Lock()
	defer o.mu.Unlock()
	var list []ledger.PointState
	for _, ps := range o.state.Points() {
		if last, _ := o.state.Point(ps.ID); !ps.Void && last.Segment == ps.Segment {
			list = append(list, ps)
		}
	}
	return list, o.state.Head()
}

// wanted is what is to be counted: live points, and expired ones still held.
func (s *sweeper) wanted(all []ledger.PointState, gone map[PointID]bool) (map[string][]countedPoint, error) {
	want := make(map[string][]countedPoint)
	for i := range all {
		ps := &all[i]
		id := PointID(ps.ID)
		if gone[id] {
			continue
		}
		p := countedPoint{id: id, sequence: ps.Sequence, roots: ps.Roots}
		if known, ok := s.refs.counted(ps.Machine, id); ok {
			p.roots = known.roots
		} else if ps.Expired == 0 {
			point, err := s.owner.described(ps)
			if err != nil {
				return nil, &CorruptError{Point: id, Err: fmt.Errorf("what it needs isn't known: %w", err)}
			}
			p.roots = rootsOf(&point)
		}
		want[ps.Machine] = append(want[ps.Machine], p)
	}
	return want, nil
}

// rootsOf is what an expiry says of a point's disks.
func rootsOf(p *Point) []ledger.Root {
	roots := make([]ledger.Root, len(p.Disks))
	for i, d := range p.Disks {
		roots[i] = ledger.Root{Root: d.Root, Levels: d.levels, SizeBytes: d.SizeBytes}
	}
	return roots
}

// counted returns a point that is counted.
func (c *refs) counted(machine string, id PointID) (countedPoint, bool) {
	for _, p := range c.points[machine] {
		if p.id == id {
			return p, true
		}
	}
	return countedPoint{}, false
}

func (c *refs) counts(machine string, id PointID) bool {
	_, ok := c.counted(machine, id)
	return ok
}

// markNew marks the packs of segments, and with them the other copies of what
// they hold.
func (s *sweeper) markNew(ctx context.Context, first, last uint64, copies bool) error {
	o := s.owner
	swept := make(map[pack.Name]bool)
	var added []packKey
	err := readLedger(o.fsys, first, last, func(seg *ledger.Segment) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		for _, p := range seg.Packs {
			added = append(added, packKey{p.Kind, p.Name})
		}
		for _, r := range seg.Records {
			if r, ok := r.(*ledger.Sweep); ok {
				for _, p := range r.Packs {
					swept[p.Name] = true
				}
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("read ledger: %w", err)
	}
	for _, k := range added {
		if swept[k.name] {
			continue
		}
		s.dirty[k] = true
		if !copies {
			continue
		}
		entries, _, err := o.packRecords(k)
		if err != nil {
			o.log.Error("pack can't be read", "pack", k.name.Path(k.kind), "err", err)
			continue
		}
		for i := range entries {
			if err := s.mark(entries[i].ID); err != nil {
				return err
			}
		}
	}
	return nil
}

// packRecords lists a pack's records and its length.
func (o *Owner) packRecords(k packKey) (_ []pack.Entry, size int64, err error) {
	f, err := o.fsys.Open(k.name.Path(k.kind))
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
func (s *sweeper) mark(id chunk.ID) error {
	locs, err := s.owner.store.lookup(id)
	if err != nil {
		return err
	}
	for _, loc := range locs {
		if k := (packKey{packKind(loc.Kind), loc.Pack}); !s.weighed[k] {
			s.dirty[k] = true
		}
	}
	return nil
}

// remove removes the packs that nothing needs.
func (s *sweeper) remove(ctx context.Context) error {
	var gone []ledger.PackRef
	s.res.LockedPacks, s.res.LockedBytes, s.res.BusyPacks = 0, 0, 0
	for _, name := range slices.SortedFunc(maps.Keys(s.refs.dead), comparePackNames) {
		d := s.refs.dead[name]
		if !d.empty() {
			continue
		}
		goes, err := s.condemn(ctx, packKey{d.kind, name}, d)
		if err != nil {
			return err
		}
		if goes {
			gone = append(gone, ledger.PackRef{Name: name, Kind: d.kind, Bytes: d.fileBytes})
		}
	}
	if err := s.owner.removePacks(ctx, gone); err != nil {
		return err
	}
	for _, p := range gone {
		delete(s.refs.dead, p.Name)
		s.res.Packs++
		s.res.Bytes += p.Bytes
	}
	if len(gone) == 0 {
		return nil
	}
	return s.refs.commit(s.refs.head)
}

// look works out what of each marked pack is needed.
func (s *sweeper) look(ctx context.Context) error {
	for len(s.dirty) > 0 {
		for _, k := range slices.SortedFunc(maps.Keys(s.dirty), comparePacks) {
			if err := ctx.Err(); err != nil {
				return err
			}
			delete(s.dirty, k)
			s.weighed[k] = true
			s.looked++
			if s.opt.Progress != nil {
				s.opt.Progress(SweepProgress{Packs: s.looked, Of: s.looked + len(s.dirty)})
			}
			if err := s.weigh(k); err != nil {
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
func (s *sweeper) weigh(k packKey) error {
	entries, size, err := s.owner.packRecords(k)
	if errors.Is(err, fs.ErrNotExist) {
		delete(s.refs.dead, k.name)
		return nil
	}
	if err != nil {
		s.owner.log.Error("pack can't be read", "pack", k.name.Path(k.kind), "err", err)
		delete(s.refs.dead, k.name)
		return nil
	}
	d := deadPack{kind: k.kind, fileBytes: size}
	for i := range entries {
		e := &entries[i]
		alive, err := s.alive(k.name, e)
		if err != nil {
			return err
		}
		// Whether its base is needed may have changed with it.
		if !e.Base.IsNull() {
			if err := s.mark(e.Base); err != nil {
				return err
			}
		}
		d.recordBytes += int64(e.Len)
		if !alive {
			d.deadBytes += int64(e.Len)
		}
	}
	if d.deadBytes == 0 && len(entries) > 0 {
		delete(s.refs.dead, k.name)
	} else {
		s.refs.dead[k.name] = d
	}
	return nil
}

// alive reports whether a record is needed: by a point or by a record that has
// it as its base, and if no other copy of it serves.
func (s *sweeper) alive(in pack.Name, e *pack.Entry) (bool, error) {
	n, err := s.refs.table.Count(e.ID)
	if err != nil {
		return false, err
	}
	leaned, err := s.leanedOn(e.ID)
	if err != nil || n == 0 && !leaned {
		return false, err
	}
	locs, err := s.owner.store.lookup(e.ID)
	if err != nil {
		return false, err
	}
	best, whole, err := s.serving(e.ID, locs, leaned)
	if err != nil {
		return false, err
	}
	this := func(loc *index.Location) bool { return loc != nil && loc.Pack == in && loc.Off == e.Off }
	if best == nil { // the index has lost it
		return true, nil
	}
	return this(best) || this(whole), nil
}

// leanedOn reports whether some record that is needed has this one as its base,
// or may have.
func (s *sweeper) leanedOn(id chunk.ID) (bool, error) {
	if s.unknownBase {
		return true, nil
	}
	var on []index.Location
	err := s.owner.store.withIndex(func(x *index.Index) (err error) {
		on, err = x.Dependents(id)
		return err
	})
	if err != nil {
		return false, err
	}
	for i := range on {
		if needed, err := s.leans(&on[i]); err != nil || needed {
			return needed, err
		}
	}
	return false, nil
}

// leans reports whether the record at a place, which has a base, is needed
// there. One that can't be read is taken to be.
func (s *sweeper) leans(at *index.Location) (bool, error) {
	if s.owner.guard.isCondemned(at.Pack) {
		return false, nil
	}
	h, err := s.owner.store.headerAt(at)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return true, nil
	}
	n, err := s.refs.table.Count(h.ID)
	if err != nil || n == 0 {
		return false, err
	}
	locs, err := s.owner.store.lookup(h.ID)
	if err != nil {
		return false, err
	}
	// What has a base is nobody's base, so any newer copy stands for it.
	best, _, err := s.serving(h.ID, locs, false)
	return err == nil && (best == nil || best.Pack == at.Pack && best.Off == at.Off), err
}

// serving chooses the copies of a record that stay: the newest, and for one
// that is a base the newest that has no base itself.
func (s *sweeper) serving(id chunk.ID, locs []index.Location, leaned bool) (best, whole *index.Location, err error) {
	locs = s.owner.store.sound(locs)
	for i := range locs {
		loc := &locs[i]
		if !s.owner.guard.lasts(loc.Pack) {
			continue
		}
		if best == nil {
			best = loc
		}
		if !leaned {
			return best, nil, nil
		}
		based, err := s.hasBase(id, loc)
		if err != nil {
			return nil, nil, err
		}
		if !based {
			return best, loc, nil
		}
	}
	return best, nil, nil
}

// hasUnknownBase reports whether the base of some record isn't known, for its
// header is lost.
func (o *Owner) hasUnknownBase() (is bool, err error) {
	err = o.store.withIndex(func(x *index.Index) (err error) {
		is, err = x.HasDependents(chunk.Null, nil)
		return err
	})
	return is, err
}

// hasBase reports whether a copy of a record has a base. One that can't be read
// is taken to have one, so that others are kept.
func (s *sweeper) hasBase(id chunk.ID, loc *index.Location) (bool, error) {
	switch loc.Kind {
	case pack.Chunk:
		return false, nil
	case pack.Patch:
		return true, nil
	}
	h, err := s.owner.store.headerAt(loc)
	if err != nil || h.ID != id {
		return true, nil
	}
	return h.Flags&pack.HasBase != 0, nil
}

// condemn decides whether a pack without a living record goes now. If it holds
// copies of what lives elsewhere, these are verified first.
func (s *sweeper) condemn(ctx context.Context, k packKey, d deadPack) (bool, error) {
	o := s.owner
	path := k.name.Path(k.kind)
	entries, _, err := o.packRecords(k)
	if errors.Is(err, fs.ErrNotExist) {
		delete(s.refs.dead, k.name)
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if locked, err := o.fsys.Locked(path); err != nil {
		return false, err
	} else if locked {
		s.res.LockedPacks++
		s.res.LockedBytes += d.fileBytes
		return false, nil
	}
	if !o.guard.condemn(k.name) {
		s.res.BusyPacks++
		return false, nil
	}
	for i := range entries {
		e := &entries[i]
		if err := s.spare(ctx, e); err != nil {
			o.guard.acquit(k.name)
			o.log.Warn("pack is kept, for another copy of what it holds is damaged", "pack", path, "err", err)
			return false, nil
		}
	}
	return true, nil
}

// spare makes sure that a record can be spared: nothing needs it, or a copy in
// a pack that stays is whole.
func (s *sweeper) spare(ctx context.Context, e *pack.Entry) error {
	n, err := s.refs.table.Count(e.ID)
	if err != nil {
		return err
	}
	leaned, err := s.leanedOn(e.ID)
	if err != nil || n == 0 && !leaned {
		return err
	}
	locs, err := s.owner.store.lookup(e.ID)
	if err != nil {
		return err
	}
	for i := range locs {
		if err := ctx.Err(); err != nil {
			return err
		}
		if !s.owner.guard.lasts(locs[i].Pack) {
			continue
		}
		if err = s.owner.store.copyOf(e.ID, locs[i], func(h *pack.Header, _ []byte) error {
			if leaned && h.Flags&pack.HasBase != 0 {
				return errors.New("the copy has a base itself")
			}
			return nil
		}); err == nil {
			return nil
		}
	}
	return errors.Join(err, fmt.Errorf("record %s: no other copy is whole", e.ID.Short()))
}
