package ledger

import (
	"fmt"
	"iter"
	"maps"
	"slices"

	"holdfast/repo/seal"
)

// A PointState is a point as the ledger has it.
type PointState struct {
	Point
	Segment uint64 `json:"segment"`           // that recorded it
	Epoch   uint64 `json:"epoch"`             // of its writer
	Void    bool   `json:"void,omitempty"`    // a later segment says that it never got its manifest
	Signed  bool   `json:"signed,omitempty"`  // the segment's signer is known; if not, its signature was not checked
	Expired uint64 `json:"expired,omitempty"` // the segment that expired it; 0: none did, or it was recalled
	Reason  string `json:"reason,omitempty"`  // why it expired
	Roots   []Root `json:"roots,omitempty"`   // of one that expired
}

// Live reports whether the point is one: neither void nor expired.
func (p *PointState) Live() bool { return !p.Void && p.Expired == 0 }

// A State is what all segments up to a head say together: a pure function of
// their bytes. It holds points and no packs, of which there may be millions;
// those are had from each segment as it is read. Not safe for concurrent use
// while segments are added.
type State struct {
	head       Head
	repository string
	epoch      uint64
	signers    []seal.Public // that were given
	inForce    signerState
	keys       map[string]Key // of each key file ever recorded, the last record

	points   []PointState
	byID     map[string]int // index into points
	machines map[string]*machineState
	packs    int64
	packSize int64
}

// signerState is the key that signs, as the first segment or the last adoption
// names it.
type signerState struct {
	fingerprint string
	epoch       uint64 // of the segment that names it
}

// machineState is what a State knows of a machine.
type machineState struct {
	points []int             // its points, void and expired ones too
	last   uint64            // the highest sequence number it ever had
	used   Sequences         // all that it ever had
	slots  map[string]string // per job, the slot filled last
}

// NewState returns the state of an empty ledger. A segment's signature is checked
// with the signer that the ledger itself names, in its first segment or in an
// adoption since; if that is not among those given, it is not checked, and the
// segment's points say so.
func NewState(signers []seal.Public) *State {
	return &State{signers: signers, keys: map[string]Key{}, byID: map[string]int{}, machines: map[string]*machineState{}}
}

// Verify reads a whole ledger, segment by segment from the first. known is a
// head that the caller remembers, or zero: a ledger that does not reach it, or
// has another segment in its place, gives ErrChain, as do segments that do not
// follow each other. An error of segments itself is returned as it is.
func Verify(segments iter.Seq2[[]byte, error], signers []seal.Public, known Head) (*State, error) {
	s := NewState(signers)
	for p, err := range segments {
		if err != nil {
			return nil, err
		}
		seg, err := ParseSegment(p)
		if err != nil {
			return nil, fmt.Errorf("after ledger segment %d: %w", s.head.Number, err)
		}
		if err := s.Add(seg); err != nil {
			return nil, err
		}
		if seg.Number == known.Number && seg.Sum != known.Sum {
			return nil, fmt.Errorf("%w: segment %d is not the one that was here before", ErrChain, seg.Number)
		}
	}
	if s.head.Number < known.Number {
		return nil, fmt.Errorf("%w: it ends at segment %d, but had %d", ErrChain, s.head.Number, known.Number)
	}
	return s, nil
}

