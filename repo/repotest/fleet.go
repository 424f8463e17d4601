package repotest

import (
	"fmt"
	"math/rand/v2"
	"slices"

	"holdfast/repo"
)

// A Fleet is the machines of a small company, whose disks change from day to day
// as a seed has it. Its methods are for one goroutine; different machines may be
// backed up at once.
type Fleet struct {
	Machines []*FleetMachine
	rng      *rand.Rand
	names    int // of disks given out
}

// A FleetMachine is one machine of a Fleet.
type FleetMachine struct {
	Name  string
	Disks []NamedDisk // as they are now

	// Changed is, for each disk, what may have changed since the last Settle. A
	// disk that came since has none.
	Changed map[string][]repo.Range

	habits []habit // of each disk
}

// A habit is how the content of a disk changes.
type habit int

const (
	database habit = iota // pages, here and there
	files                 // rewritten, deleted, and some more
	logs                  // appended to until the disk is full, then begun anew
	cloned                // the same in every machine that has one, by updates for all
	mixed                 // whatever Change does
	habits
)

// Sizes of a fleet's disks: a chunk of the smallest kind up to several.
const (
	minFleetDisk = 64 << 10
	maxFleetDisk = 2 << 20
)

// NewFleet returns machines with one or two disks each. Every fourth has a disk
// that it has in common with the others of them.
func NewFleet(rng *rand.Rand, machines int) *Fleet {
	f := &Fleet{rng: rng}
	image := New(rand.New(rand.NewPCG(rng.Uint64(), 0)), Text, 1200<<10)
	for i := range machines {
		m := &FleetMachine{Name: fmt.Sprintf("m%02d", i), Changed: make(map[string][]repo.Range)}
		if i%4 == 3 {
			m.add(f.name("root"), image.Clone(), cloned)
		}
		f.grow(m)
		f.Machines = append(f.Machines, m)
	}
	return f
}

func (f *Fleet) name(kind string) string {
	f.names++
	return fmt.Sprintf("%s%d", kind, f.names)
}

func (m *FleetMachine) add(name string, d *Disk, h habit) {
	m.Disks, m.habits = append(m.Disks, NamedDisk{name, d}), append(m.habits, h)
}

// grow gives a machine another disk.
func (f *Fleet) grow(m *FleetMachine) {
	size := minFleetDisk + f.rng.Int64N(1<<20)
	switch h := habit(f.rng.IntN(int(habits))); h {
	case database:
		m.add(f.name("db"), New(f.rng, Dense, size), h)
	case logs:
		m.add(f.name("log"), NewDisk(size), h)
	case files:
		m.add(f.name("home"), New(f.rng, Text, size), h)
	default:
		m.add(f.name("data"), New(f.rng, Kind(f.rng.IntN(Kinds)), size), mixed)
	}
}

// Day lets a day pass: disks change, and now and then one comes, goes, grows or
// shrinks.
func (f *Fleet) Day() {
	update := f.rng.IntN(10) == 0 // of all clones, with the same bytes in the same place
	patch, at := text(f.rng, 20<<10), f.rng.Int64N(1100<<10)
	for _, m := range f.Machines {
		for i := range m.Disks {
			old := m.Disks[i].Disk
			d, changed := f.change(m.habits[i], old)
			if update && m.habits[i] == cloned && at+int64(len(patch)) <= d.size {
				d = d.Clone()
				d.Write(patch, at)
				changed = append(changed, repo.Range{Off: at, Len: int64(len(patch))})
			}
			m.Disks[i].Disk = d
			if d != old {
				m.note(m.Disks[i].Name, old, d, changed)
			}
		}
		switch n := f.rng.IntN(120); {
		case n == 0 && len(m.Disks) < 3:
			f.grow(m)
		case n == 1 && len(m.Disks) > 1:
			f.drop(m, f.rng.IntN(len(m.Disks)))
		case n < 5:
			f.resize(m, f.rng.IntN(len(m.Disks)))
		}
	}
}

// note adds what has changed. What a shorter disk lost is changed if it grows
// again.
func (m *FleetMachine) note(name string, old, now *Disk, changed []repo.Range) {
	if now.size < old.size {
		changed = append(changed, repo.Range{Off: now.size, Len: old.size - now.size})
	}
	m.Changed[name] = append(m.Changed[name], changed...)
}

// ChangesOf returns what may have changed of a disk since the last Settle, within
// its length.
func (m *FleetMachine) ChangesOf(d NamedDisk) []repo.Range {
	return within(slices.Clone(m.Changed[d.Name]), d.Disk.size)
}

// Settle begins new lists of changes.
func (m *FleetMachine) Settle() { clear(m.Changed) }

func (f *Fleet) drop(m *FleetMachine, i int) {
	delete(m.Changed, m.Disks[i].Name)
	m.Disks, m.habits = slices.Delete(slices.Clone(m.Disks), i, i+1), slices.Delete(m.habits, i, i+1)
}

func (f *Fleet) resize(m *FleetMachine, i int) {
	old := m.Disks[i].Disk
	d := old.Clone()
	d.Resize(min(max(minFleetDisk, d.size+f.rng.Int64N(800<<10)-300<<10), maxFleetDisk))
	m.Disks[i].Disk = d
	m.note(m.Disks[i].Name, old, d, nil)
}

// change returns a disk as it is a day later, the same one if nothing changes.
func (f *Fleet) change(h habit, old *Disk) (*Disk, []repo.Range) {
	rng := f.rng
	if rng.IntN(5) == 0 || old.size == 0 {
		return old, nil // a day off
	}
	d := old.Clone()
	var changed []repo.Range
	write := func(p []byte, off int64) {
		p = p[:min(int64(len(p)), d.size-off)]
		d.Write(p, off)
		changed = append(changed, repo.Range{Off: off, Len: int64(len(p))})
	}
	switch h {
	case database:
		for range 1 + rng.IntN(4) {
			write(noise(rng, pageBytes), rng.Int64N(max(1, d.size/pageBytes))*pageBytes)
		}
	case files:
		write(text(rng, 2000+rng.IntN(30<<10)), rng.Int64N(d.size))
		if rng.IntN(4) == 0 {
			r := repo.Range{Off: rng.Int64N(d.size), Len: 1 + rng.Int64N(60<<10)}
			d.Trim(r.Off, r.Len)
			changed = append(changed, within([]repo.Range{r}, d.size)...)
		}
	case logs:
		end := int64(len(d.pages)) * pageBytes
		if end >= d.size {
			changed = append(changed, repo.Range{Len: d.size})
			d.Trim(0, d.size)
			end = 0
		}
		write(text(rng, 1000+rng.IntN(40<<10)), end)
	case cloned:
		if rng.IntN(3) == 0 {
			write(noise(rng, 1+rng.IntN(2000)), rng.Int64N(d.size))
		}
	case mixed:
		var next *Disk
		if next, changed = Change(rng, old); next.size > 0 && next.size <= maxFleetDisk {
			return next, changed
		}
		return old, nil
	}
	return d, changed
}
