package repo

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"holdfast/repo/blockmap"
	"holdfast/repo/chunk"
	"holdfast/repo/index"
	"holdfast/repo/pack"
)

// SynthesizeOptions say how to make a synthetic full. The zero value is good.
type SynthesizeOptions struct {
	Progress func(SynthesizeProgress)
}

// SynthesizeProgress says how far a synthetic full is.
type SynthesizeProgress struct {
	DoneBytes, TotalBytes int64 // of records
}

// SynthesizePlan says what a synthetic full costs.
type SynthesizePlan struct {
	Records   int64
	Bytes     int64 // of these
	RoomBytes int64 // they take in packs, beside the old copies, until a sweep frees those
	FreeBytes int64 // on the volume
}

// check returns ErrNoSpace if there isn't the room.
func (p *SynthesizePlan) check() error {
	if p.RoomBytes <= p.FreeBytes {
		return nil
	}
	return fmt.Errorf("%w: it takes %d bytes, and %d are free", ErrNoSpace, p.RoomBytes, p.FreeBytes)
}

// PlanSynthesis says what Synthesize would take. It changes nothing and needs no
// lock. Without the room the error is ErrNoSpace, beside the plan.
func (r *Repository) PlanSynthesis(ctx context.Context, id PointID) (plan SynthesizePlan, err error) {
	reader, err := r.OpenPoint(id)
	if err == nil {
		point := reader.Point()
		plan, err = r.planSynthesis(ctx, &point)
		err = errors.Join(err, reader.Close())
	}
	if err == nil {
		err = plan.check()
	}
	if err != nil {
		return plan, fmt.Errorf("plan the synthesis of point %s: %w", id, err)
	}
	return plan, nil
}

// planSynthesis adds up a point's records, each once.
func (r *Repository) planSynthesis(ctx context.Context, p *Point) (plan SynthesizePlan, err error) {
	type place struct{ pack, off, bytes uint32 }
	numbers := make(map[pack.Name]uint32)
	var places []place
	err = r.eachRecord(ctx, p, func(_ chunk.ID, loc index.Location) error {
		n, ok := numbers[loc.Pack]
		if !ok {
			n = uint32(len(numbers))
			numbers[loc.Pack] = n
		}
		places = append(places, place{n, loc.Off, loc.Len})
		return nil
	})
	if err != nil {
		return plan, err
	}
	slices.SortFunc(places, func(a, b place) int { return cmp.Or(cmp.Compare(a.pack, b.pack), cmp.Compare(a.off, b.off)) })
	for _, at := range slices.Compact(places) {
		plan.Records++
		plan.Bytes += int64(at.bytes)
	}
	plan.RoomBytes = r.settings.roomFor(plan.Bytes, plan.Records)
	free, err := r.fsys.Free()
	plan.FreeBytes = int64(min(free, math.MaxInt64))
	return plan, err
}

// roomFor is about what records of one size take as packs.
func (s *Settings) roomFor(recordBytes, records int64) int64 {
	packs := max(1, recordBytes/int64(s.PackBytes))
	each := pack.LayoutFor(recordBytes/packs, int(records/packs), s.Parity)
	return packs * each.Bytes()
}

// Synthesize copies all records of a point, as they are stored, into new packs
// in the order of its disks: what three hundred increments have scattered reads
// from one place again. Nothing is read from the source and nothing compressed.
// The old copies are what a sweep or Compact then frees. It is refused with
// ErrNoSpace if there isn't the room for both.
func (o *Owner) Synthesize(ctx context.Context, id PointID, opt SynthesizeOptions) (SynthesizePlan, error) {
	o.upkeep.Lock()
	defer o.upkeep.Unlock()
	plan, err := o.synthesize(ctx, id, opt)
	if err != nil {
		return plan, fmt.Errorf("synthesize point %s: %w", id, readOnly(err))
	}
	return plan, nil
}

func (o *Owner) synthesize(ctx context.Context, id PointID, opt SynthesizeOptions) (plan SynthesizePlan, err error) {
	reader, err := o.OpenPoint(id)
	if err != nil {
		return plan, err
	}
	defer func() { err = errors.Join(err, reader.Close()) }()
	point := reader.Point()
	if plan, err = o.planSynthesis(ctx, &point); err == nil {
		err = plan.check()
	}
	if err != nil {
		return plan, err
	}
	m, err := o.newMover()
	if err != nil {
		return plan, err
	}
	err = o.eachRecord(ctx, &point, func(id chunk.ID, loc index.Location) error {
		if err := m.move(ctx, id, loc); err != nil {
			return err
		}
		if opt.Progress != nil {
			opt.Progress(SynthesizeProgress{DoneBytes: m.moved, TotalBytes: plan.Bytes})
		}
		return nil
	})
	if err != nil {
		m.abandon()
		return plan, err
	}
	return plan, m.finish()
}

// eachRecord goes over the records that a point needs, in the order of its
// disks: nodes before what is below them, a base before the patch over it. What
// is needed in several places may come several times.
func (r *Repository) eachRecord(ctx context.Context, p *Point, fn func(chunk.ID, index.Location) error) error {
	one := func(id chunk.ID) error {
		loc, err := r.whole(ctx, id)
		if err != nil {
			return err
		}
		return fn(id, loc)
	}
	// A base may be named by many patches.
	withBase := func(id chunk.ID) error {
		loc, err := r.whole(ctx, id)
		if err != nil {
			return err
		}
		if loc.Kind == pack.Patch || loc.Kind == pack.Node {
			h, err := r.store.headerAt(&loc)
			if err != nil {
				return err
			}
			if !h.Base.IsNull() {
				if err := one(h.Base); err != nil {
					return err
				}
			}
		}
		return fn(id, loc)
	}
	for _, d := range p.Disks {
		tree := blockmap.NewTree(d.Root, d.SizeBytes, r.settings.Geometry)
		err := blockmap.Slots(ctx, r.store, blockmap.Tree{}, tree, func(_ int, _ int64, _, id chunk.ID) error {
			return withBase(id)
		})
		if err != nil {
			return fmt.Errorf("disk %s: %w", d.Name, err)
		}
	}
	return nil
}

// whole returns the place of the copy of a record that reads come to first.
func (r *Repository) whole(ctx context.Context, id chunk.ID) (index.Location, error) {
	if err := ctx.Err(); err != nil {
		return index.Location{}, err
	}
	locs, err := r.store.locations(id)
	if err != nil {
		return index.Location{}, err
	}
	return r.store.soundFirst(locs)[0], nil
}
