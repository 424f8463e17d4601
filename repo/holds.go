package repo

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"holdfast/repo/ledger"
	"holdfast/repo/vfs"
)

// A Hold is something that keeps what would otherwise be free.
type Hold struct {
	By   HoldKind
	Name string // of the pin, the file, the run
}

// A HoldKind says what holds something.
type HoldKind string

// What holds things.
const (
	HoldPin    HoldKind = "pin"    // somebody pinned the point
	HoldReader HoldKind = "reader" // somebody reads the point
	HoldLock   HoldKind = "lock"   // the file is locked
	HoldRun    HoldKind = "run"    // an unfinished run stored it
)

// countable returns what is to be counted, and the ledger's head. A point whose
// commit is not through is none.
func (r *Repository) countable(ctx context.Context) ([]ledger.PointState, ledger.Head, error) {
	if err := r.look(ctx); err != nil {
		return nil, ledger.Head{}, err
	}
	v := &r.view
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.gap != nil {
		return nil, ledger.Head{}, &CorruptError{Err: fmt.Errorf("ledger segment %d is lost, and with it what points need", v.gap.at)}
	}
	head := v.state.Head()
	var list []ledger.PointState
	for _, ps := range v.state.Points() {
		last, _ := v.state.Point(ps.ID)
		begun := ps.Segment == head.Number && ps.Expired == 0 && !hasManifest(r.fsys, PointID(ps.ID))
		if !ps.Void && last.Segment == ps.Segment && !begun {
			list = append(list, ps)
		}
	}
	return list, head, nil
}

// letGoNow returns the expired points that the next sweep lets go.
func (r *Repository) letGoNow(all []ledger.PointState) (map[PointID]bool, error) {
	pins, err := r.pins()
	if err != nil {
		return nil, err
	}
	gone := make(map[PointID]bool)
	for i := range all {
		if id := PointID(all[i].ID); all[i].Expired != 0 {
			held, err := r.holders(id, pins)
			if err != nil {
				return nil, fmt.Errorf("point %s: %w", id, err)
			}
			gone[id] = len(held) == 0
		}
	}
	return gone, nil
}

// holders says what keeps an expired point from being let go.
func (r *Repository) holders(id PointID, pins pinned) ([]Hold, error) {
	var list []Hold
	for _, name := range pins[id] {
		list = append(list, Hold{HoldPin, name})
	}
	there := false
	for _, name := range []string{pointPath(id), pointPath(id) + twinSuffix} {
		locked, err := r.fsys.Locked(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if there = true; locked {
			return append(list, Hold{HoldLock, name}), nil
		}
	}
	if there {
		// Nobody may be kept from reading it by a lock that we take.
		return list, nil
	}
	if _, err := r.fsys.Stat(leasePath(id)); err != nil {
		return list, notThere(err)
	}
	l, err := r.fsys.Lock(leasePath(id), vfs.Exclusive)
	switch {
	case errors.Is(err, vfs.ErrLocked):
		return append(list, Hold{HoldReader, leasePath(id)}), nil
	case err != nil:
		return list, nil // of a medium that can't be written nothing is freed in any case
	}
	return list, l.Unlock()
}
