package repo

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"holdfast/repo/ledger"
	"holdfast/repo/vfs"
)

// A point expires in this order: the ledger says so, its manifest goes, and
// that is durable. From the first step on it is no point any more; whatever
// interrupts the second, the next owner does it. What only the point held is
// freed later, by sweep, and a merge of the oldest point into the next is just
// this: its successor shares what it needs.
//
// A manifest whose file is locked stays, and so does one that is pinned: the
// point is retired.

// An Expiry is a point that is to go, and why.
type Expiry struct {
	Point  PointID
	Reason string // for people; a sealed repository does not keep what a person wrote

	byRule bool // the reason is a rule's, and names nothing of the customer's
}

// ExpireResult says what became of points.
type ExpireResult struct {
	Expired []PointID   // that were kept until now
	Retired []PointID   // of these, whose manifest stays since its file is locked
	Head    ledger.Head // of the ledger, which now says so
}

// maxExpiries is the most points that one segment lets expire.
const maxExpiries = 1000

// Expire lets a point expire; reason is for the ledger. A pinned point gives
// ErrPinned. One that has expired already is left as it is.
func (o *Owner) Expire(ctx context.Context, id PointID, reason string) (ExpireResult, error) {
	return o.ExpireAll(ctx, []Expiry{{Point: id, Reason: reason}})
}

// ExpireAll lets points expire, up to a thousand at a time: of those it is all
// or none. If one of them is pinned or is no point, none expires. It works
// though the volume is full.
func (o *Owner) ExpireAll(ctx context.Context, list []Expiry) (ExpireResult, error) {
	pins, err := o.pins()
	if err != nil {
		return ExpireResult{}, fmt.Errorf("expire: %w", err)
	}
	for _, e := range list {
		if err := pins.refuse(e.Point); err != nil {
			return ExpireResult{}, fmt.Errorf("expire: %w", err)
		}
		if _, err := o.expirable(e); err != nil {
			return ExpireResult{}, fmt.Errorf("expire: %w", err)
		}
	}
	var res ExpireResult
	for batch := range slices.Chunk(list, maxExpiries) {
		if err := o.expireBatch(ctx, batch, &res); err != nil {
			return res, fmt.Errorf("expire: %w", readOnly(err))
		}
	}
	res.Head = o.head()
	return res, nil
}

// head returns the ledger's head.
func (o *Owner) head() ledger.Head {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.state.Head()
}

// expireBatch is ExpireAll for what fits one segment.
func (o *Owner) expireBatch(ctx context.Context, list []Expiry, res *ExpireResult) error {
	var gone []PointID
	err := o.withReserve(func() error {
		o.commit.Lock()
		defer o.commit.Unlock()
		if err := ctx.Err(); err != nil {
			return err
		}
		pins, err := o.pins() // nobody recalls meanwhile, and whoever pins looks again
		if err != nil {
			return err
		}
		var records []ledger.Record
		gone = nil
		for _, e := range list {
			if err := pins.refuse(e.Point); err != nil {
				return err
			}
			rec, err := o.expirable(e)
			if err != nil {
				return err
			}
			if rec != nil && !slices.Contains(gone, e.Point) {
				records, gone = append(records, rec), append(gone, e.Point)
			}
		}
		if len(records) == 0 {
			return nil
		}
		return o.recordNow(records...)
	})
	if err != nil {
		return err
	}
	res.Expired = append(res.Expired, gone...)
	retired, err := o.dropManifests(gone)
	res.Retired = append(res.Retired, retired...)
	if err != nil {
		return fmt.Errorf("the ledger has it, and the next to open the repository will go on: %w", err)
	}
	return nil
}

// expirable returns the record of a point's expiry, nil if it has expired
// already, and ErrNotFound if there is no such point.
func (o *Owner) expirable(e Expiry) (ledger.Record, error) {
	o.mu.Lock()
	ps, known := o.state.Point(string(e.Point))
	pending := slices.ContainsFunc(o.voids, func(r ledger.Record) bool {
		v, ok := r.(*ledger.Void)
		return ok && v.Point == string(e.Point)
	})
	o.mu.Unlock()
	switch {
	case !known || ps.Void || pending:
		return nil, fmt.Errorf("point %s: %w", e.Point, ErrNotFound)
	case ps.Expired != 0:
		return nil, nil
	}
	rec := &ledger.Expire{Point: ps.ID, Reason: e.Reason}
	if o.settings.Sealed && !e.byRule {
		rec.Reason = ""
	}
	p, err := o.described(&ps)
	if err != nil {
		// It must be possible to be rid of a point that can't be read.
		o.log.Warn("a point expires whose manifest can't be read", "point", ps.ID, "err", err)
	}
	rec.Roots = rootsOf(&p)
	return rec, nil
}

