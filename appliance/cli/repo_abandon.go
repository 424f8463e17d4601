package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"holdfast/repo"
)

type abandonOptions struct {
	dir, machine string
	wait         time.Duration
}

func newRepoAbandon(a *app) *cobra.Command {
	var opt abandonOptions
	cmd := &cobra.Command{
		Use:   "abandon DIR MACHINE",
		Short: "Give up what a machine's unfinished runs have stored",
		Long: `Give up what runs of a machine have stored that failed or were interrupted, and let
"repo sweep" free it. It costs no restore point: the machine's next run, if there is
one, stores it again. A run under way is not touched.

MACHINE is a name, or an id as "repo runs" lists it.`,
		Example: `  holdfast repo runs /srv/backup
  holdfast repo abandon /srv/backup db1
  holdfast repo sweep /srv/backup`,
		Args: takes(false, "DIR", "MACHINE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			opt.dir, opt.machine = args[0], args[1]
			return a.repoAbandon(cmd.Context(), opt)
		},
	}
	waitFlag(cmd, &opt.wait)
	return cmd
}

type abandonListing struct {
	Schema    string `json:"schema"`
	MachineID string `json:"machineId"`
	Runs      int    `json:"runs"`
	Packs     int    `json:"packs"`
	Bytes     int64  `json:"bytes"`
}

func (a *app) repoAbandon(ctx context.Context, opt abandonOptions) error {
	runs, err := a.unfinishedRuns(ctx, runsOptions{dir: opt.dir, machine: opt.machine})
	if err != nil {
		return err
	}
	l := abandonListing{Schema: "holdfast.abandon/1"}
	for _, r := range runs {
		if r.underWay {
			continue
		}
		if l.MachineID != "" && l.MachineID != r.MachineID {
			return withHint(fmt.Errorf("%q is the name of several machines with unfinished runs", opt.machine), "give the id, as \"holdfast repo runs %s --json\" lists it", opt.dir)
		}
		l.MachineID = r.MachineID
		l.Packs += r.Packs
		l.Bytes += r.Bytes
	}
	if l.MachineID == "" {
		return withHint(fmt.Errorf("unfinished run of %q: %w", opt.machine, repo.ErrNotFound), "\"holdfast repo runs %s\" lists what there is", opt.dir)
	}
	if err := a.byOwner(ctx, opt.dir, "abandon", opt.wait, false, l.MachineID, &l.Runs, nil); err != nil {
		return err
	}
	if a.json {
		return a.printJSON(l)
	}
	a.say("Gave up %s of %s: %s in %s", count(l.Runs, "run"), opt.machine, formatSize(l.Bytes), count(l.Packs, "pack"))
	a.hint(fmt.Sprintf("\"holdfast repo sweep %s\" frees what nothing else needs", opt.dir))
	return nil
}
