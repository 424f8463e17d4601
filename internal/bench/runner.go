//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"time"
)

// A table is one part of the bench.
type table struct {
	name  string
	make  func(*runner, context.Context) (*result, error)
	asked bool // only when -run names it
	alone bool // has no peer: nobody else does that
}

func tables() []table {
	return []table{
		{name: "full", make: (*runner).full},
		{name: "sparse", make: (*runner).sparse},
		{name: "second", make: (*runner).second},
		{name: "changed", make: (*runner).changed, alone: true},
		{name: "random", make: (*runner).random},
		{name: "restore", make: (*runner).restore},
		{name: "cold", make: (*runner).cold},
		{name: "mount", make: (*runner).mount},
		{name: "recovery", make: (*runner).recovery, alone: true},
		{name: "files", make: (*runner).files, alone: os.Geteuid() != 0}, // the peer is the kernel
		{name: "tree", make: (*runner).tree},
		{name: "merge", make: (*runner).merge},
		{name: "sweep", make: (*runner).sweep, alone: true},
		{name: "scrub", make: (*runner).scrub},
		{name: "synthesize", make: (*runner).synthesize, alone: true},
		{name: "copy", make: (*runner).copy},
		{name: "list", make: (*runner).list, alone: true},
		{name: "memory", make: (*runner).memory, alone: true},
		{name: "nfsread", make: (*runner).nfsRead},
		{name: "nfsnames", make: (*runner).nfsNames},
		{name: "nfswrite", make: (*runner).nfsWrite},
		{name: "curve", make: (*runner).curve, asked: true, alone: true},
		{name: "profile", make: (*runner).profile, asked: true, alone: true},
		{name: "micro", make: (*runner).micro, asked: true, alone: true},
	}
}

func tableNames() (names []string) {
	for _, t := range tables() {
		names = append(names, t.name)
	}
	return names
}

// A runner is one bench.
type runner struct {
	opt   options
	began time.Time

	plain, s2, secret         *holdfast
	borg, borgLZ4, borgSparse *borg
	restic                    *restic
	kopia                     *kopia // nil: not installed

	disks map[string]disk
	stage *staged
	sites int
	fulls map[string]site // sites with one backup of the dense disk, by label
	peak  figures         // the most memory that ours took
}

// bench makes the tables that were asked for, and prints each as it is made.
func bench(ctx context.Context, opt options) error {
	ctx, cancel := context.WithTimeoutCause(ctx, opt.limit, fmt.Errorf("not done in %s (-limit)", opt.limit))
	defer cancel()
	b := &runner{opt: opt, began: time.Now(), disks: make(map[string]disk), fulls: make(map[string]site)}
	b.tools()
	if err := unlock(filepath.Join(opt.work, "sites")); err != nil {
		return err
	}
	for _, dir := range []string{"sites", "out", "stage"} {
		if err := os.RemoveAll(filepath.Join(opt.work, dir)); err != nil {
			return err
		}
	}
	for _, dir := range []string{"sites", "out", "disks", "stores"} {
		if err := os.MkdirAll(filepath.Join(opt.work, dir), 0o755); err != nil {
			return err
		}
	}
	if err := missing(with(b.plain, b.borg, b.restic)); err != nil {
		return err
	}
	report := &report{Machine: thisMachine(ctx, b), Began: b.began.UTC()}
	fmt.Println(report.Machine)
	wanted := regexp.MustCompile(opt.run)
	all := wanted.MatchString("\x01") // as the default does, no table in particular
	var errs []error
	for _, t := range tables() {
		if !wanted.MatchString(t.name) || (t.asked && all) {
			continue
		}
		b.say("table %s", t.name)
		r, err := t.make(b, ctx)
		if err == nil {
			r.Name = t.name
			if !t.alone && !r.hasPeer() {
				err = errors.New("no peer to be compared with")
			}
			r.print(os.Stdout)
			report.Tables = append(report.Tables, r)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("table %s: %w", t.name, err))
			fmt.Fprintln(os.Stderr, "bench:", errs[len(errs)-1])
		}
		if ctx.Err() != nil {
			return errors.Join(context.Cause(ctx), errors.Join(errs...))
		}
		if err := report.save(filepath.Join(opt.work, "bench.json"), time.Since(b.began)); err != nil {
			return err
		}
	}
	if len(report.Tables)+len(errs) == 0 {
		return fmt.Errorf("-run %q names no table", opt.run)
	}
	report.summary(os.Stdout, time.Since(b.began), filepath.Join(opt.work, "bench.json"))
	for _, dir := range []string{"sites", "out", "stage"} {
		errs = append(errs, os.RemoveAll(filepath.Join(opt.work, dir)))
	}
	return errors.Join(errs...)
}

