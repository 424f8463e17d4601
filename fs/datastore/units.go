package datastore

import "math/bits"

// unitBytes is the piece in which a large file takes space: a unit has its bytes
// in the file's own file, or is a hole.
const unitBytes = 64 << 10

// pageUnits is how many units one page of a unitMap has.
const pageUnits = 4096

// unitMap is a set of units. The zero value is empty.
type unitMap struct {
	pages map[uint64]*unitPage
	count int64
}

type unitPage [pageUnits / 64]uint64

// fullPage stands for every page without a gap. It is never written to.
var fullPage = func() *unitPage {
	var p unitPage
	for i := range p {
		p[i] = ^uint64(0)
	}
	return &p
}()

func (m *unitMap) has(u uint64) bool {
	p := m.pages[u/pageUnits]
	return p != nil && p[u%pageUnits/64]>>(u%64)&1 == 1
}

// add puts count units from first on into the set.
func (m *unitMap) add(first, count uint64) {
	for u, end := first, first+count; u < end; {
		k, at := u/pageUnits, u%pageUnits
		n := min(end-u, pageUnits-at)
		p := m.pages[k]
		switch {
		case p == fullPage:
		case n == pageUnits:
			m.count += pageUnits - p.countBits()
			m.put(k, fullPage)
		default:
			if p == nil {
				p = new(unitPage)
				m.put(k, p)
			}
			m.count += p.set(at, n)
		}
		u += n
	}
}

func (m *unitMap) put(k uint64, p *unitPage) {
	if m.pages == nil {
		m.pages = make(map[uint64]*unitPage)
	}
	m.pages[k] = p
}

// cut takes out all units from end on.
func (m *unitMap) cut(end uint64) {
	for k, p := range m.pages {
		switch {
		case k*pageUnits >= end:
			m.count -= p.countBits()
			delete(m.pages, k)
		case (k+1)*pageUnits > end:
			q := *p
			for u := end % pageUnits; u < pageUnits; u++ {
				q[u/64] &^= 1 << (u % 64)
			}
			m.count -= p.countBits() - q.countBits()
			m.pages[k] = &q
		}
	}
}

// merge adds all of o.
func (m *unitMap) merge(o *unitMap) {
	for u, n := range o.runs {
		m.add(u, n)
	}
}

// next finds the first unit from u on, below end, of which has is want; end if
// there is none.
func (m *unitMap) next(u, end uint64, want bool) uint64 {
	for u < end {
		p := m.pages[u/pageUnits]
		if p == nil || p == fullPage {
			if want == (p != nil) {
				return u
			}
			u = (u/pageUnits + 1) * pageUnits
			continue
		}
		word := p[u%pageUnits/64]
		if !want {
			word = ^word
		}
		if word >>= u % 64; word != 0 {
			return min(end, u+uint64(bits.TrailingZeros64(word)))
		}
		u = (u/64 + 1) * 64
	}
	return end
}

// runs yields the units of the set as runs, in order.
func (m *unitMap) runs(yield func(first, count uint64) bool) {
	var end uint64
	for k := range m.pages {
		end = max(end, (k+1)*pageUnits)
	}
	for u := m.next(0, end, true); u < end; {
		stop := m.next(u, end, false)
		if !yield(u, stop-u) {
			return
		}
		u = m.next(stop, end, true)
	}
}

func (p *unitPage) countBits() (n int64) {
	if p == nil {
		return 0
	}
	for _, w := range p {
		n += int64(bits.OnesCount64(w))
	}
	return n
}

// set sets n bits from at on, and returns how many of them were not.
func (p *unitPage) set(at, n uint64) (fresh int64) {
	for u := at; u < at+n; u++ {
		if bit := uint64(1) << (u % 64); p[u/64]&bit == 0 {
			p[u/64] |= bit
			fresh++
		}
	}
	return fresh
}
