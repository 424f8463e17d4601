package retention

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

var (
	// ErrSpan is the error of a span that is none.
	ErrSpan = errors.New("span")
	// ErrRule is the error of a rule that counts below zero or contradicts itself.
	ErrRule = errors.New("retention rule")
)

// A Rule says what is kept of each series. The package comment tells what each
// part means. The zero Rule keeps everything.
type Rule struct {
	Last int // newest schedule slots

	// Newest periods that have points.
	Hourly, Daily, Weekly, Monthly, Yearly int

	Within  Span // younger than this
	AtLeast Span // the floor: nothing younger than this goes; needs another rule
	Extra   Span // manual runs and retries; zero is 7d, 0d is not at all

	// ExpireNewest lets the newest point of a series go when no rule keeps it,
	// and so a series end.
	ExpireNewest bool
}

// IsEmpty says whether the rule has no part that lets a point go.
func (r Rule) IsEmpty() bool {
	return r.Last == 0 && r.Hourly == 0 && r.Daily == 0 && r.Weekly == 0 && r.Monthly == 0 && r.Yearly == 0 &&
		r.Within.Count == 0
}

// Validate finds what is wrong with a rule, everything at once. Each error is
// ErrRule, that of a span ErrSpan too.
func (r Rule) Validate() error {
	var errs []error
	wrong := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("%w: "+format, append([]any{ErrRule}, args...)...))
	}
	for _, c := range r.counts() {
		if c.n < 0 {
			wrong("%s %d is below zero", c.name, c.n)
		}
	}
	for _, s := range r.spans() {
		if err := s.span.check(); err != nil {
			wrong("%s: %w", s.name, err)
		}
	}
	if r.Within != (Span{}) && r.Within.Count == 0 {
		wrong("within %v keeps nothing; leave it out", r.Within)
	}
	if r.IsEmpty() && r.Within == (Span{}) {
		switch {
		case r.AtLeast.Count > 0:
			wrong("at least %v is a floor under other rules, and there is none; say within %[2]v, or what else to keep", r.AtLeast)
		case r.Extra != (Span{}):
			wrong("extra %v without a rule for the points that are scheduled", r.Extra)
		case r.ExpireNewest:
			wrong("the newest point can't expire under a rule that keeps everything")
		}
	}
	return errors.Join(errs...)
}

// String writes the rule as people say it: "last 14, weekly 4, at least 14d".
func (r Rule) String() string {
	if r == (Rule{}) {
		return "everything"
	}
	var parts []string
	for _, c := range r.counts() {
		if c.n != 0 {
			parts = append(parts, c.name+" "+strconv.Itoa(c.n))
		}
	}
	for _, s := range r.spans() {
		if s.span != (Span{}) {
			parts = append(parts, s.name+" "+s.span.String())
		}
	}
	if r.ExpireNewest {
		parts = append(parts, "even the newest")
	}
	return strings.Join(parts, ", ")
}

type namedCount struct {
	name string
	n    int
}

func (r Rule) counts() []namedCount {
	counts := []namedCount{{"last", r.Last}}
	for _, l := range levels {
		counts = append(counts, namedCount{l.name, l.count(&r)})
	}
	return counts
}

type namedSpan struct {
	name string
	span Span
}

func (r Rule) spans() []namedSpan {
	return []namedSpan{{"within", r.Within}, {"at least", r.AtLeast}, {"extra", r.Extra}}
}

// extra is how long extras stay, 7 days if the rule does not say.
func (r Rule) extra() Span {
	if r.Extra == (Span{}) {
		return Span{7, Day}
	}
	return r.Extra
}
