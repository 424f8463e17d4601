package retention

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

// A Point is what retention needs to know of a restore point.
type Point struct {
	ID       string
	Machine  string // id of the machine; with Job it names the series
	Job      string
	Time     time.Time
	Sequence uint64   // of the machine; higher is newer
	Slot     string   // the schedule slot it was made for; empty for a manual run
	Pins     []string // names of what holds it
}

// A Decision says what becomes of a point.
type Decision struct {
	Point
	Keep bool

	// Reasons is never empty. For a point that stays, it has every rule that
	// keeps it, such as "last 3 of 14" or "weekly 1 of 4: 2026-W47"; that the
	// newest is always kept is said only where nothing else keeps it. For a
	// point that goes, it has one sentence that says what it lacks for each
	// rule, such as "no rule keeps it: 15th of last 14".
	Reasons []string
}

// Decide applies the rule to each series of points as of now. The calendar is
// that of loc, UTC if it is nil. Decisions come sorted by machine, job and
// sequence, oldest first, in whatever order the points were given. A rule that
// is not valid decides nothing and gives ErrRule.
func Decide(points []Point, rule Rule, now time.Time, loc *time.Location) ([]Decision, error) {
	if err := rule.Validate(); err != nil {
		return nil, err
	}
	if loc == nil {
		loc = time.UTC
	}
	sorted := make([]*Point, len(points))
	for i := range points {
		sorted[i] = &points[i]
	}
	slices.SortFunc(sorted, compare)
	decisions := make([]Decision, 0, len(sorted))
	for len(sorted) > 0 {
		n := 1
		for n < len(sorted) && sameSeries(sorted[0], sorted[n]) {
			n++
		}
		s := newSeries(sorted[:n], &rule, now, loc)
		decisions = s.decide(decisions)
		sorted = sorted[n:]
	}
	return decisions, nil
}

func compare(a, b *Point) int {
	return cmp.Or(
		strings.Compare(a.Machine, b.Machine),
		strings.Compare(a.Job, b.Job),
		cmp.Compare(a.Sequence, b.Sequence),
		strings.Compare(a.ID, b.ID))
}

func sameSeries(a, b *Point) bool { return a.Machine == b.Machine && a.Job == b.Job }
