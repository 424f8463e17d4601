//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
)

// memory backs up a huge sparse disk and brings it back: what it takes must not
// depend on the size.
func (b *runner) memory(ctx context.Context) (*result, error) {
	d, err := b.disk(ctx, hugeDisk)
	if err != nil {
		return nil, err
	}
	r := &result{
		Title:   fmt.Sprintf("a sparse disk of %s with %s of data", size(d.SizeBytes), size(d.DataBytes)),
		columns: []column{colWall, colCPU, colRSS, colAnon, colRead},
	}
	for _, t := range []tool{b.plain, b.secret} {
		var s site
		add := func(what string, rows []figures, err error) error {
			for _, f := range rows {
				f.Tool += ": " + what
				r.Rows = append(r.Rows, f)
			}
			return err
		}
		rows, err := b.run(ctx, contest{
			tools: []tool{t}, times: 1, source: d.image(), prepare: b.begin,
			do:    func(s site, t tool) command { return t.backup(s, d.Dir, "first") },
			after: backedUp,
			keep:  func(_ tool, kept site) { s = kept },
		})
		if err := add("first backup", rows, err); err != nil {
			return nil, err
		}
		rows, err = b.run(ctx, contest{
			tools: []tool{t}, times: 1, source: d.image(), reuse: true,
			prepare: func(context.Context, tool) (site, error) { return s, nil },
			do:      func(s site, t tool) command { return t.backup(s, d.Dir, "second") },
			after:   backedUp,
		})
		if err := add("second backup", rows, err); err != nil {
			return nil, err
		}
		rows, err = b.restores(ctx, d, []tool{t}, func(tool) (site, error) { return s, nil })
		if err := errors.Join(add("restore", rows, err), os.RemoveAll(s.dir)); err != nil {
			return nil, err
		}
	}
	r.atMost("most memory of these and all tables before, MiB of RSS", float64(b.peak.RSS)/(1<<20), 256)
	r.note("the most RssAnon was %s", size(b.peak.Anon))
	return r, nil
}
