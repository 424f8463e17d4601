//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"holdfast/nfs/nfstest"
	"holdfast/repo/chunk"
)

const (
	recoveryFrames = 6000 // read once each
	recoveryDepth  = 64
	fakeReads      = 40_000
	fakeDelay      = 2 * time.Millisecond
)

// recoveryDecoders is how many goroutines of the role decode at once, as
// instant recovery has it: one core is left to whoever answers.
func recoveryDecoders() int { return max(1, runtime.NumCPU()-1) }

// The cases of the table.
const (
	rowDecode   = "decode and verify alone"
	rowCold     = "READ 4 KiB, cold frames"
	rowBeside   = "READ 4 KiB, cold frames, beside GETATTR"
	rowGetAttr  = "GETATTR beside that"
	rowHot      = "READ 4 KiB, the same again, hot"
	rowHot64    = "READ 64 KiB, hot"
	rowTwice    = "READ 4 KiB, a set of twice the cache"
	rowFake     = "READ 4 KiB, store of 2 ms"
	recoveryHot = 256 << 20 // of the cache, but where a set is larger
)

// recovery reads a restore point's disk over NFS, through the redirect layer,
// frames not in memory.
func (b *runner) recovery(ctx context.Context) (*result, error) {
	d, err := b.disk(ctx, denseDisk)
	if err != nil {
		return nil, err
	}
	s, err := b.fullSite(ctx, b.plain)
	if err != nil {
		return nil, err
	}
	offsets, err := b.frameOffsets(d)
	if err != nil {
		return nil, err
	}
	if err := eachFile(s.repo(), warm); err != nil {
		return nil, err
	}
	each := func(seconds float64, f figures) string {
		return dash(number(seconds*1e6/float64(f.Reads)), seconds > 0)
	}
	r := &result{
		Title: fmt.Sprintf("a restore point's disk over NFS, at most %d decoding", recoveryDecoders()),
		columns: []column{
			{"in flight", func(f figures) string { return fmt.Sprint(f.Depth) }},
			{"per second", func(f figures) string { return number(f.IOPS) }},
			{"p99 ms", func(f figures) string { return dash(number(f.Latency*1000), f.Latency > 0) }},
			{"server CPU µs each", func(f figures) string { return each(f.CPU, f) }},
			{"client CPU µs each", func(f figures) string { return each(f.Client, f) }},
			{"reads", func(f figures) string { return fmt.Sprint(f.Reads) }},
		},
	}
	runs := make(map[string][]figures)
	order := []string{rowDecode, rowCold, rowBeside, rowGetAttr, rowHot, rowHot64, rowTwice, rowFake}
	for range b.times() {
		if err := b.recoveryRound(ctx, s, d, offsets, func(f figures) {
			b.say("  %-44s %8.0f /s", f.Tool, f.IOPS)
			runs[f.Tool] = append(runs[f.Tool], f)
		}); err != nil {
			return nil, err
		}
	}
	of := make(map[string]figures)
	for _, name := range order {
		of[name] = median(runs[name])
		r.Rows = append(r.Rows, of[name])
	}
	r.atLeast("cold frames per second over NFS / decoded and verified alone", of[rowCold].IOPS/of[rowDecode].IOPS, 0.8)
	r.atLeast("reads per second at 64 in flight from a store of 2 ms", of[rowFake].IOPS, 12_000)
	r.atMost("p99 of GETATTR beside 64 cold reads, ms", of[rowGetAttr].Latency*1000, 5)
	r.note("the packs are in the page cache, so that decoding and verifying is what a cold frame costs; each of %d frames is read once, half of them alone and half beside GETATTR", recoveryFrames)
	r.note("alone: the same frames' stored bytes in memory, decoded and verified by as many goroutines as may decode when serving")
	r.note("store of 2 ms: each read of the base takes 2 ms and no CPU; the set of twice the cache is read twice, the second time is counted")
	return r, nil
}

