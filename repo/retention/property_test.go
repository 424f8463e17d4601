package retention

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// A world is what one seed gives: points of a few series, a rule, a time and a
// calendar.
type world struct {
	points []Point
	rule   Rule
	now    time.Time
	loc    *time.Location
}

const seeds = 300

// eachWorld runs fn over many worlds; a failure names the seed.
func eachWorld(t *testing.T, fn func(t *testing.T, r *rand.Rand, w world)) {
	t.Helper()
	zones := []*time.Location{time.UTC, zone(t, "Europe/Berlin"), zone(t, "Australia/Lord_Howe"), zone(t, "America/Sao_Paulo")}
	for seed := range uint64(seeds) {
		r := rand.New(rand.NewPCG(seed, 42))
		w := newWorld(r, zones[r.IntN(len(zones))])
		fn(t, r, w)
		if t.Failed() {
			t.Fatalf("seed %d: rule %v, now %v in %v", seed, w.rule, w.now, w.loc)
		}
	}
}

func newWorld(r *rand.Rand, loc *time.Location) world {
	// October 2027 to March 2028: summer time ends and starts, a year ends, a leap day.
	start := time.Date(2027, 10, 1+r.IntN(150), r.IntN(24), 0, 0, 0, loc)
	w := world{loc: loc, rule: newRule(r), now: start}
	manualShare, retryShare, jumpShare := r.IntN(3)*20, r.IntN(2)*15, r.IntN(3)*4
	for machine := range 1 + r.IntN(3) {
		at, slots := start, 0
		step := []time.Duration{time.Hour, 8 * time.Hour, 24 * time.Hour, 100 * time.Hour}[r.IntN(4)]
		for n := range r.IntN(60) {
			at = at.Add(step/2 + time.Duration(r.Int64N(int64(step))))
			if r.IntN(100) < jumpShare {
				at = at.Add(time.Duration(r.IntN(41)-20) * 24 * time.Hour)
			}
			p := Point{
				ID: fmt.Sprintf("m%d.%02d", machine, n), Machine: fmt.Sprint("m", machine), Job: fmt.Sprint("j", r.IntN(2)),
				Time: at, Sequence: uint64(n + 1),
			}
			switch k := r.IntN(100); {
			case k < manualShare:
			case k < manualShare+retryShare && slots > 0:
				p.Slot = fmt.Sprint("slot", slots-r.IntN(min(slots, 3)))
			default:
				slots++
				p.Slot = fmt.Sprint("slot", slots)
			}
			if r.IntN(20) == 0 {
				p.Pins = []string{"hold"}
			}
			w.points = append(w.points, p)
		}
		w.now = at.Add(time.Duration(r.IntN(100)-10) * time.Hour)
	}
	return w
}

func newRule(r *rand.Rand) Rule {
	count := func() int { return max(0, r.IntN(16)-8) }
	span := func() Span {
		return []Span{{}, {}, {5, Hour}, {3, Day}, {2, Week}, {1, Month}}[r.IntN(6)]
	}
	rule := Rule{
		Last: count(), Hourly: count(), Daily: count(), Weekly: count(), Monthly: count(), Yearly: count(),
		Within: span(), AtLeast: span(), Extra: span(),
	}
	if rule.IsEmpty() {
		rule.Last = 1
	}
	rule.ExpireNewest = rule.Last > 0 && r.IntN(4) == 0
	return rule
}

// reasons decides and returns, by id, why each kept point stays.
func reasons(t *testing.T, points []Point, rule Rule, now time.Time, loc *time.Location) map[string][]string {
	t.Helper()
	decisions, err := Decide(points, rule, now, loc)
	if err != nil {
		t.Fatal(err)
	}
	if len(decisions) != len(points) {
		t.Fatalf("%d decisions over %d points", len(decisions), len(points))
	}
	kept := make(map[string][]string)
	for _, d := range decisions {
		if len(d.Reasons) == 0 || slices.Contains(d.Reasons, "") || (!d.Keep && len(d.Reasons) != 1) {
			t.Errorf("point %s, keep %v: reasons %q", d.ID, d.Keep, d.Reasons)
		}
		if d.Keep {
			kept[d.ID] = d.Reasons
		}
	}
	return kept
}

