package retention_test

import (
	"fmt"
	"strings"
	"time"

	"holdfast/repo/retention"
)

func ExampleDecide() {
	rule := retention.Rule{Last: 3, Weekly: 2, AtLeast: retention.Span{Count: 2, Unit: retention.Day}}
	var points []retention.Point
	for day := 13; day <= 20; day++ {
		at := time.Date(2026, 11, day, 22, 0, 0, 0, time.UTC)
		points = append(points, retention.Point{
			ID: fmt.Sprint("nov", day), Machine: "db1", Job: "nightly", Slot: at.Format(time.DateOnly),
			Time: at, Sequence: uint64(day),
		})
	}
	points[1].Pins = []string{"before-upgrade"}

	now := time.Date(2026, 11, 20, 23, 0, 0, 0, time.UTC)
	decisions, err := retention.Decide(points, rule, now, time.UTC)
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, d := range decisions {
		verdict := "goes "
		if d.Keep {
			verdict = "stays"
		}
		fmt.Println(d.ID, verdict, strings.Join(d.Reasons, "; "))
	}
	// Output:
	// nov13 goes  no rule keeps it: 8th of last 3, not the newest of 2026-W46
	// nov14 stays pinned: before-upgrade
	// nov15 stays weekly 2 of 2: 2026-W46
	// nov16 goes  no rule keeps it: 5th of last 3, not the newest of 2026-W47
	// nov17 goes  no rule keeps it: 4th of last 3, not the newest of 2026-W47
	// nov18 stays last 3 of 3
	// nov19 stays last 2 of 3; younger than 2d (at least)
	// nov20 stays last 1 of 3; weekly 1 of 2: 2026-W47; younger than 2d (at least)
}

func ExampleParseSpan() {
	span, err := retention.ParseSpan("6w")
	fmt.Println(span, err)
	_, err = retention.ParseSpan("30")
	fmt.Println(err)
	// Output:
	// 6w <nil>
	// span "30": want a number and one of h, d, w, m (months), y, such as 30d
}
