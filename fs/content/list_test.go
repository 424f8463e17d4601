package content

import (
	"slices"
	"testing"
	"time"

	"holdfast/repo"
)

// TestPointNames expires points one after the other, the earliest first, and
// finds that no name ever leads to another point, within this process or in one
// that never saw what has gone.
func TestPointNames(t *testing.T) {
	at := time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC)
	point := func(id, machine string, ms int) repo.Point {
		return repo.Point{ID: repo.PointID(id), Machine: machine, Time: at.Add(time.Duration(ms) * time.Millisecond)}
	}
	all := []repo.Point{
		point("aaaaaaaaaaaaaaaaaaaa", "m", 0), point("bbbbbbbbbbbbbbbbbbbb", "m", 1),
		point("cccccccccccccccccccc", "n", 1), // another machine's
		point("dddddddddddddddddddd", "m", 999),
		// Copies from two repositories.
		point("eeeeeeeeeeeeeeeeeeee", "m", 1000), point("ffffffffffffffffffff", "n", 1000), point("gggggggggggggggggggg", "m", 1000),
	}
	tree := &Tree{points: newPool[repo.PointID, *openPoint](1, nil, nil)}
	want := map[string]string{
		"2026-11-22T03-00-00.000Z": "a", "2026-11-22T03-00-00.001Z": "b", "2026-11-22T03-00-00.999Z": "d",
		"2026-11-22T03-00-01.000Z-eeeeeeeeeeeeeeeeeeee": "e", "2026-11-22T03-00-01.000Z-gggggggggggggggggggg": "g",
	}
	var old *listing
	for len(all) > 0 {
		for _, before := range []*listing{nil, old} {
			m := tree.newListing(at, slices.Clone(all), before).byName["m"]
			for name, id := range want {
				there := slices.ContainsFunc(all, func(p repo.Point) bool { return p.ID[:1] == repo.PointID(id) })
				switch p := m.named(name); {
				case p == nil && there:
					t.Errorf("%d points: %s is gone", len(all), name)
				case p != nil && string(p.ID[:1]) != id:
					t.Errorf("%d points: %s leads to %s", len(all), name, p.ID)
				}
			}
			if m.named("2026-11-22T03-00-00Z") != nil {
				t.Error("half a name leads somewhere")
			}
			if len(all) > 2 && m.named("2026-11-22T03-00-01.000Z") != nil {
				t.Error("the name of two points leads to one of them")
			}
		}
		old = tree.newListing(at, slices.Clone(all), old)
		all = all[1:]
	}
}
