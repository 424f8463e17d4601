package retention

import (
	"strconv"
	"time"
)

// A period is an hour, day, week, month or year of the local calendar, unique
// within its level.
type period struct {
	year, part, hour int
	offset           int // of an hour, from UTC, in seconds: summer time ends twice at 2
}

// A level is one kind of period and how a rule counts it.
type level struct {
	name  string
	count func(*Rule) int
	of    func(local time.Time) period
	label func(local time.Time) string
}

// levels lists the kinds of period in the order in which reasons name them.
var levels = []level{
	{"hourly", func(r *Rule) int { return r.Hourly }, hourOf, layout("2006-01-02 15:00 MST")},
	{"daily", func(r *Rule) int { return r.Daily }, dayOf, layout("2006-01-02")},
	{"weekly", func(r *Rule) int { return r.Weekly }, weekOf, weekLabel},
	{"monthly", func(r *Rule) int { return r.Monthly }, monthOf, layout("2006-01")},
	{"yearly", func(r *Rule) int { return r.Yearly }, yearOf, layout("2006")},
}

func hourOf(t time.Time) period {
	_, offset := t.Zone()
	return period{year: t.Year(), part: t.YearDay(), hour: t.Hour(), offset: offset}
}

func dayOf(t time.Time) period   { return period{year: t.Year(), part: t.YearDay()} }
func monthOf(t time.Time) period { return period{year: t.Year(), part: int(t.Month())} }
func yearOf(t time.Time) period  { return period{year: t.Year()} }

// weekOf is the ISO 8601 week: it starts on Monday and belongs to the year of
// its Thursday.
func weekOf(t time.Time) period {
	year, week := t.ISOWeek()
	return period{year: year, part: week}
}

func weekLabel(t time.Time) string {
	year, week := t.ISOWeek()
	label := strconv.Itoa(year) + "-W"
	if week < 10 {
		label += "0"
	}
	return label + strconv.Itoa(week)
}

func layout(l string) func(time.Time) string {
	return func(t time.Time) string { return t.Format(l) }
}

// A ranking numbers the periods of a level, from 1, in the order in which they
// are added: newest first.
type ranking struct {
	level *level
	count int
	seen  map[period]ranked
}

type ranked struct {
	rank  int
	label string // empty beyond the count
	miss  string // why a point of the period is no mark, if it is none
}

func newRanking(l *level, count int) *ranking {
	return &ranking{l, count, make(map[period]ranked)}
}

func (r *ranking) has(local time.Time) bool {
	_, ok := r.seen[r.level.of(local)]
	return ok
}

// add returns the period of a time, and whether it is the first time of it.
func (r *ranking) add(local time.Time) (ranked, bool) {
	p := r.level.of(local)
	if known, ok := r.seen[p]; ok {
		return known, false
	}
	n := ranked{rank: len(r.seen) + 1}
	if n.rank <= r.count {
		n.label = r.level.label(local)
		n.miss = "not the newest of " + n.label
	} else {
		n.miss = ordinal(n.rank) + " of " + r.level.name + " " + strconv.Itoa(r.count)
	}
	r.seen[p] = n
	return n, true
}
