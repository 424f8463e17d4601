package repo

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"holdfast/repo/retention"
)

// RetainOptions say by which rule points are judged, and which.
type RetainOptions struct {
	Rule    retention.Rule
	Machine string // name or id; empty: each
	Job     string // empty: each, by itself: a rule never counts another job's points
	Zone    string // whose calendar has the days, by its IANA name; empty: the local one
}

// RetainResult is what became of points.
type RetainResult struct {
	Decisions []retention.Decision // those of Points, in the order of retention.Decide
	ExpireResult
}

// PlanRetention says what Retain would do now. It changes nothing and needs no
// lock.
func (r *Repository) PlanRetention(ctx context.Context, opt RetainOptions) ([]retention.Decision, error) {
	list, err := r.planRetention(ctx, opt)
	if err != nil {
		return nil, fmt.Errorf("plan retention: %w", err)
	}
	return list, nil
}

func (r *Repository) planRetention(ctx context.Context, opt RetainOptions) ([]retention.Decision, error) {
	loc, err := opt.location()
	if err != nil {
		return nil, err
	}
	points, err := r.Points(ctx)
	if err != nil {
		return nil, err
	}
	pins, err := r.pins()
	if err != nil {
		return nil, err
	}
	var list []retention.Point
	machine := false
	for _, p := range points {
		if opt.Machine != "" && p.Machine != opt.Machine && p.MachineID != opt.Machine {
			continue
		}
		machine = true
		if opt.Job != "" && p.Job != opt.Job {
			continue
		}
		list = append(list, retention.Point{
			ID: string(p.ID), Machine: p.MachineID, Job: p.Job, Time: p.Time, Sequence: p.Sequence, Slot: p.Slot, Pins: pins[p.ID],
		})
	}
	switch {
	case opt.Machine != "" && !machine:
		return nil, fmt.Errorf("machine %q: %w", opt.Machine, ErrNotFound)
	case opt.Job != "" && len(list) == 0:
		return nil, fmt.Errorf("job %q: %w", opt.Job, ErrNotFound)
	}
	return retention.Decide(list, opt.Rule, r.now(), loc)
}

func (opt *RetainOptions) location() (*time.Location, error) {
	if opt.Zone == "" {
		return time.Local, nil
	}
	return time.LoadLocation(opt.Zone)
}

// Retain lets those points expire that the rule does not keep, each with the
// reason in the ledger. It works though the volume is full.
func (o *Owner) Retain(ctx context.Context, opt RetainOptions) (RetainResult, error) {
	if o.store.keyless() {
		return RetainResult{}, fmt.Errorf("retain: %w", ErrNeedKey) // what belongs to which job is sealed
	}
	// Somebody may pin a point between the plan and its end; then there is another plan.
	const tries = 5
	for try := 1; ; try++ {
		list, err := o.planRetention(ctx, opt)
		if err != nil {
			return RetainResult{}, fmt.Errorf("retain: %w", err)
		}
		var gone []Expiry
		for _, d := range list {
			if !d.Keep {
				gone = append(gone, Expiry{Point: PointID(d.ID), Reason: strings.Join(d.Reasons, "; "), byRule: true})
			}
		}
		res := RetainResult{Decisions: list}
		res.ExpireResult, err = o.ExpireAll(ctx, gone)
		if errors.Is(err, ErrPinned) && len(res.Expired) == 0 && try < tries {
			continue
		}
		if err != nil {
			return res, fmt.Errorf("retain: %w", err)
		}
		return res, nil
	}
}
