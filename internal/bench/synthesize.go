//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// increments are how many points are based on the first.
const increments = 300

// synthesize restores the newest point of a long chain, before and after its
// chunks were put together again.
func (b *runner) synthesize(ctx context.Context) (*result, error) {
	h := history{name: "synthesize", size: b.opt.history, points: increments + 1, extent: 16 << 10, count: 24}
	stores, image, err := b.histories(ctx, h, []tool{b.plain})
	if err != nil {
		return nil, err
	}
	st := stores[0]
	r := &result{
		Title: fmt.Sprintf("restore of the newest point of a disk of %s after %d increments, each of %d random writes of %s, repository not in the page cache", size(h.size), increments, h.count, size(h.extent)),
		columns: []column{colWall, colCPU, colRate, colPerCPU, {"from storage", func(f figures) string { return size(f.Storage) }},
			{"packs read", func(f figures) string { return fmt.Sprint(f.Packs) }}},
	}
	fresh, err := b.firstBackup(ctx, b.plain, filepath.Dir(image))
	if err != nil {
		return nil, err
	}
	scattered, err := b.siteOf(ctx, st)
	if err != nil {
		return nil, err
	}
	together, err := b.siteOf(ctx, st)
	if err != nil {
		return nil, err
	}
	for _, order := range []upkeep{{Verb: "synthesize", Point: st.IDs[len(st.IDs)-1]}, {Verb: "compact"}} {
		u, out, err := b.plain.upkeep(together, order).run(ctx)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", order.Verb, err)
		}
		var rep upkeepReport
		if err := json.Unmarshal(out, &rep); err != nil {
			return nil, err
		}
		r.note("%s took %s s, %s s of CPU, copied %s and freed %s; the most memory was %s", order.Verb,
			number(u.wall.Seconds()), number(u.cpu.Seconds()), size(rep.MovedBytes), size(rep.FreedBytes), size(u.rss))
	}
	target := filepath.Join(b.opt.work, "out", "restored")
	before, after, full := variant{b.plain, "before"}, variant{b.plain, "after synthesize and compact"}, variant{b.plain, "a first backup of the same, for comparison"}
	sites := map[tool]site{before: scattered, after: together, full: fresh}
	r.Rows, err = b.run(ctx, contest{
		tools: []tool{before, after, full}, times: b.times(), reuse: true,
		prepare: func(_ context.Context, t tool) (site, error) {
			s := sites[t]
			err := errors.Join(os.RemoveAll(target), os.MkdirAll(target, 0o755), chill(s.repo()), s.neverRead())
			return s, err
		},
		do: func(s site, t tool) command {
			c, _ := t.restore(s, "", target)
			return c
		},
		after: func(s site, _ tool, _ []byte, f *figures) (err error) {
			f.Stored, f.Work = 0, h.size
			if f.Packs, err = s.packsRead(); err != nil {
				return err
			}
			return sameDisk(image, filepath.Join(target, diskName))
		},
	})
	if err != nil {
		return nil, err
	}
	was, _ := r.row(before.name)
	is, _ := r.row(after.name)
	r.note("wall time before / after: %s; CPU: %s. The image is compared with its source after each run", number(was.Wall/is.Wall), number(was.CPU/is.CPU))
	if was.Packs == 0 {
		r.note("packs read could not be counted: the file system keeps no times of access")
	}
	for _, s := range sites {
		if err := os.RemoveAll(s.dir); err != nil {
			return nil, err
		}
	}
	return r, os.RemoveAll(target)
}

// neverRead makes all packs look as if nobody had read them since they were
// written, so that the system notes when somebody does.
func (s site) neverRead() error {
	packs, err := s.packs()
	for path := range packs {
		err = errors.Join(err, os.Chtimes(path, longAgo, longAgo.Add(time.Hour)))
	}
	return err
}

var longAgo = time.Unix(1e9, 0)
