package cli

import (
	"context"
	"errors"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"holdfast/repo"
)

type syncOptions struct {
	from   copySource
	dst    string
	expire bool
	force  bool
	dryRun bool
}

func newRepoSync(a *app) *cobra.Command {
	var opt syncOptions
	cmd := &cobra.Command{
		Use:   "sync SRC DST",
		Short: "Keep a repository like another one",
		Long: `Copy to the repository DST what the repository SRC has and DST lacks, as "repo
copy" does; --machine, --last and --since say of which points.

With --expire, copies expire in DST once their points have expired in SRC. Only
copies do, never a point that was made in DST, nor one that is pinned. If SRC
looks emptied or set back, nothing is done: --force lets copies expire all the
same, those too that SRC doesn't know any more.

--dry-run prints what would be done, and needs no lock.`,
		Example: `  holdfast repo sync /srv/backup /mnt/usb
  holdfast repo sync /srv/backup /mnt/usb --expire --dry-run
  holdfast repo sync /srv/backup /mnt/offsite --machine db1 --last 7`,
		Args: takes(false, "SRC", "DST"),
		RunE: func(cmd *cobra.Command, args []string) error {
			opt.from.dir, opt.dst = args[0], args[1]
			outlivePipes()
			return a.repoSync(cmd.Context(), opt)
		},
	}
	opt.from.flags(cmd)
	f := cmd.Flags()
	f.BoolVar(&opt.expire, "expire", false, "let copies expire whose points have expired in SRC")
	f.BoolVar(&opt.force, "force", false, "with --expire, also where SRC looks emptied or set back")
	f.BoolVar(&opt.dryRun, "dry-run", false, "print what would be done")
	return cmd
}

func (a *app) repoSync(ctx context.Context, opt syncOptions) error {
	sel, err := opt.from.selection()
	if err != nil {
		return err
	}
	if opt.force && !opt.expire {
		return usagef("--force without --expire has no use")
	}
	what := repo.SyncOptions{Selection: sel, Expire: opt.expire, Force: opt.force, Adopt: opt.from.adopt, Actor: actor()}
	return a.readingSource(ctx, &opt.from, func(src *repo.Repository) error {
		if opt.dryRun {
			return a.reading(ctx, opt.dst, func(dst *repo.Repository) error {
				plan, err := dst.PlanSync(ctx, src, what)
				if err != nil {
					return err
				}
				return a.printPlan(plan)
			})
		}
		return a.owning(ctx, opt.dst, "sync with "+opt.from.dir, opt.from.wait, func(dst *repo.Owner) error {
			bar := &copyBar{app: a}
			what.Progress = bar.at
			rep, err := dst.Sync(ctx, src, what)
			bar.end(err == nil)
			return errors.Join(a.printSync(rep, err == nil), err)
		})
	})
}

type planListing struct {
	Schema  string         `json:"schema"`
	Copy    []pointListing `json:"copy"`
	Present int            `json:"present"`
	Expire  []pointListing `json:"expire"`
	Pinned  []pointListing `json:"pinned"`
}

// printPlan prints what a sync would do.
func (a *app) printPlan(plan repo.SyncPlan) error {
	if a.json {
		return a.printJSON(planListing{"holdfast.sync-plan/1", listPoints(plan.Copy), plan.Present, listPoints(plan.Expire), listPoints(plan.Pinned)})
	}
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	row := func(do string, points []repo.Point) {
		for _, p := range points {
			fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\n", do, p.ID, p.Machine, p.Sequence, p.Time.UTC().Format(time.DateTime))
		}
	}
	row("copy", plan.Copy)
	row("expire", plan.Expire)
	row("pinned", plan.Pinned)
	if err := w.Flush(); err != nil {
		return err
	}
	a.say("%d to copy, %d there already, %d to expire, %d pinned", len(plan.Copy), plan.Present, len(plan.Expire), len(plan.Pinned))
	return nil
}

func listPoints(points []repo.Point) []pointListing {
	list := []pointListing{}
	for _, p := range points {
		list = append(list, listPoint(p))
	}
	return list
}

type syncListing struct {
	copyListing
	Expired []string       `json:"expired"`
	Retired []string       `json:"retired"`
	Pinned  []pointListing `json:"pinned"`
}

func (a *app) printSync(r repo.SyncReport, done bool) error {
	if a.json {
		if !done {
			return nil // the error is the one object
		}
		l := syncListing{copyListing: listCopy(r.CopyReport), Expired: []string{}, Retired: []string{}, Pinned: listPoints(r.Plan.Pinned)}
		l.Schema = "holdfast.sync/1"
		for _, id := range r.Expired {
			l.Expired = append(l.Expired, string(id))
		}
		for _, id := range r.Retired {
			l.Retired = append(l.Retired, string(id))
		}
		return a.printJSON(l)
	}
	if err := a.printCopy(r.CopyReport, done); err != nil {
		return err
	}
	if len(r.Expired)+len(r.Plan.Pinned) > 0 {
		a.say("%d expired, of which %d are locked and there still; %d pinned", len(r.Expired), len(r.Retired), len(r.Plan.Pinned))
	}
	return nil
}
