//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
)

// restore brings the dense disk back.
func (b *runner) restore(ctx context.Context) (*result, error) {
	d, err := b.disk(ctx, denseDisk)
	if err != nil {
		return nil, err
	}
	r := &result{
		Title:   fmt.Sprintf("restore of the dense disk, %s, repository not in the page cache", size(d.SizeBytes)),
		columns: []column{colWall, colCPU, colRate, colPerCPU, colRSS, colAnon},
	}
	r.Rows, err = b.restores(ctx, d, with(b.plain, b.borg, b.secret, b.restic, b.kopia), func(t tool) (site, error) { return b.fullSite(ctx, t) })
	if err != nil {
		return nil, err
	}
	r.work(d.DataBytes)
	b.compareCPU(r, 2)
	r.note("the image is compared with its source after each run")
	return r, nil
}

func (b *runner) restores(ctx context.Context, d disk, tools []tool, from func(tool) (site, error)) ([]figures, error) {
	target := filepath.Join(b.opt.work, "out", "restored")
	var image string
	return b.run(ctx, contest{
		tools: tools, times: b.times(),
		prepare: func(ctx context.Context, t tool) (site, error) {
			s, err := from(t)
			if err != nil {
				return s, err
			}
			if err := os.RemoveAll(target); err != nil {
				return s, err
			}
			if err := os.MkdirAll(target, 0o755); err != nil {
				return s, err
			}
			return s, chill(s.repo())
		},
		do: func(s site, t tool) (c command) {
			c, image = t.restore(s, "first", target)
			return c
		},
		after: func(_ site, _ tool, _ []byte, f *figures) error {
			f.Stored = 0
			if err := sameDisk(d.image(), image); err != nil {
				return err
			}
			return os.RemoveAll(target)
		},
		reuse: true,
	})
}
