package cli

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"holdfast/repo"
)

type compactOptions struct {
	dir  string
	dead deadFlag
	wait time.Duration
}

func newRepoCompact(a *app) *cobra.Command {
	opt := compactOptions{dead: repo.DefaultDeadShare}
	cmd := &cobra.Command{
		Use:   "compact DIR",
		Short: "Rewrite packs of which much is not needed",
		Long: `Sweep, then copy what is needed out of packs in which much is not, and out of
small packs, into new ones, and remove the old. Every record is verified before it
is copied, and moves as it is stored. Locked packs stay as they are: see "repo
evacuate".

While a gigabyte or so is copied it takes room twice. It may be interrupted at any
moment, and runs beside backups and restores: while another process owns the
repository, that one does it.`,
		Example: `  holdfast repo compact /srv/backup
  holdfast repo compact /srv/backup --dead 0        every pack with a dead byte`,
		Args: takes(false, "DIR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			opt.dir = args[0]
			outlivePipes()
			return a.repoCompact(cmd.Context(), opt)
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.Var(&opt.dead, "dead", "rewrite packs of which so much is not needed; 0: anything")
	waitFlag(cmd, &opt.wait)
	return cmd
}

func (a *app) repoCompact(ctx context.Context, opt compactOptions) error {
	what := repo.CompactOptions{DeadShare: float64(opt.dead), AnyDead: opt.dead == 0}
	res, err := a.rewrite(ctx, opt.dir, "compact", opt.wait, what)
	if err != nil {
		return err
	}
	hint := ""
	if !what.AnyDead {
		hint = `"holdfast repo compact ` + opt.dir + ` --dead 0" rewrites these packs too`
	}
	return a.printRewrite(opt.dir, "compact", &res, hint)
}

// deadFlag is a share that may be nothing.
type deadFlag shareFlag

func (f *deadFlag) Set(s string) error {
	if strings.TrimSuffix(s, "%") == "0" {
		*f = 0
		return nil
	}
	return (*shareFlag)(f).Set(s)
}

func (f *deadFlag) String() string { return (*shareFlag)(f).String() }
func (f *deadFlag) Type() string   { return "share" }

// rewrite has packs rewritten by a verb, and shows how far it is.
func (a *app) rewrite(ctx context.Context, dir, verb string, wait time.Duration, what repo.CompactOptions) (res repo.CompactResult, err error) {
	meter := &bar{app: a, what: verb, unit: "packs"}
	err = a.byOwner(ctx, dir, verb, wait, false, what, &res,
		reports(func(p repo.CompactProgress) { meter.at(int64(p.Packs), int64(p.OfPacks)) }))
	meter.end(err == nil)
	return res, err
}

type rewriteListing struct {
	Schema     string       `json:"schema"`
	Packs      int          `json:"packs"`
	PackBytes  int64        `json:"packBytes"`
	MovedBytes int64        `json:"movedBytes"`
	Swept      sweepListing `json:"swept"`
}

// printRewrite says what a verb has rewritten, and freed by that.
func (a *app) printRewrite(dir, verb string, r *repo.CompactResult, hint string) error {
	if a.json {
		return a.printJSON(rewriteListing{"holdfast." + verb + "/1", r.Packs, r.PackBytes, r.MovedBytes, listSweep(&r.Swept)})
	}
	a.say("Rewrote %s of %s; %s of them are needed and were copied", count(r.Packs, "pack"), formatSize(r.PackBytes), formatSize(r.MovedBytes))
	return a.printSweep(dir, &r.Swept, hint)
}
