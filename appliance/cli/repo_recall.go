package cli

import (
	"context"
	"errors"
	"time"

	"github.com/spf13/cobra"

	"holdfast/repo"
	"holdfast/repo/ledger"
)

type recallOptions struct {
	dir, point string
	wait       time.Duration
}

func newRepoRecall(a *app) *cobra.Command {
	var opt recallOptions
	cmd := &cobra.Command{
		Use:   "recall DIR POINT",
		Short: "Keep a retired restore point after all",
		Long: `Keep a restore point after all that has expired and is still there, since its file
is locked: "points --retired" lists those. POINT is its id, or the start of one.`,
		Example: `  holdfast repo points /srv/backup --retired
  holdfast repo recall /srv/backup 4f6q`,
		Args: takes(false, "DIR", "POINT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			opt.dir, opt.point = args[0], args[1]
			return a.repoRecall(cmd.Context(), opt)
		},
	}
	waitFlag(cmd, &opt.wait)
	return cmd
}

type recallListing struct {
	Schema string       `json:"schema"`
	Point  repo.PointID `json:"point"`
	Head   headListing  `json:"ledgerHead"`
}

func (a *app) repoRecall(ctx context.Context, opt recallOptions) error {
	ids, err := a.findPoints(ctx, opt.dir, []string{opt.point})
	if err != nil {
		return retiredHint(err)
	}
	var head ledger.Head
	if err := a.byOwner(ctx, opt.dir, "recall", opt.wait, true, ids[0], &head, nil); err != nil {
		return retiredHint(err)
	}
	if a.json {
		return a.printJSON(recallListing{"holdfast.recall/1", ids[0], listHead(head)})
	}
	a.say("Point %s is kept.", ids[0])
	a.say("  ledger    head %d %s", head.Number, head.Sum)
	return nil
}

// retiredHint says where points are listed that can be recalled.
func retiredHint(err error) error {
	if errors.Is(err, repo.ErrNotFound) {
		return withHint(err, `"holdfast repo points DIR --retired" lists what can be recalled`)
	}
	return err
}
