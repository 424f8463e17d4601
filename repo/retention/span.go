package retention

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// A Unit is what a span counts. Hours are elapsed time, the others are read
// from the calendar.
type Unit byte

// The units, by the letter that ends a span. A month is m; there are no minutes.
const (
	Hour  Unit = 'h'
	Day   Unit = 'd'
	Week  Unit = 'w'
	Month Unit = 'm'
	Year  Unit = 'y'
)

// maxYears bounds a span, so that no sum with a time overflows.
const maxYears = 200

// max is the largest count of the unit, 0 if there is no such unit.
func (u Unit) max() int {
	switch u {
	case Hour:
		return maxYears * 365 * 24
	case Day:
		return maxYears * 365
	case Week:
		return maxYears * 52
	case Month:
		return maxYears * 12
	case Year:
		return maxYears
	}
	return 0
}

// A Span is a length of time as people say it: 12 hours, 30 days, 6 weeks, 3
// months, 1 year. The zero Span is one that was not given, which is not the
// same as 0 days.
type Span struct {
	Count int
	Unit  Unit
}

// ParseSpan reads a span as String writes it: a decimal count and one letter,
// such as 12h, 30d, 6w, 3m or 1y. The empty string is the zero Span. Signs,
// spaces, leading zeros and spans over 200 years give ErrSpan.
func ParseSpan(text string) (Span, error) {
	if text == "" {
		return Span{}, nil
	}
	digits := strings.TrimLeft(text, "0123456789")
	count, unit := text[:len(text)-len(digits)], digits
	switch {
	case len(unit) != 1 || Unit(unit[0]).max() == 0 || count == "":
		return Span{}, fmt.Errorf("%w %.40q: want a number and one of h, d, w, m (months), y, such as 30d", ErrSpan, text)
	case len(count) > 1 && count[0] == '0':
		return Span{}, fmt.Errorf("%w %.40q: the number starts with 0", ErrSpan, text)
	}
	n, err := strconv.Atoi(count)
	s := Span{n, Unit(unit[0])}
	if err != nil || n > s.Unit.max() {
		return Span{}, fmt.Errorf("%w %.40q: more than %d years", ErrSpan, text, maxYears)
	}
	return s, nil
}

// String writes the span as ParseSpan reads it; the zero Span is empty.
func (s Span) String() string {
	if s == (Span{}) {
		return ""
	}
	return strconv.Itoa(s.Count) + string(rune(s.Unit))
}

// MarshalText implements encoding.TextMarshaler.
func (s Span) MarshalText() ([]byte, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	return []byte(s.String()), nil
}

// UnmarshalText implements encoding.TextUnmarshaler, by ParseSpan.
func (s *Span) UnmarshalText(text []byte) error {
	parsed, err := ParseSpan(string(text))
	if err == nil {
		*s = parsed
	}
	return err
}

// check says whether ParseSpan could have made the span.
func (s Span) check() error {
	switch limit := s.Unit.max(); {
	case s == (Span{}):
		return nil
	case limit == 0:
		return fmt.Errorf("%w: %d of unknown unit %q", ErrSpan, s.Count, rune(s.Unit))
	case s.Count < 0:
		return fmt.Errorf("%w %v: below zero", ErrSpan, s)
	case s.Count > limit:
		return fmt.Errorf("%w %v: more than %d years", ErrSpan, s, maxYears)
	}
	return nil
}

// end is when the span that begins at t is over. Hours are elapsed time. Days
// and longer end at the same local time of day, and where the month has no such
// day, with the month: one month from January 31 is the first instant of March.
// So of two times the later never ends on an earlier day.
func (s Span) end(t time.Time, loc *time.Location) time.Time {
	t = t.In(loc)
	switch s.Unit {
	case Hour:
		return t.Add(time.Duration(s.Count) * time.Hour)
	case Day:
		return t.AddDate(0, 0, s.Count)
	case Week:
		return t.AddDate(0, 0, 7*s.Count)
	case Month:
		return addMonths(t, s.Count)
	case Year:
		return addMonths(t, 12*s.Count)
	}
	return t
}

// addMonths looks for the missing day itself: where midnight falls into the gap
// at the start of summer time, AddDate may end on the day before.
func addMonths(t time.Time, months int) time.Time {
	year, month, day := t.Date()
	month += time.Month(months)
	if lastDay := time.Date(year, month+1, 0, 0, 0, 0, 0, time.UTC).Day(); day > lastDay {
		return time.Date(year, month+1, 1, 0, 0, 0, 0, t.Location())
	}
	return t.AddDate(0, months, 0)
}
