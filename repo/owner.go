package repo

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"holdfast/repo/index"
	"holdfast/repo/ledger"
	"holdfast/repo/pack"
	"holdfast/repo/seal"
	"holdfast/repo/vfs"
)

// An Owner is the one process that may write a repository, and an open
// Repository itself. Its runs may go on at the same time. Safe for concurrent
// use.
type Owner struct {
	*Repository
	opt    Options
	lock   vfs.Unlocker
	socket *ownerSocket   // nil where there can be none
	mine   []*seal.Signer // the private keys that the state directory has
	signer *seal.Signer   // the one of them that signs
	epoch  uint64

	adoptedFrom string // the signing key before, if this owner adopted the repository

	guard  *guard
	upkeep sync.Mutex // held by what removes or rewrites packs; comes before commit

	scrubbing sync.Mutex // held by a scrub, which comes after upkeep
	stopScrub atomic.Pointer[context.CancelCauseFunc]

	// lacking is the first segment that names a pack which could not be indexed;
	// 0 when there is none. The index never claims to go further.
	lacking atomic.Uint64

	// commit is held while a segment and its manifest are written. It comes
	// before mu.
	commit     sync.Mutex
	ledgerLost error  // guarded by commit: why this owner can write no more segments
	checkpoint uint64 // guarded by commit: the segment of the last one, 0 if there is none

	mu         sync.Mutex         // guards all below
	state      *ledger.State      // the view's; it changes under view.mu too, so either will do to read it
	unrecorded []ledger.Pack      // durable, not in any segment yet
	lastTime   time.Time          // of the newest point
	busy       map[string]busyRun // machine id → its run under way
	names      map[string]string  // machine name → id, by each machine's latest point
	leftovers  map[string][]RunID // machine id → unfinished runs' records
	left       map[string]string  // machine name, as in their records → the id that these have
	kept       map[string][]*pins // machine id → what these have stored
	voids      []ledger.Record    // to be recorded by the next segment
}

// A busyRun is a run under way.
type busyRun struct {
	id      RunID
	machine string // name
}

// Own opens a repository as its owner, waiting for another owner for at most
// wait; then *BusyError. It leaves no trace of whatever was interrupted before.
func Own(ctx context.Context, fsys vfs.FS, opt Options, wait time.Duration) (*Owner, error) {
	opt.defaults()
	o, err := own(ctx, fsys, &opt, wait)
	if err != nil {
		return nil, fmt.Errorf("open repository for writing: %w", err)
	}
	return o, nil
}

func own(ctx context.Context, fsys vfs.FS, opt *Options, wait time.Duration) (_ *Owner, err error) {
	// Before the lock, so that a directory that is no repository is left as it is.
	r, err := openRepository(fsys, opt)
	if err != nil {
		return nil, err
	}
	o := &Owner{
		Repository: r, opt: *opt, guard: newGuard(), busy: make(map[string]busyRun),
		names: make(map[string]string), leftovers: make(map[string][]RunID), kept: make(map[string][]*pins),
		left: make(map[string]string),
	}
	if o.mine, err = loadSigners(opt.State, r.settings.ID); err != nil && !opt.adopting {
		return nil, err
	}
	if o.lock, err = lockOwner(ctx, fsys, opt.Doing, opt.Now, wait); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, o.Close())
		}
	}()
	if err := o.tidy(ctx); err != nil {
		return nil, err
	}
	o.restoreReserve()
	o.socket = listenOwner(fsys, o)
	return o, nil
}

