//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"holdfast/nfs/nfstest"
)

// An nfsCase is a kind of load that all servers take in turn.
type nfsCase struct {
	name string
	hot  bool // of the file to be read, not where is written
	unit string
	goal float64 // of our rate to ganesha's
	job  nfsJob

	// each changes the job for a round, if not nil.
	each func(j *nfsJob, round int)

	// check, if true, reads again what was written and verifies every byte.
	check bool
}

const bytesRate = "MiB/s"

// loadTime is how long a load goes on that has no end of its own.
const loadTime = 1500 * time.Millisecond

func (b *runner) nfsRead(ctx context.Context) (*result, error) {
	read := func(size, inFlight int, random bool) nfsJob {
		return nfsJob{Kind: "load", File: hotFile, Proc: nfstest.Read, Size: size, Bytes: hotSize, Random: random, InFlight: inFlight, For: loadTime, Gen: 1}
	}
	cases := []nfsCase{
		{"1 MiB in turn, 8 in flight", true, bytesRate, 1.3, read(1<<20, 8, false), nil, false},
		{"64 KiB in turn, 16 in flight", true, bytesRate, 1.2, read(64<<10, 16, false), nil, false},
		{"64 KiB at random, 64 in flight", true, bytesRate, 1.3, read(64<<10, 64, true), nil, false},
		{"4 KiB at random, 64 in flight", true, "/s", 2.5, read(4<<10, 64, true), nil, false},
		{"4 KiB at random, 1 in flight", true, "/s", 1.5, read(4<<10, 1, true), nil, false},
	}
	r, err := b.nfsTable(ctx, "reads of a file in memory over NFS", cases)
	if err == nil {
		r.note("ours reads from memory of its own, as from its cache; the peers' file is locked into the page cache")
		r.note("before the first round each server's file was read whole, and every byte verified")
	}
	return r, err
}

func (b *runner) nfsNames(ctx context.Context) (*result, error) {
	const files = 10_000
	names := func(proc uint32) nfsJob {
		return nfsJob{Kind: "names", Proc: proc, InFlight: 32, Requests: files}
	}
	known := nfsJob{Kind: "known", Proc: nfstest.GetAttr, InFlight: 64, For: loadTime}
	cases := []nfsCase{
		{"CREATE, 32 in flight", false, "/s", 0.7, names(nfstest.Create), nil, false},
		{"LOOKUP, 32 in flight", false, "/s", 0.7, names(nfstest.Lookup), nil, false},
		{"GETATTR, 64 in flight", false, "/s", 1.5, known, nil, false},
		{"READDIRPLUS, entries", false, "/s", 0.5, nfsJob{Kind: "list", For: loadTime}, nil, false},
		{"REMOVE, 32 in flight", false, "/s", 0.7, names(nfstest.Remove), nil, false},
	}
	r, err := b.nfsTable(ctx, fmt.Sprintf("%d files of one directory over NFS", files), cases)
	if err == nil {
		r.note("all on one XFS. Ours has every change of a name in its journal, synced, before it answers; the column of flushes says what the others do")
	}
	return r, err
}

func (b *runner) nfsWrite(ctx context.Context) (*result, error) {
	const mib = 1 << 20
	write := func(size int, from, bytes int64, requests int) nfsJob {
		return nfsJob{Kind: "load", File: writeFile, Proc: nfstest.Write, Size: size, From: from * mib, Bytes: bytes * mib,
			Random: true, InFlight: 32, Requests: requests, Stable: nfstest.FileSync}
	}
	turn := write(mib, 0, 256, 256)
	turn.Random, turn.InFlight, turn.Stable = false, 8, nfstest.Unstable
	// What is to be new is another part of the file in each round.
	next := func(j *nfsJob, round int) { j.From += int64(round%3) * j.Bytes }
	cases := []nfsCase{
		{"1 MiB UNSTABLE, 8 in flight, and COMMIT", false, bytesRate, 0.8, turn, nil, true},
		{"4 KiB FILE_SYNC, 32 in flight, new", false, "/s", 1.0, write(4<<10, 256, 64, 4000), next, true},
		{"4 KiB FILE_SYNC, 32 in flight, again", false, "/s", 1.0, write(4<<10, 0, 256, 4000), nil, true},
		{"64 KiB FILE_SYNC, 32 in flight, new", false, bytesRate, 1.0, write(64<<10, 448, 192, 1000), next, true},
		{"64 KiB FILE_SYNC, 32 in flight, again", false, bytesRate, 1.0, write(64<<10, 0, 256, 1000), nil, true},
	}
	r, err := b.nfsTable(ctx, "writes to a file of 1 GiB over NFS", cases)
	if err != nil {
		return r, err
	}
	for _, f := range r.Rows {
		if f.Flushes == 0 && f.Tool != goNFSServer {
			return r, fmt.Errorf("%s asked the device for no flush: it can't be compared", f.Tool)
		}
	}
	r.note("all on one XFS on a loop device, whose flushes are counted; ours through the redirect layer of a published disk. go-nfs says FILE_SYNC and does not sync")
	r.note("\"new\": places never written before; \"again\": places written by the first case. What was written was read again, outside the times, and every byte verified")
	return r, nil
}

