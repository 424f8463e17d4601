package retention

import (
	"slices"
	"time"
)

// Simulate says which points stay on a future day: it lets the planned points
// arrive in order of time, applies the rule to the series of each as it
// arrives, as a run does at its end, and in the end to all. Planned points
// after at do not arrive; their sequences are given by Simulate, the next of
// their machine. The decisions are those of Decide at that time for the points
// that stay, planned ones among them.
func Simulate(points []Point, rule Rule, planned []Point, at time.Time, loc *time.Location) ([]Decision, error) {
	type key struct{ machine, job string }
	alive := make(map[key][]Point)
	sequences := make(map[string]uint64)
	for _, p := range points {
		k := key{p.Machine, p.Job}
		alive[k] = append(alive[k], p)
		sequences[p.Machine] = max(sequences[p.Machine], p.Sequence)
	}
	planned = slices.Clone(planned)
	slices.SortStableFunc(planned, func(a, b Point) int { return a.Time.Compare(b.Time) })
	for _, p := range planned {
		if p.Time.After(at) {
			break
		}
		sequences[p.Machine]++
		p.Sequence = sequences[p.Machine]
		k := key{p.Machine, p.Job}
		decisions, err := Decide(append(alive[k], p), rule, p.Time, loc)
		if err != nil {
			return nil, err
		}
		alive[k] = alive[k][:0]
		for _, d := range decisions {
			if d.Keep {
				alive[k] = append(alive[k], d.Point)
			}
		}
	}
	var all []Point
	for _, left := range alive {
		all = append(all, left...)
	}
	decisions, err := Decide(all, rule, at, loc)
	return slices.DeleteFunc(decisions, func(d Decision) bool { return !d.Keep }), err
}
