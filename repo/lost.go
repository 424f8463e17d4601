package repo

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"holdfast/repo/blockmap"
	"holdfast/repo/chunk"
	"holdfast/repo/index"
)

// Lost is a range of a disk of a restore point that can't be had: a chunk of it, or
// what leads there, is damaged in every copy.
type Lost struct {
	Point   PointID
	Machine string // its id, where the name can't be read
	Disk    string // its number, from 1, where the name can't be read
	Off     int64
	Len     int64
	Path    string // of a damaged file that has it
}

// gone tells which records can't be had.
type gone struct {
	s    *store
	d    *damageList
	keys map[[index.PrefixBytes]byte]string // → path of a pack

	// all: ask the index for every record, since nobody knows what was in some
	// damaged pack.
	all bool
}

// newGone makes a test of what is known to be damaged.
func newGone(s *store, d *damageList, all bool) (*gone, error) {
	g := &gone{s: s, d: d, keys: make(map[[index.PrefixBytes]byte]string), all: all}
	for i := range d.packs {
		k := &d.packs[i]
		g.all = g.all || k.fault != FaultNone && !k.healable && len(k.records) == 0
		for _, r := range k.records {
			if _, known := g.keys[r.key]; known {
				continue
			}
			locs, err := s.lookup(idOf(r.key))
			if err != nil {
				return nil, err
			}
			if !slices.ContainsFunc(locs, func(l index.Location) bool { return !d.bad(&l) }) {
				g.keys[r.key] = k.name.Path(k.kind)
			}
		}
	}
	return g, nil
}

// nothing reports whether nothing is.
func (g *gone) nothing() bool { return !g.all && len(g.keys) == 0 }

// where reports whether a record can't be had, and the path of a file that had it.
func (g *gone) where(id chunk.ID) (path string, lost bool, err error) {
	if path, lost = g.keys[keyOf(id)]; lost || !g.all {
		return path, lost, nil
	}
	locs, err := g.s.lookup(id)
	return "", err == nil && len(locs) == 0, err
}

// tellLost finds out what the damage means to restore points.
func (s *scrubber) tellLost(ctx context.Context, d *damageList, complete bool) error {
	g, err := newGone(s.store, d, s.opt.Deep && complete || len(s.inv.noSegments) > 0)
	if err != nil || g.nothing() {
		return err
	}
	m, err := s.missing(ctx, g)
	s.report.Lost = m.ranges
	return err
}

// missing is what restore points miss.
type missing struct {
	ranges []Lost
	needed map[[index.PrefixBytes]byte]bool // lost records that some point needs
}

// missing goes over the block maps of all points that can be read, each node
// once for a machine.
func (r *Repository) missing(ctx context.Context, g *gone) (*missing, error) {
	points, err := r.readable(ctx)
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(points, func(a, b Point) int { return cmp.Compare(a.MachineID, b.MachineID) })
	m := &missing{needed: make(map[[index.PrefixBytes]byte]bool)}
	var w *lostWalk
	for i := range points {
		p := &points[i]
		if i == 0 || points[i-1].MachineID != p.MachineID {
			w = &lostWalk{store: r.store, gone: g, out: m, whole: make(map[[index.PrefixBytes]byte]bool)}
		}
		for n := range p.Disks {
			if err := w.disk(ctx, p, n); err != nil {
				return nil, fmt.Errorf("point %s: %w", p.ID, err)
			}
		}
	}
	return m, nil
}

// lostWalk goes over the disks of one machine.
type lostWalk struct {
	store *store
	gone  *gone
	out   *missing
	whole map[[index.PrefixBytes]byte]bool // nodes below which nothing is lost

	at   Lost // what a range found now begins as
	size int64
}

func (w *lostWalk) disk(ctx context.Context, p *Point, n int) error {
	d := &p.Disks[n]
	w.at = Lost{Point: p.ID, Machine: cmp.Or(p.Machine, p.MachineID), Disk: cmp.Or(d.Name, fmt.Sprint(n+1))}
	w.size = d.SizeBytes
	tree := blockmap.NewTree(d.Root, d.SizeBytes, w.store.settings.Geometry)
	_, err := w.node(ctx, d.Root, tree.Levels()-1, 0)
	return err
}

// node notes what is lost at and below a node, and reports whether anything is.
func (w *lostWalk) node(ctx context.Context, id chunk.ID, level int, first int64) (lost bool, err error) {
	if id.IsNull() || w.whole[keyOf(id)] {
		return false, nil
	}
	if lost, err := w.record(id, first, 1<<(8*(level+1))); lost || err != nil {
		return lost, err
	}
	if err := ctx.Err(); err != nil {
		return false, err
	}
	n, err := w.store.Node(ctx, id)
	if err != nil {
		if ctx.Err() != nil {
			return false, ctx.Err()
		}
		path := ""
		var bad *damagedRecord
		if errors.As(err, &bad) {
			path = bad.Path
		}
		w.out.needed[keyOf(id)] = true
		w.note(path, first, 1<<(8*(level+1)))
		return true, nil
	}
	for i, child := range n.Children {
		at := first + int64(i)<<(8*level)
		var bad bool
		switch {
		case child.IsNull():
		case level == 0:
			bad, err = w.record(child, at, 1)
		default:
			bad, err = w.node(ctx, child, level-1, at)
		}
		if err != nil {
			return false, err
		}
		lost = lost || bad
	}
	if !lost {
		w.whole[keyOf(id)] = true
	}
	return lost, nil
}

// record notes a record if it is lost, and with it so many chunks.
func (w *lostWalk) record(id chunk.ID, first, chunks int64) (bool, error) {
	path, lost, err := w.gone.where(id)
	if lost {
		w.out.needed[keyOf(id)] = true
		w.note(path, first, chunks)
	}
	return lost, err
}

// note adds a range, to the last one if it goes on with that.
func (w *lostWalk) note(path string, first, chunks int64) {
	size := int64(w.store.settings.Geometry.ChunkBytes)
	l := w.at
	l.Path, l.Off = path, first*size
	l.Len = min(chunks*size, w.size-l.Off)
	if n := len(w.out.ranges); n > 0 {
		last := &w.out.ranges[n-1]
		if last.Point == l.Point && last.Disk == l.Disk && last.Path == l.Path && last.Off+last.Len == l.Off {
			last.Len += l.Len
			return
		}
	}
	w.out.ranges = append(w.out.ranges, l)
}

// readable lists the points that can be read: those that are kept, and those
// that have expired and can be recalled.
func (r *Repository) readable(ctx context.Context) ([]Point, error) {
	kept, err := r.Points(ctx)
	if err != nil {
		return nil, err
	}
	retired, err := r.Retired(ctx)
	return append(kept, retired...), err
}
