package repo

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"holdfast/repo/index"
	"holdfast/repo/pack"
)

const (
	// DefaultDeadShare is the share of dead bytes from which on Compact rewrites
	// a pack.
	DefaultDeadShare = 0.25

	// DefaultLiveShare is the share of living bytes below which Evacuate empties
	// a locked pack.
	DefaultLiveShare = 0.5

	// smallPackBytes is the size below which packs are put together.
	smallPackBytes = 4 << 20

	// fewSmallPacks may stay as they are.
	fewSmallPacks = 8

	// moveBytes is how much is copied before the packs it came from are removed:
	// the room that compaction needs, roughly.
	moveBytes = 1 << 30
)

// CompactOptions say which packs to rewrite.
type CompactOptions struct {
	// DeadShare is the share of dead bytes, 0 to 1, from which on a pack is
	// rewritten; 0 means DefaultDeadShare. AnyDead rewrites every pack with a
	// dead byte.
	DeadShare float64
	AnyDead   bool

	// LiveShare is for Evacuate: below it a locked pack is emptied; 0 means
	// DefaultLiveShare.
	LiveShare float64

	Progress func(CompactProgress) `json:"-"`
}

// CompactProgress says how far a compaction is.
type CompactProgress struct {
	Packs, OfPacks int
	MovedBytes     int64
}

// CompactResult says what was rewritten. The sweeps before and after it are
// added up in Swept.
type CompactResult struct {
	Packs      int   // whose living records were copied
	PackBytes  int64 // of them
	MovedBytes int64 // records copied
	Swept      SweepResult
}

// Compact sweeps, copies what is needed out of packs with much that is not, and
// out of small packs, into new ones in the same order, and removes the old. A
// record is verified before it is copied and moves unchanged. Locked packs are
// left alone. It may be interrupted at any moment.
func (o *Owner) Compact(ctx context.Context, opt CompactOptions) (CompactResult, error) {
	if opt.DeadShare == 0 {
		opt.DeadShare = DefaultDeadShare
	}
	choose := func(s *sweeper) ([]packKey, error) { return s.toCompact(opt) }
	res, err := o.rewrite(ctx, opt, choose)
	if err != nil {
		return res, fmt.Errorf("compact: %w", readOnly(err))
	}
	return res, nil
}

// Evacuate copies what is needed out of locked packs that hold little of it, so
// that these can go when their locks end. Without it a few living records would
// make an old pack's lock be extended for ever. What it copies takes room twice
// until then.
func (o *Owner) Evacuate(ctx context.Context, opt CompactOptions) (CompactResult, error) {
	if opt.LiveShare == 0 {
		opt.LiveShare = DefaultLiveShare
	}
	choose := func(s *sweeper) ([]packKey, error) { return s.toEvacuate(opt.LiveShare) }
	res, err := o.rewrite(ctx, opt, choose)
	if err != nil {
		return res, fmt.Errorf("evacuate: %w", readOnly(err))
	}
	return res, nil
}

// rewrite sweeps, copies the living records of the packs chosen after that, and
// sweeps again.
func (o *Owner) rewrite(ctx context.Context, opt CompactOptions, choose func(*sweeper) ([]packKey, error)) (CompactResult, error) {
	o.upkeep.Lock()
	defer o.upkeep.Unlock()
	var res CompactResult
	var chosen []packKey
	swept, err := o.sweepThen(ctx, SweepOptions{}, func(s *sweeper) (err error) {
		chosen, err = choose(s)
		return err
	})
	res.Swept = swept
	for err == nil && len(chosen) > 0 {
		before := res.Packs
		if chosen, err = o.moveOut(ctx, chosen, opt, &res); err == nil {
			swept, err = o.sweepThen(ctx, SweepOptions{}, nil)
			res.Swept.add(swept)
		}
		if res.Packs == before {
			break
		}
	}
	return res, err
}

// add joins the result of a later sweep.
func (r *SweepResult) add(later SweepResult) {
	later.Points += r.Points
	later.Packs += r.Packs
	later.Bytes += r.Bytes
	*r = later
}

// toCompact chooses packs with many dead bytes, and small ones.
func (s *sweeper) toCompact(opt CompactOptions) ([]packKey, error) {
	chosen := make(map[packKey]bool)
	for name, d := range s.refs.dead {
		if d.empty() || !opt.AnyDead && float64(d.deadBytes) < opt.DeadShare*float64(d.recordBytes) {
			continue
		}
		chosen[packKey{d.kind, name}] = true
	}
	small, err := s.owner.smallPacks()
	if err != nil {
		return nil, err
	}
	for _, packs := range small {
		if len(packs) <= fewSmallPacks {
			continue
		}
		for _, k := range packs {
			chosen[k] = true
		}
	}
	return s.lockedOnes(chosen, false)
}

