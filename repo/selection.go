package repo

import (
	"fmt"
	"slices"
	"time"
)

// A Selection says which points are meant. The zero value means all.
type Selection struct {
	Machines []string  // names or ids; none: all
	Last     int       // so many of each machine, by number; 0: all
	Since    time.Time // made then or later; zero: all
}

// Of returns the points that are meant, in the order given. A machine that has
// none among them is ErrNotFound.
func (s *Selection) Of(points []Point) ([]Point, error) {
	return s.of(points), s.check(points)
}

// check returns ErrNotFound if a machine has none of the points.
func (s *Selection) check(points []Point) error {
	for _, m := range s.Machines {
		if !slices.ContainsFunc(points, func(p Point) bool { return p.Machine == m || p.MachineID == m }) {
			return fmt.Errorf("machine %q: %w", m, ErrNotFound)
		}
	}
	return nil
}

func (s *Selection) of(points []Point) []Point {
	numbers := make(map[string][]uint64) // machine id → of its points, descending
	for _, p := range points {
		numbers[p.MachineID] = append(numbers[p.MachineID], p.Sequence)
	}
	for _, n := range numbers {
		slices.Sort(n)
		slices.Reverse(n)
	}
	var out []Point
	for _, p := range points {
		n := numbers[p.MachineID]
		switch {
		case !s.machine(p):
		case p.Time.Before(s.Since):
		case s.Last > 0 && s.Last < len(n) && p.Sequence < n[s.Last-1]:
		default:
			out = append(out, p)
		}
	}
	return out
}

// machine reports whether the point's machine is meant.
func (s *Selection) machine(p Point) bool {
	return len(s.Machines) == 0 || slices.Contains(s.Machines, p.Machine) || slices.Contains(s.Machines, p.MachineID)
}
