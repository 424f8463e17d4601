package cli

import (
	"context"
	"fmt"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"holdfast/repo"
)

type runsOptions struct {
	dir     string
	machine string
}

func newRepoRuns(a *app) *cobra.Command {
	var opt runsOptions
	cmd := &cobra.Command{
		Use:   "runs DIR",
		Short: "List runs that have not made a restore point",
		Long: `List the runs that have stored something and made no restore point of it: those
under way, and those that failed or were interrupted. What such a run has stored is
used by the machine's next run, and is kept until then; if there won't be one, "repo
abandon" gives it up.`,
		Example: `  holdfast repo runs /srv/backup
  holdfast repo runs /srv/backup --machine db1 --json`,
		Args: takes(false, "DIR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			opt.dir = args[0]
			return a.repoRuns(cmd.Context(), opt)
		},
	}
	cmd.Flags().StringVar(&opt.machine, "machine", "", "only those of the machine of this `NAME` or id")
	return cmd
}

type runsListing struct {
	Schema string      `json:"schema"`
	Runs   []runsEntry `json:"runs"`
}

type runsEntry struct {
	ID        string    `json:"id"`
	Machine   string    `json:"machine"`
	MachineID string    `json:"machineId"`
	Started   time.Time `json:"started"`
	Packs     int       `json:"packs"`
	Bytes     int64     `json:"bytes"`
	UnderWay  bool      `json:"underWay"`
}

// An unfinished run is one without a restore point.
type unfinishedRun struct {
	repo.UnfinishedRun
	underWay bool
}

func (a *app) repoRuns(ctx context.Context, opt runsOptions) error {
	runs, err := a.unfinishedRuns(ctx, opt)
	if err != nil {
		return err
	}
	if a.json {
		l := runsListing{"holdfast.runs/1", []runsEntry{}}
		for _, r := range runs {
			l.Runs = append(l.Runs, runsEntry{string(r.ID), r.Machine, r.MachineID, r.Started.UTC(), r.Packs, r.Bytes, r.underWay})
		}
		return a.printJSON(l)
	}
	if len(runs) == 0 {
		a.say("No unfinished runs%s.", ofMachine(opt.machine))
		return nil
	}
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "RUN\tMACHINE\tSTARTED\tSTATE\tPACKS\tSTORED")
	for _, r := range runs {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%s\n", r.ID, r.machine(), r.Started.Local().Format("2006-01-02 15:04:05"), r.state(), r.Packs, formatSize(r.Bytes))
	}
	return w.Flush()
}

// machine names the run's machine, by its id if it has no point yet.
func (r *unfinishedRun) machine() string {
	if r.Machine == "" {
		return r.MachineID
	}
	return r.Machine
}

func (r *unfinishedRun) state() string {
	if r.underWay {
		return "under way"
	}
	return "ended"
}

// unfinishedRuns lists the runs without a restore point, of all machines or one.
func (a *app) unfinishedRuns(ctx context.Context, opt runsOptions) (list []unfinishedRun, err error) {
	d, err := openDir(opt.dir)
	if err != nil {
		return nil, err
	}
	defer d.Close() //nolint:errcheck // it was only asked
	status, err := repo.AskOwner(d)
	if err != nil {
		status.RunIDs = nil // no owner, or one that doesn't tell
	}
	err = a.reading(ctx, opt.dir, func(r *repo.Repository) error {
		runs, err := r.UnfinishedRuns(ctx)
		for _, u := range runs {
			if opt.machine == "" || u.Machine == opt.machine || u.MachineID == opt.machine {
				list = append(list, unfinishedRun{u, slices.Contains(status.RunIDs, u.ID)})
			}
		}
		return err
	})
	return list, err
}
