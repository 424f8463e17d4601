//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// A disk is one image, diskName in a directory of its own.
type disk struct {
	Dir       string
	SizeBytes int64
	DataBytes int64 // that are not a hole
	FileBytes int64 // of real files
	Change    *change
	Frames    int64 // touched by the writes that made it
}

func (d disk) image() string { return filepath.Join(d.Dir, diskName) }

// frameBytes is the unit that the goal for random writes counts.
const frameBytes = 128 << 10

// The disks that tables ask for.
const (
	denseDisk  = "dense"
	secondDisk = "dense, second version"
	sparseDisk = "sparse"
	hugeDisk   = "huge"
	dbDisk     = "database"
	dbSecond   = "database, second version"
	manyDisk   = "many files"
)

// disk returns a disk, which is made unless it is there from an earlier bench
// with the same flags.
func (b *runner) disk(ctx context.Context, name string) (disk, error) {
	if d, ok := b.disks[name]; ok {
		return d, nil
	}
	dir := filepath.Join(b.opt.work, "disks", fmt.Sprintf("%016x", draw(b.opt.seed, b.diskKey(name))))
	stamp := filepath.Join(dir, "stamp.json")
	var d disk
	if p, err := os.ReadFile(stamp); err == nil && json.Unmarshal(p, &d) == nil && d.Dir == dir {
		b.disks[name] = d
		return d, nil
	}
	b.say("making the disk: %s", name)
	if err := errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o755)); err != nil {
		return d, err
	}
	d, err := b.makeDisk(ctx, name, disk{Dir: dir})
	if err != nil {
		return d, fmt.Errorf("make the disk %s: %w", name, err)
	}
	info, err := os.Stat(d.image())
	if err != nil {
		return d, err
	}
	d.SizeBytes = info.Size()
	if d.DataBytes, err = dataBytes(d.image()); err != nil {
		return d, err
	}
	p, err := json.Marshal(d)
	if err != nil {
		return d, err
	}
	b.disks[name] = d
	return d, os.WriteFile(stamp, p, 0o644)
}

// diskKey says all that a disk depends on.
func (b *runner) diskKey(name string) string {
	o := b.opt
	key := fmt.Sprint("6 ", name, o.seed, o.from, o.dense, o.sparse, o.huge, o.db, o.writes)
	if name == manyDisk {
		key = fmt.Sprint("1 ", name, o.many)
	}
	return key
}

func (b *runner) makeDisk(ctx context.Context, name string, d disk) (disk, error) {
	switch name {
	case manyDisk:
		return d, b.makeMany(ctx, d.image())
	case dbDisk:
		return d, makeDatabase(d.image(), b.opt.db, b.opt.seed)
	case dbSecond:
		first, err := b.copyOf(ctx, dbDisk, d)
		if err != nil {
			return d, err
		}
		d.Frames, err = writePages(d.image(), b.opt.writes, frameBytes, b.opt.seed)
		return d, errors.Join(err, differs(first.image(), d.image()))
	}
	t, err := b.staged(ctx)
	if err != nil {
		return d, err
	}
	d.FileBytes = t.bytes
	switch name {
	case sparseDisk:
		return d, makeExt4(ctx, d.image(), b.opt.sparse, t)
	case hugeDisk:
		return d, makeExt4(ctx, d.image(), b.opt.huge, t)
	case secondDisk:
		first, err := b.copyOf(ctx, denseDisk, d)
		if err != nil {
			return d, err
		}
		c, err := changeExt4(ctx, d.image(), t, b.opt.seed)
		d.Change = &c
		return d, errors.Join(err, differs(first.image(), d.image()))
	}
	if err := makeTight(ctx, d.image(), t); err != nil {
		return d, err
	}
	info, err := os.Stat(d.image())
	if err == nil && t.bytes < info.Size()*8/10 {
		err = fmt.Errorf("%s of %s are real files, less than 80 %%", size(t.bytes), size(info.Size()))
	}
	return d, err
}

func (b *runner) copyOf(ctx context.Context, name string, d disk) (disk, error) {
	first, err := b.disk(ctx, name)
	if err != nil {
		return first, err
	}
	_, _, err = command{args: []string{"cp", "--sparse=always", first.image(), d.image()}}.run(ctx)
	return first, err
}

func differs(a, b string) error {
	if sameDisk(a, b) == nil {
		return errors.New("the second version is the first")
	}
	return nil
}

// staged returns the tree of real files, made once for all disks.
func (b *runner) staged(ctx context.Context) (*staged, error) {
	if b.stage != nil {
		return b.stage, nil
	}
	dir := filepath.Join(b.opt.work, "stage")
	if err := os.RemoveAll(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	roots, err := b.roots(ctx)
	if err != nil {
		return nil, err
	}
	b.stage, err = stage(ctx, dir, roots, b.opt.dense, b.opt.seed)
	return b.stage, err
}