// tidy brings the repository into the state that a writer leaves behind who
// was not interrupted, and reads what the owner must know.
func (o *Owner) tidy(ctx context.Context) error {
	if err := emptyTmp(o.fsys, o.log); err != nil {
		return err
	}
	if _, err := completeTwins(o.fsys, settingsName, func(p []byte) error { _, err := decodeSettings(p); return err }); err != nil {
		return fmt.Errorf("complete %s: %w", settingsName, err)
	}
	if err := completeKeys(o.fsys, o.log); err != nil {
		return err
	}
	last, err := o.completeLedger()
	if err != nil {
		return err
	}
	runs, err := o.readRuns()
	if err != nil {
		return err
	}
	x, err := o.openIndex()
	if err != nil {
		return err
	}
	o.store.index, o.store.fill = x, o.fillIndex
	if err := o.store.ownDamage(); err != nil {
		return err
	}
	if err := o.foldLedger(ctx, last, runs); err != nil {
		return err
	}
	if err := o.settlePoints(ctx); err != nil {
		return err
	}
	if err := o.finishExpiries(); err != nil {
		return err
	}
	if err := o.settleRuns(runs); err != nil {
		return err
	}
	return o.settleKeys()
}

// openIndex opens the index; one that is damaged is begun anew, from the
// packs.
func (o *Owner) openIndex() (*index.Index, error) {
	x, err := index.Own(o.fsys, indexDir, index.Options{CacheBytes: o.opt.IndexCacheBytes})
	if err != nil {
		return nil, fmt.Errorf("open index: %w", err)
	}
	if err := x.Skipped(); err != nil {
		o.log.Warn("index is being completed from the packs", "err", err)
	}
	return x, nil
}

// emptyTmp removes what was never named, but for files that somebody has locked:
// they are in nobody's way.
func emptyTmp(fsys vfs.FS, log *slog.Logger) error {
	infos, err := fsys.ReadDir(tmpDir)
	if err != nil {
		return fmt.Errorf("list %s: %w", tmpDir, err)
	}
	for _, info := range infos {
		name := tmpDir + "/" + info.Name
		err := fsys.Remove(name)
		if err == nil {
			continue
		}
		if locked, lerr := fsys.Locked(name); lerr == nil && locked {
			log.Warn("a temporary file is locked and stays", "file", name, "err", err)
			continue
		}
		return fmt.Errorf("empty %s: %w", tmpDir, err)
	}
	return nil
}

// completeLedger gives the last segment its missing copy and returns its
// number. Earlier pairs were completed by earlier owners.
func (o *Owner) completeLedger() (uint64, error) {
	last, err := lastSegment(o.fsys)
	if err != nil || last == 0 {
		return last, err
	}
	_, err = completeTwins(o.fsys, segmentPath(last), func(p []byte) error {
		var s *ledger.Segment
		return parseSegment(p, last, &s)
	})
	if err != nil {
		return 0, fmt.Errorf("complete ledger segment %d: %w", last, err)
	}
	return last, nil
}

// A leftover is the record of a run that has not removed it.
type leftover struct {
	id      RunID
	head    runHead
	packs   []ledger.Pack
	damaged bool // it may have had more packs
}

// readRuns reads runs/. A record without a whole head is of a run that stored
// nothing.
func (o *Owner) readRuns() ([]leftover, error) {
	ids, err := listRuns(o.fsys)
	if err != nil {
		return nil, fmt.Errorf("list runs: %w", err)
	}
	var runs []leftover
	for _, id := range ids {
		head, packs, err := readRunRecord(o.fsys, id)
		if errors.Is(err, fs.ErrNotExist) {
			continue // committed meanwhile
		}
		if err != nil {
			// What the lost lines name is stored again, or lies idle.
			o.log.Error("record of an unfinished run is damaged", "run", id, "err", err)
		}
		runs = append(runs, leftover{id, head, packs, err != nil})
	}
	return runs, nil
}

