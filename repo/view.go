package repo

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"

	"holdfast/repo/ledger"
)

// A view is what a Repository has seen of the ledger, which alone decides what
// is a restore point: a manifest that no segment records is none, nor is one
// whose point has expired. It begins with a checkpoint if there is one, and is
// brought up to date by reading the segments after the last one seen.
//
// When a segment can't be read, or does not follow, whoever reads goes on
// without: what the readable segments after it say is taken at their word, and
// manifests are held to their own segment (Repository.point).
type view struct {
	mu    sync.Mutex // guards all below; comes after Owner.mu
	state *ledger.State
	own   bool              // this process writes the ledger, and nobody else does
	known map[PointID]Point // those whose manifest was read, or that a checkpoint describes
	gap   *gap              // nil while the ledger is whole
}

// A gap is what a reader makes of a ledger of which a segment is lost.
type gap struct {
	at    uint64                        // the first segment that is lost
	to    uint64                        // the last one looked at
	later map[string]*ledger.PointState // of points of which the segments after at say something
}

// look brings the view up to date.
func (r *Repository) look(ctx context.Context) error {
	v := &r.view
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.own {
		return nil
	}
	if v.state == nil {
		r.seed(r.loadCheckpoint())
	}
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		n := v.state.Head().Number + 1
		s, err := readSegment(r.fsys, n)
		if errors.Is(err, fs.ErrNotExist) {
			last, lerr := ledgerEnd(r.fsys, n)
			if lerr != nil {
				return lerr
			}
			if last < n {
				v.gap = nil
				return nil
			}
			s, err = readSegment(r.fsys, n) // it may have been written meanwhile
		}
		if err == nil {
			err = v.state.Add(s)
		}
		if err != nil {
			return r.lookBeyond(n, err)
		}
	}
}

// seed makes the view what a checkpoint says, or empty. The caller holds mu, or
// is alone.
func (r *Repository) seed(c *checkpoint) {
	r.view.known = make(map[PointID]Point)
	if c == nil {
		r.view.state = ledger.NewState(r.signers)
		return
	}
	r.view.state = c.state
	for _, p := range c.points {
		r.view.known[p.ID] = p
	}
}

// lookBeyond reads on after segment n, which is lost because of cause.
func (r *Repository) lookBeyond(n uint64, cause error) error {
	v := &r.view
	if v.gap == nil || v.gap.at != n {
		r.log.Error("ledger is damaged; points are held to their own segments", "segment", n, "err", cause)
		v.gap = &gap{at: n, to: n - 1, later: make(map[string]*ledger.PointState)}
	}
	last, err := lastSegment(r.fsys)
	if err != nil {
		return err
	}
	for g := v.gap; g.to < last; g.to++ {
		s, err := readSegment(r.fsys, g.to+1)
		switch {
		case err != nil && g.to+1 != n:
			r.log.Error("ledger segment can't be read", "err", err)
		case err == nil && (len(r.signers) == 0 || r.signedByUs(s)):
			v.fold(s)
		}
	}
	return nil
}

// fold takes a segment beyond the gap at its word.
func (v *view) fold(s *ledger.Segment) {
	of := func(id string) *ledger.PointState {
		ps := v.gap.later[id]
		if ps == nil {
			was, _ := v.state.Point(id)
			ps = &was
			v.gap.later[id] = ps
		}
		return ps
	}
	for _, rec := range s.Records {
		switch rec := rec.(type) {
		case *ledger.Point:
			*of(rec.ID) = ledger.PointState{Point: *rec, Segment: s.Number, Epoch: s.Epoch}
		case *ledger.Void:
			of(rec.Point).Void = true
		case *ledger.Expire:
			ps := of(rec.Point)
			ps.Expired, ps.Reason, ps.Roots = s.Number, rec.Reason, rec.Roots
		case *ledger.Recall:
			ps := of(rec.Point)
			ps.Expired, ps.Reason, ps.Roots = 0, "", nil
		}
	}
}

// point returns what the ledger says of a point, and whether it is whole: only
// then is what it does not know no point. The caller holds mu.
func (v *view) point(id PointID) (ps ledger.PointState, known, whole bool) {
	if v.gap != nil {
		if ps := v.gap.later[string(id)]; ps != nil {
			return *ps, true, false
		}
	}
	ps, known = v.state.Point(string(id))
	return ps, known, v.gap == nil
}

