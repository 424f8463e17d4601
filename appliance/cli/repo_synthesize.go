package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"holdfast/repo"
)

type synthesizeOptions struct {
	dir, point string
	dryRun     bool
	yes        bool
	wait       time.Duration
}

func newRepoSynthesize(a *app) *cobra.Command {
	var opt synthesizeOptions
	cmd := &cobra.Command{
		Use:   "synthesize DIR POINT",
		Short: "Put a restore point's pieces together, so that it reads fast",
		Long: `Copy everything a restore point needs, as it is stored, into new packs in the order
of its disks: a synthetic full. What many increments have scattered reads from one
place again. Nothing is read from the machine, and the point stays what it is.

What was copied takes room twice until "repo sweep" and "repo compact" have freed
the old copies. It says how much that is first, and asks, if there is somebody to
ask; without the room it refuses.

It may be interrupted at any moment, and runs beside backups and restores: while
another process owns the repository, that one does it.`,
		Example: `  holdfast repo synthesize /srv/backup db1@latest --dry-run
  holdfast repo synthesize /srv/backup db1@latest --yes`,
		Args: takes(false, "DIR", "POINT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			opt.dir, opt.point = args[0], args[1]
			outlivePipes()
			return a.repoSynthesize(cmd.Context(), opt)
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.BoolVar(&opt.dryRun, "dry-run", false, "only say what it takes")
	f.BoolVar(&opt.yes, "yes", false, "do not ask")
	waitFlag(cmd, &opt.wait)
	return cmd
}

type synthesisListing struct {
	Schema    string `json:"schema"`
	Point     string `json:"point"`
	Records   int64  `json:"records"`
	Bytes     int64  `json:"bytes"`
	RoomBytes int64  `json:"roomBytes"`
	FreeBytes int64  `json:"freeBytes"`
	Done      bool   `json:"done"`
}

func (a *app) repoSynthesize(ctx context.Context, opt synthesizeOptions) error {
	var plan repo.SynthesizePlan
	var point repo.Point
	err := a.reading(ctx, opt.dir, func(r *repo.Repository) (err error) {
		if point, err = r.Find(ctx, opt.point, time.Local); err == nil {
			plan, err = r.PlanSynthesis(ctx, point.ID)
		}
		return err
	})
	if plan.RoomBytes > 0 {
		a.say("Point %s of %s: %s to copy, which takes %s of the %s that are free until the old copies are freed",
			point.ID, point.Machine, formatSize(plan.Bytes), formatSize(plan.RoomBytes), formatSize(plan.FreeBytes))
	}
	if err == nil && !opt.dryRun && !opt.yes && a.interactive() {
		err = a.goOn("Go on?")
	}
	if err != nil {
		return err
	}
	if !opt.dryRun {
		meter := &bar{app: a, what: "synthesize"}
		err = a.byOwner(ctx, opt.dir, "synthesize", opt.wait, true, point.ID, &plan,
			reports(func(p repo.SynthesizeProgress) { meter.at(p.DoneBytes, p.TotalBytes) }))
		meter.end(err == nil)
		if err != nil {
			return err
		}
	}
	if a.json {
		return a.printJSON(synthesisListing{
			"holdfast.synthesis/1", string(point.ID), plan.Records, plan.Bytes, plan.RoomBytes, plan.FreeBytes, !opt.dryRun,
		})
	}
	if !opt.dryRun {
		a.say("Done")
		a.hint(fmt.Sprintf("\"holdfast repo compact %s\" frees the old copies", opt.dir))
	}
	return nil
}

// goOn asks a person, and returns an error unless the answer is yes.
func (a *app) goOn(question string) error {
	yes, err := a.confirm(question)
	if err == nil && !yes {
		err = errors.New("not wanted; nothing was done")
	}
	return err
}
