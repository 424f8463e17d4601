//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// curve tries the sizes of chunks and frames that a repository may have.
func (b *runner) curve(ctx context.Context) (*result, error) {
	d, err := b.disk(ctx, denseDisk)
	if err != nil {
		return nil, err
	}
	db, err := b.disk(ctx, dbDisk)
	if err != nil {
		return nil, err
	}
	second, err := b.disk(ctx, dbSecond)
	if err != nil {
		return nil, err
	}
	written := float64(b.opt.writes * pageBytes)
	r := &result{
		Title: fmt.Sprintf("sizes of chunks and frames: dense disk of %s, cold 4 KiB reads of it, and %d random writes to the database disk", size(d.SizeBytes), b.opt.writes),
		columns: []column{colWall, colCPU, colPerCPU, colRSS, colBare, colStored, colRatio,
			{"cold IOPS", func(f figures) string { return number(f.IOPS) }},
			{"read / asked", func(f figures) string { return number(f.PerByte) }},
			{"random stored / written", func(f figures) string { return number(float64(f.Random) / written) }},
		},
	}
	for _, g := range [][2]string{{"256K", "64K"}, {"256K", "128K"}, {"1M", "64K"}, {"1M", "128K"}, {"1M", "256K"}, {"4M", "128K"}, {"4M", "256K"}} {
		t := &holdfast{bin: b.opt.bin, name: "chunk " + g[0] + ", frame " + g[1], init: []string{"--chunk", g[0], "--frame", g[1]}}
		var s site
		rows, err := b.run(ctx, contest{
			tools: []tool{t}, times: b.times(), source: d.image(), prepare: b.begin,
			do:    func(s site, t tool) command { return t.backup(s, d.Dir, "first") },
			after: backedUp,
			keep:  func(_ tool, kept site) { s = kept },
		})
		if err != nil {
			return nil, err
		}
		row := rows[0]
		cold, err := b.coldRun(ctx, t, s, d, 1)
		if err != nil {
			return nil, err
		}
		row.IOPS, row.PerByte = cold.IOPS, cold.PerByte
		if err := os.RemoveAll(s.dir); err != nil {
			return nil, err
		}
		rows, err = b.run(ctx, contest{
			tools: []tool{t}, times: 1, source: second.image(),
			prepare: func(ctx context.Context, t tool) (site, error) { return b.firstBackup(ctx, t, db.Dir) },
			do:      func(s site, t tool) command { return t.backup(s, second.Dir, "second") },
		})
		if err != nil {
			return nil, err
		}
		row.Random = rows[0].Stored
		r.Rows = append(r.Rows, row)
	}
	r.work(d.DataBytes)
	return r, nil
}

// micro runs the Go benchmarks of the packages.
func (b *runner) micro(ctx context.Context) (*result, error) {
	args := append([]string{"go", "test", "-run", "^$", "-bench", ".", "-benchmem", "-benchtime", b.opt.goBenchTime}, strings.Fields(b.opt.pkgs)...)
	_, out, err := command{args: args}.run(ctx)
	if err != nil {
		return nil, err
	}
	r := &result{Title: "Go benchmarks of the packages", Text: string(out)}
	return r, os.WriteFile(filepath.Join(b.opt.work, "micro.txt"), out, 0o644)
}