// states returns what the ledger says of the points that want accepts, and
// whether it is whole.
func (r *Repository) states(ctx context.Context, want func(*ledger.PointState) bool) ([]ledger.PointState, bool, error) {
	if err := r.look(ctx); err != nil {
		return nil, false, err
	}
	v := &r.view
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.gap != nil {
		return nil, false, nil
	}
	var list []ledger.PointState
	for _, ps := range v.state.Points() {
		if want(&ps) {
			list = append(list, ps)
		}
	}
	return list, true, nil
}

// list returns the points that want accepts and whose manifest is there. One
// that can't be used is left out, and logged.
func (r *Repository) list(ctx context.Context, want func(*ledger.PointState) bool) ([]Point, error) {
	states, whole, err := r.states(ctx, want)
	if err != nil {
		return nil, err
	}
	if !whole {
		return r.listFiles(ctx, want)
	}
	points := make([]Point, 0, len(states))
	for i := range states {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		p, err := r.described(&states[i])
		if errors.Is(err, fs.ErrNotExist) {
			continue // being committed, or expired meanwhile
		}
		if err != nil {
			r.log.Error("restore point can't be used", "point", states[i].ID, "err", err)
			continue
		}
		points = append(points, p)
	}
	return points, nil
}

// listFiles is list for a ledger of which a segment is lost: by the manifests.
func (r *Repository) listFiles(ctx context.Context, want func(*ledger.PointState) bool) ([]Point, error) {
	infos, err := r.fsys.ReadDir(pointsDir)
	if err != nil {
		return nil, err
	}
	var points []Point
	tried := make(map[string]bool)
	for _, info := range infos {
		id := strings.TrimSuffix(info.Name, twinSuffix)
		if tried[id] || !isID(id) {
			continue
		}
		tried[id] = true
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		r.view.mu.Lock()
		ps, _, _ := r.view.point(PointID(id))
		r.view.mu.Unlock()
		if !want(&ps) {
			continue
		}
		p, err := r.point(PointID(id))
		if errors.Is(err, fs.ErrNotExist) {
			continue // expired meanwhile
		}
		if err != nil {
			r.log.Error("restore point can't be used", "point", id, "err", err)
			continue
		}
		points = append(points, p.expired(&ps))
	}
	return points, nil
}

// described returns a point as it was described before, or else as its manifest
// does.
func (r *Repository) described(ps *ledger.PointState) (Point, error) {
	v := &r.view
	v.mu.Lock()
	p, ok := v.known[PointID(ps.ID)]
	v.mu.Unlock()
	if ok && p.segment == ps.Segment {
		return p.expired(ps), nil
	}
	p, err := r.readPoint(ps)
	if err != nil {
		return p, err
	}
	v.mu.Lock()
	p = p.light()
	v.known[p.ID] = p
	v.mu.Unlock()
	return p.expired(ps), nil
}

// readPoint reads the manifest of a point that the ledger has.
func (r *Repository) readPoint(ps *ledger.PointState) (Point, error) {
	id := PointID(ps.ID)
	var m *manifest
	_, err := readTwins(r.fsys, pointPath(id), func(p []byte) (err error) {
		if sum256(p) != ps.Manifest {
			return fmt.Errorf("%w: not the manifest that the ledger records", ErrFormat)
		}
		if m, err = decodeManifest(p, r.store.keys); err == nil && m.Point != id {
			err = fmt.Errorf("%w: it is the manifest of %s", ErrFormat, m.Point)
		}
		return err
	})
	if err != nil {
		return Point{}, fmt.Errorf("read point %s: %w", id, err)
	}
	p := pointOf(m, ps.Full, PointID(ps.Parent))
	p.Signed, p.segment = ps.Signed, ps.Segment
	return p.expired(ps), nil
}

// expired returns the point with what the ledger says of its expiry.
func (p Point) expired(ps *ledger.PointState) Point {
	p.Expired, p.Reason = ps.Expired != 0, ps.Reason
	return p
}

// openable reads the manifest of a point that may be read: one that is kept, or
// expired and still there.
func (r *Repository) openable(ctx context.Context, id PointID) (Point, error) {
	if err := r.look(ctx); err != nil {
		return Point{}, err
	}
	r.view.mu.Lock()
	ps, known, whole := r.view.point(id)
	r.view.mu.Unlock()
	switch {
	case ps.Void:
		return Point{}, fmt.Errorf("point %s: %w: it was never finished", id, ErrNotFound)
	case known && whole:
		return r.readPoint(&ps)
	}
	p, err := r.point(id)
	return p.expired(&ps), err
}
