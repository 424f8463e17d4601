package repo

import (
	"testing"

	"holdfast/repo/index"
	"holdfast/repo/pack"
)

func TestGuard(t *testing.T) {
	a, b := pack.Name{15: 1}, pack.Name{15: 2}
	both := []index.Location{{Pack: a}, {Pack: b}}
	onlyA := both[:1]
	holds := func(p *pins, locs []index.Location) bool {
		loc, current := p.hold(p.asking(), locs)
		return loc != nil && current
	}
	t.Run("pinned first", func(t *testing.T) {
		g := newGuard()
		run := g.begin()
		if !holds(run, onlyA) {
			t.Fatal("a stored chunk isn't known")
		}
		if g.condemn(a) {
			t.Error("a pack that a run relies on was condemned")
		}
		run.end()
		if !g.condemn(a) {
			t.Error("the run has ended, and its pack is still kept")
		}
	})
	t.Run("condemned first", func(t *testing.T) {
		g := newGuard()
		g.condemn(a)
		run := g.begin()
		if holds(run, onlyA) {
			t.Error("a chunk in a condemned pack is known")
		}
		if !holds(run, both) || g.condemn(b) {
			t.Error("the copy that stays was not pinned")
		}
	})
	t.Run("a run that ends during a sweep", func(t *testing.T) {
		g := newGuard()
		run := g.begin()
		holds(run, onlyA)
		end := g.sweep()
		run.end()
		if g.condemn(a) {
			t.Error("its point may not be counted yet, and its pack was condemned")
		}
		end()
		end = g.sweep()
		defer end()
		if !g.condemn(a) {
			t.Error("the next sweep counts its point, and keeps the pack")
		}
	})
	t.Run("acquitted", func(t *testing.T) {
		g := newGuard()
		g.condemn(a)
		g.acquit(a)
		if run := g.begin(); !holds(run, onlyA) || g.isCondemned(a) {
			t.Error("a pack that stays after all isn't known")
		}
	})
	t.Run("removed after the index was asked", func(t *testing.T) {
		g := newGuard()
		run := g.begin()
		asked := run.asking()
		g.condemn(a)
		g.acquit(a)
		if loc, current := run.hold(asked, onlyA); loc != nil || current {
			t.Error("a chunk is known by a pack that is gone")
		}
	})
}