// holds checks that every point kept before is kept now.
func holds(t *testing.T, what string, before, now map[string][]string) {
	t.Helper()
	for _, id := range slices.Sorted(maps.Keys(before)) {
		if now[id] == nil {
			t.Errorf("%s: loses %s, kept before by %q", what, id, before[id])
		}
	}
}

func only(points []Point, keep func(Point) bool) []Point {
	return slices.DeleteFunc(slices.Clone(points), func(p Point) bool { return !keep(p) })
}

func TestNoHigherCountLosesAPoint(t *testing.T) {
	eachWorld(t, func(t *testing.T, r *rand.Rand, w world) {
		more := w.rule
		counts := []*int{&more.Last, &more.Hourly, &more.Daily, &more.Weekly, &more.Monthly, &more.Yearly}
		*counts[r.IntN(len(counts))] += 1 + r.IntN(3)
		spans := []*Span{&more.Within, &more.AtLeast, &more.Extra}
		if s := spans[r.IntN(len(spans))]; *s == (Span{}) {
			*s = Span{8, Day} // longer than the default of extra
		} else {
			s.Count++
		}
		holds(t, fmt.Sprintf("%v after %v", more, w.rule),
			reasons(t, w.points, w.rule, w.now, w.loc), reasons(t, w.points, more, w.now, w.loc))
	})
}

func TestTwiceIsOnce(t *testing.T) {
	expired := 0
	eachWorld(t, func(t *testing.T, r *rand.Rand, w world) {
		once := reasons(t, w.points, w.rule, w.now, w.loc)
		// Some that should go may still be there: locked, or an interrupted expiry.
		left := only(w.points, func(p Point) bool { return once[p.ID] != nil || r.IntN(10) == 0 })
		expired += len(w.points) - len(left)
		holds(t, "the second time", once, reasons(t, left, w.rule, w.now, w.loc))
	})
	if expired < 10*seeds {
		t.Errorf("only %d points expired in %d worlds; the test tests nothing", expired, seeds)
	}
}

func TestNothingComesBack(t *testing.T) {
	eachWorld(t, func(t *testing.T, r *rand.Rand, w world) {
		later := w.now.Add(time.Duration(r.Int64N(int64(60 * 24 * time.Hour))))
		holds(t, "the time before", reasons(t, w.points, w.rule, later, w.loc), reasons(t, w.points, w.rule, w.now, w.loc))
	})
}

func TestSeriesAreIndependent(t *testing.T) {
	eachWorld(t, func(t *testing.T, r *rand.Rand, w world) {
		all := reasons(t, w.points, w.rule, w.now, w.loc)
		apart := make(map[string][]string)
		type key struct{ machine, job string }
		done := make(map[key]bool)
		for _, p := range w.points {
			k := key{p.Machine, p.Job}
			if done[k] {
				continue
			}
			done[k] = true
			series := only(w.points, func(q Point) bool { return q.Machine == p.Machine && q.Job == p.Job })
			maps.Copy(apart, reasons(t, series, w.rule, w.now, w.loc))
		}
		if diff := cmp.Diff(all, apart); diff != "" {
			t.Errorf("together and apart differ:\n%s", diff)
		}
	})
}

func TestOrderOfInputDoesNotMatter(t *testing.T) {
	eachWorld(t, func(t *testing.T, r *rand.Rand, w world) {
		a, _ := Decide(w.points, w.rule, w.now, w.loc)
		shuffled := slices.Clone(w.points)
		r.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		given := slices.Clone(shuffled)
		b, err := Decide(shuffled, w.rule, w.now, w.loc)
		if err != nil || say(a) != say(b) {
			t.Errorf("%v\n%s", err, cmp.Diff(a, b))
		}
		if !reflect.DeepEqual(given, shuffled) {
			t.Error("the caller's points were reordered")
		}
	})
}

