//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sync/errgroup"

	"holdfast/repo"
	"holdfast/repo/vfs"
)

const listMachines = 100

// list lists very many points, and opens one.
func (b *runner) list(ctx context.Context) (*result, error) {
	r := &result{
		Title: fmt.Sprintf("%d points of %d machines", b.opt.points, listMachines),
		columns: []column{
			{"repo points, s", func(f figures) string { return number(f.Wall) }},
			colCPU, colRSS, colIn,
			{"opening ms", func(f figures) string { return number(f.Open * 1000) }},
			{"listing ms", func(f figures) string { return number(f.Listing * 1000) }},
			{"one point ms", func(f figures) string { return number(f.Latency * 1000) }},
		},
	}
	sites := make(map[tool]*store)
	tools := []tool{b.plain, b.secret}
	for _, t := range tools {
		st, s, err := b.store(fmt.Sprintf("%d points, %s", b.opt.points, t.label()))
		if err != nil {
			return nil, err
		}
		if st == nil {
			if err := s.begin(ctx, t); err != nil {
				return nil, err
			}
			in := t.(*holdfast).input(s)
			in.Points = b.opt.points
			if _, err := startChild(ctx, "many", in); err != nil {
				return nil, err
			}
			ids, err := b.ids(ctx, t, s)
			if err != nil {
				return nil, err
			}
			if st, err = s.keep(ids); err != nil {
				return nil, err
			}
		}
		sites[t] = st
	}
	var err error
	r.Rows, err = b.run(ctx, contest{
		tools: tools, times: b.times(), reuse: true,
		prepare: func(_ context.Context, t tool) (site, error) { return site{sites[t].Site}, nil },
		do: func(s site, t tool) command {
			return t.(*holdfast).command(s, "points", s.repo())
		},
		after: func(s site, t tool, _ []byte, f *figures) error {
			in := t.(*holdfast).input(s)
			in.Point, in.Points = sites[t].IDs[b.opt.points/2], b.opt.points
			out, err := startChild(ctx, "open", in)
			if err != nil {
				return err
			}
			var rep openReport
			err = json.Unmarshal(out, &rep)
			f.Open, f.Listing, f.Latency = rep.Open, rep.List, rep.Point
			return err
		},
	})
	if err != nil {
		return nil, err
	}
	for _, f := range r.Rows {
		if !f.Sealed {
			r.atMost(f.Tool+": seconds of repo points", f.Wall, 0.3)
		} else {
			r.atMost(f.Tool+": seconds of listing, once the passphrase is known", f.Listing, 0.3)
		}
	}
	r.note("\"repo points\" is a whole process that prints all of them. The others are of another process, through the Go API: until the repository is open, which with a passphrase takes the time that makes guessing it dear; until all points are listed; until the first 4 KiB of one point are read")
	return r, nil
}

// openReport is what a process prints that has opened, listed and read, in
// seconds.
type openReport struct{ Open, List, Point float64 }

func childOpen(in childInput) (err error) {
	dir, opt, err := in.directories()
	if err != nil {
		return err
	}
	var rep openReport
	ctx, began := context.Background(), time.Now()
	r, err := repo.Open(ctx, dir, opt)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	rep.Open = time.Since(began).Seconds()
	began = time.Now()
	points, err := r.Points(ctx)
	if err != nil {
		return err
	}
	rep.List = time.Since(began).Seconds()
	if len(points) != in.Points {
		return fmt.Errorf("%d points, want %d", len(points), in.Points)
	}
	began = time.Now()
	reader, err := r.OpenPoint(repo.PointID(in.Point))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, reader.Close()) }()
	disk, err := reader.Disk("")
	if err == nil {
		_, err = disk.ReadAt(make([]byte, readBlock), 0)
	}
	if err != nil {
		return err
	}
	rep.Point = time.Since(began).Seconds()
	return json.NewEncoder(os.Stdout).Encode(rep)
}

// childMany makes points of tiny disks, none of which changes.
func childMany(in childInput) (err error) {
	dir, opt, err := in.directories()
	if err != nil {
		return err
	}
	ctx := context.Background()
	o, err := repo.Own(ctx, unsynced{dir}, opt, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, o.Close()) }()
	// A machine has one run at a time.
	const workers = 2
	g, ctx := errgroup.WithContext(ctx)
	for w := range workers {
		g.Go(func() error {
			for i := w; i < in.Points; i += workers {
				machine := i % listMachines
				_, err := o.Backup(ctx, repo.BackupOptions{
					Machine: fmt.Sprintf("machine-%02d", machine),
					Disks:   []repo.SourceDisk{{Name: diskName, Source: tinyDisk(fmt.Sprintf("disk of machine %d", machine))}},
				})
				if err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

// A tinyDisk is a disk of 4 KiB that begins with a text.
type tinyDisk string

func (tinyDisk) Size() int64 { return readBlock }

func (d tinyDisk) ReadAt(p []byte, off int64) (int, error) {
	whole := make([]byte, readBlock)
	copy(whole, d)
	n := copy(p, whole[min(off, readBlock):])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (tinyDisk) NextData(off int64) (start, end int64, err error) {
	if off >= readBlock {
		return 0, 0, io.EOF
	}
	return off, readBlock, nil
}

// unsynced is a file system whose changes are made durable by nobody: for stores
// that are made once, and made again if they are lost.
type unsynced struct{ vfs.FS }

type unsyncedFile struct{ vfs.File }

func (u unsynced) Create(name string) (vfs.File, error) {
	f, err := u.FS.Create(name)
	if err != nil {
		return nil, err
	}
	return unsyncedFile{f}, nil
}

func (unsynced) SyncDir(string) error { return nil }

func (unsyncedFile) Sync() error { return nil }
