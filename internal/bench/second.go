//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
)

// second backs up the changed disk to a repository that has the first version.
func (b *runner) second(ctx context.Context) (*result, error) {
	first, err := b.disk(ctx, denseDisk)
	if err != nil {
		return nil, err
	}
	d, err := b.disk(ctx, secondDisk)
	if err != nil {
		return nil, err
	}
	ranges, err := changedRanges(first.image(), d.image(), 64<<10)
	if err != nil {
		return nil, err
	}
	var changed int64
	for _, x := range ranges {
		changed += x[1]
	}
	c := d.Change
	r := &result{
		Title: fmt.Sprintf("second backup of the dense disk: %d files rewritten, %d deleted, %d added, %s of %s changed",
			c.Rewritten, c.Deleted, c.Added, size(changed), size(d.SizeBytes)),
		columns: []column{colWall, colCPU, colRate, colPerCPU, colRSS, colAnon, colBare, colStored, colRead},
	}
	list := filepath.Join(b.opt.work, "out", "second.changed")
	listed := &holdfast{bin: b.opt.bin, name: "holdfast zstd, change list", backupArg: []string{"--require-changed", "--changed", list}}
	base := func(t tool) tool {
		if t == tool(listed) {
			return b.plain
		}
		return t
	}
	r.Rows, err = b.run(ctx, contest{
		tools: with(b.plain, b.borg, b.secret, b.restic, b.kopia, listed), times: b.times(), source: d.image(),
		prepare: func(ctx context.Context, t tool) (site, error) {
			s, err := b.fullSite(ctx, base(t))
			if err != nil {
				return s, err
			}
			if s, err = b.copySite(ctx, s); err != nil || t != tool(listed) {
				return s, err
			}
			return s, b.writeChangeList(ctx, s, list, d.SizeBytes, ranges)
		},
		do:    func(s site, t tool) command { return t.backup(s, d.Dir, "second") },
		after: backedUp,
	})
	if err != nil {
		return nil, err
	}
	r.work(d.DataBytes)
	b.compareCPU(r, 4)
	return r, nil
}

// changedRanges compares two images in blocks and returns what differs, as
// offset and length, neighbours joined.
func changedRanges(a, b string, block int) (ranges [][2]int64, err error) {
	fa, err := os.Open(a)
	if err != nil {
		return nil, err
	}
	defer fa.Close()
	fb, err := os.Open(b)
	if err != nil {
		return nil, err
	}
	defer fb.Close()
	pa, pb := make([]byte, block), make([]byte, block)
	for off := int64(0); ; off += int64(block) {
		na, ea := fa.ReadAt(pa, off)
		nb, eb := fb.ReadAt(pb, off)
		if na != nb {
			return nil, fmt.Errorf("%s and %s are not of the same size", a, b)
		}
		if na > 0 && string(pa[:na]) != string(pb[:nb]) {
			if last := len(ranges) - 1; last >= 0 && ranges[last][0]+ranges[last][1] == off {
				ranges[last][1] += int64(na)
			} else {
				ranges = append(ranges, [2]int64{off, int64(na)})
			}
		}
		if ea != nil || eb != nil {
			return ranges, nil
		}
	}
}

// writeChangeList writes what --changed reads, based on the latest point of a
// site.
func (b *runner) writeChangeList(ctx context.Context, s site, list string, sizeBytes int64, ranges [][2]int64) error {
	id, err := b.latest(ctx, s)
	if err != nil {
		return err
	}
	return writeChanges(list, id, sizeBytes, ranges)
}
