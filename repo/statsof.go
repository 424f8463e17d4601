package repo

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"time"
)

// PointStats says what one restore point holds.
type PointStats struct {
	Point           Point
	ReferencedBytes int64 // of its disks, what is not a hole, in whole chunks
	UniqueBytes     int64 // of these, chunks that no other point has
	Freed           Freed // if this point alone expired
	Unknown         error // ErrTooLarge or ErrSweepFirst: UniqueBytes and Freed aren't known
}

// SharedBytes is what of a point's chunks others have too, or it has itself in
// several places.
func (p *PointStats) SharedBytes() int64 { return max(0, p.ReferencedBytes-p.UniqueBytes) }

// MachineStats says what all restore points of a machine hold together.
type MachineStats struct {
	MachineID string
	Machine   string // the name in its latest point
	Points    int
	First     time.Time // of its points
	Last      time.Time

	LogicalBytes    int64
	ReferencedBytes int64
	UniqueBytes     int64 // different chunks that no other machine has
	AddedBytes      int64 // pack files that the runs of these points wrote
	Freed           Freed // if all points of the machine expired
	Unknown         error // ErrTooLarge or ErrSweepFirst: UniqueBytes and Freed aren't known
}

// statHolders asks what machines and points alone hold.
func (r *Repository) statHolders(ctx context.Context, opt StatsOptions, s *Stats, points []Point, referenced []int64) (err error) {
	machines, ids := byMachine(points, referenced)
	a := asker{chunkBytes: int64(r.settings.Geometry.ChunkBytes), progress: opt.Progress}
	if opt.Machines {
		a.total += len(machines)
	}
	if opt.Points {
		a.total += len(points)
	}
	w, err := r.WhatIf(ctx)
	switch {
	case errors.Is(err, ErrSweepFirst):
		s.Unknown = err
	case err != nil:
		return err
	default:
		a.WhatIf = w
		defer func() { err = errors.Join(err, w.Close()) }()
	}
	if opt.Points {
		for i := range points {
			p := PointStats{Point: points[i], ReferencedBytes: referenced[i]}
			if err := a.ask(ctx, &p.Freed, &p.UniqueBytes, &p.Unknown, p.Point.ID); err != nil {
				return err
			}
			s.ByPoint = append(s.ByPoint, p)
		}
	}
	if opt.Machines {
		for _, m := range machines {
			if err := a.ask(ctx, &m.Freed, &m.UniqueBytes, &m.Unknown, ids[m.MachineID]...); err != nil {
				return err
			}
			s.ByMachine = append(s.ByMachine, *m)
		}
	}
	return nil
}

// byMachine sums points up, and lists each machine's.
func byMachine(points []Point, referenced []int64) ([]*MachineStats, map[string][]PointID) {
	byID := make(map[string]*MachineStats)
	ids := make(map[string][]PointID)
	var list []*MachineStats
	for i := range points { // in order of time
		p := &points[i]
		m := byID[p.MachineID]
		if m == nil {
			m = &MachineStats{MachineID: p.MachineID, First: p.Time}
			byID[p.MachineID], list = m, append(list, m)
		}
		m.Machine, m.Last = p.Machine, p.Time
		m.Points++
		m.LogicalBytes += p.SizeBytes()
		m.ReferencedBytes += referenced[i]
		m.AddedBytes += p.Counters.PackBytes
		ids[p.MachineID] = append(ids[p.MachineID], p.ID)
	}
	slices.SortFunc(list, func(a, b *MachineStats) int {
		return cmp.Or(strings.Compare(a.Machine, b.Machine), strings.Compare(a.MachineID, b.MachineID))
	})
	return list, ids
}

// An asker asks one question after the other.
type asker struct {
	*WhatIf     // nil: nothing is known
	chunkBytes  int64
	progress    func(done, total int)
	done, total int
}

// ask fills in what some points alone hold.
func (a *asker) ask(ctx context.Context, f *Freed, unique *int64, unknown *error, ids ...PointID) error {
	if a.WhatIf == nil {
		return nil
	}
	got, err := a.FreedBy(ctx, ids...)
	switch {
	case errors.Is(err, ErrTooLarge), errors.Is(err, ErrSweepFirst):
		*unknown = err
	case errors.Is(err, ErrNotFound): // it has expired meanwhile
	case err != nil:
		return err
	}
	*f, *unique = got, got.Chunks*a.chunkBytes
	a.done++
	if a.progress != nil {
		a.progress(a.done, a.total)
	}
	return nil
}
