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
	t.Run("pinned first", func(t *testing.T) {
		g := newGuard()
		run := g.begin()
		if run.hold(onlyA) == nil {
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
		if run.hold(onlyA) != nil {
			t.Error("a chunk in a condemned pack is known")
		}
		if run.hold(both) == nil || g.condemn(b) {
			t.Error("the copy that stays was not pinned")
		}
	})
	t.Run("a run that ends during a sweep", func(t *testing.T) {
		g := newGuard()
		run := g.begin()
		run.hold(onlyA)
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
		if run := g.begin(); run.hold(onlyA) == nil || g.isCondemned(a) {
			t.Error("a pack that stays after all isn't known")
		}
	})
}
