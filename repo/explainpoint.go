package repo

import (
	"context"
	"errors"
	"fmt"

	"holdfast/repo/chunk"
	"holdfast/repo/index"
	"holdfast/repo/ledger"
)

// A PointStory says what a restore point is, what it takes and what keeps it.
type PointStory struct {
	Point Point
	State PointState
	Holds []Hold // pins, and of an expired point what else keeps its bytes

	Full     PointID   // the full it came from, or the oldest point known of those it came from
	Chain    int       // points that came from this full and are kept
	Children []PointID // kept points that came from this one

	ReferencedBytes int64 // of its disks, what is not a hole, in whole chunks
	Packs           int   // that a restore would read from
	PackBytes       int64 // of these files

	Freed   Freed // if it expired, or was let go
	Unknown error // ErrSweepFirst or ErrTooLarge: Freed isn't known
}

// A PointState says what the ledger and what is there make of a point.
type PointState string

// The states of points.
const (
	PointLive    PointState = "live"    // a restore point
	PointRetired PointState = "retired" // expired, and still there: it can be read and recalled
	PointHeld    PointState = "held"    // expired and gone, but its bytes are kept for a reader
)

// ExplainPoint tells what a restore point holds, and what keeps it. It reads the
// point's block map and the place of each of its chunks.
func (r *Repository) ExplainPoint(ctx context.Context, id PointID) (PointStory, error) {
	s, err := r.explainPoint(ctx, id)
	if err != nil {
		return s, fmt.Errorf("explain point %s: %w", id, err)
	}
	return s, nil
}

func (r *Repository) explainPoint(ctx context.Context, id PointID) (s PointStory, err error) {
	ps, err := r.stateOf(ctx, id)
	if err != nil {
		return s, err
	}
	pins, err := r.pins()
	if err != nil {
		return s, err
	}
	if s.State, s.Holds, err = r.stateAndHolds(&ps, pins); err != nil {
		return s, err
	}
	if s.State == PointHeld {
		s.Point = Point{
			ID: id, Sequence: ps.Sequence, MachineID: ps.Machine, Job: ps.Job, Slot: ps.Slot, Run: RunID(ps.Run),
			Full: ps.Full, Parent: PointID(ps.Parent), Signed: ps.Signed,
		}.expired(&ps)
		for _, root := range ps.Roots {
			s.Point.Disks = append(s.Point.Disks, DiskInfo{Root: root.Root, SizeBytes: root.SizeBytes, levels: root.Levels})
		}
	} else if s.Point, err = r.described(&ps); err != nil {
		return s, err
	}
	if err := r.chainOf(ctx, &s); err != nil {
		return s, err
	}
	if err := r.reach(ctx, &s); err != nil {
		return s, err
	}
	s.Freed, err = r.FreedBy(ctx, []PointID{id})
	if errors.Is(err, ErrSweepFirst) || errors.Is(err, ErrTooLarge) {
		s.Unknown, err = err, nil
	}
	return s, err
}

// stateOf returns what the ledger says of a point.
func (r *Repository) stateOf(ctx context.Context, id PointID) (ledger.PointState, error) {
	if err := r.look(ctx); err != nil {
		return ledger.PointState{}, err
	}
	r.view.mu.Lock()
	defer r.view.mu.Unlock()
	ps, known, _ := r.view.point(id)
	if !known || ps.Void {
		return ps, ErrNotFound
	}
	return ps, nil
}

func (r *Repository) stateAndHolds(ps *ledger.PointState, pins pinned) (PointState, []Hold, error) {
	id := PointID(ps.ID)
	if ps.Live() {
		var holds []Hold
		for _, name := range pins[id] {
			holds = append(holds, Hold{HoldPin, name})
		}
		return PointLive, holds, nil
	}
	holds, err := r.holders(id, pins)
	switch {
	case err != nil:
		return "", nil, err
	case hasManifest(r.fsys, id):
		return PointRetired, holds, nil
	case len(holds) == 0:
		return "", nil, fmt.Errorf("%w: it expired (%s) and is gone", ErrNotFound, ps.Reason)
	}
	return PointHeld, holds, nil
}

// chainOf finds where the point stands among those it shares nodes with.
func (r *Repository) chainOf(ctx context.Context, s *PointStory) error {
	if err := r.look(ctx); err != nil {
		return err
	}
	r.view.mu.Lock()
	defer r.view.mu.Unlock()
	parent := make(map[PointID]PointID)
	var kept []PointID
	for _, ps := range r.view.state.Points() {
		if ps.Machine != s.Point.MachineID || ps.Void {
			continue
		}
		if id := PointID(ps.ID); !ps.Full {
			parent[id] = PointID(ps.Parent)
		}
		if ps.Live() {
			kept = append(kept, PointID(ps.ID))
		}
	}
	full := func(id PointID) PointID {
		for range len(parent) { // whatever the ledger says, no longer than that
			if parent[id] == "" {
				break
			}
			id = parent[id]
		}
		return id
	}
	s.Full = full(s.Point.ID)
	for _, id := range kept {
		if full(id) == s.Full {
			s.Chain++
		}
		if parent[id] == s.Point.ID {
			s.Children = append(s.Children, id)
		}
	}
	return nil
}

// reach finds the packs that hold what the point needs, of several copies those
// that reads come to first.
func (r *Repository) reach(ctx context.Context, s *PointStory) error {
	counts := make(map[chunk.ID]int64)
	for _, d := range s.Point.Disks {
		n, err := r.countChunks(ctx, d.Root, counts)
		if err != nil {
			return fmt.Errorf("disk %s: %w", d.Name, err)
		}
		s.ReferencedBytes += n * int64(r.settings.Geometry.ChunkBytes)
	}
	packs := make(map[packKey]bool)
	err := r.eachRecord(ctx, &s.Point, func(_ chunk.ID, loc index.Location) error {
		packs[packKey{packKind(loc.Kind), loc.Pack}] = true
		return nil
	})
	if err != nil {
		return err
	}
	s.Packs = len(packs)
	for k := range packs {
		info, err := r.fsys.Stat(k.name.Path(k.kind))
		if err != nil {
			return err
		}
		s.PackBytes += info.Size
	}
	return nil
}