// missing says which programs are not there and how to get them.
func missing(tools []tool) error {
	for _, t := range tools {
		c := t.initialize(site{})
		if _, err := exec.LookPath(c.args[0]); err != nil {
			return fmt.Errorf("%s: %w (\"make deps\" says how to install the peers, \"make build\" builds holdfast)", t.label(), err)
		}
	}
	return nil
}

// say prints a line of progress.
func (b *runner) say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "[%5.1f min] %s\n", time.Since(b.began).Minutes(), fmt.Sprintf(format, args...))
}

// times is how often each contender runs now.
func (b *runner) times() int {
	if time.Since(b.began) > b.opt.limit/2 {
		return 1
	}
	return b.opt.times
}

// A contest is the same work done by several tools.
type contest struct {
	tools []tool
	times int
	// prepare gives the site that a run starts from. It goes afterwards, unless
	// it is used again, or keep takes the last one.
	reuse   bool
	prepare func(ctx context.Context, t tool) (site, error)
	do      func(s site, t tool) command
	source  string // read before each run, so that it is in the page cache
	after   func(s site, t tool, out []byte, f *figures) error
	keep    func(t tool, s site)
}

// run lets the contenders take turns and returns one row for each.
func (b *runner) run(ctx context.Context, c contest) ([]figures, error) {
	runs := make([][]figures, len(c.tools))
	for n := range c.times {
		for i, t := range c.tools {
			f, err := b.once(ctx, c, t, n == c.times-1)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", t.label(), err)
			}
			runs[i] = append(runs[i], f)
			b.say("  %-32s %8.2f s wall %8.2f s CPU", t.label(), f.Wall, f.CPU)
		}
	}
	var rows []figures
	for _, r := range runs {
		rows = append(rows, median(r))
	}
	return rows, nil
}

func (b *runner) once(ctx context.Context, c contest, t tool, last bool) (f figures, err error) {
	s, err := c.prepare(ctx, t)
	if err != nil {
		return f, err
	}
	before, err := treeBytes(s.repo())
	if err != nil {
		return f, err
	}
	if c.source != "" {
		if err := warm(c.source); err != nil {
			return f, err
		}
	}
	if err := settle(b.opt.work); err != nil {
		return f, err
	}
	u, out, err := c.do(s, t).run(ctx)
	if err != nil {
		return f, err
	}
	f = figures{Tool: t.label(), Peer: t.peer(), Sealed: t.sealed(), Wall: u.wall.Seconds(), CPU: u.cpu.Seconds(), RSS: u.rss, Anon: u.anon, In: u.in, Out: u.out, Storage: u.storage}
	after, err := treeBytes(s.repo())
	if err != nil {
		return f, err
	}
	f.Stored = after - before
	if !t.peer() {
		b.peak.RSS, b.peak.Anon = max(b.peak.RSS, u.rss), max(b.peak.Anon, u.anon)
	}
	if c.after != nil {
		if err := c.after(s, t, out, &f); err != nil {
			return f, err
		}
	}
	if last && c.keep != nil {
		c.keep(t, s)
		return f, nil
	}
	if c.reuse {
		return f, nil
	}
	return f, os.RemoveAll(s.dir)
}

// backedUp takes what holdfast itself says of a backup.
func backedUp(_ site, t tool, out []byte, f *figures) error {
	if t.peer() {
		return nil
	}
	r, err := parseRun(out)
	if err != nil {
		return err
	}
	c := r.Point.Counters
	f.Parity, f.Read, f.Chunks, f.Patches, f.Nodes = c.ParityBytes, c.ReadBytes, c.Chunks, c.Patches, c.Nodes
	for _, d := range r.Disks {
		f.Mode = d.Mode
	}
	return nil
}

// fullSite returns a site with one backup of the dense disk.
func (b *runner) fullSite(ctx context.Context, t tool) (site, error) {
	if m, ok := t.(mountedHoldfast); ok {
		t = m.holdfast // read in another way, not another site
	}
	if s, ok := b.fulls[t.label()]; ok {
		return s, nil
	}
	d, err := b.disk(ctx, denseDisk)
	if err != nil {
		return site{}, err
	}
	s, err := b.firstBackup(ctx, t, d.Dir)
	b.fulls[t.label()] = s
	return s, err
}

// firstBackup makes a site and backs up a disk to it.
func (b *runner) firstBackup(ctx context.Context, t tool, diskDir string) (site, error) {
	s, err := b.begin(ctx, t)
	if err != nil {
		return s, err
	}
	b.say("  %-32s first backup", t.label())
	_, _, err = t.backup(s, diskDir, "first").run(ctx)
	return s, err
}