// Add folds in the next segment. Errors name it: ErrChain if it does not follow
// the last one, ErrSignature if it is not signed by the signer in force, ErrFormat if its records contradict those before. A state is of no use
// after an error.
func (s *State) Add(seg *Segment) error {
	if err := s.follows(seg); err != nil {
		return err
	}
	if err := s.followSigner(seg); err != nil {
		return err
	}
	signer, signed := s.SignerKey()
	if signed && !seg.SignedBy(signer) {
		return fmt.Errorf("%w: segment %d, epoch %d", ErrSignature, seg.Number, seg.Epoch)
	}
	for i, r := range seg.Records {
		var err error
		switch r := r.(type) {
		case *Init:
			err = s.addInit(seg, i, r)
		case *Point:
			err = s.addPoint(seg, r, signed)
		case *Void:
			err = s.addVoid(seg, r)
		case *Expire:
			err = s.addExpire(seg, r)
		case *Recall:
			err = s.addRecall(r)
		case *Sweep:
			for i := range r.Packs {
				s.packs--
				s.packSize -= r.Packs[i].Bytes
			}
		case *Key:
			s.keys[r.Name] = *r
		}
		if err != nil {
			return fmt.Errorf("ledger segment %d: %w", seg.Number, err)
		}
	}
	for i := range seg.Packs {
		s.packs++
		s.packSize += seg.Packs[i].Bytes
	}
	if s.repository == "" {
		return fmt.Errorf("%w: segment %d does not begin the ledger", ErrFormat, seg.Number)
	}
	s.head, s.epoch = seg.Head, seg.Epoch
	return nil
}

// follows checks number, digest and epoch against the last segment.
func (s *State) follows(seg *Segment) error {
	switch {
	case seg.Number != s.head.Number+1:
		return fmt.Errorf("%w: segment %d stands where %d belongs", ErrChain, seg.Number, s.head.Number+1)
	case seg.Prev != s.head.Sum:
		return fmt.Errorf("%w: segment %d was written after another segment %d", ErrChain, seg.Number, s.head.Number)
	case seg.Epoch < s.epoch:
		return fmt.Errorf("%w: segment %d is of epoch %d, after epoch %d", ErrChain, seg.Number, seg.Epoch, s.epoch)
	}
	return nil
}

// followSigner finds out who signs from this segment on: it may be one that the
// segment itself names. A public key stands for one epoch, in which it must be
// named, and no other may be.
func (s *State) followSigner(seg *Segment) error {
	for _, r := range seg.Records {
		var name string
		switch r := r.(type) {
		case *Init:
			name = r.Signer
		case *Adopt:
			if name = r.Signer; r.Previous != "" && r.Previous != s.inForce.fingerprint {
				return fmt.Errorf("%w: segment %d adopts a signer after %s, but %s signed before", ErrSignature, seg.Number, r.Previous, s.inForce.fingerprint)
			}
		default:
			continue
		}
		for _, p := range s.signers {
			if same := p.Fingerprint() == name; same != (uint64(p.Epoch) == seg.Epoch) {
				return fmt.Errorf("%w: segment %d names the signer %s from epoch %d on, and %s is that of epoch %d",
					ErrSignature, seg.Number, name, seg.Epoch, p.Fingerprint(), p.Epoch)
			}
		}
		s.inForce = signerState{name, seg.Epoch}
	}
	return nil
}

func (s *State) addInit(seg *Segment, i int, r *Init) error {
	if seg.Number != 1 || i != 0 {
		return fmt.Errorf("%w: a second beginning", ErrFormat)
	}
	s.repository = r.Repository
	return nil
}

func (s *State) addPoint(seg *Segment, r *Point, signed bool) error {
	// A copy from another repository may bring back a point that is gone here,
	// and points older than those here.
	if i, there := s.byID[r.ID]; there && s.points[i].Live() {
		return fmt.Errorf("%w: point %s a second time", ErrFormat, r.ID)
	}
	m := s.machine(r.Machine)
	for _, i := range m.points {
		if p := &s.points[i]; p.Sequence == r.Sequence && p.ID != r.ID {
			return fmt.Errorf("%w: point %s has number %d, as has point %s", ErrFormat, r.ID, r.Sequence, p.ID)
		}
	}
	m.points = append(m.points, len(s.points))
	m.last = max(m.last, r.Sequence)
	m.used = m.used.add(r.Sequence)
	s.byID[r.ID] = len(s.points)
	s.points = append(s.points, PointState{Point: *r, Segment: seg.Number, Epoch: seg.Epoch, Signed: signed})
	return nil
}

