//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	readBlock  = 4096
	coldReads  = 4000
	mountLimit = 2 * time.Minute
)

// depths are the numbers of reads in flight.
var depths = []int{1, 16}

// cold reads random pages of the dense disk from a restore point.
func (b *runner) cold(ctx context.Context) (*result, error) {
	d, err := b.disk(ctx, denseDisk)
	if err != nil {
		return nil, err
	}
	r := &result{
		Title: fmt.Sprintf("random 4 KiB reads of the dense disk from a restore point, cold: at most %d or %s", coldReads, b.opt.readTime),
		columns: []column{
			{"in flight", func(f figures) string { return fmt.Sprint(f.Depth) }},
			{"IOPS", func(f figures) string { return number(f.IOPS) }},
			{"p99 ms", func(f figures) string { return number(f.Latency * 1000) }},
			{"read / asked", func(f figures) string { return number(f.PerByte) }},
			{"reads", func(f figures) string { return fmt.Sprint(f.Reads) }},
		},
	}
	if r.Rows, err = b.coldRows(ctx, d, with(b.plain, b.borg, b.secret, b.restic, b.kopia)); err != nil {
		return nil, err
	}
	coldGoals(r, r.Rows)
	r.note("ours through the Go API in a new process, peers through their mount, freshly mounted; the repository's files dropped from the page cache")
	r.note("\"read / asked\" is what the process made the storage read, per byte asked, the kernel's read-ahead included")
	return r, nil
}

// coldRows lets tools take turns at reading random pages of the disk from a
// restore point.
func (b *runner) coldRows(ctx context.Context, d disk, tools []tool) (rows []figures, err error) {
	for _, depth := range depths {
		runs := make([][]figures, len(tools))
		for range b.times() {
			for i, t := range tools {
				s, err := b.fullSite(ctx, t)
				if err != nil {
					return nil, err
				}
				f, err := b.coldRun(ctx, t, s, d, depth)
				if err != nil {
					return nil, fmt.Errorf("%s: %w", t.label(), err)
				}
				b.say("  %-32s %8.0f IOPS at %d", t.label(), f.IOPS, depth)
				runs[i] = append(runs[i], f)
			}
		}
		for _, run := range runs {
			rows = append(rows, median(run))
		}
	}
	return rows, nil
}

// coldGoals compares each of ours with the best peer.
func coldGoals(r *result, rows []figures) {
	for _, depth := range depths {
		var best figures
		for _, f := range rows {
			if f.Peer && f.Depth == depth && f.IOPS > best.IOPS {
				best = f
			}
		}
		for _, f := range rows {
			if !f.Peer && f.Depth == depth {
				r.atLeast(fmt.Sprintf("%d in flight: IOPS of %s / %s", depth, f.Tool, best.Tool), f.IOPS/best.IOPS, 10)
			}
		}
	}
}

// readReport is what came of random reads.
type readReport struct {
	Seconds float64
	P99     float64
	Read    int64    // by the process, from storage
	CPU     float64  // seconds, where it is measured
	Sums    []uint32 // CRC-32 of each block read
}

func (b *runner) coldRun(ctx context.Context, t tool, s site, d disk, depth int) (figures, error) {
	f := figures{Tool: t.label(), Peer: t.peer(), Sealed: t.sealed(), Depth: depth}
	offsets := b.offsets(d)
	got, err := b.readPoint(ctx, t, s, offsets, depth)
	if err != nil {
		return f, err
	}
	if err := verify(d.image(), offsets, got.Sums); err != nil {
		return f, err
	}
	f.Wall, f.Latency, f.Reads = got.Seconds, got.P99, len(got.Sums)
	f.IOPS = float64(f.Reads) / got.Seconds
	f.PerByte = float64(got.Read) / float64(f.Reads*readBlock)
	return f, nil
}

// offsets are the places that cold reads go to.
func (b *runner) offsets(d disk) []int64 {
	r := rand.New(rand.NewPCG(b.opt.seed, 6))
	offsets := make([]int64, coldReads)
	for i := range offsets {
		offsets[i] = r.Int64N(d.SizeBytes/readBlock) * readBlock
	}
	return offsets
}

func (b *runner) readPoint(ctx context.Context, t tool, s site, offsets []int64, depth int) (r readReport, err error) {
	if err := chill(s.dir); err != nil {
		return r, err
	}
	h, ours := t.(*holdfast)
	if !ours {
		return b.readMounted(ctx, t, s, offsets, depth)
	}
	in := h.input(s)
	in.Offsets, in.Depth, in.Limit = offsets, depth, b.opt.readTime
	out, err := startChild(ctx, "read", in)
	if err != nil {
		return r, err
	}
	return r, json.Unmarshal(out, &r)
}

