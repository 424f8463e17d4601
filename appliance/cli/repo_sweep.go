package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"holdfast/repo"
)

type sweepOptions struct {
	dir  string
	wait time.Duration
}

func newRepoSweep(a *app) *cobra.Command {
	var opt sweepOptions
	cmd := &cobra.Command{
		Use:   "sweep DIR",
		Short: "Free what no restore point needs",
		Long: `Remove the packs of which no restore point needs anything any more. It takes time
in proportion to what the points held that have expired since the last sweep.

A point that has expired and is still being read, is pinned, or has a locked
manifest keeps what it needs; such points are named. Bytes that nothing needs in
packs that hold other things too are counted, and freed by "repo compact".

It may be interrupted at any moment, and runs beside backups and restores: while
another process owns the repository, that one does it.`,
		Example: `  holdfast repo sweep /srv/backup
  holdfast repo sweep /srv/backup --wait 10m --json`,
		Args: takes(false, "DIR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			opt.dir = args[0]
			outlivePipes()
			return a.repoSweep(cmd.Context(), opt)
		},
	}
	waitFlag(cmd, &opt.wait)
	return cmd
}

type sweepListing struct {
	Schema      string        `json:"schema,omitempty"` // only where it stands for itself
	Points      int           `json:"points"`
	Held        []heldListing `json:"held"`
	Packs       int           `json:"packs"`
	Bytes       int64         `json:"bytes"`
	DeadPacks   int           `json:"deadPacks"`
	DeadBytes   int64         `json:"deadBytes"`
	LockedPacks int           `json:"lockedPacks"`
	LockedBytes int64         `json:"lockedBytes"`
	BusyPacks   int           `json:"busyPacks"`
}

type heldListing struct {
	Point  string   `json:"point"`
	Pins   []string `json:"pins"`
	Locked bool     `json:"locked"`
	Read   bool     `json:"read"`
}

func (a *app) repoSweep(ctx context.Context, opt sweepOptions) error {
	res, err := a.sweep(ctx, opt)
	if err != nil {
		return err
	}
	if a.json {
		l := listSweep(&res)
		l.Schema = "holdfast.sweep/1"
		return a.printJSON(l)
	}
	return a.printSweep(opt.dir, &res, `"holdfast repo compact `+opt.dir+`" frees it`)
}

// sweep sweeps, and shows how far it is.
func (a *app) sweep(ctx context.Context, opt sweepOptions) (res repo.SweepResult, err error) {
	meter := &bar{app: a, what: "sweep", unit: "packs"}
	err = a.byOwner(ctx, opt.dir, "sweep", opt.wait, false, nil, &res,
		reports(func(p repo.SweepProgress) { meter.at(int64(p.Packs), int64(p.Of)) }))
	meter.end(err == nil)
	return res, err
}

func listSweep(r *repo.SweepResult) sweepListing {
	l := sweepListing{
		Points: r.Points, Held: []heldListing{}, Packs: r.Packs, Bytes: r.Bytes, DeadPacks: r.DeadPacks,
		DeadBytes: r.DeadBytes, LockedPacks: r.LockedPacks, LockedBytes: r.LockedBytes, BusyPacks: r.BusyPacks,
	}
	for _, h := range r.Held {
		l.Held = append(l.Held, heldListing{string(h.Point), nonNil(h.Pins), h.Locked, h.Read})
	}
	return l
}

// printSweep says what was freed, and what was not and why. hint says what to do
// about dead bytes; it may be empty.
func (a *app) printSweep(dir string, r *repo.SweepResult, hint string) error {
	if a.quiet {
		return nil
	}
	f := newFields(a.out)
	f.add("freed", "%s in %s; %s let go", formatSize(r.Bytes), count(r.Packs, "pack"), count(r.Points, "expired point"))
	for _, h := range r.Held {
		f.add("held", "%s, %s", h.Point, heldBy(&h))
	}
	if r.LockedPacks > 0 {
		f.add("locked", "%s in %s that nothing needs, until the locks end", formatSize(r.LockedBytes), count(r.LockedPacks, "pack"))
	}
	if r.BusyPacks > 0 {
		f.add("in use", "%s that nothing needs but runs that are not finished: see \"holdfast repo runs %s\"", count(r.BusyPacks, "pack"), dir)
	}
	if r.DeadBytes > 0 {
		f.add("dead", "%s in %s that hold other things too", formatSize(r.DeadBytes), count(r.DeadPacks, "pack"))
	}
	if err := f.end(); err != nil {
		return err
	}
	if r.DeadBytes > 0 && hint != "" {
		a.hint(hint)
	}
	return nil
}

// heldBy says what keeps an expired point.
func heldBy(h *repo.HeldPoint) string {
	var by []string
	if len(h.Pins) > 0 {
		by = append(by, fmt.Sprintf("pinned as %q", h.Pins))
	}
	if h.Locked {
		by = append(by, "its manifest is locked")
	}
	if h.Read {
		by = append(by, "being read")
	}
	return strings.Join(by, ", ")
}

// count prints a number of things, whose plural ends in s.
func count(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}
