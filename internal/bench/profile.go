//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/pprof"

	"holdfast/image"
	"holdfast/repo"
)

// profile takes CPU profiles of what the tables above measure, in a process of
// ours that calls the Go API as the command line does.
func (b *runner) profile(ctx context.Context) (*result, error) {
	first, err := b.disk(ctx, denseDisk)
	if err != nil {
		return nil, err
	}
	second, err := b.disk(ctx, secondDisk)
	if err != nil {
		return nil, err
	}
	s, err := b.begin(ctx, b.plain)
	if err != nil {
		return nil, err
	}
	r := &result{Title: "CPU profiles, kept as var/bench/NAME.pprof for go tool pprof"}
	for _, step := range []struct{ name, job, disk string }{
		{"full", "work", first.image()}, {"second", "work", second.image()}, {"restore", "work", ""}, {"cold", "read", ""},
	} {
		in := b.plain.input(s)
		in.Disk, in.Profile = step.disk, filepath.Join(b.opt.work, step.name+".pprof")
		in.Target = filepath.Join(b.opt.work, "out", diskName)
		in.Offsets, in.Depth, in.Limit = b.offsets(second), depths[len(depths)-1], b.opt.readTime
		if step.disk != "" {
			if err := warm(step.disk); err != nil {
				return nil, err
			}
		}
		if err := chill(s.repo()); err != nil {
			return nil, err
		}
		if _, err := startChild(ctx, step.job, in); err != nil {
			return nil, fmt.Errorf("%s: %w", step.name, err)
		}
		self, err := os.Executable()
		if err != nil {
			return nil, err
		}
		_, out, err := command{args: []string{"go", "tool", "pprof", "-top", "-nodecount", "30", self, in.Profile}}.run(ctx)
		if err != nil {
			return nil, err
		}
		r.Text += "\n" + step.name + "\n" + string(out)
	}
	return r, os.RemoveAll(s.dir)
}

// startProfile begins a CPU profile of this process.
func startProfile(path string) (stop func() error, err error) {
	out, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(out); err != nil {
		return nil, errors.Join(err, out.Close())
	}
	return func() error {
		pprof.StopCPUProfile()
		return out.Close()
	}, nil
}

// childWork backs up a disk, or restores the latest point.
func childWork(in childInput) error {
	dir, opt, err := in.directories()
	if err != nil {
		return err
	}
	ctx := context.Background()
	if in.Disk == "" {
		return childRestore(ctx, in, opt)
	}
	d, err := image.Open(in.Disk, image.Options{DropCache: true})
	if err != nil {
		return err
	}
	o, err := repo.Own(ctx, dir, opt, 0)
	if err != nil {
		return err
	}
	_, err = o.Backup(ctx, repo.BackupOptions{
		Machine: "bench",
		Disks:   []repo.SourceDisk{{Name: diskName, Source: d, Format: image.FormatOf(d), Path: in.Disk}},
	})
	return errors.Join(err, o.Close(), d.Close())
}

func childRestore(ctx context.Context, in childInput, opt repo.Options) (err error) {
	dir, _, err := in.directories()
	if err != nil {
		return err
	}
	d, closeAll, err := openLatest(ctx, dir, opt)
	if err != nil {
		return err
	}
	target, err := os.Create(in.Target)
	if err != nil {
		return err
	}
	_, err = d.Restore(ctx, target, repo.RestoreOptions{})
	return errors.Join(err, target.Sync(), target.Close(), os.Remove(target.Name()), closeAll())
}