// recoveryRound makes each row once.
func (b *runner) recoveryRound(ctx context.Context, s site, d disk, offsets []int64, add func(figures)) error {
	in := b.plain.input(s)
	in.Offsets, in.Depth = offsets, recoveryDecoders()
	out, err := startChild(ctx, "decode", in)
	if err != nil {
		return err
	}
	var alone readReport
	if err := json.Unmarshal(out, &alone); err != nil {
		return err
	}
	add(figures{Tool: rowDecode, Depth: recoveryDecoders(), IOPS: float64(alone.Read) / alone.Seconds, Reads: int(alone.Read), Wall: alone.Seconds, CPU: alone.CPU})

	half := len(offsets) / 2
	in.Bytes, in.Limit = max(recoveryHot, 2*int64(len(offsets))*chunk.DefaultFrameBytes), 0
	err = b.recoveryServer(ctx, in, func(srv recoveryServer) error {
		if err := srv.reads(rowCold, offsets[:half], readBlock, recoveryDepth, d, add); err != nil {
			return err
		}
		if err := srv.beside(offsets[half:], d, add); err != nil {
			return err
		}
		hot := slices.Repeat(offsets, 10)
		if err := srv.reads(rowHot, hot, readBlock, recoveryDepth, d, add); err != nil {
			return err
		}
		return srv.reads(rowHot64, hot[:len(hot)/4], 64<<10, 16, d, add)
	})
	if err != nil {
		return err
	}
	set := offsets[:half]
	in.Bytes = int64(len(set)) * chunk.DefaultFrameBytes / 2
	err = b.recoveryServer(ctx, in, func(srv recoveryServer) error {
		if err := srv.reads(rowTwice, set, readBlock, recoveryDepth, d, func(figures) {}); err != nil {
			return err
		}
		again := slices.Clone(set)
		rand.New(rand.NewPCG(b.opt.seed, 8)).Shuffle(len(again), func(i, j int) { again[i], again[j] = again[j], again[i] })
		return srv.reads(rowTwice, again, readBlock, recoveryDepth, d, add)
	})
	if err != nil {
		return err
	}
	in.Limit = fakeDelay
	return b.recoveryServer(ctx, in, func(srv recoveryServer) error {
		many := slices.Repeat(offsets, fakeReads/len(offsets))
		return srv.reads(rowFake, many, readBlock, recoveryDepth, disk{}, add)
	})
}

// frameOffsets are places in frames of the disk that are not zeros, one in each,
// in no order.
func (b *runner) frameOffsets(d disk) ([]int64, error) {
	f, err := os.Open(d.image())
	if err != nil {
		return nil, err
	}
	defer f.Close()
	rng := rand.New(rand.NewPCG(b.opt.seed, 7))
	p, zeros := make([]byte, chunk.DefaultFrameBytes), make([]byte, chunk.DefaultFrameBytes)
	var offsets []int64
	for _, n := range rng.Perm(int(d.SizeBytes / chunk.DefaultFrameBytes)) {
		off := int64(n) * chunk.DefaultFrameBytes
		if _, err := f.ReadAt(p, off); err != nil {
			return nil, err
		}
		if bytes.Equal(p, zeros) {
			continue
		}
		if offsets = append(offsets, off+rng.Int64N(chunk.DefaultFrameBytes/readBlock)*readBlock); len(offsets) == recoveryFrames {
			break
		}
	}
	return offsets, nil
}

// eachFile calls fn for the files below dir.
func eachFile(dir string, fn func(path string) error) error {
	return filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		return fn(path)
	})
}

// recoveryServer is a running server, and a file of it.
type recoveryServer struct {
	addr string
	pid  int
	file nfstest.Handle
}

