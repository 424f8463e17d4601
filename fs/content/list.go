package content

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"holdfast/fs"
	"holdfast/repo"
)

// A listing is what there is at one moment. It does not change; the next one
// takes its place.
type listing struct {
	at       time.Time // when the repository was asked
	points   []repo.PointID
	machines []*machine // in the order of their keys
	byName   map[string]*machine
	byKey    map[uint64]any // *machine or *point
}

// A machine is a directory of restore points: all those that were made of a
// machine of this name, as repo.Find has it.
type machine struct {
	key    uint64
	name   string // of the machine
	file   string // of the directory
	points []*point
	latest *point
	byName map[string]*point // what the points are called
}

// A point is a restore point, of which everything but the content of disks is
// known without opening it.
type point struct {
	repo.Point
	key     uint64
	machine string // the file name of its machine
	dir     uint64 // the key of that
	name    string
	cookie  uint64 // in the machine's directory
	gone    bool   // expired, and still read by somebody

	once  sync.Once
	disks []diskNames
}

// diskNames are the file names of a disk.
type diskNames struct {
	view   string // in disks/, without what a view puts behind it
	folder string // in files/
}

func (p *point) diskNames() []diskNames {
	p.once.Do(func() {
		for i, view := range viewNames(p.Disks) {
			p.disks = append(p.disks, diskNames{view, shorten(escape(p.Disks[i].Name, ""))})
		}
	})
	return p.disks
}

// list returns what there is, no older than Options.Refresh. When the
// repository does not answer, it returns what there was beside the error.
func (t *Tree) list(ctx context.Context) (*listing, error) {
	if l := t.listed.Load(); l != nil && time.Since(l.at) < t.opt.Refresh {
		return l, nil
	}
	t.listing.Lock()
	defer t.listing.Unlock()
	old := t.listed.Load()
	if old != nil && time.Since(old.at) < t.opt.Refresh {
		return old, nil
	}
	at := time.Now()
	points, err := t.repo.Points(ctx)
	if err != nil {
		return old, fsError(err)
	}
	l := t.newListing(at, points, old)
	t.listed.Store(l)
	return l, nil
}

// newListing makes a listing of points, which are in order of time. What has
// gone but is being read stays, without a name.
func (t *Tree) newListing(at time.Time, points []repo.Point, old *listing) *listing {
	if old == nil {
		old = &listing{}
	}
	ids := make([]repo.PointID, len(points))
	for i := range points {
		ids[i] = points[i].ID
	}
	if slices.Equal(ids, old.points) && !old.anyGone() {
		same := *old
		same.at = at
		return &same
	}
	was := make(map[repo.PointID]*point)
	for _, v := range old.byKey {
		if p, ok := v.(*point); ok {
			was[p.ID] = p
		}
	}
	l := &listing{at: at, points: ids, byName: make(map[string]*machine), byKey: make(map[uint64]any)}
	twin := twins(points)
	for i := range points {
		l.add(points[i], twin[points[i].ID], was)
		delete(was, points[i].ID)
	}
	for id, p := range was {
		if !t.points.has(id) {
			continue
		}
		if !p.gone {
			p = &point{Point: p.Point, key: p.key, machine: p.machine, dir: p.dir, name: p.name, gone: true}
		}
		if l.byKey[p.key] == nil {
			l.byKey[p.key] = p
		}
	}
	l.machines = slices.SortedFunc(maps.Values(l.byName), func(a, b *machine) int {
		if a.key < b.key {
			return -1
		}
		return 1
	})
	return l
}

func (l *listing) anyGone() bool {
	for _, v := range l.byKey {
		if p, ok := v.(*point); ok && p.gone {
			return true
		}
	}
	return false
}

// twins are those of points, which are in order of time, that share machine and
// millisecond with another one.
func twins(points []repo.Point) map[repo.PointID]bool {
	var found map[repo.PointID]bool
	first := 0 // of this millisecond
	for i := range points {
		if points[i].Time.UnixMilli() != points[first].Time.UnixMilli() {
			first = i
		}
		for _, p := range points[first:i] {
			if p.Machine != points[i].Machine {
				continue
			}
			if found == nil {
				found = make(map[repo.PointID]bool)
			}
			found[p.ID], found[points[i].ID] = true, true
		}
	}
	return found
}

// add puts a point where it belongs. known are those of the listing before,
// which others may be reading: what is otherwise now is made anew.
func (l *listing) add(rp repo.Point, twin bool, known map[repo.PointID]*point) {
	file := shorten(escape(rp.Machine, ""))
	m := l.byName[file]
	if m == nil {
		m = &machine{key: l.free("machine", file), name: rp.Machine, file: file, byName: make(map[string]*point)}
		l.byName[file], l.byKey[m.key] = m, m
	}
	name := rp.Time.UTC().Format(timeName)
	if twin {
		name += "-" + string(rp.ID)
	}
	key, cookie := l.free("point", string(rp.ID)), cookieOf(rp, m.points)
	p := known[rp.ID]
	if p == nil || p.gone || p.key != key || p.dir != m.key || p.name != name || p.cookie != cookie {
		p = &point{Point: rp, key: key, machine: file, dir: m.key, name: name, cookie: cookie}
	}
	l.byKey[key], m.byName[name] = p, p
	m.points = append(m.points, p)
	if m.latest == nil || rp.Sequence >= m.latest.Sequence {
		m.latest = p
	}
}

// timeName is how a point is called, in UTC.
const timeName = "2006-01-02T15-04-05.000Z"

// free finds the key for something new.
func (l *listing) free(kind, name string) uint64 {
	for try := 0; ; try++ {
		if key := keyOf(kind, name, try); l.byKey[key] == nil {
			return key
		}
	}
}

// cookieOf is the place of a point in its directory, which has to outlive the
// coming and going of others: its time, and a few bits in which those of one
// millisecond are counted.
func cookieOf(rp repo.Point, before []*point) uint64 {
	const counted = 12
	cookie := uint64(max(0, rp.Time.UnixMilli()))<<counted | 2
	if n := len(before); n > 0 {
		cookie = max(cookie, before[n-1].cookie+1)
	}
	return cookie
}

// cookieLatest is that of the link "latest", which comes first.
const cookieLatest = 1

// named finds a point by its name, also one whose name has the id though it
// needs it no longer.
func (m *machine) named(name string) *point {
	if p := m.byName[name]; p != nil {
		return p
	}
	plain, tail, ok := strings.Cut(name, "Z-")
	if p := m.byName[plain+"Z"]; ok && p != nil && tail == string(p.ID) {
		return p
	}
	return nil
}

// find returns the *machine or *point with the key, or ErrStale.
func (t *Tree) find(ctx context.Context, key uint64) (any, error) {
	l, err := t.list(ctx)
	if l != nil {
		if v := l.byKey[key]; v != nil {
			return v, nil
		}
	}
	if err == nil {
		err = fs.ErrStale
	}
	return nil, err
}