func TestPinnedAndNewestStay(t *testing.T) {
	eachWorld(t, func(t *testing.T, r *rand.Rand, w world) {
		kept := reasons(t, w.points, w.rule, w.now, w.loc)
		newest := make(map[string]string)
		for _, p := range w.points { // sequences ascend
			newest[p.Machine+p.Job] = p.ID
			if p.Pins != nil && kept[p.ID] == nil {
				t.Errorf("%s is pinned and goes", p.ID)
			}
		}
		for _, id := range newest {
			if kept[id] == nil && !w.rule.ExpireNewest {
				t.Errorf("%s is the newest of its series and goes", id)
			}
		}
	})
}

func TestManualRunsCostNothing(t *testing.T) {
	eachWorld(t, func(t *testing.T, r *rand.Rand, w world) {
		scheduled := only(w.points, func(p Point) bool { return p.Slot != "" })
		holds(t, "with manual runs",
			reasons(t, scheduled, w.rule, w.now, w.loc), reasons(t, w.points, w.rule, w.now, w.loc))
	})
}

// TestWrongClock: by last, within and at least the newest points stay and the
// oldest go, whatever the clock said when they were made.
func TestWrongClock(t *testing.T) {
	eachWorld(t, func(t *testing.T, r *rand.Rand, w world) {
		rule := Rule{Last: w.rule.Last, Within: w.rule.Within, AtLeast: w.rule.AtLeast}
		if rule.IsEmpty() {
			rule.Last = 3
		}
		points := only(w.points, func(p Point) bool { return p.Slot != "" })
		slots := make(map[string]bool)
		points = only(points, func(p Point) bool { // no retries
			k := p.Machine + p.Job + p.Slot
			seen := slots[k]
			slots[k] = true
			return !seen
		})
		for i := range points {
			points[i].Pins = nil
		}
		kept := reasons(t, points, rule, w.now, w.loc)
		since := make(map[string]string)
		for _, p := range points {
			switch k := p.Machine + p.Job; {
			case kept[p.ID] != nil && since[k] == "":
				since[k] = p.ID
			case kept[p.ID] == nil && since[k] != "":
				t.Errorf("%v: %s goes, the older %s stays: %q", rule, p.ID, since[k], kept[since[k]])
			}
		}
	})
}

// TestPlainOracle compares with the obvious way to say it, for a schedule
// without extras on a clock that only goes forward: of each period the last
// point, and of these the last n.
func TestPlainOracle(t *testing.T) {
	names := []func(time.Time) string{
		func(t time.Time) string { return t.Format("2006-01-02 15 -0700") },
		func(t time.Time) string { return t.Format("2006-01-02") },
		func(t time.Time) string { y, w := t.ISOWeek(); return fmt.Sprintf("%04d-%02d", y, w) },
		func(t time.Time) string { return t.Format("2006-01") },
		func(t time.Time) string { return t.Format("2006") },
	}
	eachWorld(t, func(t *testing.T, r *rand.Rand, w world) {
		var points []Point
		at := w.now
		for n := range r.IntN(200) {
			at = at.Add(time.Duration(1 + r.Int64N(int64(40*time.Hour))))
			points = append(points, Point{ID: fmt.Sprint(n), Sequence: uint64(n), Slot: fmt.Sprint(n), Time: at})
		}
		rule := w.rule
		rule.Within, rule.AtLeast = Span{}, Span{}
		if rule.IsEmpty() {
			rule.Daily = 3
		}
		want := make(map[string]bool)
		for i := max(0, len(points)-max(rule.Last, 1)); i < len(points); i++ {
			want[points[i].ID] = true
		}
		for l, name := range names {
			marks := make(map[string]string)
			var periods []string
			for _, p := range points {
				n := name(p.Time.In(w.loc))
				if marks[n] == "" {
					periods = append(periods, n)
				}
				marks[n] = p.ID
			}
			for i := max(0, len(periods)-levels[l].count(&rule)); i < len(periods); i++ {
				want[marks[periods[i]]] = true
			}
		}
		got := make(map[string]bool)
		for id := range reasons(t, points, rule, at, w.loc) {
			got[id] = true
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%v: -want +got\n%s", rule, diff)
		}
	})
}
