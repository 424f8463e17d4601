package retention

import (
	"math"
	"strconv"
	"strings"
	"time"
)

// A series is the points of one machine under one job while they are judged.
// Each rule notes for each point why it keeps the point, or what the point
// lacks.
type series struct {
	rule   *Rule
	now    time.Time
	loc    *time.Location
	points []*Point    // oldest first
	local  []time.Time // of each point, in loc
	class  []class
	newest []int // of a retry, the newest point of its slot

	keeps [][]string
	lacks [][]string
}

// A class is what a point is within its series. It decides which rules count it.
type class byte

const (
	counted class = iota // the newest point of its slot, or its own slot
	retry                // an older point of a slot
	manual               // without a slot, in a series that has slots
)

func newSeries(points []*Point, rule *Rule, now time.Time, loc *time.Location) *series {
	n := len(points)
	s := &series{
		rule: rule, now: now, loc: loc, points: points,
		local: make([]time.Time, n), class: make([]class, n), newest: make([]int, n),
		keeps: make([][]string, n), lacks: make([][]string, n),
	}
	const most = 8 // things one point can lack
	lacks := make([]string, n*most)
	for i := range s.lacks {
		s.lacks[i] = lacks[i*most : i*most : (i+1)*most]
	}
	scheduled := false
	for i := range points {
		s.local[i] = points[i].Time.In(loc)
		scheduled = scheduled || points[i].Slot != ""
	}
	if scheduled {
		s.classify()
	}
	return s
}

// classify tells scheduled points from extras.
func (s *series) classify() {
	slots := make(map[string]int)
	for i := len(s.points) - 1; i >= 0; i-- {
		slot := s.points[i].Slot
		newest, seen := slots[slot]
		switch {
		case slot == "":
			s.class[i] = manual
		case seen:
			s.class[i], s.newest[i] = retry, newest
		default:
			slots[slot] = i
		}
	}
}

func (s *series) keep(i int, reason string) { s.keeps[i] = append(s.keeps[i], reason) }
func (s *series) lack(i int, reason string) { s.lacks[i] = append(s.lacks[i], reason) }
func (s *series) kept(i int) bool           { return len(s.keeps[i]) > 0 }

// decide appends the decisions, oldest point first.
func (s *series) decide(decisions []Decision) []Decision {
	for i := range s.points {
		if pins := s.points[i].Pins; len(pins) > 0 {
			s.keep(i, "pinned: "+strings.Join(pins, ", "))
		}
	}
	if s.rule.IsEmpty() {
		for i := range s.points {
			s.keep(i, "the rule keeps everything")
		}
	} else {
		s.last()
		for l := range levels {
			s.marks(&levels[l])
		}
		s.young()
		s.manualRuns()
		s.newestPoints()
		s.retries() // after all that may keep the newest point of a slot
	}
	for i, p := range s.points {
		d := Decision{Point: *p, Keep: s.kept(i), Reasons: s.keeps[i]}
		if !d.Keep {
			d.Reasons = []string{"no rule keeps it: " + strings.Join(s.lacks[i], ", ")}
		}
		decisions = append(decisions, d)
	}
	return decisions
}

// last keeps the newest slots.
func (s *series) last() {
	if s.rule.Last == 0 {
		return
	}
	of := strconv.Itoa(s.rule.Last)
	n := 0
	for i := len(s.points) - 1; i >= 0; i-- {
		if s.class[i] != counted {
			continue
		}
		if n++; n <= s.rule.Last {
			s.keep(i, "last "+strconv.Itoa(n)+" of "+of)
		} else {
			s.lack(i, ordinal(n)+" of last "+of)
		}
	}
}