// foldLedger reads the ledger, from the checkpoint on, and brings the index up to
// it and to what unfinished runs have stored.
func (o *Owner) foldLedger(ctx context.Context, last uint64, runs []leftover) error {
	loose := make(map[packKey]ledger.Pack) // stored by unfinished runs, in no segment
	for _, r := range runs {
		if r.head.Epoch < math.MaxUint32 { // pack names have 32 bits of it
			o.epoch = max(o.epoch, r.head.Epoch)
		}
		for _, p := range r.packs {
			if _, err := o.fsys.Stat(p.Name.Path(p.Kind)); err == nil {
				loose[packKey{p.Kind, p.Name}] = p
			} else if !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	c := o.loadCheckpoint()
	o.seed(c)
	o.view.own = true
	o.state = o.view.state
	if c != nil {
		o.lastTime, o.checkpoint = c.newest, o.state.Head().Number
		o.dropCheckpoints(o.checkpoint)
	}
	covered := o.store.index.Covers()
	made := o.store.timesMade()
	first := min(o.state.Head().Number, covered) + 1
	packs := newPackList() // that the index lacks
	err := readLedger(o.fsys, first, last, func(s *ledger.Segment) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		for _, p := range s.Packs {
			delete(loose, packKey{p.Kind, p.Name})
		}
		if s.Number > covered {
			packs.add(s)
		}
		if s.Number <= o.state.Head().Number {
			return nil
		}
		return o.state.Add(s)
	})
	if err == nil {
		err = o.notLoose(loose, runs, first)
	}
	if err != nil {
		return fmt.Errorf("read ledger: %w", err)
	}
	if got := o.state.Repository(); got != o.settings.ID {
		return fmt.Errorf("%w: the ledger is that of repository %s", ErrFormat, got)
	}
	var damage error // of the index
	add := func(p ledger.Pack, segment uint64) {
		if damage != nil {
			return
		}
		err := indexPack(o.fsys, o.store.index, p)
		if errors.Is(err, index.ErrDamaged) {
			damage = err
			o.store.loseIndex(err)
		} else if err != nil {
			o.lackPack(p, segment, err)
		}
	}
	if covered > last {
		// The ledger has lost its end. New segments get the numbers of those lost,
		// and an index that claims to have their packs would never look.
		damage = fmt.Errorf("%w: it covers segment %d, and the ledger ends at %d", index.ErrDamaged, covered, last)
		o.store.loseIndex(damage)
	}
	for _, p := range packs.left() {
		add(p.Pack, p.segment)
	}
	for _, r := range runs {
		for _, p := range r.packs {
			if _, ok := loose[packKey{p.Kind, p.Name}]; !ok {
				continue
			}
			// Whoever stored it may have been killed before the name was
			// durable, and the next segment promises that it is.
			if err := o.fsys.SyncDir(p.Name.Dir(p.Kind)); err != nil {
				return err
			}
			add(p, last+1)
			o.guard.found(p.Name)
			o.unrecorded = append(o.unrecorded, p)
		}
	}
	if damage != nil {
		if err := o.store.remakeIndex(made, damage); err != nil {
			return err
		}
	}
	if err := o.finishSweeps(packs); err != nil {
		return err
	}
	o.epoch = max(o.epoch, o.state.Epoch()) + 1
	return o.pickSigner()
}

// finishSweeps takes packs that the list's segments call removed out of the index
// and away, in case that was interrupted.
func (o *Owner) finishSweeps(packs *packList) error {
	if len(packs.swept) == 0 {
		return nil
	}
	var refs []ledger.PackRef
	var names []pack.Name
	for _, p := range packs.swept {
		refs, names = append(refs, p), append(names, p.Name)
	}
	if err := o.store.withIndex(func(x *index.Index) error { return x.Remove(names...) }); err != nil {
		return fmt.Errorf("take removed packs out of the index: %w", err)
	}
	return o.finishRemovals(refs)
}

// notLoose takes away from loose the packs that segments before first record:
// another machine's commit may have recorded what an unfinished run stored. Only
// segments as young as the runs are read, and none while there are no such packs.
func (o *Owner) notLoose(loose map[packKey]ledger.Pack, runs []leftover, first uint64) error {
	oldest := uint64(math.MaxUint64)
	for _, r := range runs {
		if !r.damaged || r.head.Epoch > 0 {
			oldest = min(oldest, r.head.Epoch)
		}
	}
	for n := first - 1; n > 0 && len(loose) > 0; n-- {
		s, err := readSegment(o.fsys, n)
		if err != nil {
			return err
		}
		for _, p := range s.Packs {
			delete(loose, packKey{p.Kind, p.Name})
		}
		if s.Epoch < oldest {
			return nil
		}
	}
	return nil
}

// settlePoints completes the pairs of manifests, closes as void the last
// segment's point if it has no manifest, and learns names and times.
func (o *Owner) settlePoints(ctx context.Context) error {
	head := o.state.Head().Number
	sequence := make(map[string]uint64)
	for _, ps := range o.state.Points() {
		if err := ctx.Err(); err != nil {
			return err
		}
		id := PointID(ps.ID)
		if t := id.time(); t.After(o.lastTime) {
			o.lastTime = t
		}
		if !ps.Live() {
			continue
		}
		p, err := o.settlePoint(&ps)
		switch {
		case errors.Is(err, fs.ErrNotExist) && ps.Segment == head:
			if _, serr := o.fsys.Stat(runPath(RunID(ps.Run))); errors.Is(serr, fs.ErrNotExist) {
				// The record of a run goes after the manifest has come.
				o.log.Error("newest restore point has lost its manifest; it is void from the next segment on, unless repaired", "point", id)
			}
			o.voids = append(o.voids, &ledger.Void{Point: string(id), Segment: ps.Segment})
			continue
		case errors.Is(err, fs.ErrNotExist):
			o.log.Error("restore point has lost its manifest", "point", id, "err", err)
			continue
		case err != nil:
			o.log.Error("restore point can't be used", "point", id, "err", err)
			continue
		}
		if p.Time.After(o.lastTime) {
			o.lastTime = p.Time
		}
		if p.Sequence > sequence[p.MachineID] {
			sequence[p.MachineID] = p.Sequence
			o.names[p.Machine] = p.MachineID
		}
	}
	return nil
}

// settlePoint completes the pair of a manifest and describes the point. One that
// a checkpoint describes had its pair.
func (o *Owner) settlePoint(ps *ledger.PointState) (Point, error) {
	if p, ok := o.view.known[PointID(ps.ID)]; ok && p.segment == ps.Segment {
		return p, nil
	}
	_, err := completeTwins(o.fsys, pointPath(PointID(ps.ID)), func(p []byte) error {
		if sum256(p) != ps.Manifest {
			return fmt.Errorf("%w: not the manifest that the ledger records", ErrFormat)
		}
		return nil
	})
	if err != nil {
		return Point{}, err
	}
	return o.described(ps)
}

// settleRuns removes the records of runs that have committed, or have stored
// nothing, and remembers the others for the next run of their machine.
func (o *Owner) settleRuns(runs []leftover) error {
	committed := make(map[string]bool)
	void := make(map[string]bool)
	for _, v := range o.voids {
		if v, ok := v.(*ledger.Void); ok {
			void[v.Point] = true
		}
	}
	for _, ps := range o.state.Points() {
		if !ps.Void && !void[ps.ID] {
			committed[ps.Run] = true
		}
	}
	removed := false
	for _, r := range runs {
		unfinished := (len(r.packs) > 0 || r.damaged) && !committed[string(r.id)]
		if unfinished && r.head.MachineID != upkeepMachine {
			o.leave(r.head, r.id, r.packs)
			continue
		}
		if unfinished {
			// Copies that a mover made. They are packs like any other, once the
			// ledger names them.
			if err := o.record(); err != nil {
				return err
			}
		}
		if err := o.fsys.Remove(runPath(r.id)); err != nil {
			return fmt.Errorf("remove run record: %w", err)
		}
		removed = true
	}
	if removed {
		return o.fsys.SyncDir(runsDir)
	}
	return nil
}

// Close writes the index, so that the next one to open needn't, and gives up
// ownership.
func (o *Owner) Close() error {
	if o.lock == nil {
		return nil // closed before
	}
	o.endScrub()
	var errs []error
	if o.socket != nil {
		errs = append(errs, o.socket.close())
	}
	if o.store.index != nil {
		if o.state != nil {
			errs = append(errs, o.withReserve(o.flushIndex))
			if err := o.writeCheckpoint(checkpointAtClose); err != nil {
				o.log.Warn("no checkpoint is made of the ledger", "err", err)
			}
		}
		errs = append(errs, o.Repository.Close())
	}
	errs = append(errs, forgetHolder(o.fsys), o.lock.Unlock())
	o.lock = nil
	return errors.Join(errs...)
}