func (s *State) machine(id string) *machineState {
	m := s.machines[id]
	if m == nil {
		m = new(machineState)
		s.machines[id] = m
	}
	return m
}

func (s *State) addExpire(seg *Segment, r *Expire) error {
	i, there := s.byID[r.Point]
	if !there || !s.points[i].Live() {
		return fmt.Errorf("%w: point %s can't expire", ErrFormat, r.Point)
	}
	p := &s.points[i]
	p.Expired, p.Reason, p.Roots = seg.Number, r.Reason, r.Roots
	return nil
}

func (s *State) addRecall(r *Recall) error {
	i, there := s.byID[r.Point]
	if !there || s.points[i].Void || s.points[i].Expired == 0 {
		return fmt.Errorf("%w: point %s can't be recalled", ErrFormat, r.Point)
	}
	p := &s.points[i]
	p.Expired, p.Reason, p.Roots = 0, "", nil
	return nil
}

func (s *State) addVoid(seg *Segment, r *Void) error {
	i, there := s.byID[r.Point]
	if !there || s.points[i].Segment != r.Segment || r.Segment == seg.Number || s.points[i].Void {
		return fmt.Errorf("%w: point %s of segment %d can't become void", ErrFormat, r.Point, r.Segment)
	}
	s.points[i].Void = true
	return nil
}

// Head returns the last segment's number and digest.
func (s *State) Head() Head { return s.head }

// Repository returns the repository's id, empty before the first segment.
func (s *State) Repository() string { return s.repository }

// Epoch returns the newest epoch.
func (s *State) Epoch() uint64 { return s.epoch }

// Signer returns the fingerprint of the key that signs the next segment, and the
// epoch since which it does. A segment with an adoption changes it.
func (s *State) Signer() (fingerprint string, epoch uint64) {
	return s.inForce.fingerprint, s.inForce.epoch
}

// SignerKey returns that key, if it was given.
func (s *State) SignerKey() (signer seal.Public, ok bool) {
	for _, p := range s.signers {
		if p.Fingerprint() == s.inForce.fingerprint {
			return p, true
		}
	}
	return seal.Public{}, false
}

// AddSigner gives the state another public key to check signatures with.
func (s *State) AddSigner(p seal.Public) { s.signers = append(slices.Clip(s.signers), p) }

// Keys returns the last record of each key file, in order of their names; those
// that were removed too.
func (s *State) Keys() []Key {
	var keys []Key
	for _, name := range slices.Sorted(maps.Keys(s.keys)) {
		keys = append(keys, s.keys[name])
	}
	return keys
}

// Points returns all points, void ones too, in the order of the ledger. The
// caller must not change them.
func (s *State) Points() []PointState { return s.points }

// Point returns the point with an id.
func (s *State) Point(id string) (PointState, bool) {
	i, ok := s.byID[id]
	if !ok {
		return PointState{}, false
	}
	return s.points[i], true
}

// LastSequence returns the highest sequence number that a machine's points had,
// void and expired ones included: none is given out twice. 0 if it has no points.
func (s *State) LastSequence(machine string) uint64 {
	if m := s.machines[machine]; m != nil {
		return m.last
	}
	return 0
}

// LastSlot returns the schedule slot that was last filled by a job for a
// machine, by a point that is not void, expired or not; empty if none was.
func (s *State) LastSlot(machine, job string) string {
	m := s.machines[machine]
	if m == nil {
		return ""
	}
	for _, i := range slices.Backward(m.points) {
		if p := &s.points[i]; p.Job == job && p.Slot != "" && !p.Void {
			return p.Slot
		}
	}
	return m.slots[job]
}

// Packs returns how many packs the ledger has recorded and not swept, and their
// bytes.
func (s *State) Packs() (packs, bytes int64) { return s.packs, s.packSize }
