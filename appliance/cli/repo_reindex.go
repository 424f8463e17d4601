package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"holdfast/repo"
)

type reindexOptions struct {
	dir  string
	wait time.Duration
}

func newRepoReindex(a *app) *cobra.Command {
	var opt reindexOptions
	cmd := &cobra.Command{
		Use:   "reindex DIR",
		Short: "Make the index anew from the packs and the ledger",
		Long: `Drop the index and make it again from the packs, as far as the signed ledger
names them and does not call them swept. No key is needed. What scrubs have noted is
dropped too, so that the next one reads everything.

This is seldom needed: an index that is damaged is made anew by whoever meets
the damage. Packs that the ledger has and that are missing, and files that
nothing names, are listed.

Exit code 0: every pack is there. 2: some are missing.`,
		Example: `  holdfast repo reindex /srv/backup
  holdfast repo reindex /srv/backup --json`,
		Args: takes(false, "DIR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			opt.dir = args[0]
			return a.repoReindex(cmd.Context(), opt)
		},
	}
	cmd.Flags().DurationVar(&opt.wait, "wait", 0, "how long to wait while another process owns the repository")
	return cmd
}

type reindexListing struct {
	Schema   string   `json:"schema"`
	Packs    int      `json:"packs"`
	Records  uint64   `json:"records"`
	Segments uint64   `json:"segments"`
	Missing  []string `json:"missing"`
	Orphans  []string `json:"orphans"`
}

func (a *app) repoReindex(ctx context.Context, opt reindexOptions) error {
	rep := new(repo.ReindexReport)
	if err := a.byOwner(ctx, opt.dir, "reindex", opt.wait, false, struct{}{}, rep, nil); err != nil {
		return err
	}
	if a.json {
		err := a.printJSON(reindexListing{"holdfast.reindex/1", rep.Packs, rep.Records, rep.Segments, nonNil(rep.Missing), nonNil(rep.Orphans)})
		if err != nil {
			return err
		}
	}
	for _, name := range rep.Orphans {
		a.say("%s: nothing names it", name)
	}
	for _, name := range rep.Missing {
		a.say("%s: missing", name)
	}
	a.say("%d records in %d packs, of %d ledger segments", rep.Records, rep.Packs, rep.Segments)
	if len(rep.Missing) > 0 {
		a.hint(`"holdfast repo repair DIR --from COPY" takes what is missing from another repository`)
		return errDifference
	}
	return nil
}
