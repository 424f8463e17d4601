package retention

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// days lists the local days of the points, oldest first.
func days(points []Point, loc *time.Location) string {
	var list []string
	for _, p := range points {
		list = append(list, p.Time.In(loc).Format(time.DateOnly))
	}
	return strings.Join(list, " ")
}

// nightly is one point a day at a local time of day, without sequences.
func nightly(from time.Time, count int) []Point {
	var points []Point
	for n := range count {
		at := from.AddDate(0, 0, n)
		points = append(points, Point{ID: at.Format(time.DateOnly), Machine: "m", Job: "nightly", Slot: at.Format(time.DateOnly), Time: at})
	}
	return points
}

// TestYears runs a job every night for years, at the two ends of the local day,
// and applies the rule after each run: what stays is known by the calendar.
func TestYears(t *testing.T) {
	rule := Rule{Last: 14, Weekly: 4, Monthly: 12, Yearly: 3}
	loc := zone(t, "Europe/Berlin")
	tests := []struct {
		name  string
		until time.Time
		want  string
	}{
		{"to the end of 2026", time.Date(2026, 12, 31, 23, 59, 59, 0, loc),
			// yearly and monthly; the weeks that end on Sundays 13 and 20; 14 days
			"2024-12-31 2025-12-31 2026-01-31 2026-02-28 2026-03-31 2026-04-30 2026-05-31 2026-06-30 2026-07-31 " +
				"2026-08-31 2026-09-30 2026-10-31 2026-11-30 2026-12-13 2026-12-18 2026-12-19 2026-12-20 2026-12-21 " +
				"2026-12-22 2026-12-23 2026-12-24 2026-12-25 2026-12-26 2026-12-27 2026-12-28 2026-12-29 2026-12-30 2026-12-31"},
		{"over a leap day", time.Date(2024, 3, 1, 23, 59, 59, 0, loc),
			"2024-01-31 2024-02-11 2024-02-17 2024-02-18 2024-02-19 2024-02-20 2024-02-21 2024-02-22 2024-02-23 " +
				"2024-02-24 2024-02-25 2024-02-26 2024-02-27 2024-02-28 2024-02-29 2024-03-01"},
		{"over the end of summer time", time.Date(2024, 10, 28, 23, 59, 59, 0, loc),
			"2024-01-31 2024-02-29 2024-03-31 2024-04-30 2024-05-31 2024-06-30 2024-07-31 2024-08-31 2024-09-30 2024-10-13 " +
				"2024-10-15 2024-10-16 2024-10-17 2024-10-18 2024-10-19 2024-10-20 2024-10-21 2024-10-22 2024-10-23 " +
				"2024-10-24 2024-10-25 2024-10-26 2024-10-27 2024-10-28"},
	}
	for _, tt := range tests {
		for _, hour := range []int{0, 23} {
			t.Run(fmt.Sprintf("%s at %d:30", tt.name, hour), func(t *testing.T) {
				runs := nightly(time.Date(2024, 1, 1, hour, 30, 0, 0, loc), 3*366)
				decisions, err := Simulate(nil, rule, runs, tt.until, loc)
				if err != nil {
					t.Fatal(err)
				}
				left, gone := split(decisions)
				if gone != nil {
					t.Errorf("decisions of points that went: %v", gone)
				}
				if diff := cmp.Diff(strings.Fields(tt.want), strings.Fields(days(left, loc))); diff != "" {
					t.Errorf("-want +got\n%s", diff)
				}
				// All at once says the same.
				runs = slices.DeleteFunc(runs, func(p Point) bool { return p.Time.After(tt.until) })
				for i := range runs {
					runs[i].Sequence = uint64(i + 1)
				}
				atOnce, err := Decide(runs, rule, tt.until, loc)
				if err != nil {
					t.Fatal(err)
				}
				if all, _ := split(atOnce); !cmp.Equal(left, all) {
					t.Errorf("day by day %s, at once %s", days(left, loc), days(all, loc))
				}
			})
		}
	}
}

// TestHoursOverSummerTime keeps one point an hour for a day when clocks change:
// the days have 23 and 25 hours, and every hour counts once.
func TestHoursOverSummerTime(t *testing.T) {
	loc := zone(t, "Europe/Berlin")
	for day, hours := range map[string]int{"2026-03-29": 23, "2026-03-30": 24, "2026-10-25": 25} {
		start, err := time.ParseInLocation(time.DateOnly, day, loc)
		if err != nil {
			t.Fatal(err)
		}
		var points []Point
		for at := start.Add(-5 * time.Hour); at.Before(start.AddDate(0, 0, 1)); at = at.Add(20 * time.Minute) {
			points = append(points, Point{ID: at.UTC().Format(time.RFC3339), Sequence: uint64(len(points) + 1), Time: at})
		}
		kept := reasons(t, points, Rule{Hourly: hours}, start.AddDate(0, 0, 1), loc)
		if len(kept) != hours {
			t.Errorf("%s: %d points stay, want %d", day, len(kept), hours)
		}
		for at := start.Add(40 * time.Minute); at.Before(start.AddDate(0, 0, 1)); at = at.Add(time.Hour) {
			if kept[at.UTC().Format(time.RFC3339)] == nil {
				t.Errorf("%s: %v goes", day, at)
			}
		}
		if n := len(reasons(t, points, Rule{Daily: 9}, start.AddDate(0, 0, 1), loc)); n != 2 {
			t.Errorf("%s: %d days, want 2", day, n)
		}
	}
}

func TestSimulate(t *testing.T) {
	loc := time.UTC
	start := time.Date(2026, 11, 1, 22, 0, 0, 0, loc)
	points := nightly(start, 5)
	for i := range points {
		points[i].Sequence = uint64(i + 1)
	}
	other := Point{ID: "other", Machine: "m", Job: "manual", Time: start, Sequence: 9}
	points = append(points, other)
	planned := nightly(start.AddDate(0, 0, 5), 20)
	slices.Reverse(planned)

	decisions, err := Simulate(points, Rule{Last: 3}, planned, start.AddDate(0, 0, 6), loc)
	if err != nil {
		t.Fatal(err)
	}
	want := trimLines(`other stays: last 1 of 3
		2026-11-05 stays: last 3 of 3
		2026-11-06 stays: last 2 of 3
		2026-11-07 stays: last 1 of 3`)
	if diff := cmp.Diff(want, say(decisions)); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if got := decisions[3].Sequence; got != 11 {
		t.Errorf("the second planned point has sequence %d, want 11: after all of the machine", got)
	}
	if points[0].ID != "2026-11-01" || planned[0].ID != "2026-11-25" {
		t.Error("the caller's points were changed")
	}
	if _, err := Simulate(nil, Rule{Last: -1}, nil, start, loc); err == nil {
		t.Error("simulated a rule that is wrong")
	}
}
