package ledger

import (
	"cmp"
	"slices"
)

// Sequences are the sequence numbers that a machine's points ever had, as
// ascending spans that do not touch, first and last number each: mostly one. The
// points themselves may be forgotten when a state is saved; their numbers are
// not, since none is given out twice.
type Sequences [][2]uint64

// has reports whether n was given out.
func (s Sequences) has(n uint64) bool {
	_, found := s.find(n)
	return found
}

// find returns the span that n lies in, or else the place of the one after it.
func (s Sequences) find(n uint64) (i int, found bool) {
	return slices.BinarySearchFunc(s, n, func(span [2]uint64, n uint64) int {
		switch {
		case span[1] < n:
			return -1
		case span[0] > n:
			return 1
		}
		return 0
	})
}

// add returns the numbers with n.
func (s Sequences) add(n uint64) Sequences {
	i, found := s.find(n)
	if found {
		return s
	}
	s = slices.Insert(s, i, [2]uint64{n, n})
	if i+1 < len(s) && s[i+1][0] == n+1 {
		s[i][1] = s[i+1][1]
		s = slices.Delete(s, i+1, i+2)
	}
	if i > 0 && s[i-1][1]+1 == n {
		s[i-1][1] = s[i][1]
		s = slices.Delete(s, i, i+1)
	}
	return s
}

// sound reports whether the spans are as add leaves them.
func (s Sequences) sound() bool {
	for i, span := range s {
		if cmp.Compare(span[0], span[1]) > 0 || i > 0 && (span[0] <= s[i-1][1] || span[0]-s[i-1][1] < 2) {
			return false
		}
	}
	return true
}

// SequenceFree reports whether the point of a machine may be recorded with a
// number: no other point ever had it, as far as the state knows. Whoever makes
// a point takes the one after LastSequence, which is free; a copy keeps the
// number it has elsewhere if it can.
func (s *State) SequenceFree(machine, point string, n uint64) bool {
	m := s.machines[machine]
	if m == nil || !m.used.has(n) {
		return true
	}
	i, known := s.byID[point]
	return known && s.points[i].Machine == machine && s.points[i].Sequence == n
}
