package repo

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"

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
	Points int         // expired points whose bytes are no longer kept for them
	Held   []HeldPoint // expired points that somebody still keeps

	Packs int   // removed
	Bytes int64 // of them

	DeadPacks int   // packs with bytes that nothing needs beside others: what Compact can free
	DeadBytes int64 // of these

	LockedPacks int   // packs that nothing needs and that are locked
	LockedBytes int64 // of them

	BusyPacks int // packs that nothing needs but that a run under way may use
}

// A HeldPoint is an expired point whose bytes stay, and why.
type HeldPoint struct {
	Point  PointID
	Pins   []string // the names it is pinned under
	Locked bool     // its manifest's file is
	Read   bool     // somebody has it open
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
		s := &sweeper{owner: o, opt: opt, then: then}
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
	res   SweepResult
	weigher
}

func (s *sweeper) run(ctx context.Context) (err error) {
	defer s.owner.guard.sweep()()
	if s.weigher, err = s.owner.ownWeigher(); err != nil {
		return err
	}
	s.progress = s.opt.Progress
	defer func() { err = errors.Join(err, s.refs.table.Close()) }()
	head := s.refs.head
	counted, err := s.bringUp(ctx)
	if head.Number != 0 && ctx.Err() == nil && badCounts(counted, err) {
		s.owner.log.Warn("reference counts are made anew", "err", err)
		clear(s.dirty)
		clear(s.weighed)
		if err = s.refs.reset(); err == nil {
			_, err = s.bringUp(ctx)
		}
	}
	if err != nil {
		return err
	}
	if s.unknownBase {
		s.owner.log.Warn("nothing can be freed: of a damaged record it isn't known which one it is based on; repair the repository")
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

// bringUp brings the counts up to date, works out what that means to the packs,
// and makes both durable: before anything goes that older counts would need. It
// reports how far it got.
func (s *sweeper) bringUp(ctx context.Context) (counted bool, err error) {
	head, err := s.count(ctx)
	if err != nil {
		return false, err
	}
	if err := s.look(ctx); err != nil {
		return true, err
	}
	return true, s.refs.commit(head)
}

// badCounts reports whether an error in bringing up counts may be theirs: they are
// damaged, or so old that what the points taken out of them held is gone. What is
// wrong with a point that is kept is not cured by counting anew.
func badCounts(counted bool, err error) bool {
	var point *CorruptError
	return errors.Is(err, refcount.ErrDamaged) || err != nil && !counted && !errors.As(err, &point) && !isFull(err)
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
	return head, s.bring(ctx, head, all, gone)
}

// release finds the expired points that nobody keeps any more.
func (s *sweeper) release() (map[PointID]bool, error) {
	o := s.owner
	points, _ := o.pointStates()
	points = slices.DeleteFunc(points, func(p ledger.PointState) bool { return p.Expired == 0 })
	retired := make(map[PointID]bool)
	for i := range points {
		id := PointID(points[i].ID)
		if !hasManifest(o.fsys, id) {
			continue
		}
		stays, err := o.dropManifest(id)
		if err != nil {
			return nil, fmt.Errorf("point %s: %w", id, err)
		}
		retired[id] = stays
	}
	// Only now: whoever found a manifest is known by a lease or a pin that is
	// there since before the manifest went.
	leased, err := o.leased()
	if err != nil {
		return nil, err
	}
	pins, err := o.pins()
	if err != nil {
		return nil, err
	}
	fresh := s.refs.head.Number == 0
	s.res.Points, s.res.Held = 0, nil
	gone := make(map[PointID]bool)
	for i := range points {
		p := &points[i]
		h := HeldPoint{Point: PointID(p.ID), Pins: pins[PointID(p.ID)]}
		h.Locked = retired[h.Point] && h.Pins == nil
		if !retired[h.Point] && leased[h.Point] {
			if h.Read, err = o.isRead(h.Point); err != nil {
				return nil, fmt.Errorf("point %s: %w", h.Point, err)
			}
		}
		if h.Pins != nil || h.Locked || h.Read {
			s.res.Held = append(s.res.Held, h)
			continue
		}
		gone[h.Point] = true
		if fresh || p.Expired > s.refs.head.Number || s.refs.counts(p.Machine, h.Point) {
			s.res.Points++
		}
	}
	return gone, nil
}

// isRead reports whether somebody has the lease of a point whose manifest is
// gone. A lease that nobody has is removed: nobody can come for it any more.
func (o *Owner) isRead(id PointID) (bool, error) {
	l, err := o.fsys.Lock(leasePath(id), vfs.Exclusive)
	if errors.Is(err, vfs.ErrLocked) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	return false, errors.Join(notThere(o.fsys.Remove(leasePath(id))), l.Unlock())
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
			s.owner.acquitAll(gone)
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
			if h.Base.IsNull() {
				return nil
			}
			has, err := s.hasWhole(h.Base)
			if err == nil && !has {
				err = errNoBase
			}
			return err
		}); err == nil {
			return nil
		}
	}
	return errors.Join(err, fmt.Errorf("record %s: no other copy is whole", e.ID.Short()))
}