// marks keeps the newest point of each of the newest periods of a level, and in
// periods without a scheduled point the newest manual run.
//
// What keeps this stable when expired points are gone: the periods of scheduled
// points are ranked by their marks, and all marks up to the last one that
// counts stay. Manual runs are ranked by themselves, including those in periods
// that have a scheduled point, so that ranks only ever become better.
func (s *series) marks(l *level) {
	count := l.count(s.rule)
	if count == 0 {
		return
	}
	scheduled, extras := newRanking(l, count), newRanking(l, count)
	oldest := -1 // point, the last mark when the level is full
	for i := len(s.points) - 1; i >= 0; i-- {
		if s.class[i] == manual {
			continue
		}
		p, first := scheduled.add(s.local[i])
		if !first || p.rank > count {
			s.lack(i, p.miss)
			continue
		}
		s.keep(i, l.name+" "+strconv.Itoa(p.rank)+" of "+strconv.Itoa(count)+": "+p.label)
		if p.rank == count {
			oldest = i
		}
	}
	for i := len(s.points) - 1; i >= 0; i-- {
		if s.class[i] != manual {
			continue
		}
		switch p, first := extras.add(s.local[i]); {
		case scheduled.has(s.local[i]):
			s.lack(i, l.label(s.local[i])+" has a scheduled point")
		case i < oldest:
			s.lack(i, "before the oldest of "+l.name+" "+strconv.Itoa(count))
		case !first || p.rank > count:
			s.lack(i, p.miss)
		default:
			s.keep(i, l.name+": "+p.label+" has no scheduled point")
		}
	}
}

// young keeps what is younger than within and at least. The clock may have been
// set back: a point is then as young as the youngest before it.
func (s *series) young() {
	within, floor := s.rule.Within, s.rule.AtLeast
	var (
		keeps  = "within " + within.String()
		lacks  = "older than " + within.String()
		floors = "younger than " + floor.String() + " (at least)"
		latest time.Time
	)
	for i, t := range s.local {
		if i == 0 || t.After(latest) {
			latest = t
		}
		switch {
		case within == (Span{}):
		case s.now.Before(within.end(latest, s.loc)):
			s.keep(i, keeps)
		default:
			s.lack(i, lacks)
		}
		if floor.Count > 0 && s.now.Before(floor.end(latest, s.loc)) {
			s.keep(i, floors)
		}
	}
}

// manualRuns keeps manual runs for a while.
func (s *series) manualRuns() {
	for i, c := range s.class {
		if c == manual {
			s.extra(i)
		}
	}
}

// retries keeps the older points of a slot for a while, if the newest stays: a
// retry has no use without the point that it made good.
func (s *series) retries() {
	for i, c := range s.class {
		switch {
		case c != retry:
		case s.kept(s.newest[i]):
			s.extra(i)
		default:
			s.lack(i, "the newest point of its slot goes too")
		}
	}
}

func (s *series) extra(i int) {
	span := s.rule.extra()
	if until := span.end(s.local[i], s.loc); s.now.Before(until) {
		s.keep(i, "extra for "+more(until.Sub(s.now)))
	} else {
		s.lack(i, "extra, older than "+span.String())
	}
}

// newestPoints keeps a series from ending. The newest scheduled point stays so
// that manual runs beside it remain extras.
func (s *series) newestPoints() {
	if s.rule.ExpireNewest {
		return
	}
	newest := len(s.points) - 1
	if !s.kept(newest) {
		s.keep(newest, "the newest point is always kept")
	}
	for newest >= 0 && s.class[newest] == manual {
		newest--
	}
	if newest >= 0 && !s.kept(newest) {
		s.keep(newest, "the newest scheduled point is always kept")
	}
}

// more writes how much longer, rounded up to days, or hours on the last day. A
// day of 25 hours is one day.
func more(d time.Duration) string {
	unit, name := time.Hour, " more hour"
	if d > 23*time.Hour {
		unit, name = 24*time.Hour, " more day"
		d = max(d-time.Hour, 1)
	}
	n := int64(math.Ceil(float64(d) / float64(unit)))
	if n != 1 {
		name += "s"
	}
	return strconv.FormatInt(n, 10) + name
}

// ordinal writes 1st, 2nd, 3rd, 4th, 11th, 21st …
func ordinal(n int) string {
	suffix := "th"
	if n%100 < 11 || n%100 > 13 {
		switch n % 10 {
		case 1:
			suffix = "st"
		case 2:
			suffix = "nd"
		case 3:
			suffix = "rd"
		}
	}
	return strconv.Itoa(n) + suffix
}
