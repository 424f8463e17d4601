//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/pprof"
	"time"

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
	for _, step := range []struct{ name, disk string }{{"full", first.image()}, {"second", second.image()}, {"restore", ""}} {
		in := b.plain.input(s)
		in.Disk, in.Profile = step.disk, filepath.Join(b.opt.work, step.name+".pprof")
		if step.disk != "" {
			if err := warm(step.disk); err != nil {
				return nil, err
			}
		}
		if _, err := startChild(ctx, "profile", in); err != nil {
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

// childProfile backs up a disk, or restores the latest point to a file that is
// removed, under the profiler.
func childProfile(in childInput) (err error) {
	out, err := os.Create(in.Profile)
	if err != nil {
		return err
	}
	if err := pprof.StartCPUProfile(out); err != nil {
		return err
	}
	defer func() {
		pprof.StopCPUProfile()
		err = errors.Join(err, out.Close())
	}()
	dir, opt, err := in.directories()
	if err != nil {
		return err
	}
	ctx := context.Background()
	if in.Disk == "" {
		return profileRestore(ctx, in, opt)
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

func profileRestore(ctx context.Context, in childInput, opt repo.Options) (err error) {
	dir, _, err := in.directories()
	if err != nil {
		return err
	}
	r, err := repo.Open(ctx, dir, opt)
	if err != nil {
		return err
	}
	p, err := r.Find(ctx, "bench@latest", time.UTC)
	if err != nil {
		return err
	}
	reader, err := r.OpenPoint(p.ID)
	if err != nil {
		return err
	}
	d, err := reader.Disk("")
	if err != nil {
		return err
	}
	target, err := os.Create(in.Profile + ".restored")
	if err != nil {
		return err
	}
	_, err = d.Restore(ctx, target, repo.RestoreOptions{})
	return errors.Join(err, target.Sync(), target.Close(), os.Remove(target.Name()), reader.Close(), r.Close())
}