// dropManifests removes the manifests of points that have expired. Those that
// are locked or pinned stay, and are returned; so are those that were recalled.
func (o *Owner) dropManifests(ids []PointID) (retired []PointID, err error) {
	o.commit.Lock()
	defer o.commit.Unlock()
	pins, err := o.pins()
	if err != nil {
		return nil, err
	}
	removed := false
	for _, id := range ids {
		stays, err := o.manifestStays(id, pins)
		if err == nil && !stays {
			stays, err = removeManifest(o.fsys, id)
			removed = true
		}
		if err != nil {
			return retired, fmt.Errorf("remove the manifest of point %s: %w", id, err)
		}
		if stays {
			retired = append(retired, id)
			continue
		}
		o.view.mu.Lock()
		delete(o.view.known, id)
		o.view.mu.Unlock()
	}
	if removed {
		return retired, o.fsys.SyncDir(pointsDir)
	}
	return retired, nil
}

// dropManifest is dropManifests for one point.
func (o *Owner) dropManifest(id PointID) (retired bool, err error) {
	list, err := o.dropManifests([]PointID{id})
	return len(list) > 0, err
}

// manifestStays reports whether the manifest of a point must not be removed.
func (o *Owner) manifestStays(id PointID, pins pinned) (bool, error) {
	o.mu.Lock()
	ps, known := o.state.Point(string(id))
	o.mu.Unlock()
	if !known || ps.Live() || len(pins[id]) > 0 {
		return true, nil
	}
	for _, name := range []string{pointPath(id), pointPath(id) + twinSuffix} {
		locked, err := o.fsys.Locked(name)
		if locked || err != nil && !errors.Is(err, fs.ErrNotExist) {
			return locked, err
		}
	}
	return false, nil
}

// removeManifest removes both copies, in the opposite order of their creation.
// It reports true when the system does not let us.
func removeManifest(fsys vfs.FS, id PointID) (stays bool, err error) {
	for _, name := range []string{pointPath(id), pointPath(id) + twinSuffix} {
		err := fsys.Remove(name)
		if errors.Is(err, fs.ErrPermission) {
			return true, nil
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return false, err
		}
	}
	return false, nil
}

// finishExpiries removes the manifests that an interrupted expiry left, and
// those whose lock or pin has ended since.
func (o *Owner) finishExpiries() error {
	var left []PointID
	for _, ps := range o.state.Points() {
		if !ps.Void && ps.Expired != 0 && hasManifest(o.fsys, PointID(ps.ID)) {
			left = append(left, PointID(ps.ID))
		}
	}
	if len(left) == 0 {
		return nil
	}
	_, err := o.dropManifests(left)
	return err
}

// Recall takes a point's expiry back while its manifest is there. A point that
// has not expired is left as it is.
func (o *Owner) Recall(ctx context.Context, id PointID) (ledger.Head, error) {
	err := o.withReserve(func() error { return o.recall(ctx, id) })
	if err != nil {
		return ledger.Head{}, fmt.Errorf("recall point %s: %w", id, readOnly(err))
	}
	return o.head(), nil
}

func (o *Owner) recall(ctx context.Context, id PointID) error {
	o.commit.Lock()
	defer o.commit.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	o.mu.Lock()
	ps, known := o.state.Point(string(id))
	o.mu.Unlock()
	switch {
	case !known || ps.Void:
		return ErrNotFound
	case ps.Expired == 0:
		return nil
	}
	p, err := o.readPoint(&ps)
	if err == nil {
		// One copy is left of an expiry that failed half-way.
		_, err = completeTwins(o.fsys, pointPath(id), func(b []byte) error {
			if sum256(b) != ps.Manifest {
				return fmt.Errorf("%w: not the manifest that the ledger records", ErrFormat)
			}
			return nil
		})
	}
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: it expired (%s) and its manifest is gone", ErrNotFound, ps.Reason)
	}
	if err != nil {
		return err
	}
	if err := o.recordNow(&ledger.Recall{Point: ps.ID}); err != nil {
		return err
	}
	o.view.mu.Lock()
	o.view.known[id] = p.light()
	o.view.mu.Unlock()
	return nil
}

// pinned are the names under which points are pinned.
type pinned map[PointID][]string

// pins reads all pins.
func (r *Repository) pins() (pinned, error) {
	infos, err := r.fsys.ReadDir(leasesDir)
	if err != nil {
		return nil, fmt.Errorf("list pins: %w", err)
	}
	list := make(pinned)
	for _, info := range infos {
		rest, isPin := strings.CutPrefix(info.Name, pinPrefix)
		if !isPin || len(rest) <= idChars || rest[idChars] != '-' || !isID(rest[:idChars]) {
			continue
		}
		id := PointID(rest[:idChars])
		list[id] = append(list[id], rest[idChars+1:])
	}
	return list, nil
}

// refuse returns ErrPinned if a point is pinned.
func (p pinned) refuse(id PointID) error {
	if names := p[id]; len(names) > 0 {
		return fmt.Errorf("point %s: %w by %q", id, ErrPinned, names)
	}
	return nil
}