// recoveryServer runs fn while a process serves the point's disk.
func (b *runner) recoveryServer(ctx context.Context, in childInput, fn func(recoveryServer) error) (err error) {
	dir := filepath.Join(b.opt.work, "out", "redirect")
	if err := errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o755)); err != nil {
		return err
	}
	in.Target = dir
	p, err := json.Marshal(in)
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, self)
	cmd.Env, cmd.Stdin = append(os.Environ(), childEnv+"=recovery"), bytes.NewReader(p)
	var errOut bytes.Buffer
	cmd.Stderr = &errOut
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, cmd.Process.Signal(unix.SIGTERM))
		if _, e := io.Copy(io.Discard, out); e != nil {
			err = errors.Join(err, e)
		}
		if e := cmd.Wait(); e != nil {
			err = errors.Join(err, fmt.Errorf("%w: %s", e, tail(errOut.String())))
		}
	}()
	line := make([]byte, 64)
	n, err := out.Read(line)
	if err != nil {
		return fmt.Errorf("the server said nothing: %w", err)
	}
	srv := recoveryServer{addr: strings.TrimSpace(string(line[:n])), pid: cmd.Process.Pid}
	c, err := nfstest.Dial(ctx, srv.addr)
	if err != nil {
		return err
	}
	defer c.Close()
	root, err := c.Mount("/")
	if err != nil {
		return err
	}
	if srv.file, _, err = c.Lookup(root, diskName); err != nil {
		return err
	}
	return fn(srv)
}

// nfsFile reads a file over NFS, with many requests in flight on a connection.
type nfsFile struct {
	c *nfstest.Client
	h nfstest.Handle
}

func (f nfsFile) ReadAt(p []byte, off int64) (int, error) {
	res, err := f.c.Read(f.h, uint64(off), uint32(len(p)))
	if err != nil {
		return 0, err
	}
	if len(res.Data) < len(p) {
		return 0, io.ErrUnexpectedEOF
	}
	return copy(p, res.Data), nil
}

// reads makes one row of reads, and verifies them if there is a disk to compare
// with.
func (srv recoveryServer) reads(name string, offsets []int64, blockBytes, depth int, d disk, add func(figures)) error {
	nc, err := net.Dial("tcp", srv.addr)
	if err != nil {
		return err
	}
	c := nfstest.NewClient(nc)
	defer c.Close()
	if blockBytes > readBlock {
		aligned := slices.Clone(offsets)
		for i := range aligned {
			aligned[i] -= aligned[i] % int64(blockBytes)
		}
		offsets = aligned
	}
	before, ours, err := srv.cpu()
	if err != nil {
		return err
	}
	got, err := randomBlocks(nfsFile{c, srv.file}, offsets, blockBytes, depth, time.Minute, os.Getpid())
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	after, oursAfter, err := srv.cpu()
	if err != nil {
		return err
	}
	f := figures{Tool: name, Depth: depth, Wall: got.Seconds, Latency: got.P99, Reads: len(got.Sums)}
	f.IOPS, f.CPU, f.Client = float64(f.Reads)/got.Seconds, (after - before).Seconds(), (oursAfter - ours).Seconds()
	if d.Dir != "" && blockBytes == readBlock {
		if err := verify(d.image(), offsets, got.Sums); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	add(f)
	return nil
}

// cpu is what the server and this process have taken.
func (srv recoveryServer) cpu() (server, ours time.Duration, err error) {
	if server, err = processCPU(srv.pid); err != nil {
		return 0, 0, err
	}
	var u unix.Rusage
	err = unix.Getrusage(unix.RUSAGE_SELF, &u)
	return server, time.Duration(u.Utime.Nano() + u.Stime.Nano()), err
}

// beside asks for attributes on a connection of its own, one after the other,
// while cold reads are in flight on another.
func (srv recoveryServer) beside(offsets []int64, d disk, add func(figures)) error {
	nc, err := net.Dial("tcp", srv.addr)
	if err != nil {
		return err
	}
	c := nfstest.NewClient(nc)
	defer c.Close()
	var took []float64
	var wg sync.WaitGroup
	var attrErr error
	stop := make(chan struct{})
	began := time.Now()
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
			}
			start := time.Now()
			if _, attrErr = c.GetAttr(srv.file); attrErr != nil {
				return
			}
			took = append(took, time.Since(start).Seconds())
		}
	})
	err = srv.reads(rowBeside, offsets, readBlock, recoveryDepth, d, add)
	close(stop)
	wg.Wait()
	if err := errors.Join(err, attrErr); err != nil {
		return err
	}
	slices.Sort(took)
	if len(took) == 0 {
		return errors.New("not one GETATTR was answered")
	}
	add(figures{Tool: rowGetAttr, Depth: 1, IOPS: float64(len(took)) / time.Since(began).Seconds(), Reads: len(took), Latency: took[len(took)*99/100]})
	return nil
}
