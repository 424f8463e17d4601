package retention

import (
	"fmt"
	"strings"
	"testing"
	"time"
	_ "time/tzdata" // tests read the same calendar everywhere

	"github.com/google/go-cmp/cmp"
)

func instant(t testing.TB, text string) time.Time {
	t.Helper()
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

func zone(t testing.TB, name string) *time.Location {
	t.Helper()
	loc, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return loc
}

// parsePoints reads one point a line, oldest first: local time, or
// one with its zone, then
// "slot=…", "pin=…". The id is p1, p2 …, the sequence 1, 2 …
func parsePoints(t testing.TB, loc *time.Location, text string) []Point {
	t.Helper()
	var points []Point
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		at, err := time.ParseInLocation("2006-01-02T15:04", fields[0], loc)
		if err != nil { // local time can't say which
			at = instant(t, fields[0])
		}
		n := len(points) + 1
		p := Point{ID: fmt.Sprint("p", n), Machine: "m", Job: "j", Time: at.UTC(), Sequence: uint64(n)}
		for _, f := range fields[1:] {
			if slot, ok := strings.CutPrefix(f, "slot="); ok {
				p.Slot = slot
			} else if pin, ok := strings.CutPrefix(f, "pin="); ok {
				p.Pins = append(p.Pins, pin)
			} else {
				t.Fatalf("what is %q?", f)
			}
		}
		points = append(points, p)
	}
	return points
}

// say writes decisions as the table below expects them.
func say(decisions []Decision) string {
	var b strings.Builder
	for _, d := range decisions {
		what := "GOES"
		if d.Keep {
			what = "stays"
		}
		fmt.Fprintf(&b, "%s %s: %s\n", d.ID, what, strings.Join(d.Reasons, "; "))
	}
	return b.String()
}

