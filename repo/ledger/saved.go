package ledger

import (
	"fmt"
	"slices"

	"holdfast/repo/seal"
)

// Saved is a State as it can be kept, so that whoever opens a repository reads
// the segments after it alone. Fields are those of its JSON.
type Saved struct {
	Number     uint64         `json:"number"` // the head's
	Sum        Sum            `json:"sum"`
	Repository string         `json:"repository"`
	Epoch      uint64         `json:"epoch"`
	Signer     string         `json:"signer"`      // in force
	SignsFrom  uint64         `json:"signerEpoch"` // since when it is
	Keys       []Key          `json:"keys,omitempty"`
	Packs      int64          `json:"packs"`
	PackBytes  int64          `json:"packBytes"`
	Machines   []SavedMachine `json:"machines"`
	Points     []PointState   `json:"points"`
}

// SavedMachine is what outlives a machine's points.
type SavedMachine struct {
	Machine string            `json:"machine"`
	Last    uint64            `json:"last"`            // the highest sequence number
	Used    Sequences         `json:"used"`            // all sequence numbers it ever had
	Slots   map[string]string `json:"slots,omitempty"` // the slot that each job filled last
}

// Save returns the state without those points, void or expired, that keep does
// not want.
func (s *State) Save(keep func(*PointState) bool) Saved {
	v := Saved{
		Number: s.head.Number, Sum: s.head.Sum, Repository: s.repository, Epoch: s.epoch,
		Signer: s.inForce.fingerprint, SignsFrom: s.inForce.epoch, Keys: s.Keys(),
		Packs: s.packs, PackBytes: s.packSize,
	}
	for id, m := range s.machines {
		sm := SavedMachine{Machine: id, Last: m.last, Used: slices.Clone(m.used), Slots: map[string]string{}}
		for job, slot := range m.slots {
			sm.Slots[job] = slot
		}
		for _, i := range m.points { // in the order of the ledger
			if p := &s.points[i]; p.Slot != "" && !p.Void {
				sm.Slots[p.Job] = p.Slot
			}
		}
		v.Machines = append(v.Machines, sm)
	}
	slices.SortFunc(v.Machines, func(a, b SavedMachine) int {
		if a.Machine < b.Machine {
			return -1
		}
		return 1
	})
	for i := range s.points {
		if p := &s.points[i]; p.Live() || keep(p) {
			v.Points = append(v.Points, *p)
		}
	}
	return v
}

// Load returns the state that was saved. ErrFormat when it can't be one.
func Load(v Saved, signers []seal.Public) (*State, error) {
	s := NewState(signers)
	if v.Number == 0 || v.Number > MaxNumber || v.Repository == "" {
		return nil, fmt.Errorf("%w: a saved state of segment %d", ErrFormat, v.Number)
	}
	s.head, s.repository, s.epoch = Head{v.Number, v.Sum}, v.Repository, v.Epoch
	s.inForce = signerState{v.Signer, v.SignsFrom}
	for _, k := range v.Keys {
		if err := k.check(); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrFormat, err)
		}
		s.keys[k.Name] = k
	}
	s.packs, s.packSize = v.Packs, v.PackBytes
	for _, m := range v.Machines {
		if n := len(m.Used); !m.Used.sound() || n == 0 || m.Used[n-1][1] != m.Last {
			return nil, fmt.Errorf("%w: the sequence numbers of machine %s", ErrFormat, m.Machine)
		}
		s.machines[m.Machine] = &machineState{last: m.Last, used: slices.Clone(m.Used), slots: m.Slots}
	}
	s.points = slices.Clone(v.Points)
	for i := range s.points {
		p := &s.points[i]
		if err := p.check(); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrFormat, err)
		}
		m := s.machines[p.Machine]
		if m == nil {
			return nil, fmt.Errorf("%w: point %s of a machine that is not there", ErrFormat, p.ID)
		}
		m.points = append(m.points, i)
		s.byID[p.ID] = i
	}
	return s, nil
}
