package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"holdfast/repo"
)

type pointsOptions struct {
	dir     string
	machine string
	retired bool
}

func newRepoPoints(a *app) *cobra.Command {
	var opt pointsOptions
	cmd := &cobra.Command{
		Use:   "points DIR",
		Short: "List the restore points",
		Long: `List the restore points, by machine and age. READ is what the run read from its
sources, STORED what it added to the repository, parity included.

With --retired, list the points that have expired and are still there, since their
files are locked: they can be restored by their id, and "recall" keeps them.`,
		Example: `  holdfast repo points /srv/backup
  holdfast repo points /srv/backup --retired
  holdfast repo points /srv/backup --machine db1 --json`,
		Args: takes(false, "DIR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			opt.dir = args[0]
			return a.repoPoints(cmd.Context(), opt)
		},
	}
	cmd.Flags().StringVar(&opt.machine, "machine", "", "only those of the machine of this `NAME` or id")
	cmd.Flags().BoolVar(&opt.retired, "retired", false, "list expired points that are still there")
	return cmd
}

type pointsListing struct {
	Schema string         `json:"schema"`
	Points []pointListing `json:"points"`
}

type pointListing struct {
	ID          string            `json:"id"`
	Machine     string            `json:"machine"`
	MachineID   string            `json:"machineId"`
	Sequence    uint64            `json:"sequence"`
	Time        time.Time         `json:"time"`
	ClockBack   bool              `json:"clockBack"`
	Kind        string            `json:"kind"`
	Parent      string            `json:"parent"`
	Job         string            `json:"job"`
	Actor       string            `json:"actor"`
	Consistency string            `json:"consistency"`
	CopiedFrom  string            `json:"copiedFrom,omitempty"` // id of the repository that made it
	SizeBytes   int64             `json:"sizeBytes"`
	Disks       []diskListing     `json:"disks"`
	Files       []keptFileListing `json:"files,omitempty"` // kept beside the disks
	Counters    repo.Counters     `json:"counters"`
	Pins        []string          `json:"pins,omitempty"`    // what keeps it whatever retention says
	Expired     bool              `json:"expired,omitempty"` // it is retired
	Reason      string            `json:"reason,omitempty"`  // why it expired
}

type diskListing struct {
	Name      string `json:"name"`
	SizeBytes int64  `json:"sizeBytes"`
	Format    string `json:"format"`
	Source    string `json:"source"`
	ChangeID  string `json:"changeId"`
}

type keptFileListing struct {
	Name      string `json:"name"`
	SizeBytes int64  `json:"sizeBytes"`
}

func listPoint(p repo.Point) pointListing {
	l := pointListing{
		ID: string(p.ID), Machine: p.Machine, MachineID: p.MachineID, Sequence: p.Sequence, Time: p.Time.UTC(),
		ClockBack: p.ClockBack, Kind: kindOf(p), Parent: string(p.Parent), Job: p.Job, Actor: p.Actor,
		Consistency: p.Consistency, CopiedFrom: p.CopiedFrom, SizeBytes: p.SizeBytes(), Disks: []diskListing{}, Counters: p.Counters,
		Expired: p.Expired, Reason: p.Reason,
	}
	for _, d := range p.Disks {
		l.Disks = append(l.Disks, diskListing{d.Name, d.SizeBytes, d.Format, d.Source, d.ChangeID})
	}
	for _, f := range p.Files {
		l.Files = append(l.Files, keptFileListing(f))
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
		list := r.Points
		if opt.retired {
			list = r.Retired
		}
		points, err := list(ctx)
		if err != nil {
			return err
		}
		if opt.machine != "" {
			points = slices.DeleteFunc(points, func(p repo.Point) bool { return p.Machine != opt.machine && p.MachineID != opt.machine })
		}
		slices.SortStableFunc(points, byMachine)
		pins, err := r.Pinned()
		if err != nil {
			return err
		}
		if a.json {
			l := pointsListing{"holdfast.points/1", []pointListing{}}
			for _, p := range points {
				pl := listPoint(p)
				pl.Pins = pins[p.ID]
				l.Points = append(l.Points, pl)
			}
			return a.printJSON(l)
		}
		switch {
		case len(points) > 0:
			return a.printPoints(points, pins, opt.retired)
		case opt.retired:
			a.say("No retired points%s.", ofMachine(opt.machine))
		default:
			a.say("No restore points%s yet.", ofMachine(opt.machine))
		}
		return nil
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

// printPoints prints a table, with a column for pins if there are any, and for why
// points are retired.
func (a *app) printPoints(points []repo.Point, pins map[repo.PointID][]string, retired bool) error {
	pinned := slices.ContainsFunc(points, func(p repo.Point) bool { return len(pins[p.ID]) > 0 })
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	fmt.Fprint(w, "POINT\tMACHINE\tTIME\tKIND\tDISKS\tSIZE\tREAD\tSTORED")
	if pinned {
		fmt.Fprint(w, "\tPINS")
	}
	if retired {
		fmt.Fprint(w, "\tEXPIRED BECAUSE")
	}
	fmt.Fprintln(w)
	for _, p := range points {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%s\t%s\t%s", p.ID, p.Machine, p.Time.Local().Format("2006-01-02 15:04:05"),
			kindOf(p), len(p.Disks), formatSize(p.SizeBytes()), formatSize(p.Counters.ReadBytes), formatSize(p.Counters.PackBytes))
		if pinned {
			fmt.Fprintf(w, "\t%s", strings.Join(pins[p.ID], ", "))
		}
		if retired {
			fmt.Fprintf(w, "\t%s", p.Reason)
		}
		fmt.Fprintln(w)
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