// nfsTable lets all servers take the cases in turn, round by round.
func (b *runner) nfsTable(ctx context.Context, title string, cases []nfsCase) (r *result, err error) {
	v, err := b.newXFS(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, v.remove()) }()
	hot := ""
	if cases[0].hot {
		hot = filepath.Join(v.dir, "hot-file")
		unpin, err := makeHot(hot)
		if err != nil {
			return nil, err
		}
		defer unpin()
	}
	runs := map[string][]figures{} // by case and server
	var servers []*nfsServer
	err = inNetwork(func() (err error) {
		if servers, err = startNFS(ctx, v.dir, hot); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, stopNFS(servers)) }()
		if hot != "" {
			if err := verifyHot(ctx, servers); err != nil {
				return err
			}
		}
		for round := range b.times() {
			for _, c := range cases {
				for _, s := range servers {
					f, err := b.nfsRun(ctx, v, s, c, round)
					if err != nil {
						return fmt.Errorf("%s: %s: %w", s.name, c.name, err)
					}
					runs[c.name+s.name] = append(runs[c.name+s.name], f)
				}
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return nfsResult(title, cases, servers, runs), nil
}

// nfsResult makes the table.
func nfsResult(title string, cases []nfsCase, servers []*nfsServer, runs map[string][]figures) *result {
	perRequest := func(seconds float64, f figures) string {
		return number(seconds * 1e6 / float64(f.Reads))
	}
	r := &result{Title: title, columns: []column{
		{"", func(f figures) string { return f.Mode }},
		{"rate", func(f figures) string { return number(f.Rate) }},
		{"", func(f figures) string { return f.Unit }},
		{"p99 ms", func(f figures) string { return number(f.Latency * 1000) }},
		{"server CPU µs each", func(f figures) string { return perRequest(f.CPU, f) }},
		{"client CPU µs each", func(f figures) string { return perRequest(f.Client, f) }},
		{"requests", func(f figures) string { return fmt.Sprint(f.Reads) }},
		{"flushes", func(f figures) string { return fmt.Sprint(f.Flushes) }},
	}}
	for _, c := range cases {
		rate := map[string]float64{}
		for _, s := range servers {
			f := median(runs[c.name+s.name])
			r.Rows = append(r.Rows, f)
			rate[s.name] = f.Rate
		}
		r.atLeast(c.name+": "+oursServer+" / "+ganeshaServer, rate[oursServer]/rate[ganeshaServer], c.goal)
	}
	return r
}

// nfsRun lets one server take one load.
func (b *runner) nfsRun(ctx context.Context, v *xfsVolume, s *nfsServer, c nfsCase, round int) (figures, error) {
	f := figures{Tool: s.name, Peer: s.peer, Mode: c.name, Unit: c.unit}
	j := s.job(c)
	j.Seed, j.Gen = b.opt.seed+uint64(round), uint32(1+round)
	if c.each != nil {
		c.each(&j, round)
	}
	if err := settle(v.dir); err != nil {
		return f, err
	}
	flushes, err := v.flushes()
	if err != nil {
		return f, err
	}
	cpu, err := processCPU(s.cmd.Process.Pid)
	if err != nil {
		return f, err
	}
	got, err := runNFSJob(ctx, j)
	if err != nil {
		return f, err
	}
	after, err := processCPU(s.cmd.Process.Pid)
	if err != nil {
		return f, err
	}
	f.Flushes, err = v.flushes()
	f.Flushes -= flushes
	f.Wall, f.CPU, f.Client, f.Latency, f.Reads = got.Seconds, (after - cpu).Seconds(), got.CPU, got.P99, got.Requests
	f.Rate = float64(got.Requests) / got.Seconds
	if c.unit == bytesRate {
		f.Rate = float64(got.Bytes) / (1 << 20) / got.Seconds
	}
	b.say("  %-12s %-42s %9.0f %-5s", s.name, c.name, f.Rate, c.unit)
	if err != nil || !c.check {
		return f, err
	}
	j.Proc, j.Requests, j.Verify = nfstest.Read, got.Requests, true
	if _, err := runNFSJob(ctx, j); err != nil {
		return f, fmt.Errorf("read again: %w", err)
	}
	return f, nil
}

// job is the case's job on a server.
func (s *nfsServer) job(c nfsCase) nfsJob {
	j := c.job
	j.Addr, j.Mount, j.Dir = s.addr, s.data, s.dir
	if c.hot {
		j.Mount, j.Dir = s.hot, ""
	}
	return j
}

// runNFSJob runs a job in a process of its own.
func runNFSJob(ctx context.Context, j nfsJob) (r nfsReport, err error) {
	out, err := startChild(ctx, "nfsload", childInput{Load: &j})
	if err != nil {
		return r, err
	}
	return r, json.Unmarshal(out, &r)
}

// verifyHot reads the whole file of each server, so that nothing is cold, and
// verifies every byte.
func verifyHot(ctx context.Context, servers []*nfsServer) error {
	for _, s := range servers {
		j := s.job(nfsCase{hot: true, job: nfsJob{
			Kind: "load", File: hotFile, Proc: nfstest.Read, Size: 256 << 10, Bytes: hotSize, InFlight: 4, Requests: hotSize / (256 << 10), Gen: 1, Verify: true,
		}})
		if _, err := runNFSJob(ctx, j); err != nil {
			return fmt.Errorf("%s: read the whole file: %w", s.name, err)
		}
	}
	return nil
}

// makeHot makes the file to be read and locks it into memory until unpin.
func makeHot(name string) (unpin func(), err error) {
	f, err := os.Create(name)
	if err != nil {
		return nil, err
	}
	p := make([]byte, 1<<20)
	for off := int64(0); off < hotSize && err == nil; off += int64(len(p)) {
		nfstest.Stamp(p, off, 1)
		_, err = f.Write(p)
	}
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return nil, err
	}
	return pin(name)
}
