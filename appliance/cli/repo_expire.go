package cli

import (
	"context"
	"regexp"
	"time"

	"github.com/spf13/cobra"

	"holdfast/repo"
)

type expireOptions struct {
	dir    string
	points []string
	reason string
	wait   time.Duration
}

func newRepoExpire(a *app) *cobra.Command {
	var opt expireOptions
	cmd := &cobra.Command{
		Use:   "expire DIR POINT…",
		Short: "Let restore points go",
		Long: `Let restore points go, named as for restore. They are gone within a second, or
retired: a point whose file is locked is listed by "points --retired", can be
restored, and "recall" takes it back until the lock ends. What only they held is
freed by a sweep, as soon as nobody reads it.

All are let go or none. A pinned point is refused. When another process owns the
repository, a backup for example, that process does it.`,
		Example: `  holdfast repo expire /srv/backup 4f6q
  holdfast repo expire /srv/backup db1@2026-11-22 db1@2026-11-23 --reason "before the migration"`,
		Args: takes(true, "DIR", "POINT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			opt.dir, opt.points = args[0], args[1:]
			return a.repoExpire(cmd.Context(), opt)
		},
	}
	cmd.Flags().SortFlags = false
	cmd.Flags().StringVar(&opt.reason, "reason", "", "`TEXT` for the ledger, where everybody can read it; a sealed repository does not keep it")
	waitFlag(cmd, &opt.wait)
	return cmd
}

type expireListing struct {
	Schema  string         `json:"schema"`
	Expired []repo.PointID `json:"expired"`
	Retired []repo.PointID `json:"retired"`
	Head    headListing    `json:"ledgerHead"`
}

func (a *app) repoExpire(ctx context.Context, opt expireOptions) error {
	ids, err := a.findPoints(ctx, opt.dir, opt.points)
	if err != nil {
		return err
	}
	var list []repo.Expiry
	for _, id := range ids {
		list = append(list, repo.Expiry{Point: id, Reason: opt.reason})
	}
	var res repo.ExpireResult
	if err := a.byOwner(ctx, opt.dir, "expire", opt.wait, true, list, &res, nil); err != nil {
		return err
	}
	if a.json {
		return a.printJSON(expireListing{"holdfast.expire/1", nonNil(res.Expired), nonNil(res.Retired), listHead(res.Head)})
	}
	a.sayExpired(res)
	return nil
}

// sayExpired says what became of points.
func (a *app) sayExpired(res repo.ExpireResult) {
	retired := make(map[repo.PointID]bool)
	for _, id := range res.Retired {
		retired[id] = true
	}
	for _, id := range res.Expired {
		if retired[id] {
			a.say("Point %s is retired: its file is locked.", id)
		} else {
			a.say("Point %s has expired.", id)
		}
	}
	if len(res.Expired) == 0 {
		a.say("Nothing to do.")
		return
	}
	a.say("  ledger    head %d %s", res.Head.Number, res.Head.Sum)
}

// wholeID is the whole id of a point.
var wholeID = regexp.MustCompile(`^[a-z2-7]{20}$`)

// findPoints returns the ids of the points that specs name. A whole id is taken
// as it is: its point may be one that can't be read.
func (a *app) findPoints(ctx context.Context, dir string, specs []string) ([]repo.PointID, error) {
	var ids []repo.PointID
	err := a.reading(ctx, dir, func(r *repo.Repository) error {
		for _, spec := range specs {
			if wholeID.MatchString(spec) {
				ids = append(ids, repo.PointID(spec))
				continue
			}
			p, err := r.Find(ctx, spec, time.Local)
			if err != nil {
				return err
			}
			ids = append(ids, p.ID)
		}
		return nil
	})
	return ids, err
}
