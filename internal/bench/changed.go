//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
)

// extent is the unit of change on the disks of the table changed, at random
// places.
const extent = 1 << 20

// changed backs up with a change list: as much changed on a small disk as on a
// huge one. Nobody else takes change lists.
func (b *runner) changed(ctx context.Context) (*result, error) {
	r := &result{
		Title:   fmt.Sprintf("second backup with a change list: %s changed, in extents of %s at random places", size(b.opt.changed), size(extent)),
		columns: []column{colWall, colCPU, colRate, colRSS, colAnon, colBare, colStored, colRead},
	}
	type entry struct {
		tool *holdfast
		site site
		dir  string
	}
	var entries []entry
	for _, sizeBytes := range []int64{b.opt.small, b.opt.huge} {
		dir := filepath.Join(b.opt.work, "out", fmt.Sprint("changed-", sizeBytes))
		list := filepath.Join(dir, "list")
		t := &holdfast{bin: b.opt.bin, name: "holdfast, disk of " + size(sizeBytes), backupArg: []string{"--require-changed", "--changed", list}}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
		ranges, err := b.writeExtents(ctx, filepath.Join(dir, diskName), sizeBytes, 0)
		if err != nil {
			return nil, err
		}
		s, err := b.firstBackup(ctx, b.plain, dir)
		if err != nil {
			return nil, err
		}
		if _, err := b.writeExtents(ctx, filepath.Join(dir, diskName), sizeBytes, 1); err != nil {
			return nil, err
		}
		if err := b.writeChangeList(ctx, s, list, sizeBytes, ranges); err != nil {
			return nil, err
		}
		entries = append(entries, entry{t, s, dir})
	}
	find := func(t tool) entry {
		return entries[slices.IndexFunc(entries, func(e entry) bool { return e.tool == t })]
	}
	var err error
	r.Rows, err = b.run(ctx, contest{
		tools: []tool{entries[0].tool, entries[1].tool}, times: b.times(),
		prepare: func(ctx context.Context, t tool) (site, error) {
			e := find(t)
			if err := warm(filepath.Join(e.dir, diskName)); err != nil {
				return site{}, err
			}
			return b.copySite(ctx, e.site)
		},
		do: func(s site, t tool) command { return t.backup(s, find(t).dir, "") },
		after: func(s site, t tool, out []byte, f *figures) error {
			if err := backedUp(s, t, out, f); err != nil || f.Mode == "changed" {
				return err
			}
			return fmt.Errorf("the change list was not used: mode %q", f.Mode)
		},
	})
	if err != nil {
		return nil, err
	}
	r.work(b.opt.changed)
	small, huge := r.Rows[0], r.Rows[1]
	what := fmt.Sprintf("%%s with %s / with %s", size(b.opt.huge), size(b.opt.small))
	r.atMost(fmt.Sprintf(what, "wall time"), huge.Wall/small.Wall, 1.25)
	r.atMost(fmt.Sprintf(what, "CPU seconds"), huge.CPU/small.CPU, 1.25)
	for _, e := range entries {
		if err := errors.Join(os.RemoveAll(e.dir), os.RemoveAll(e.site.dir)); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// writeExtents fills extents at random places of a sparse disk with what the
// dense disk holds; another version is other content at the same places.
func (b *runner) writeExtents(ctx context.Context, path string, sizeBytes int64, version int64) (ranges [][2]int64, err error) {
	dense, err := b.disk(ctx, denseDisk)
	if err != nil {
		return nil, err
	}
	src, err := os.Open(dense.image())
	if err != nil {
		return nil, err
	}
	defer src.Close()
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := f.Truncate(sizeBytes); err != nil {
		return nil, err
	}
	places := make(map[int64]bool)
	r := rand.New(rand.NewPCG(b.opt.seed, 5))
	count := b.opt.changed / extent
	if count > sizeBytes/extent/2 {
		return nil, fmt.Errorf("%s changed is more than half of %s", size(b.opt.changed), size(sizeBytes))
	}
	for int64(len(places)) < count {
		places[r.Int64N(sizeBytes/extent)] = true
	}
	p := make([]byte, extent)
	// A shift makes other chunks of the same bytes.
	shift := version * (dense.SizeBytes/2 + 512) % (dense.SizeBytes - extent)
	for place := range places {
		ranges = append(ranges, [2]int64{place * extent, extent})
	}
	slices.SortFunc(ranges, func(a, b [2]int64) int { return int((a[0] - b[0]) / extent) })
	for i, x := range ranges {
		if _, err := src.ReadAt(p, (int64(i)*extent+shift)%(dense.SizeBytes-extent)); err != nil {
			return nil, err
		}
		if _, err := f.WriteAt(p, x[0]); err != nil {
			return nil, err
		}
	}
	return ranges, nil
}

// latest returns the id of the newest point of a site.
func (b *runner) latest(ctx context.Context, s site) (string, error) {
	_, out, err := b.plain.command(s, "points", s.repo(), "--json").run(ctx)
	if err != nil {
		return "", err
	}
	var list struct {
		Points []struct {
			ID       string
			Sequence int
		}
	}
	if err := json.Unmarshal(out, &list); err != nil {
		return "", err
	}
	if len(list.Points) == 0 {
		return "", errors.New("no points")
	}
	return list.Points[len(list.Points)-1].ID, nil
}
