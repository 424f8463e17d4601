package repo

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Find returns the restore point that spec names: an id or a prefix of one, of
// at least four characters that no other id starts with; MACHINE@latest; or
// MACHINE@2026-11-22, also with a time of day, THH:MM, THH:MM:SS or THH:MM:SS.000:
// the last point at or before the end of that day, minute, second or millisecond,
// in loc unless a Z follows. No two points are made in one millisecond, so that the
// last form names one; it may have dashes for the colons, as files are called. ErrNotFound or *AmbiguousError when that is not one point, ErrTime when
// what stands behind the @ is no moment.
// Only an id finds a point that is retired.
func (r *Repository) Find(ctx context.Context, spec string, loc *time.Location) (Point, error) {
	points, err := r.Points(ctx)
	if err != nil {
		return Point{}, err
	}
	if strings.LastIndexByte(spec, '@') <= 0 {
		retired, err := r.Retired(ctx)
		if err != nil {
			return Point{}, err
		}
		points = append(points, retired...)
	}
	return findPoint(points, spec, loc)
}

// findPoint is Find among points, which are in order of time.
func findPoint(points []Point, spec string, loc *time.Location) (Point, error) {
	if at := strings.LastIndexByte(spec, '@'); at > 0 {
		return findByTime(points, spec[:at], spec[at+1:], loc)
	}
	var hits []Point
	for _, p := range points {
		if len(spec) >= minPrefix && strings.HasPrefix(string(p.ID), spec) {
			hits = append(hits, p)
		}
	}
	switch {
	case len(hits) == 1:
		return hits[0], nil
	case len(hits) > 1:
		return Point{}, &AmbiguousError{Spec: spec, Matches: hits}
	case len(spec) < minPrefix:
		return Point{}, fmt.Errorf("point %q: %w: an id is given by at least %d characters", spec, ErrNotFound, minPrefix)
	}
	return Point{}, fmt.Errorf("point %q: %w", spec, ErrNotFound)
}

func findByTime(points []Point, machine, when string, loc *time.Location) (Point, error) {
	var end time.Time
	if when != "latest" {
		var err error
		if end, err = endOf(when, loc); err != nil {
			return Point{}, err
		}
	}
	ofMachine := slices.DeleteFunc(slices.Clone(points), func(p Point) bool {
		return p.Machine != machine && p.MachineID != machine
	})
	if len(ofMachine) == 0 {
		return Point{}, fmt.Errorf("machine %q: %w", machine, ErrNotFound)
	}
	if when == "latest" {
		return latest(ofMachine), nil
	}
	ofMachine = slices.DeleteFunc(ofMachine, func(p Point) bool { return !p.Time.Before(end) })
	if len(ofMachine) == 0 {
		return Point{}, fmt.Errorf("point of %q at or before %s: %w", machine, when, ErrNotFound)
	}
	return latest(ofMachine), nil
}

// latest is the point with the highest sequence, whatever the clocks said.
func latest(points []Point) Point {
	return slices.MaxFunc(points, func(a, b Point) int {
		return cmp.Or(cmp.Compare(a.Sequence, b.Sequence), strings.Compare(string(a.ID), string(b.ID)))
	})
}

// endOf returns the first instant after the day, minute, second or millisecond
// that s names, or ErrTime.
func endOf(s string, loc *time.Location) (time.Time, error) {
	given := s
	if t, ok := strings.CutSuffix(s, "Z"); ok {
		s, loc = t, time.UTC
	}
	if loc == nil {
		loc = time.Local
	}
	day, clock, _ := strings.Cut(s, "T")
	clock = strings.ReplaceAll(clock, "-", ":")
	for _, form := range []struct {
		layout string
		unit   time.Duration
	}{{"15:04:05.000", time.Millisecond}, {"15:04:05", time.Second}, {"15:04", time.Minute}} {
		if len(clock) != len(form.layout) { // package time takes fractions where none are asked for
			continue
		}
		if t, err := time.ParseInLocation(time.DateOnly+"T"+form.layout, day+"T"+clock, loc); err == nil {
			return t.Add(form.unit), nil
		}
	}
	if t, err := time.ParseInLocation(time.DateOnly, s, loc); err == nil {
		return t.AddDate(0, 0, 1), nil
	}
	return time.Time{}, fmt.Errorf("time %q: %w: want latest, 2006-01-02, 2006-01-02T15:04, 2006-01-02T15:04:05 or 2006-01-02T15:04:05.000, with Z for UTC", given, ErrTime)
}
