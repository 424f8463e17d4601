package repo

import (
	"errors"
	"fmt"

	"holdfast/repo/blockmap"
	"holdfast/repo/chunk"
	"holdfast/repo/ledger"
)

// copied is what a run knows of the point that it copies.
type copied struct {
	point Point
	from  string // the repository that made it
	actor string // who asked for the copy
}

// maxSequence bounds the numbers that are taken over from elsewhere, so that
// there is always a next one.
const maxSequence = 1 << 53

// check refuses a point that no run of ours would have made: whoever wrote the
// source need not be us.
func (c *copied) check() error {
	p := &c.point
	errs := []error{CheckName("machine", p.Machine), CheckName("machine id", p.MachineID), CheckName("job", p.Job)}
	seen := make(map[string]bool)
	for _, d := range p.Disks {
		if seen[d.Name] {
			errs = append(errs, fmt.Errorf("%w: two disks called %q", ErrFormat, d.Name))
		}
		seen[d.Name] = true
	}
	if len(p.Disks) == 0 || p.Sequence > maxSequence {
		errs = append(errs, fmt.Errorf("%w: %d disks, number %d", ErrFormat, len(p.Disks), p.Sequence))
	}
	return errors.Join(errs...)
}

// pointToBe is the point as it was, but for its place here: what the ledger
// calls its parent is the newest older point of its machine, unless it was a
// full. The caller holds commit.
func (c *copied) pointToBe(r *run, roots []chunk.ID, state *ledger.State) (m *manifest, parent PointID) {
	p := &c.point
	m = new(manifest)
	m.Point, m.MachineID, m.Name = p.ID, p.MachineID, p.Machine
	if m.Sequence = p.Sequence; !state.SequenceFree(p.MachineID, string(p.ID), p.Sequence) {
		m.Sequence = state.LastSequence(p.MachineID) + 1
	}
	m.Segment, m.Epoch, m.Run = state.Head().Number+1, r.owner.epoch, r.id
	m.Time, m.ClockBack = p.Time, p.ClockBack
	m.Job, m.Slot, m.Actor, m.Host = p.Job, p.Slot, p.Actor, p.Host
	m.Consistency, m.Extensions, m.Counters = p.Consistency, p.Extensions, p.Counters
	m.Files, m.CopiedFrom = p.packed, c.from
	for i, d := range p.Disks {
		m.Roots = append(m.Roots, manifestRoot{
			Root: roots[i], SizeBytes: d.SizeBytes, Levels: blockmap.Levels(d.SizeBytes, r.store.settings.Geometry),
		})
		m.Disks = append(m.Disks, manifestDisk{Name: d.Name, Format: d.Format, Source: d.Source, ChangeID: d.ChangeID})
	}
	if p.Full {
		return m, ""
	}
	older := uint64(0)
	for _, ps := range state.Points() {
		if ps.Machine == p.MachineID && ps.Live() && ps.Sequence < m.Sequence && ps.Sequence > older {
			older, parent = ps.Sequence, PointID(ps.ID)
		}
	}
	return m, parent
}
