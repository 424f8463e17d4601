//go:build linux

package main

import (
	"context"
	"fmt"
)

// random backs up a database disk after random writes of a page.
func (b *runner) random(ctx context.Context) (*result, error) {
	first, err := b.disk(ctx, dbDisk)
	if err != nil {
		return nil, err
	}
	d, err := b.disk(ctx, dbSecond)
	if err != nil {
		return nil, err
	}
	frames := d.Frames * frameBytes
	written := int64(b.opt.writes) * pageBytes
	r := &result{
		Title: fmt.Sprintf("second backup of a %s database disk after %d random writes of 4 KiB: %s written, %d frames of 128 KiB touched, %s",
			size(d.SizeBytes), b.opt.writes, size(written), d.Frames, size(frames)),
		columns: []column{colWall, colCPU, colBare, colStored,
			{"/ frames", func(f figures) string { return number(float64(f.Stored) / float64(frames)) }},
			{"/ written", func(f figures) string { return number(float64(f.Stored) / float64(written)) }},
			{"chunks", func(f figures) string { return fmt.Sprint(f.Chunks) }},
			{"patches", func(f figures) string { return fmt.Sprint(f.Patches) }},
		},
	}
	small := &holdfast{bin: b.opt.bin, name: "holdfast zstd, chunk 256K", init: []string{"--chunk", "256K"}}
	tools := with(b.plain, small, b.borg, b.secret, b.restic, b.kopia)
	r.Rows, err = b.run(ctx, contest{
		tools: tools, times: 1, source: d.image(),
		prepare: func(ctx context.Context, t tool) (site, error) { return b.firstBackup(ctx, t, first.Dir) },
		do:      func(s site, t tool) command { return t.backup(s, d.Dir, "second") },
		after:   backedUp,
	})
	if err != nil {
		return nil, err
	}
	r.work(d.DataBytes)
	for _, t := range []tool{b.plain, small, b.secret} {
		f, _ := r.row(t.label())
		r.atMost(t.label()+": stored, parity included / frames touched", float64(f.Stored)/float64(frames), 4)
	}
	r.note("one run each; \"chunks\" and \"patches\" are records that ours stored")
	return r, nil
}
