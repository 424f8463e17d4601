//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"
)

// A history is a disk and how it changes from point to point.
type history struct {
	name   string
	size   int64 // of the disk: the beginning of the dense one
	points int
	extent int64 // what changes at a time
	count  int   // of extents from one point to the next: half of them always the same, half at random
}

// histories returns stores with all points of a history, one for each tool, and
// the disk as the last point has it. Ours are given change lists, and have swept
// once at the end, as every repository has that anything ever expired in.
func (b *runner) histories(ctx context.Context, h history, tools []tool) (stores []*store, image string, err error) {
	dense, err := b.disk(ctx, denseDisk)
	if err != nil {
		return nil, "", err
	}
	h.size = min(h.size, dense.SizeBytes) &^ (h.extent - 1)
	key := fmt.Sprintf("%s %d %d %d %d of %s", h.name, h.size, h.points, h.extent, h.count, b.diskKey(denseDisk))
	dir := filepath.Join(b.opt.work, "disks", fmt.Sprintf("%016x", draw(b.opt.seed, key)))
	image = filepath.Join(dir, diskName)
	stores = make([]*store, len(tools))
	var missing []builder
	for i, t := range tools {
		st, s, err := b.store(key + ", " + t.label())
		if err != nil {
			return nil, "", err
		}
		if stores[i] = st; st == nil {
			missing = append(missing, builder{tool: t, site: s, at: i})
		}
	}
	if _, err := os.Stat(image); err == nil && len(missing) == 0 {
		return stores, image, nil
	}
	src, err := os.Open(dense.image())
	if err != nil {
		return nil, "", err
	}
	defer src.Close()
	// Under another name until it is the last version.
	growing := filepath.Join(dir, "growing")
	if err := errors.Join(os.RemoveAll(dir), os.MkdirAll(growing, 0o755)); err != nil {
		return nil, "", err
	}
	disk := filepath.Join(growing, diskName)
	if err := copyHead(disk, src, h.size); err != nil {
		return nil, "", err
	}
	for n := range h.points {
		var ranges [][2]int64
		if n > 0 {
			if ranges, err = h.change(disk, src, dense.SizeBytes, b.opt.seed, n); err != nil {
				return nil, "", err
			}
		}
		if err := warm(disk); err != nil {
			return nil, "", err
		}
		if n%25 == 0 && len(missing) > 0 {
			b.say("  point %d of %d", n+1, h.points)
		}
		// Nothing is measured here: two at a time.
		g, ctx := errgroup.WithContext(ctx)
		g.SetLimit(2)
		for i := range missing {
			g.Go(func() error { return missing[i].next(ctx, growing, n, h.size, ranges) })
		}
		if err := g.Wait(); err != nil {
			return nil, "", err
		}
	}
	for _, m := range missing {
		if ours, ok := m.tool.(*holdfast); ok {
			if _, _, err := ours.upkeep(m.site, upkeep{Verb: "sweep"}).run(ctx); err != nil {
				return nil, "", err
			}
		}
		ids, err := b.ids(ctx, m.tool, m.site)
		if err != nil {
			return nil, "", err
		}
		if len(ids) != h.points {
			return nil, "", fmt.Errorf("%s: %d points, want %d", m.tool.label(), len(ids), h.points)
		}
		if stores[m.at], err = m.site.keep(ids); err != nil {
			return nil, "", err
		}
	}
	return stores, image, errors.Join(os.Rename(disk, image), os.Remove(growing))
}

// A builder makes the points of a history with one tool.
type builder struct {
	tool tool
	site site
	at   int
	last string // id of our last point
}

// next backs up one version of the disk.
func (m *builder) next(ctx context.Context, dir string, n int, size int64, ranges [][2]int64) error {
	point := fmt.Sprintf("p%04d", n)
	if n == 0 {
		if err := m.site.begin(ctx, m.tool); err != nil {
			return err
		}
	}
	ours, ok := m.tool.(*holdfast)
	if !ok {
		_, _, err := m.tool.backup(m.site, dir, point).run(ctx)
		return err
	}
	c := ours.backup(m.site, dir, point)
	if n > 0 {
		list := filepath.Join(m.site.dir, "changes")
		if err := writeChanges(list, m.last, size, ranges); err != nil {
			return err
		}
		c.args = append(c.args, "--require-changed", "--changed", list)
	}
	_, out, err := c.run(ctx)
	if err != nil {
		return err
	}
	r, err := parseRun(out)
	m.last = r.Point.ID
	return err
}

// writeChanges writes what --changed reads.
func writeChanges(path, base string, sizeBytes int64, ranges [][2]int64) error {
	var text strings.Builder
	fmt.Fprintf(&text, "base %s size %d\n", base, sizeBytes)
	for _, x := range ranges {
		fmt.Fprintf(&text, "%d %d\n", x[0], x[1])
	}
	return os.WriteFile(path, []byte(text.String()), 0o644)
}

// change makes version n of the disk of the one before: other bytes of the dense
// disk, shifted so that no chunk of it comes again.
func (h *history) change(disk string, src *os.File, srcSize int64, seed uint64, n int) (ranges [][2]int64, err error) {
	f, err := os.OpenFile(disk, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	r := rand.New(rand.NewPCG(seed, 1000+uint64(n)))
	p := make([]byte, h.extent)
	places := make(map[int64]bool)
	hot := rand.New(rand.NewPCG(seed, 1000))
	for len(places) < min(h.count, int(h.size/h.extent)) {
		place := r.Int64N(h.size / h.extent)
		if len(places) < h.count/2 {
			place = hot.Int64N(h.size / h.extent)
		}
		places[place] = true
	}
	for place := range places {
		ranges = append(ranges, [2]int64{place * h.extent, h.extent})
	}
	slices.SortFunc(ranges, func(a, b [2]int64) int { return int((a[0] - b[0]) / h.extent) })
	for _, x := range ranges {
		if _, err := src.ReadAt(p, r.Int64N(srcSize-h.extent)); err != nil {
			return nil, err
		}
		copy(p, fmt.Appendf(nil, "version %d of the %d bytes at %d\n", n, h.extent, x[0]))
		if _, err := f.WriteAt(p, x[0]); err != nil {
			return nil, err
		}
	}
	return ranges, nil
}

// copyHead copies the first n bytes of a file.
func copyHead(to string, from *os.File, n int64) error {
	f, err := os.Create(to)
	if err != nil {
		return err
	}
	p := make([]byte, 1<<20)
	for off := int64(0); off < n && err == nil; off += int64(len(p)) {
		part := p[:min(int64(len(p)), n-off)]
		if _, err = from.ReadAt(part, off); err == nil {
			_, err = f.WriteAt(part, off)
		}
	}
	return errors.Join(err, f.Close())
}
