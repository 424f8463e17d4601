package repo

import (
	"context"
	"errors"
	"fmt"

	"holdfast/repo/blockmap"
	"holdfast/repo/chunk"
	"holdfast/repo/index"
	"holdfast/repo/pack"
)

// SynthesizeOptions say how to make a synthetic full.
type SynthesizeOptions struct {
	// Plan is told what it takes before anything is written; an error from it
	// ends the work.
	Plan func(SynthesizePlan) error

	Progress func(done, total int64) // bytes of records
}

// SynthesizePlan says what a synthetic full costs.
type SynthesizePlan struct {
	Records   int64
	Bytes     int64  // of these: the room they take twice until the next sweep
	FreeBytes uint64 // room there is
}

// Synthesize copies all records of a point, as they are stored, into new packs
// in the order of its disks: what three hundred increments have scattered reads
// from one place again. Nothing is read from the source and nothing compressed.
// The old copies are what a sweep or Compact then frees.
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
	err = o.eachRecord(ctx, &point, func(_ chunk.ID, loc index.Location) error {
		plan.Records++
		plan.Bytes += int64(loc.Len)
		return nil
	})
	if err != nil {
		return plan, err
	}
	if plan.FreeBytes, err = o.fsys.Free(); err != nil {
		return plan, err
	}
	if uint64(plan.Bytes) > plan.FreeBytes {
		return plan, fmt.Errorf("%w: it takes %d bytes, and %d are free", ErrNoSpace, plan.Bytes, plan.FreeBytes)
	}
	if opt.Plan != nil {
		if err := opt.Plan(plan); err != nil {
			return plan, err
		}
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
			opt.Progress(m.moved, plan.Bytes)
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
func (o *Owner) eachRecord(ctx context.Context, p *Point, fn func(chunk.ID, index.Location) error) error {
	one := func(id chunk.ID) error {
		loc, err := o.whole(ctx, id)
		if err != nil {
			return err
		}
		return fn(id, loc)
	}
	// A base may be named by many patches.
	withBase := func(id chunk.ID) error {
		loc, err := o.whole(ctx, id)
		if err != nil {
			return err
		}
		if loc.Kind == pack.Patch || loc.Kind == pack.Node {
			h, err := o.store.headerAt(&loc)
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
		tree := blockmap.NewTree(d.Root, d.SizeBytes, o.settings.Geometry)
		err := blockmap.Slots(ctx, o.store, blockmap.Tree{}, tree, func(_ int, _ int64, _, id chunk.ID) error {
			return withBase(id)
		})
		if err != nil {
			return fmt.Errorf("disk %s: %w", d.Name, err)
		}
	}
	return nil
}

// whole returns the place of the copy of a record that reads come to first.
func (o *Owner) whole(ctx context.Context, id chunk.ID) (index.Location, error) {
	if err := ctx.Err(); err != nil {
		return index.Location{}, err
	}
	locs, err := o.store.locations(id)
	if err != nil {
		return index.Location{}, err
	}
	return o.store.soundFirst(locs)[0], nil
}