// childRead reads through the Go API, or from a mount.
func childRead(in childInput) error {
	if in.File != "" {
		return childReadFile(in)
	}
	dir, opt, err := in.directories()
	if err != nil {
		return err
	}
	disk, closeAll, err := openLatest(context.Background(), dir, opt)
	if err != nil {
		return err
	}
	report, err := randomReads(disk, in.Offsets, in.Depth, in.Limit, os.Getpid())
	if err := errors.Join(err, closeAll()); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(report)
}

func childReadFile(in childInput) error {
	f, err := os.Open(in.File)
	if err != nil {
		return err
	}
	defer f.Close()
	// Whatever the kernel read ahead would be for nothing.
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_RANDOM); err != nil {
		return err
	}
	report, err := randomReads(f, in.Offsets, in.Depth, in.Limit, in.Server)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(report)
}

// randomReads reads blocks with depth reads in flight, until all are read or
// the limit has passed. pid is the process that reads the repository.
func randomReads(src io.ReaderAt, offsets []int64, depth int, limit time.Duration, pid int) (r readReport, err error) {
	return randomBlocks(src, offsets, readBlock, depth, limit, pid)
}

func randomBlocks(src io.ReaderAt, offsets []int64, blockBytes, depth int, limit time.Duration, pid int) (r readReport, err error) {
	before, err := readBytes(pid)
	if err != nil {
		return r, err
	}
	sums, took := make([]uint32, len(offsets)), make([]float64, len(offsets))
	errs := make([]error, depth)
	var next atomic.Int64
	var wg sync.WaitGroup
	began := time.Now()
	for w := range depth {
		wg.Go(func() {
			p := make([]byte, blockBytes)
			for time.Since(began) < limit {
				i := int(next.Add(1)) - 1
				if i >= len(offsets) {
					return
				}
				start := time.Now()
				if _, err := src.ReadAt(p, offsets[i]); err != nil {
					errs[w] = err
					return
				}
				took[i] = time.Since(start).Seconds()
				sums[i] = crc32.ChecksumIEEE(p)
			}
		})
	}
	wg.Wait()
	r.Seconds = time.Since(began).Seconds()
	after, err := readBytes(pid)
	if err := errors.Join(append(errs, err)...); err != nil {
		return r, err
	}
	done := min(int(next.Load()), len(offsets))
	r.Read, r.Sums = after-before, sums[:done]
	slices.Sort(took[:done])
	r.P99 = took[done*99/100]
	return r, nil
}

// verify compares what was read with the disk that was backed up.
func verify(image string, offsets []int64, sums []uint32) error {
	f, err := os.Open(image)
	if err != nil {
		return err
	}
	defer f.Close()
	p := make([]byte, readBlock)
	for i, sum := range sums {
		if _, err := f.ReadAt(p, offsets[i]); err != nil {
			return err
		}
		if crc32.ChecksumIEEE(p) != sum {
			return fmt.Errorf("the 4 KiB at %d came back different", offsets[i])
		}
	}
	return nil
}

// readMounted reads through a mount.
func (b *runner) readMounted(ctx context.Context, t tool, s site, offsets []int64, depth int) (r readReport, err error) {
	mountpoint, err := b.mountpoint("mnt")
	if err != nil {
		return r, err
	}
	c, pattern := t.mount(s, "first", mountpoint)
	err = serving(ctx, server{*c, pattern}, mountpoint, func(image string, pid int) error {
		// The mount has read its index by now; the data shall be cold.
		if err := chill(s.dir); err != nil {
			return err
		}
		out, err := startChild(ctx, "read", childInput{File: image, Server: pid, Offsets: offsets, Depth: depth, Limit: b.opt.readTime})
		if err != nil {
			return err
		}
		return json.Unmarshal(out, &r)
	})
	return r, err
}

// appears waits until a path matches, or the process that should bring it has
// ended.
func appears(ctx context.Context, pattern string, ended chan error) (string, error) {
	for deadline := time.Now().Add(mountLimit); time.Now().Before(deadline); {
		if found, err := filepath.Glob(pattern); err != nil || len(found) > 0 {
			return found[0], err
		}
		select {
		case err := <-ended:
			ended <- err
			return "", fmt.Errorf("ended early: %v (fuse missing? \"make deps\" says how to install it)", err)
		case <-ctx.Done():
			return "", ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
	return "", fmt.Errorf("nothing at %s after %s", pattern, mountLimit)
}

func unmount(dir string) error {
	var err error
	for _, program := range []string{"fusermount3", "fusermount", "umount"} {
		args := []string{"-u", dir}
		if program == "umount" {
			args = args[1:]
		}
		out, e := exec.Command(program, args...).CombinedOutput()
		if e == nil {
			return nil
		}
		err = fmt.Errorf("%s %s: %w: %s", program, dir, e, tail(string(out)))
	}
	return err
}
