//go:build linux

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// mountedHoldfast is ours, read through its mount.
type mountedHoldfast struct{ *holdfast }

func (m mountedHoldfast) label() string { return m.name + ", mounted" }

func (m mountedHoldfast) mount(s site, _, mountpoint string) (*command, string) {
	c := m.command(s, "mount", s.repo(), mountpoint)
	c.args = append(c.args[:1], c.args[2:]...) // it is no verb of repo
	return &c, filepath.Join(mountpoint, "bench", "latest", "disks", diskName)
}

// mount reads the dense disk from front to back and at random through FUSE.
func (b *runner) mount(ctx context.Context) (*result, error) {
	r := &result{
		Title: "the dense disk through FUSE",
		columns: []column{
			{colRate.head, func(f figures) string { return dash(number(f.perWall()), f.Work > 0) }},
			{colPerCPU.head, func(f figures) string { return dash(number(f.perCPU()), f.Work > 0) }},
			{"in flight", func(f figures) string { return dash(f.Depth, f.Depth > 0) }},
			{"IOPS", func(f figures) string { return dash(number(f.IOPS), f.IOPS > 0) }},
			{"p99 ms", func(f figures) string { return dash(number(f.Latency*1000), f.Latency > 0) }},
		},
	}
	if err := b.mountStreams(ctx, r); err != nil {
		return nil, err
	}
	return r, b.mountRandom(ctx, r)
}

// dash shows nothing where nothing was measured.
func dash(v any, measured bool) string {
	if !measured {
		return "–"
	}
	return fmt.Sprint(v)
}

// hotBytes are few enough for the cache of frames, which has 64 MiB.
const hotBytes = 48 << 20

// A stream is one way to read a file from front to back.
type stream struct {
	what   string
	bytes  int64
	passes int  // after one that is not counted
	keep   bool // the kernel's pages, between passes
}

var streams = []stream{
	{"blocks hot", hotBytes, 20, false},
	{"all of it", 1 << 30, 2, false},
	{"again", 1 << 30, 3, true},
}

// mountStreams reads from front to back: a point's disk through our mount, and
// the plain file it is equal to through go-fuse's loopback.
func (b *runner) mountStreams(ctx context.Context, r *result) error {
	d, err := b.disk(ctx, denseDisk)
	if err != nil {
		return err
	}
	s, err := b.fullSite(ctx, b.plain)
	if err != nil {
		return err
	}
	ours, err := b.mountpoint("ours")
	if err != nil {
		return err
	}
	theirs, err := b.mountpoint("loopback")
	if err != nil {
		return err
	}
	c, shows := mountedHoldfast{b.plain}.mount(s, "", ours)
	loopback, err := childServer("loopback", childInput{Target: d.Dir, File: theirs}, filepath.Join(theirs, diskName))
	if err != nil {
		return err
	}
	runs := make([][]figures, 2*len(streams))
	read := func(i int, tool string, peer bool, path string, pid int, st stream) error {
		f, err := b.stream(ctx, path, pid, st, min(st.bytes, d.SizeBytes))
		f.Tool, f.Peer, f.Outside = tool+", "+st.what, peer, st.bytes != hotBytes
		b.say("  %-40s %8.0f MiB/s %8.0f MiB/CPU s", f.Tool, f.perWall(), f.perCPU())
		runs[i] = append(runs[i], f)
		return err
	}
	err = serving(ctx, server{*c, shows}, ours, func(disk string, pid int) error {
		return serving(ctx, loopback, theirs, func(file string, peer int) error {
			for range b.times() {
				for i, st := range streams {
					if err := warm(d.image()); err != nil {
						return err
					}
					if err := read(2*i, "holdfast, a point's disk", false, disk, pid, st); err != nil {
						return err
					}
					if err := read(2*i+1, "go-fuse loopback, a file", true, file, peer, st); err != nil {
						return err
					}
				}
			}
			return nil
		})
	})
	if err != nil {
		return err
	}
	for _, run := range runs {
		r.Rows = append(r.Rows, median(run))
	}
	hot, loop := r.Rows[0], r.Rows[1]
	r.atLeast("from front to back, blocks hot: MiB/CPU s of ours / go-fuse loopback", hot.perCPU()/loop.perCPU(), 0.9)
	r.atLeast("from front to back, blocks hot: MiB/s of ours / go-fuse loopback", hot.perWall()/loop.perWall(), 0.9)
	r.note("from front to back: reads of 128 KiB; CPU of reader and server. \"blocks hot\" are the first %s, decoded before; \"all of it\" up to 1 GiB, from packs that are in the page cache; the kernel's pages of the mount are dropped before each pass, but for \"again\". The loopback passes nothing through, its file is in the page cache", size(hotBytes))
	return nil
}

// streamReport is what came of reading from front to back.
type streamReport struct {
	Seconds, CPU float64 // reader and server
	Bytes        int64
}

func (b *runner) stream(ctx context.Context, path string, pid int, st stream, n int64) (f figures, err error) {
	out, err := startChild(ctx, "stream", childInput{File: path, Server: pid, Bytes: n, Passes: st.passes, Keep: st.keep})
	if err != nil {
		return f, err
	}
	var rep streamReport
	err = json.Unmarshal(out, &rep)
	return figures{Wall: rep.Seconds, CPU: rep.CPU, Work: rep.Bytes}, err
}

func childStream(in childInput) error {
	f, err := os.Open(in.File)
	if err != nil {
		return err
	}
	defer f.Close()
	var rep streamReport
	p := make([]byte, 128<<10)
	for pass := -1; pass < in.Passes; pass++ {
		if !in.Keep {
			if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
				return err
			}
		}
		before, err := bothCPU(in.Server)
		if err != nil {
			return err
		}
		began := time.Now()
		n, err := io.CopyBuffer(onlyWriter{io.Discard}, onlyReader{io.NewSectionReader(f, 0, in.Bytes)}, p)
		if err != nil {
			return err
		}
		took := time.Since(began)
		after, err := bothCPU(in.Server)
		if err != nil {
			return err
		}
		if n != in.Bytes {
			return fmt.Errorf("read %d bytes of %d", n, in.Bytes)
		}
		if pass >= 0 { // the first one warms up
			rep.Seconds += took.Seconds()
			rep.CPU += (after - before).Seconds()
			rep.Bytes += n
		}
	}
	return json.NewEncoder(os.Stdout).Encode(rep)
}

// onlyReader and onlyWriter keep io.CopyBuffer from doing without its buffer.
type (
	onlyReader struct{ io.Reader }
	onlyWriter struct{ io.Writer }
)

// bothCPU is what this process and a server have taken so far.
func bothCPU(server int) (time.Duration, error) {
	theirs, err := familyCPU(server)
	if err != nil {
		return 0, err
	}
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0, err
	}
	return theirs + time.Duration(u.Utime.Nano()+u.Stime.Nano()), nil
}

// mountRandom reads random pages through the mounts, cold.
func (b *runner) mountRandom(ctx context.Context, r *result) error {
	d, err := b.disk(ctx, denseDisk)
	if err != nil {
		return err
	}
	tools := with(mountedHoldfast{b.plain}, b.borg, mountedHoldfast{b.secret}, b.restic, b.kopia)
	rows, err := b.coldRows(ctx, d, tools)
	if err != nil {
		return err
	}
	r.Rows = append(r.Rows, rows...)
	coldGoals(r, rows)
	r.note("at random: cold reads of 4 KiB, freshly mounted, the repository's files dropped from the page cache; at most %d or %s", coldReads, b.opt.readTime)
	return nil
}
