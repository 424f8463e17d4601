package repo

import (
	"context"
	"fmt"
	"slices"

	"holdfast/repo/ledger"
)

// SyncOptions say how a repository is kept like another one.
type SyncOptions struct {
	Selection // of the source's points; its machines are those whose copies may expire

	// Expire lets copies expire here whose points have expired in the source.
	Expire bool

	// Force lets them expire too where the source looks emptied or rolled back.
	Force bool

	Adopt    bool               // as for Copy
	Actor    string             // as for Copy
	Progress func(CopyProgress) // as for Copy
}

// A SyncPlan says what a sync does.
type SyncPlan struct {
	Copy    []Point // of the source, to be copied here
	Present int     // points of the source that are here
	Expire  []Point // copies here, to expire
	Pinned  []Point // copies here that would expire, and are kept by a pin
}

// A SyncReport says what a sync did.
type SyncReport struct {
	CopyReport
	Plan    SyncPlan
	Expired []PointID // here
	Retired []PointID // of these, still there since their files are locked
}

// expiredBySync is the reason in the ledger.
const expiredBySync = "expired in repository "

// PlanSync says what Sync would do, and changes nothing.
//
// Only a copy may expire, never a point that was made here; only if the source's
// ledger, whose chain and signatures are checked from its beginning, says that
// its point has expired; and not while it is pinned. ErrEmptied, without Force:
// the source has none of the points of a machine that has copies here that were
// to expire, or its ledger does not know a point that was copied from it. With
// Force such a copy expires too.
func (r *Repository) PlanSync(ctx context.Context, src *Repository, opt SyncOptions) (SyncPlan, error) {
	plan, err := r.planSync(ctx, src, &opt)
	if err != nil {
		err = fmt.Errorf("sync with repository %s: %w", src.settings.ID, err)
	}
	return plan, err
}

func (r *Repository) planSync(ctx context.Context, src *Repository, opt *SyncOptions) (plan SyncPlan, err error) {
	there, err := src.Points(ctx)
	if err != nil {
		return plan, err
	}
	here, err := r.Points(ctx)
	if err != nil {
		return plan, err
	}
	if err := opt.check(slices.Concat(there, here)); err != nil {
		return plan, err
	}
	have := make(map[PointID]bool)
	for _, p := range here {
		have[p.ID] = true
	}
	for _, p := range opt.of(there) {
		if have[p.ID] {
			plan.Present++
		} else {
			plan.Copy = append(plan.Copy, p)
		}
	}
	if opt.Expire {
		err = r.planExpiry(ctx, src, opt, there, here, &plan)
	}
	return plan, err
}

// planExpiry finds the copies that are to expire.
func (r *Repository) planExpiry(ctx context.Context, src *Repository, opt *SyncOptions, there, here []Point, plan *SyncPlan) error {
	live := make(map[PointID]bool)
	theirs := make(map[string]bool) // machine ids that the source has points of
	for _, p := range there {
		live[p.ID], theirs[p.MachineID] = true, true
	}
	var copies []Point // that the source does not list
	for _, p := range here {
		switch {
		case live[p.ID]:
		case p.CopiedFrom != "" && opt.machine(p):
			copies = append(copies, p)
		}
	}
	if len(copies) == 0 {
		return nil
	}
	state, err := src.wholeLedger(ctx)
	if err != nil {
		return fmt.Errorf("what has expired in the source is not known: %w", err)
	}
	for _, p := range copies {
		ps, known := state.Point(string(p.ID))
		switch {
		case known && ps.Live():
			continue // damaged there, perhaps: a copy more to be kept
		case !known && p.CopiedFrom != src.settings.ID:
			continue // came from elsewhere
		case !known && !opt.Force:
			return fmt.Errorf("%w: its ledger does not know point %s of %s, which was copied from it", ErrEmptied, p.ID, p.Machine)
		case !theirs[p.MachineID] && !opt.Force:
			return fmt.Errorf("%w: of %s it has none", ErrEmptied, p.Machine)
		}
		pins, err := r.Pins(p.ID)
		if err != nil {
			return err
		}
		if len(pins) > 0 {
			plan.Pinned = append(plan.Pinned, p)
		} else {
			plan.Expire = append(plan.Expire, p)
		}
	}
	return nil
}

// wholeLedger reads the ledger from its beginning: a state that was saved on the
// way may have forgotten what expired.
func (r *Repository) wholeLedger(ctx context.Context) (*ledger.State, error) {
	last, err := lastSegment(r.fsys)
	if err != nil {
		return nil, err
	}
	s := ledger.NewState(r.signers)
	err = readLedger(r.fsys, 1, last, func(seg *ledger.Segment) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		return s.Add(seg)
	})
	return s, err
}

// Sync makes this repository have what the source has: it copies, as Copy does,
// those of the source's points that are not here, and then lets copies expire, if
// that is asked for. What PlanSync refuses is refused before anything is done.
func (o *Owner) Sync(ctx context.Context, src *Repository, opt SyncOptions) (SyncReport, error) {
	var rep SyncReport
	plan, err := o.PlanSync(ctx, src, opt)
	if err != nil {
		return rep, err
	}
	rep.Plan = plan
	ids := make([]PointID, len(plan.Copy))
	for i := range plan.Copy {
		ids[i] = plan.Copy[i].ID
	}
	rep.CopyReport, err = o.Copy(ctx, src, ids, CopyOptions{Adopt: opt.Adopt, Actor: opt.Actor, Progress: opt.Progress})
	rep.Present = plan.Present
	if err != nil || len(plan.Expire) == 0 {
		return rep, err
	}
	var list []Expiry
	for _, p := range plan.Expire {
		// Copying may have taken hours, and whoever pinned a point meanwhile wants it.
		if pins, err := o.Pins(p.ID); err != nil {
			return rep, err
		} else if len(pins) > 0 {
			rep.Plan.Pinned = append(rep.Plan.Pinned, p)
			continue
		}
		list = append(list, Expiry{Point: p.ID, Reason: expiredBySync + src.settings.ID})
	}
	done, err := o.ExpireAll(ctx, list)
	rep.Expired, rep.Retired = done.Expired, done.Retired
	return rep, err
}
