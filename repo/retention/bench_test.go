package retention

import (
	"fmt"
	"testing"
	"time"
)

// BenchmarkDecide judges 10,000 points of 100 machines, and of one, under a rule
// with every part.
func BenchmarkDecide(b *testing.B) {
	loc := zone(b, "Europe/Berlin")
	rule := Rule{Last: 14, Hourly: 24, Daily: 7, Weekly: 4, Monthly: 12, Yearly: 5, Within: Span{30, Day}, AtLeast: Span{14, Day}}
	for _, machines := range []int{1, 100} {
		b.Run(fmt.Sprintf("points=10000/machines=%d", machines), func(b *testing.B) {
			start := time.Date(2026, 1, 1, 22, 0, 0, 0, loc)
			var points []Point
			for n := range 10_000 {
				at := start.Add(time.Duration(n/machines) * 8 * time.Hour)
				p := Point{ID: fmt.Sprint(n), Machine: fmt.Sprint("machine", n%machines), Job: "nightly", Sequence: uint64(n), Time: at}
				if n%machines%10 != 9 {
					p.Slot = at.Format(time.RFC3339)
				}
				points = append(points, p)
			}
			now := points[len(points)-1].Time
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Decide(points, rule, now, loc); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
