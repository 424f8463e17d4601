package repo

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"holdfast/repo/blockmap"
	"holdfast/repo/chunk"
	"holdfast/repo/pack"
)

// A PackStory says what a pack is and why it is there.
type PackStory struct {
	Name     pack.Name
	Kind     pack.Kind
	Bytes    int64     // of the file
	Recorded time.Time // when the ledger, or an unfinished run, named it
	Segment  uint64    // of the ledger that names it; 0: none does yet

	Records     int
	RecordBytes int64
	LivingBytes int64 // of these, what some point needs; another copy of the rest serves, or nothing needs it

	Needers  []Needer
	Locked   bool      // the file can't be removed
	Verified time.Time // when a scrub last found it as it was written; zero: never
	Fault    PackFault // what a scrub found
	Holds    []Hold    // what else keeps it: pins and readers of expired points that need it, runs, a lock
	Fate     PackFate
}

// DeadBytes is what of the records no point needs from this pack.
func (s *PackStory) DeadBytes() int64 { return s.RecordBytes - s.LivingBytes }

// A Needer is a machine with points that need a pack.
type Needer struct {
	MachineID   string
	Machine     string // its name; empty if it has only points that expired
	Points      int
	First, Last PointID // of these points, by number
}

// A PackFate says what becomes of a pack as things stand.
type PackFate string

// What becomes of packs.
const (
	PackNeeded  PackFate = "needed"  // stays: it holds what points need, and little else
	PackCompact PackFate = "compact" // Compact would copy out of it what is needed, and remove it
	PackSweep   PackFate = "sweep"   // the next sweep removes it
	PackHeld    PackFate = "held"    // nothing needs it; it goes when its lock ends or its run has finished
	PackGone    PackFate = "gone"    // a sweep was removing it, and the next owner goes on
)

// ExplainPack tells why a pack is there: which points need something that only
// it holds. spec is its name, or its path in the repository. It reads the block
// map of every machine's first point and what changed after that, and keeps in
// memory what it knows of one pack. ErrNotFound if there is no such pack.
func (r *Repository) ExplainPack(ctx context.Context, spec string) (PackStory, error) {
	s, err := r.explainPack(ctx, spec)
	if err != nil {
		return s, fmt.Errorf("explain pack: %w", err)
	}
	return s, nil
}

func (r *Repository) explainPack(ctx context.Context, spec string) (PackStory, error) {
	s := PackStory{}
	name, err := pack.ParseName(strings.TrimSuffix(path.Base(spec), ".pack"))
	if err != nil {
		return s, fmt.Errorf("%q: %w: no pack has such a name", spec, ErrNotFound)
	}
	if r.store.refresh != nil {
		if err := r.refresh(ctx); err != nil {
			return s, err
		}
	}
	inv, err := r.inventory(ctx)
	if err != nil {
		return s, err
	}
	if err := r.findPack(inv, name, &s); err != nil {
		return s, err
	}
	entries, size, err := r.packRecords(packKey{s.Kind, name})
	if err != nil && len(entries) == 0 {
		return s, err
	}
	s.Bytes, s.Records = size, len(entries)
	for i := range entries {
		s.RecordBytes += int64(entries[i].Len)
	}
	if err := r.noteScrubs(&s); err != nil {
		return s, err
	}
	n := need{repo: r, keys: make(map[prefix][]int), living: make([]bool, len(entries))}
	if err := n.prepare(name, entries, inv.standing()); err != nil {
		return s, err
	}
	if err := n.walk(ctx, &s); err != nil {
		return s, err
	}
	for i := range entries {
		if n.living[i] {
			s.LivingBytes += int64(entries[i].Len)
		}
	}
	s.judge(inv)
	return s, nil
}

// findPack fills in what ledger, runs and directory say of a pack.
func (r *Repository) findPack(inv *inventory, name pack.Name, s *PackStory) error {
	s.Name = name
	for i := range inv.packs {
		if p := &inv.packs[i]; p.Name == name {
			s.Kind, s.Recorded = p.Kind, time.Unix(p.recorded, 0).UTC()
			if !p.unfinished {
				s.Segment = p.segment
			}
		}
	}
	for _, p := range inv.gone {
		if p.Name == name {
			s.Kind, s.Fate = p.Kind, PackGone
		}
	}
	var err error
	for _, kind := range []pack.Kind{pack.Data, pack.Meta} {
		if s.Kind == kind || s.Kind == 0 {
			if _, err = r.fsys.Stat(name.Path(kind)); err == nil {
				s.Kind = kind
				s.Locked, err = r.fsys.Locked(name.Path(kind))
				break
			}
		}
	}
	if s.Locked {
		s.Holds = append(s.Holds, Hold{HoldLock, name.Path(s.Kind)})
	}
	if err := notFound(err); err != nil {
		return fmt.Errorf("pack %s: %w", name, err)
	}
	return r.packRuns(s)
}

// packRuns finds the unfinished runs that stored a pack.
func (r *Repository) packRuns(s *PackStory) error {
	ids, err := listRuns(r.fsys)
	if err != nil {
		return fmt.Errorf("list runs: %w", err)
	}
	for _, id := range ids {
		_, packs, err := readRunRecord(r.fsys, id)
		if err = notThere(err); err != nil {
			r.log.Error("run record can't be read", "run", id, "err", err)
		}
		for i := range packs {
			if packs[i].Name == s.Name {
				s.Holds = append(s.Holds, Hold{HoldRun, string(id)})
			}
		}
	}
	return nil
}

