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

type pointsOptions struct {
	dir     string
	machine string
}

func newRepoPoints(a *app) *cobra.Command {
	var opt pointsOptions
	cmd := &cobra.Command{
		Use:   "points DIR",
		Short: "List the restore points",
		Long: `List the restore points, by machine and age. READ is what the run read from its
sources, STORED what it added to the repository, parity included.`,
		Example: `  holdfast repo points /srv/backup
  holdfast repo points /srv/backup --machine db1 --json`,
		Args: takes(false, "DIR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			opt.dir = args[0]
			return a.repoPoints(cmd.Context(), opt)
		},
	}
	cmd.Flags().StringVar(&opt.machine, "machine", "", "only those of the machine of this `NAME` or id")
	return cmd
}

type pointsListing struct {
	Schema string         `json:"schema"`
	Points []pointListing `json:"points"`
}

type pointListing struct {
	ID          string        `json:"id"`
	Machine     string        `json:"machine"`
	MachineID   string        `json:"machineId"`
	Sequence    uint64        `json:"sequence"`
	Time        time.Time     `json:"time"`
	ClockBack   bool          `json:"clockBack"`
	Kind        string        `json:"kind"`
	Parent      string        `json:"parent"`
	Job         string        `json:"job"`
	Actor       string        `json:"actor"`
	Consistency string        `json:"consistency"`
	CopiedFrom  string        `json:"copiedFrom,omitempty"` // id of the repository that made it
	SizeBytes   int64         `json:"sizeBytes"`
	Disks       []diskListing `json:"disks"`
	Counters    repo.Counters `json:"counters"`
}

type diskListing struct {
	Name      string `json:"name"`
	SizeBytes int64  `json:"sizeBytes"`
	Format    string `json:"format"`
	Source    string `json:"source"`
	ChangeID  string `json:"changeId"`
}

func listPoint(p repo.Point) pointListing {
	l := pointListing{
		ID: string(p.ID), Machine: p.Machine, MachineID: p.MachineID, Sequence: p.Sequence, Time: p.Time.UTC(),
		ClockBack: p.ClockBack, Kind: kindOf(p), Parent: string(p.Parent), Job: p.Job, Actor: p.Actor,
		Consistency: p.Consistency, CopiedFrom: p.CopiedFrom, SizeBytes: p.SizeBytes(), Disks: []diskListing{}, Counters: p.Counters,
	}
	for _, d := range p.Disks {
		l.Disks = append(l.Disks, diskListing{d.Name, d.SizeBytes, d.Format, d.Source, d.ChangeID})
	}
	return l
}

func kindOf(p repo.Point) string {
	if p.Full {
		return "full"
	}
	return "increment"
}

func (a *app) repoPoints(ctx context.Context, opt pointsOptions) error {
	return a.reading(ctx, opt.dir, func(r *repo.Repository) error {
		points, err := r.Points(ctx)
		if err != nil {
			return err
		}
		if opt.machine != "" {
			points = slices.DeleteFunc(points, func(p repo.Point) bool { return p.Machine != opt.machine && p.MachineID != opt.machine })
		}
		slices.SortStableFunc(points, byMachine)
		if a.json {
			l := pointsListing{"holdfast.points/1", []pointListing{}}
			for _, p := range points {
				l.Points = append(l.Points, listPoint(p))
			}
			return a.printJSON(l)
		}
		if len(points) == 0 {
			a.say("No restore points%s yet.", ofMachine(opt.machine))
			return nil
		}
		return a.printPoints(points)
	})
}

func byMachine(a, b repo.Point) int {
	switch {
	case a.Machine != b.Machine && a.Machine < b.Machine:
		return -1
	case a.Machine != b.Machine:
		return 1
	}
	return a.Time.Compare(b.Time)
}

func ofMachine(name string) string {
	if name == "" {
		return ""
	}
	return fmt.Sprintf(" of machine %q", name)
}

func (a *app) printPoints(points []repo.Point) error {
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "POINT\tMACHINE\tTIME\tKIND\tDISKS\tSIZE\tREAD\tSTORED")
	for _, p := range points {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%s\t%s\t%s\n", p.ID, p.Machine, p.Time.Local().Format("2006-01-02 15:04:05"),
			kindOf(p), len(p.Disks), formatSize(p.SizeBytes()), formatSize(p.Counters.ReadBytes), formatSize(p.Counters.PackBytes))
	}
	return w.Flush()
}

// nonNil makes an absent list an empty one, as JSON readers expect.
func nonNil[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}