// toEvacuate chooses locked packs of which little lives.
func (s *sweeper) toEvacuate(liveShare float64) ([]packKey, error) {
	chosen := make(map[packKey]bool)
	for name, d := range s.refs.dead {
		if live := d.recordBytes - d.deadBytes; live > 0 && float64(live) < liveShare*float64(d.recordBytes) {
			chosen[packKey{d.kind, name}] = true
		}
	}
	return s.lockedOnes(chosen, true)
}

// lockedOnes returns, in the order of their names, those packs that are in the
// ledger and whose files are locked or are not.
func (s *sweeper) lockedOnes(packs map[packKey]bool, want bool) ([]packKey, error) {
	var list []packKey
	for k := range packs {
		if !s.owner.guard.lasts(k.name) {
			continue
		}
		locked, err := s.owner.fsys.Locked(k.name.Path(k.kind))
		if err = notThere(err); err != nil {
			return nil, err
		}
		if locked == want {
			list = append(list, k)
		}
	}
	slices.SortFunc(list, comparePacks)
	return list, nil
}

// smallPacks lists the packs of each kind that are small.
func (o *Owner) smallPacks() (map[pack.Kind][]packKey, error) {
	small := make(map[pack.Kind][]packKey)
	err := o.eachPackFile(func(k packKey, size int64) error {
		if size < min(smallPackBytes, int64(o.settings.PackBytes)/2) {
			small[k.kind] = append(small[k.kind], k)
		}
		return nil
	})
	return small, err
}

// eachPackFile goes over the files in packs/.
func (r *Repository) eachPackFile(fn func(k packKey, size int64) error) error {
	for _, kind := range []pack.Kind{pack.Data, pack.Meta} {
		for i := range 256 {
			dir := pack.Name{4: byte(i)}.Dir(kind)
			infos, err := r.fsys.ReadDir(dir)
			if err != nil {
				return fmt.Errorf("list packs: %w", err)
			}
			for _, info := range infos {
				name, err := pack.ParseName(strings.TrimSuffix(info.Name, ".pack"))
				if err != nil || info.Dir {
					continue
				}
				if err := fn(packKey{kind, name}, info.Size); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// moveOut copies the living records of packs, in order, until a good deal is
// copied, and returns the packs that are left.
func (o *Owner) moveOut(ctx context.Context, packs []packKey, opt CompactOptions, res *CompactResult) (rest []packKey, err error) {
	s := &sweeper{owner: o}
	if s.weigher, err = o.ownWeigher(); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.refs.table.Close()) }()
	m, err := o.newMover()
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			m.abandon()
		}
	}()
	total := res.Packs + len(packs)
	for len(packs) > 0 && m.moved < moveBytes {
		k := packs[0]
		packs = packs[1:]
		if err := s.moveLiving(ctx, m, k, res); err != nil {
			return nil, fmt.Errorf("pack %s: %w", k.name, err)
		}
		if opt.Progress != nil {
			opt.Progress(CompactProgress{Packs: res.Packs, OfPacks: total, MovedBytes: res.MovedBytes + m.moved})
		}
	}
	res.MovedBytes += m.moved
	err = m.finish()
	return packs, err
}

// moveLiving copies what a pack has that is needed and that no better copy
// stands for. It asks the counts as they were at the last sweep; what came to
// be needed since is pinned by its run, and stays with the pack.
func (s *sweeper) moveLiving(ctx context.Context, m *mover, k packKey, res *CompactResult) error {
	entries, size, err := s.repo.packRecords(k)
	if err != nil {
		return notThere(err)
	}
	for i := range entries {
		e := &entries[i]
		alive, err := s.alive(k.name, e)
		if err != nil {
			return err
		}
		if !alive {
			continue
		}
		loc := index.Location{Pack: k.name, Off: e.Off, Len: e.Len, Kind: e.Kind}
		err = m.move(ctx, e.ID, loc)
		var damaged *damagedRecord
		if errors.As(err, &damaged) {
			s.owner.log.Warn("pack can't be emptied, for it is damaged: repair it", "err", err)
			return nil
		}
		if err != nil {
			return err
		}
	}
	res.Packs++
	res.PackBytes += size
	return nil
}
