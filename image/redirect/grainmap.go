package redirect

import (
	"iter"
	"maps"
	"slices"
)

// state is what a layer knows of a grain.
type state uint8

const (
	stateBase  state = 0 // nothing: look below
	stateData  state = 1 // in the data file
	stateZero  state = 2
	stateLoose state = 3 // in the data file, no record yet; only in memory, and base before
)

// pageGrains is how many grains a page of the map holds: 64 MiB of the disk, in
// 4 KiB at two bits each.
const pageGrains = grainBytes * 4

type mapPage [grainBytes]byte

// grainMap holds the state of each grain of a disk in one layer. Memory is taken
// by the regions that were written. Guarded by its session's mutex.
type grainMap struct {
	pages map[uint64]*mapPage
	count [4]int64 // grains in each state but base
}

func (p *mapPage) get(i uint64) state { return state(p[i/4]>>(i%4*2)) & 3 }

func (m *grainMap) get(g uint64) state {
	p := m.pages[g/pageGrains]
	if p == nil {
		return stateBase
	}
	return p.get(g % pageGrains)
}

func (m *grainMap) set(g uint64, s state) {
	p := m.pages[g/pageGrains]
	if p == nil {
		if s == stateBase {
			return
		}
		if m.pages == nil {
			m.pages = make(map[uint64]*mapPage)
		}
		p = new(mapPage)
		m.pages[g/pageGrains] = p
	}
	i := g % pageGrains
	shift := i % 4 * 2
	old := p.get(i)
	m.count[old]--
	m.count[s]++
	p[i/4] = p[i/4]&^(3<<shift) | byte(s)<<shift
}

func (m *grainMap) setRun(first, count uint64, s state) {
	for g := first; g < first+count; g++ {
		m.set(g, s)
	}
}

// setPage puts a whole page as it came from the map file.
func (m *grainMap) setPage(number uint64, p []byte) {
	page := (*mapPage)(p)
	for i := range uint64(pageGrains) {
		if s := page.get(i); s != stateLoose {
			m.set(number*pageGrains+i, s)
		}
	}
}

// pageNumbers returns the pages there are, in order.
func (m *grainMap) pageNumbers() []uint64 { return slices.Sorted(maps.Keys(m.pages)) }

// durablePage returns a copy of a page without what only memory knows.
func (m *grainMap) durablePage(n uint64) *mapPage {
	p := *m.pages[n]
	for i, b := range p {
		loose := b & (b >> 1) & 0x55 // the low bit of each pair that is 3
		p[i] = b &^ (loose | loose<<1)
	}
	return &p
}

// run is some grains in one state.
type run struct {
	first, count uint64
	state        state
}

// runs yields the grains of page n that are not in the state base, in order.
func (p *mapPage) runs(n uint64) iter.Seq[run] {
	return func(yield func(run) bool) {
		var r run
		for i := uint64(0); i < pageGrains; i++ {
			if r.count == 0 && i%4 == 0 && p[i/4] == 0 {
				i += 3
				continue
			}
			s := p.get(i)
			if r.count > 0 && s == r.state {
				r.count++
				continue
			}
			if r.count > 0 && !yield(r) {
				return
			}
			r = run{}
			if s != stateBase {
				r = run{n*pageGrains + i, 1, s}
			}
		}
		if r.count > 0 {
			yield(r)
		}
	}
}

// next returns the first grain from first on whose bytes are in the data file.
func (m *grainMap) next(first uint64) (g uint64, ok bool) {
	for _, n := range m.pageNumbers() {
		if (n+1)*pageGrains <= first {
			continue
		}
		p := m.pages[n]
		for i := max(first, n*pageGrains) - n*pageGrains; i < pageGrains; i++ {
			if s := p.get(i); s == stateData || s == stateLoose {
				return n*pageGrains + i, true
			}
		}
	}
	return 0, false
}
