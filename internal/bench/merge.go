//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
)

// mergePoints is how many points the history has, of which one goes.
const mergePoints = 100

// mergeExtent is what changes between them in one place.
const mergeExtent = 1 << 20

// ofHundred is how many extents are a hundredth of a disk, at least two.
func ofHundred(size int64) int { return int(max(2, size/100/mergeExtent)) }

// merge lets one point of a hundred go: first until that is durable, then until
// its bytes are free. All packs of ours are locked when it begins.
func (b *runner) merge(ctx context.Context) (*result, error) {
	h := history{name: "merge", size: b.opt.history, points: mergePoints, extent: mergeExtent, count: ofHundred(b.opt.history)}
	tools := []tool{b.plain, b.borg, b.secret, b.restic}
	stores, _, err := b.histories(ctx, h, tools)
	if err != nil {
		return nil, err
	}
	r := &result{
		Title: fmt.Sprintf("one of %d points of a disk of %s goes, %d extents of %s changed between them", h.points, size(h.size), h.count, size(h.extent)),
		columns: []column{
			{"durable s", func(f figures) string { return number(f.Durable) }},
			{"writes", func(f figures) string { return size(f.Out) }},
			{"bytes free s", func(f figures) string { return number(f.Wall) }},
			colCPU,
			{"moves", func(f figures) string { return size(f.Moved) }},
			{"freed", func(f figures) string { return size(f.Freed) }},
		},
	}
	var compacted []string
	allLocked := true
	for _, c := range []struct {
		what string
		at   int
	}{{"oldest", 0}, {"middle", mergePoints / 2}} {
		runs := make([][]figures, len(tools))
		for range b.times() {
			for i, t := range tools {
				m := &merger{tool: t, locked: true}
				if err := m.run(ctx, b, stores[i], stores[i].IDs[c.at]); err != nil {
					return nil, fmt.Errorf("%s: %w", t.label(), err)
				}
				allLocked = allLocked && m.locked
				b.say("  %-32s %8.2f s until durable, %.2f s until free", t.label(), m.f.Durable, m.f.Wall)
				if runs[i] = append(runs[i], m.f); len(runs[i]) == 1 && t == tool(b.plain) {
					compacted = append(compacted, fmt.Sprintf("%s point: %s copied, %s freed, in %s s", c.what, size(m.compact.MovedBytes), size(m.compacted), number(m.compact.Seconds)))
				}
			}
		}
		for i, t := range tools {
			f := median(runs[i])
			f.Tool = t.label() + ": " + c.what
			r.Rows = append(r.Rows, f)
			if !t.peer() {
				r.atMost(f.Tool+": seconds until durable", f.Durable, 1)
				r.atMost(f.Tool+": bytes of packs written", float64(f.Moved), 0)
			}
		}
	}
	r.note("whole processes. Ours: expire, then sweep; borg: delete, then compact; restic: forget, then prune. \"bytes free\" is both together")
	r.note("\"writes\" is what the process wrote until it was durable; \"moves\" is, of ours, bytes of packs that were not there before, and of the peers all that they wrote in the second step")
	r.note("sweep frees whole packs. What is then left dead in packs with living records, compact --dead 0 would free at once, with small packs put together: %s", strings.Join(compacted, "; "))
	if allLocked {
		r.note("all packs of ours were immutable (chattr +i) until it was durable, and were unlocked for the sweep")
	} else {
		r.note("packs could not be made immutable here (that needs root, and a file system with the flag)")
	}
	return r, nil
}

// A merger lets one point of a store go, with one tool.
type merger struct {
	tool      tool
	locked    bool // all packs of ours were, at first
	f         figures
	compact   upkeepReport // of ours: what was left in packs with dead bytes, at once
	compacted int64        // bytes that this freed
}

func (m *merger) run(ctx context.Context, b *runner, st *store, id string) (err error) {
	s, err := b.siteOf(ctx, st)
	if err != nil {
		return err
	}
	t := m.tool
	m.f = figures{Tool: t.label(), Peer: t.peer(), Sealed: t.sealed()}
	drop, free := dropping(t, s, id)
	packs := map[string]int64{}
	if !t.peer() {
		if packs, err = s.packs(); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, unlock(s.dir)) }()
		if m.locked, err = s.lock(); err != nil {
			return err
		}
	}
	before, err := treeBytes(s.repo())
	if err != nil {
		return err
	}
	if err := settle(b.opt.work); err != nil {
		return err
	}
	first, _, err := drop.run(ctx)
	if err != nil {
		return err
	}
	if err := errors.Join(unlock(s.dir), settle(b.opt.work)); err != nil {
		return err
	}
	second, _, err := free.run(ctx)
	if err != nil {
		return err
	}
	m.f.Durable, m.f.Out = first.wall.Seconds(), first.out
	m.f.Wall, m.f.CPU = (first.wall + second.wall).Seconds(), (first.cpu + second.cpu).Seconds()
	m.f.Moved = second.out
	after, err := treeBytes(s.repo())
	if err != nil {
		return err
	}
	m.f.Freed = before - after
	if ours, ok := t.(*holdfast); ok {
		if err := m.rest(ctx, ours, s, packs); err != nil {
			return err
		}
	}
	return os.RemoveAll(s.dir)
}

// rest is what only ours is asked: which bytes are in packs that were not there
// before, and what is freed when everything dead is.
func (m *merger) rest(ctx context.Context, h *holdfast, s site, packs map[string]int64) error {
	now, err := s.packs()
	if err != nil {
		return err
	}
	m.f.Moved = 0
	for path, n := range now {
		if _, old := packs[path]; !old {
			m.f.Moved += n
		}
	}
	before, err := treeBytes(s.repo())
	if err != nil {
		return err
	}
	_, out, err := h.upkeep(s, upkeep{Verb: "compact", AnyDead: true}).run(ctx)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(out, &m.compact); err != nil {
		return err
	}
	after, err := treeBytes(s.repo())
	m.compacted = before - after
	return err
}

// dropping returns the commands that let a point go and that free its bytes.
func dropping(t tool, s site, id string) (drop, free command) {
	switch t := t.(type) {
	case *holdfast:
		return t.command(s, "expire", s.repo(), id), t.upkeep(s, upkeep{Verb: "sweep"})
	case *borg:
		return t.command(s, "delete", s.repo()+"::"+id), t.command(s, "compact", s.repo())
	case *restic:
		return t.command(s, "forget", id), t.command(s, "prune")
	}
	panic("a tool that drops no points: " + t.label())
}
