//go:build linux

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
)

// sweep lets one of a thousand points go in a synthetic store of many chunks,
// which a test of the engine makes.
func (b *runner) sweep(ctx context.Context) (*result, error) {
	st, s, err := b.store(fmt.Sprintf("%d chunks", b.opt.chunks))
	if err != nil {
		return nil, err
	}
	if st == nil {
		if err := s.makeDirs(); err != nil {
			return nil, err
		}
		c := command{
			args: []string{"go", "test", "./repo", "-run", "^TestSweepScale$", "-count", "1", "-timeout", "60m"},
			env:  []string{"HOLDFAST_SCALE=1", "HOLDFAST_SCALE_DIR=" + s.dir, fmt.Sprintf("HOLDFAST_SCALE_CHUNKS=%d", b.opt.chunks)},
		}
		u, _, err := c.run(ctx)
		if err != nil {
			return nil, err
		}
		b.say("  made in %.0f s", u.wall.Seconds())
		ids, err := b.ids(ctx, b.plain, s)
		if err != nil {
			return nil, err
		}
		if st, err = s.keep(ids); err != nil {
			return nil, err
		}
	}
	if s, err = b.siteOf(ctx, st); err != nil {
		return nil, err
	}
	packs, err := s.packs()
	if err != nil {
		return nil, err
	}
	r := &result{
		Title: fmt.Sprintf("a synthetic store of %d chunks in %d packs, %d points of 10 machines; a hundredth of each disk changed from point to point", b.opt.chunks, len(packs), len(st.IDs)),
		columns: []column{
			colWall, colCPU, colRSS, colAnon, colIn, colOut,
			{"opening s", func(f figures) string { return number(f.Open) }},
			{"packs removed", func(f figures) string { return fmt.Sprint(f.Packs) }},
		},
	}
	once := func(what string, order upkeep) (figures, error) {
		if err := settle(b.opt.work); err != nil {
			return figures{}, err
		}
		u, out, err := b.plain.upkeep(s, order).run(ctx)
		if err != nil {
			return figures{}, fmt.Errorf("%s: %w", what, err)
		}
		var rep upkeepReport
		if err := json.Unmarshal(out, &rep); err != nil {
			return figures{}, err
		}
		b.say("  %-42s %8.2f s", what, u.wall.Seconds())
		return figures{
			Tool: what, Wall: u.wall.Seconds(), CPU: u.cpu.Seconds(), RSS: u.rss, Anon: u.anon, In: u.in, Out: u.out,
			Open: rep.Open, Packs: rep.Packs, Times: 1,
		}, nil
	}
	first, err := once("first sweep ever, which counts everything", upkeep{Verb: "sweep"})
	if err != nil {
		return nil, err
	}
	var expires, sweeps []figures
	for i := range b.times() {
		id := st.IDs[len(st.IDs)/2+i]
		for _, step := range []struct {
			what  string
			order upkeep
			into  *[]figures
		}{
			{"expiry of one point", upkeep{Verb: "expire", Point: id}, &expires},
			{"sweep of that point", upkeep{Verb: "sweep"}, &sweeps},
		} {
			f, err := once(step.what, step.order)
			if err != nil {
				return nil, err
			}
			*step.into = append(*step.into, f)
		}
	}
	none, err := once("sweep of nothing", upkeep{Verb: "sweep"})
	if err != nil {
		return nil, err
	}
	r.Rows = []figures{first, median(expires), median(sweeps), none}
	for _, f := range sweeps {
		if f.Packs == 0 {
			r.note("a sweep removed no pack")
		}
	}
	r.note("chunks have made-up ids and records of 168 bytes, 64 in a pack; block maps, index, ledger and counts are the engine's own. Whole processes, the page cache warm")
	r.note("\"reads\" and \"writes\" are bytes of system calls; \"opening\" is the part of the time until the process owns the repository")
	return r, os.RemoveAll(s.dir)
}