// noteScrubs fills in what scrubs have found.
func (r *Repository) noteScrubs(s *PackStory) error {
	v, err := readVerified(r.fsys, r.log)
	if err != nil {
		return err
	}
	if row := v.get(s.Name); row.at > 0 {
		s.Verified = time.Unix(int64(row.at), 0).UTC()
	}
	r.store.loadDamage()
	if d := r.store.damage.Load(); d != nil {
		if bad := d.pack(s.Name); bad != nil {
			s.Fault = bad.fault
		}
	}
	return nil
}

// judge says what becomes of the pack.
func (s *PackStory) judge(inv *inventory) {
	switch {
	case s.Fate == PackGone:
	case s.LivingBytes == 0 && len(s.Holds) > 0:
		s.Fate = PackHeld
	case s.LivingBytes == 0:
		s.Fate = PackSweep
	case !s.Locked && float64(s.DeadBytes()) >= DefaultDeadShare*float64(s.RecordBytes):
		s.Fate = PackCompact
	default:
		s.Fate = PackNeeded
	}
}

// need finds out which points need a pack.
type need struct {
	repo   *Repository
	keys   map[prefix][]int // id in block maps → the pack's records that it needs
	living []bool           // by record
}

// prepare notes for which ids the pack is needed: those of records of which it
// has the copy that serves, and those of records elsewhere that lean on one.
func (n *need) prepare(name pack.Name, entries []pack.Entry, in standing) error {
	q := needs{store: n.repo.store, packs: in}
	add := func(id chunk.ID, i int) {
		n.keys[prefixOf(id)] = append(n.keys[prefixOf(id)], i)
	}
	for i := range entries {
		e := &entries[i]
		locs, err := q.store.lookup(e.ID)
		if err != nil {
			return err
		}
		s, err := q.serving(e.ID, locs, true)
		if err != nil {
			return err
		}
		if s.best == nil || s.best.Pack == name && s.best.Off == e.Off {
			add(e.ID, i)
		}
		if !s.has(name, e.Off) {
			continue
		}
		on, err := q.store.dependents(e.ID)
		if err != nil {
			return err
		}
		for j := range on {
			h, err := q.store.headerAt(&on[j])
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				n.living[i] = true // as sweep has it
				continue
			}
			serves, err := q.servesAt(h.ID, &on[j])
			if err != nil {
				return err
			}
			if serves {
				add(h.ID, i)
			}
		}
	}
	return nil
}

// walk goes over all points, machine by machine: of the first over its block map,
// of the others over what differs from the one before.
func (n *need) walk(ctx context.Context, s *PackStory) error {
	r := n.repo
	all, _, err := r.countable(ctx)
	if err != nil {
		return err
	}
	gone, err := r.letGoNow(all)
	if err != nil {
		return err
	}
	pins, err := r.pins()
	if err != nil {
		return err
	}
	w := weigher{repo: r, refs: newRefs(nil, r.store)}
	want, err := w.wanted(all, gone)
	if err != nil {
		return err
	}
	expired := make(map[PointID]bool)
	for i := range all {
		expired[PointID(all[i].ID)] = all[i].Expired != 0
	}
	names, err := r.machineNames(ctx)
	if err != nil {
		return err
	}
	for _, machine := range sortedKeys(want) {
		of := want[machine]
		slices.SortFunc(of, compareCounted)
		needer := Needer{MachineID: machine, Machine: names[machine]}
		var places int64 // in which the point has an id that needs the pack
		var prev countedPoint
		for _, p := range of {
			if err := n.compare(ctx, prev, p, &places); err != nil {
				return fmt.Errorf("point %s: %w", p.id, err)
			}
			if prev = p; places == 0 {
				continue
			}
			if needer.Points++; needer.First == "" {
				needer.First = p.id
			}
			needer.Last = p.id
			if expired[p.id] {
				held, err := r.holders(p.id, pins)
				if err != nil {
					return err
				}
				s.Holds = append(s.Holds, held...)
			}
		}
		if needer.Points > 0 {
			s.Needers = append(s.Needers, needer)
		}
	}
	return nil
}

// compare counts the places that need the pack from one point to the next.
func (n *need) compare(ctx context.Context, prev, p countedPoint, places *int64) error {
	c := refs{geo: n.repo.settings.Geometry}
	for i := range max(len(prev.roots), len(p.roots)) {
		err := blockmap.Slots(ctx, n.repo.store, c.tree(prev.roots, i), c.tree(p.roots, i), func(_ int, _ int64, before, after chunk.ID) error {
			if n.keys[prefixOf(before)] != nil {
				*places--
			}
			if list := n.keys[prefixOf(after)]; list != nil {
				*places++
				for _, i := range list {
					n.living[i] = true
				}
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("disk %d: %w", i+1, err)
		}
	}
	return nil
}

// machineNames returns the name of each machine in its latest point.
func (r *Repository) machineNames(ctx context.Context) (map[string]string, error) {
	points, err := r.Points(ctx)
	if err != nil {
		return nil, err
	}
	names := make(map[string]string)
	for _, p := range points {
		names[p.MachineID] = p.Machine
	}
	return names, nil
}