func TestDecide(t *testing.T) {
	tests := []struct {
		name   string
		zone   string // UTC
		now    string // local; 2026-11-20T12:00
		rule   Rule
		points string
		want   string
	}{
		{
			name: "an empty rule keeps everything",
			points: `2001-01-01T00:00
			         2026-11-20T00:00 pin=hold`,
			want: `p1 stays: the rule keeps everything
			       p2 stays: pinned: hold; the rule keeps everything`,
		},
		{
			name: "last counts slots, retries of a slot are extras",
			rule: Rule{Last: 2},
			points: `2026-11-17T22:00 slot=17
			         2026-11-18T22:00 slot=18
			         2026-11-18T23:00 slot=18
			         2026-11-19T22:00 slot=19
			         2026-11-19T23:00 slot=19
			         2026-11-19T23:30 slot=19`,
			want: `p1 GOES: no rule keeps it: 3rd of last 2
			       p2 stays: extra for 6 more days
			       p3 stays: last 2 of 2
			       p4 stays: extra for 7 more days
			       p5 stays: extra for 7 more days
			       p6 stays: last 1 of 2`,
		},
		{
			name: "a retry goes with its slot, however young",
			rule: Rule{Last: 1},
			points: `2026-11-20T10:00 slot=10
			         2026-11-20T10:10 slot=10
			         2026-11-20T11:00 slot=11`,
			want: `p1 GOES: no rule keeps it: the newest point of its slot goes too
			       p2 GOES: no rule keeps it: 2nd of last 1
			       p3 stays: last 1 of 1`,
		},
		{
			name: "manual runs beside a schedule are extras",
			rule: Rule{Last: 1, Extra: Span{3, Day}},
			points: `2026-11-16T22:00 slot=16
			         2026-11-17T11:00
			         2026-11-17T13:00
			         2026-11-19T22:00 slot=19
			         2026-11-20T09:00`,
			want: `p1 GOES: no rule keeps it: 2nd of last 1
			       p2 GOES: no rule keeps it: extra, older than 3d
			       p3 stays: extra for 1 more hour
			       p4 stays: last 1 of 1
			       p5 stays: extra for 3 more days`,
		},
		{
			name: "extras may be not wanted at all",
			rule: Rule{Last: 1, Extra: Span{0, Day}},
			points: `2026-11-20T09:00
			         2026-11-20T10:00 slot=10
			         2026-11-20T11:00`,
			want: `p1 GOES: no rule keeps it: extra, older than 0d
			       p2 stays: last 1 of 1
			       p3 stays: the newest point is always kept`,
		},
		{
			name: "without any schedule each manual run counts",
			rule: Rule{Last: 2},
			points: `2026-11-20T09:00
			         2026-11-20T10:00
			         2026-11-20T11:00`,
			want: `p1 GOES: no rule keeps it: 3rd of last 2
			       p2 stays: last 2 of 2
			       p3 stays: last 1 of 2`,
		},
		{
			name: "the newest of each period, periods without points don't count",
			rule: Rule{Daily: 2, Weekly: 2, Monthly: 3, Yearly: 5},
			points: `2024-12-31T22:00 slot=a
			         2025-07-01T22:00 slot=b
			         2026-11-09T22:00 slot=c
			         2026-11-14T22:00 slot=d
			         2026-11-15T10:00 slot=e
			         2026-11-15T22:00 slot=f`,
			want: `p1 stays: monthly 3 of 3: 2024-12; yearly 3 of 5: 2024
			       p2 stays: weekly 2 of 2: 2025-W27; monthly 2 of 3: 2025-07; yearly 2 of 5: 2025
			       p3 GOES: no rule keeps it: 3rd of daily 2, not the newest of 2026-W46, not the newest of 2026-11, not the newest of 2026
			       p4 stays: daily 2 of 2: 2026-11-14
			       p5 GOES: no rule keeps it: not the newest of 2026-11-15, not the newest of 2026-W46, not the newest of 2026-11, not the newest of 2026
			       p6 stays: daily 1 of 2: 2026-11-15; weekly 1 of 2: 2026-W46; monthly 1 of 3: 2026-11; yearly 1 of 5: 2026`,
		},
		{
			name: "a week may belong to another year than its day",
			rule: Rule{Weekly: 3},
			points: `2025-12-28T22:00 slot=a
			         2025-12-29T22:00 slot=b
			         2026-01-04T22:00 slot=c
			         2027-01-03T22:00 slot=d`,
			want: `p1 stays: weekly 3 of 3: 2025-W52
			       p2 GOES: no rule keeps it: not the newest of 2026-W01
			       p3 stays: weekly 2 of 3: 2026-W01
			       p4 stays: weekly 1 of 3: 2026-W53`,
		},
		{
			name: "periods are local: 23:30 UTC is tomorrow in Berlin",
			zone: "Europe/Berlin",
			rule: Rule{Daily: 3},
			points: `2026-11-19T00:30 slot=a
			         2026-11-19T23:59 slot=b
			         2026-11-20T00:00 slot=c`,
			want: `p1 GOES: no rule keeps it: not the newest of 2026-11-19
			       p2 stays: daily 2 of 3: 2026-11-19
			       p3 stays: daily 1 of 3: 2026-11-20`,
		},
		{
			name: "a manual run takes no period from the schedule, and stands in where it made none",
			rule: Rule{Daily: 3},
			points: `2026-10-01T11:00
			         2026-10-02T22:00 slot=02
			         2026-10-03T22:00 slot=03
			         2026-10-03T23:00
			         2026-10-04T11:00
			         2026-10-04T12:00
			         2026-10-05T22:00 slot=05`,
			want: `p1 GOES: no rule keeps it: before the oldest of daily 3, extra, older than 7d
			       p2 stays: daily 3 of 3: 2026-10-02
			       p3 stays: daily 2 of 3: 2026-10-03
			       p4 GOES: no rule keeps it: 2026-10-03 has a scheduled point, extra, older than 7d
			       p5 GOES: no rule keeps it: not the newest of 2026-10-04, extra, older than 7d
			       p6 stays: daily: 2026-10-04 has no scheduled point
			       p7 stays: daily 1 of 3: 2026-10-05`,
		},
		{
			name: "manual runs stand in for as many periods as the rule counts",
			rule: Rule{Daily: 2},
			points: `2026-10-01T11:00
			         2026-10-02T11:00
			         2026-10-03T11:00
			         2026-10-04T22:00 slot=04`,
			want: `p1 GOES: no rule keeps it: 3rd of daily 2, extra, older than 7d
			       p2 stays: daily: 2026-10-02 has no scheduled point
			       p3 stays: daily: 2026-10-03 has no scheduled point
			       p4 stays: daily 1 of 2: 2026-10-04`,
		},
		{
			name: "within and at least, to the second",
			rule: Rule{Within: Span{30, Day}, AtLeast: Span{2, Month}},
			points: `2026-09-20T12:00
			         2026-09-20T12:01
			         2026-10-21T12:00
			         2026-10-21T12:01
			         2026-11-20T12:00`,
			want: `p1 GOES: no rule keeps it: older than 30d
			       p2 stays: younger than 2m (at least)
			       p3 stays: younger than 2m (at least)
			       p4 stays: within 30d; younger than 2m (at least)
			       p5 stays: within 30d; younger than 2m (at least)`,
		},
		{
			name: "the floor holds against last",
			rule: Rule{Last: 1, AtLeast: Span{14, Day}},
			points: `2026-11-06T11:00 slot=a
			         2026-11-06T13:00 slot=b
			         2026-11-20T11:00 slot=c`,
			want: `p1 GOES: no rule keeps it: 3rd of last 1
			       p2 stays: younger than 14d (at least)
			       p3 stays: last 1 of 1; younger than 14d (at least)`,
		},
		{
			name: "pins keep, and don't count",
			rule: Rule{Last: 1},
			points: `2026-01-01T22:00 slot=a pin=legal-hold pin=audit
			         2026-01-02T22:00 slot=b
			         2026-01-03T22:00 slot=c pin=legal-hold`,
			want: `p1 stays: pinned: legal-hold, audit
			       p2 GOES: no rule keeps it: 2nd of last 1
			       p3 stays: pinned: legal-hold; last 1 of 1`,
		},
		{
			name: "the newest point and the newest scheduled point stay",
			rule: Rule{Within: Span{1, Week}},
			points: `2026-01-01T22:00 slot=a
			         2026-01-02T22:00 slot=b
			         2026-01-03T11:00
			         2026-01-03T12:00`,
			want: `p1 GOES: no rule keeps it: older than 1w
			       p2 stays: the newest scheduled point is always kept
			       p3 GOES: no rule keeps it: older than 1w, extra, older than 7d
			       p4 stays: the newest point is always kept`,
		},
		{
			name: "unless told otherwise",
			rule: Rule{Within: Span{1, Week}, ExpireNewest: true},
			points: `2026-01-01T22:00 slot=a
			         2026-01-03T12:00`,
			want: `p1 GOES: no rule keeps it: older than 1w
			       p2 GOES: no rule keeps it: older than 1w, extra, older than 7d`,
		},
		{
			name: "points from the future, when the clock was ahead or is behind",
			rule: Rule{Daily: 2, Within: Span{1, Day}, AtLeast: Span{1, Hour}},
			points: `2026-11-20T11:00
			         2027-11-20T11:00
			         2026-11-20T11:30`,
			want: `p1 stays: within 1d
			       p2 stays: daily 2 of 2: 2027-11-20; within 1d; younger than 1h (at least)
			       p3 stays: daily 1 of 2: 2026-11-20; within 1d; younger than 1h (at least)`,
		},
		{
			name: "the clock was a week back for two days: last and daily",
			now:  "2026-11-13T12:00",
			rule: Rule{Last: 2, Daily: 4},
			points: `2026-11-08T22:00 slot=08
			         2026-11-09T22:00 slot=09
			         2026-11-10T22:00 slot=10
			         2026-11-04T22:00 slot=04
			         2026-11-05T22:00 slot=05
			         2026-11-13T10:00 slot=13`,
			want: `p1 GOES: no rule keeps it: 6th of last 2, 6th of daily 4
			       p2 GOES: no rule keeps it: 5th of last 2, 5th of daily 4
			       p3 stays: daily 4 of 4: 2026-11-10
			       p4 stays: daily 3 of 4: 2026-11-04
			       p5 stays: last 2 of 2; daily 2 of 4: 2026-11-05
			       p6 stays: last 1 of 2; daily 1 of 4: 2026-11-13`,
		},
		{
			name: "the clock was a week back for two days: within",
			now:  "2026-11-13T12:00",
			rule: Rule{Within: Span{4, Day}},
			points: `2026-11-08T22:00 slot=08
			         2026-11-09T22:00 slot=09
			         2026-11-04T22:00 slot=04
			         2026-11-05T22:00 slot=05`,
			want: `p1 GOES: no rule keeps it: older than 4d
			       p2 stays: within 4d
			       p3 stays: within 4d
			       p4 stays: within 4d`,
		},
		{
			name: "the hour that comes twice is two hours",
			zone: "Europe/Berlin",
			rule: Rule{Hourly: 4},
			points: `2026-10-25T01:30:00+02:00 slot=a
			         2026-10-25T02:30:00+02:00 slot=b
			         2026-10-25T02:30:00+01:00 slot=c
			         2026-10-25T03:30:00+01:00 slot=d`,
			want: `p1 stays: hourly 4 of 4: 2026-10-25 01:00 CEST
			       p2 stays: hourly 3 of 4: 2026-10-25 02:00 CEST
			       p3 stays: hourly 2 of 4: 2026-10-25 02:00 CET
			       p4 stays: hourly 1 of 4: 2026-10-25 03:00 CET`,
		},
		{
			name: "leap day",
			rule: Rule{Daily: 2, Monthly: 2},
			points: `2028-02-28T22:00 slot=a
			         2028-02-29T22:00 slot=b
			         2028-03-01T22:00 slot=c`,
			want: `p1 GOES: no rule keeps it: 3rd of daily 2, not the newest of 2028-02
			       p2 stays: daily 2 of 2: 2028-02-29; monthly 2 of 2: 2028-02
			       p3 stays: daily 1 of 2: 2028-03-01; monthly 1 of 2: 2028-03`,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			loc := time.UTC
			if tt.zone != "" {
				loc = zone(t, tt.zone)
			}
			now := time.Date(2026, 11, 20, 12, 0, 0, 0, loc)
			if tt.now != "" {
				now = parsePoints(t, loc, tt.now)[0].Time
			}
			points := parsePoints(t, loc, tt.points)
			decisions, err := Decide(points, tt.rule, now, loc)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(trimLines(tt.want), say(decisions)); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

// trimLines takes the indentation away.
func trimLines(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		b.WriteString(strings.TrimSpace(line) + "\n")
	}
	return b.String()
}

// TestFifteenth: with 14 kept, 14 points stay whole, and the 15th lets exactly
// the oldest go.
func TestFifteenth(t *testing.T) {
	rule := Rule{Last: 14}
	start := time.Date(2026, 11, 1, 22, 0, 0, 0, time.UTC)
	var points []Point
	for n := 1; n <= 40; n++ {
		at := start.AddDate(0, 0, n)
		points = append(points, Point{ID: fmt.Sprint("p", n), Machine: "m", Job: "j", Slot: at.Format(time.DateOnly), Sequence: uint64(n), Time: at})
		decisions, err := Decide(points, rule, at, nil)
		if err != nil {
			t.Fatal(err)
		}
		left, gone := split(decisions)
		want := ""
		if n >= 15 {
			want = fmt.Sprintf("p%d GOES: no rule keeps it: 15th of last 14\n", n-14)
		}
		if got := say(gone); got != want {
			t.Fatalf("after point %d: %q goes, want %q", n, got, want)
		}
		points = left
	}
}

// split returns the points that stay and the decisions that let a point go.
func split(decisions []Decision) (left []Point, gone []Decision) {
	for _, d := range decisions {
		if d.Keep {
			left = append(left, d.Point)
		} else {
			gone = append(gone, d)
		}
	}
	return left, gone
}

func TestWords(t *testing.T) {
	for n, want := range map[int]string{1: "1st", 2: "2nd", 3: "3rd", 4: "4th", 11: "11th", 12: "12th", 13: "13th", 21: "21st", 22: "22nd", 111: "111th", 1003: "1003rd"} {
		if got := ordinal(n); got != want {
			t.Errorf("ordinal(%d) = %s, want %s", n, got, want)
		}
	}
	for d, want := range map[time.Duration]string{
		time.Nanosecond: "1 more hour", 61 * time.Minute: "2 more hours", 23 * time.Hour: "23 more hours",
		23*time.Hour + 1: "1 more day", 24 * time.Hour: "1 more day", 25 * time.Hour: "1 more day", 25*time.Hour + 1: "2 more days",
		7*24*time.Hour + time.Hour: "7 more days",
	} {
		if got := more(d); got != want {
			t.Errorf("more(%v) = %s, want %s", d, got, want)
		}
	}
}
