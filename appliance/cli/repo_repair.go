package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"holdfast/repo"
)

type repairOptions struct {
	dir   string
	from  string
	known bool
	rate  sizeFlag
	share shareFlag
	wait  time.Duration
}

func newRepoRepair(a *app) *cobra.Command {
	var opt repairOptions
	cmd := &cobra.Command{
		Use:   "repair DIR",
		Short: "Heal what is damaged, and name what can't be healed",
		Long: `Scrub, and make whole again what is damaged: packs by their parity or other
copies, all else by its twin. A damaged pack is not written again; a new one takes its
place, and it goes unless it is locked. What is left of packs beyond healing is
salvaged.

With --from, what is lost is taken from another repository: a copy of this one,
or any that holds the same restore points, whatever its keys and its chunk size.
Every byte is compared with the digests here.

What can't be healed is named by restore point, disk and range. The next backups
store it again if their sources still have it: back up, and repair again.

Without a key, a sealed repository is healed as far as stored bytes go.

Exit code 0: everything is whole. 2: something is lost, and named.`,
		Example: `  holdfast repo repair /srv/backup
  holdfast repo repair /srv/backup --from /mnt/copy
  holdfast repo repair /srv/backup --known        what the last scrub found, without another`,
		Args: takes(false, "DIR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			opt.dir = args[0]
			return a.repoRepair(cmd.Context(), opt)
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&opt.from, "from", "", "repository `DIR` that may have what is lost here")
	f.BoolVar(&opt.known, "known", false, "repair what is known to be damaged, without a scrub before")
	f.Var(&opt.rate, "rate", "scrub at most so many bytes a second: 50M")
	f.Var(&opt.share, "share", "scrub for at most so much of the time: 25%")
	f.DurationVar(&opt.wait, "wait", 0, "how long to wait while another process owns the repository")
	return cmd
}

func (a *app) repoRepair(ctx context.Context, opt repairOptions) error {
	bar := &packBar{app: a, what: "scrub"}
	ropt := repo.RepairOptions{Known: opt.known, Scrub: repo.ScrubOptions{Restart: true, BytesPerSecond: int64(opt.rate), Share: float64(opt.share)}}
	rep := new(repo.RepairReport)
	var err error
	if opt.from == "" {
		err = a.byOwner(ctx, opt.dir, "repair", opt.wait, false, ropt, rep, bar.told)
	} else {
		ropt.Scrub.Progress = bar.at
		rep, err = a.repairFrom(ctx, opt, ropt)
	}
	bar.end(err == nil)
	if err != nil {
		return err
	}
	return a.printRepair(rep)
}

// repairFrom owns the repository itself: another process can't be told what this
// one has open.
func (a *app) repairFrom(ctx context.Context, opt repairOptions, ropt repo.RepairOptions) (rep *repo.RepairReport, err error) {
	err = a.reading(ctx, opt.from, func(from *repo.Repository) error {
		ropt.From = from
		return a.owning(ctx, opt.dir, "repair", opt.wait, func(o *repo.Owner) error {
			rep, err = o.Repair(ctx, ropt)
			return err
		})
	})
	return rep, err
}

type repairListing struct {
	Schema string         `json:"schema"`
	Whole  bool           `json:"whole"`
	Files  []repairedFile `json:"files"`
	Left   []fileListing  `json:"left"`
	Packs  []repairedPack `json:"packs"`
	Lost   []lostListing  `json:"lost"`
}

type repairedFile struct {
	Path    string `json:"path"`
	Problem string `json:"problem"`
	By      string `json:"by"`
}

type repairedPack struct {
	Path       string   `json:"path"`
	Fault      string   `json:"fault"`
	By         []string `json:"by"`
	Copied     int      `json:"copied"`
	Elsewhere  int      `json:"elsewhere"`
	FromOther  int      `json:"fromOther"`
	Lost       int      `json:"lost"`
	Removed    bool     `json:"removed"`
	Locked     bool     `json:"locked"`
	Unfinished bool     `json:"unfinished"`
}

func (a *app) printRepair(r *repo.RepairReport) error {
	if a.json {
		l := repairListing{Schema: "holdfast.repair/1", Whole: r.Whole(), Files: []repairedFile{}, Left: listFiles(r.Left), Packs: []repairedPack{}, Lost: listLost(r.Lost)}
		for _, f := range r.Files {
			l.Files = append(l.Files, repairedFile(f))
		}
		for _, p := range r.Packs {
			l.Packs = append(l.Packs, repairedPack{p.Path, p.Fault.String(), nonNil(p.By), p.Copied, p.Elsewhere, p.FromOther, p.Lost, p.Removed, p.Locked, p.Unfinished})
		}
		if err := a.printJSON(l); err != nil {
			return err
		}
	} else if err := a.printRepairText(r); err != nil {
		return err
	}
	if !r.Whole() {
		return errDifference
	}
	return nil
}

func (a *app) printRepairText(r *repo.RepairReport) error {
	for _, f := range r.Files {
		a.say("%s: healed by %s", f.Path, f.By)
	}
	for _, p := range r.Packs {
		a.say("%s: %s", p.Path, packFate(p))
	}
	for _, f := range r.Left {
		fmt.Fprintf(a.out, "%s: not healed: %s\n", f.Path, f.Problem)
	}
	if err := a.printLost(r.Lost); err != nil {
		return err
	}
	switch {
	case len(r.Files)+len(r.Packs)+len(r.Left) == 0:
		a.say("Nothing is damaged")
	case r.Whole():
		a.say("Everything is whole")
	default:
		a.warn("%d files and %d ranges of restore points can't be healed", len(r.Left), len(r.Lost))
		a.hint(`give --from a repository that has the same points, or back up what the machines still have with "holdfast repo backup" and repair again`)
	}
	return nil
}

func packFate(p repo.RepairedPack) string {
	text := fmt.Sprintf("%s; %d records copied", p.Fault, p.Copied)
	if p.Elsewhere > 0 {
		text += fmt.Sprintf(", %d were elsewhere", p.Elsewhere)
	}
	if p.FromOther > 0 {
		text += fmt.Sprintf(", %d from the other repository", p.FromOther)
	}
	if p.Lost > 0 {
		text += fmt.Sprintf(", %d lost", p.Lost)
	}
	switch {
	case p.Removed:
		text += "; removed"
	case p.Locked:
		text += "; it goes when its lock ends"
	case p.Unfinished:
		text += "; of an unfinished run, whose next one stores it again"
	}
	return text
}
