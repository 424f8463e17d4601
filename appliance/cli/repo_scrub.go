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

type scrubOptions struct {
	dir       string
	deep      bool
	restart   bool
	reader    bool
	olderThan ageFlag
	sample    shareFlag
	rate      sizeFlag
	share     shareFlag
	wait      time.Duration
}

func newRepoScrub(a *app) *cobra.Command {
	var opt scrubOptions
	cmd := &cobra.Command{
		Use:   "scrub DIR",
		Short: "Read what is stored and find what is damaged",
		Long: `Read every stored byte, once however many points share it, and compare it with
the digests that the signed ledger records; every other file with its twin. That
needs no key. What is damaged is named: the file, whether parity or its twin heals it, and
otherwise which ranges of which restore points can't be had.

Packs are read in the order of the disk. When each was verified is remembered,
so that a scrub that was stopped goes on the next time, and parts can be read by
turns: --older-than 30d reads what was not verified for 30 days, --sample 5% the
5 % that were verified longest ago. What is damaged is remembered, too: the next
backups store it again if they still have it, even where nothing changed.

With --deep, every record is decoded and compared with its digests as well, and
every restore point is followed down to its chunks. That needs the key of a sealed
repository.

Backups by the process that scrubs go on beside it. With --reader the
repository isn't owned meanwhile, so that backups by other processes go on, and nothing is
remembered.

Exit code 0: nothing is damaged. 2: something is.`,
		Example: `  holdfast repo scrub /srv/backup
  holdfast repo scrub /srv/backup --older-than 30d --rate 50M
  holdfast repo scrub /srv/backup --sample 5% --share 25% --json`,
		Args: takes(false, "DIR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			opt.dir = args[0]
			return a.repoScrub(cmd.Context(), opt)
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.Var(&opt.olderThan, "older-than", "read what was not verified for so long: 30d, 12h")
	f.Var(&opt.sample, "sample", "read so much of it, what was verified longest ago: 5%")
	f.BoolVar(&opt.restart, "restart", false, "begin from the start instead of going on where the last scrub was stopped")
	f.BoolVar(&opt.deep, "deep", false, "decode every record, and follow every restore point")
	f.Var(&opt.rate, "rate", "read at most so many bytes a second: 50M")
	f.Var(&opt.share, "share", "read for at most so much of the time: 25%")
	f.BoolVar(&opt.reader, "reader", false, "don't own the repository meanwhile, and remember nothing")
	f.DurationVar(&opt.wait, "wait", 0, "how long to wait for an owner that can't be asked")
	return cmd
}

func (o *scrubOptions) forRepo() repo.ScrubOptions {
	return repo.ScrubOptions{
		Deep: o.deep, OlderThan: time.Duration(o.olderThan), Sample: float64(o.sample), Restart: o.restart,
		BytesPerSecond: int64(o.rate), Share: float64(o.share),
	}
}

func (a *app) repoScrub(ctx context.Context, opt scrubOptions) error {
	bar := &packBar{app: a, what: "scrub"}
	rep := new(repo.ScrubReport)
	err := errReader
	if !opt.reader {
		err = a.byOwner(ctx, opt.dir, "scrub", opt.wait, needsKey(opt.deep), opt.forRepo(), rep, bar.told)
	}
	// Whoever can't own it can read it all the same.
	if errors.Is(err, errReader) || errors.Is(err, repo.ErrNoSigner) || errors.Is(err, repo.ErrReadOnly) || errors.As(err, new(*repo.BusyError)) {
		if !opt.reader {
			a.warn("nothing is going to be remembered: %v", oneLine(err))
		}
		rep, err = a.scrubReading(ctx, opt, bar)
	}
	bar.end(err == nil)
	if err != nil {
		return err
	}
	return a.printScrub(rep)
}

// errReader is why a scrub does not own the repository: nobody wants it to.
var errReader = errors.New("scrub as a reader")

func (a *app) scrubReading(ctx context.Context, opt scrubOptions, bar *packBar) (rep *repo.ScrubReport, err error) {
	d, err := openDir(opt.dir)
	if err != nil {
		return nil, err
	}
	defer d.Close() //nolint:errcheck // nothing was written through it
	_, err = a.withStored(needsKey(opt.deep), func(ropt repo.Options) (struct{}, error) {
		r, err := repo.Open(ctx, d, ropt)
		if err != nil {
			return struct{}{}, fmt.Errorf("%s: %w", opt.dir, err)
		}
		sopt := opt.forRepo()
		sopt.Progress = bar.at
		rep, err = r.Scrub(ctx, sopt)
		return struct{}{}, errors.Join(err, r.Close())
	})
	return rep, err
}

type scrubListing struct {
	Schema     string           `json:"schema"`
	Clean      bool             `json:"clean"`
	Began      time.Time        `json:"began"`
	Continued  *time.Time       `json:"continued"` // the scrub it went on with began then
	Seconds    float64          `json:"seconds"`
	Packs      int64            `json:"packs"`
	Bytes      int64            `json:"bytes"`
	ReadPacks  int64            `json:"readPacks"`
	ReadBytes  int64            `json:"readBytes"`
	Records    int64            `json:"records"`
	Remembered bool             `json:"remembered"`
	NeverPacks int64            `json:"neverPacks"` // that no scrub has read
	NeverBytes int64            `json:"neverBytes"`
	Oldest     *time.Time       `json:"oldest"` // since when the oldest unverified byte is
	Damage     []damagedListing `json:"damage"`
	Files      []fileListing    `json:"files"`
	Orphans    []string         `json:"orphans"`
	Lost       []lostListing    `json:"lost"`
}

type damagedListing struct {
	Path       string `json:"path"`
	Bytes      int64  `json:"bytes"`
	Fault      string `json:"fault"`
	BadBlocks  int    `json:"badBlocks"`
	Healable   bool   `json:"healable"`
	Lost       int    `json:"lost"` // records
	Unfinished bool   `json:"unfinished"`
}

type fileListing struct {
	Path     string `json:"path"`
	Problem  string `json:"problem"`
	HealedBy string `json:"healedBy"`
}

type lostListing struct {
	Point   string `json:"point"`
	Machine string `json:"machine"`
	Disk    string `json:"disk"`
	Off     int64  `json:"off"`
	Len     int64  `json:"len"`
	Path    string `json:"path"`
}

func listLost(list []repo.Lost) []lostListing {
	out := []lostListing{}
	for _, l := range list {
		out = append(out, lostListing{string(l.Point), l.Machine, l.Disk, l.Off, l.Len, l.Path})
	}
	return out
}

func listFiles(list []repo.DamagedFile) []fileListing {
	out := []fileListing{}
	for _, f := range list {
		out = append(out, fileListing{f.Path, f.Problem, f.HealedBy})
	}
	return out
}

// timeOrNull is nil for the zero time.
func timeOrNull(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

func listScrub(r *repo.ScrubReport) scrubListing {
	l := scrubListing{
		Schema: "holdfast.scrub/1", Clean: r.Clean(), Began: r.Began.UTC(), Continued: timeOrNull(r.Continued), Seconds: r.Duration.Seconds(),
		Packs: r.Packs, Bytes: r.Bytes, ReadPacks: r.ReadPacks, ReadBytes: r.ReadBytes, Records: r.Records, Remembered: r.Remembered,
		NeverPacks: r.Verified.NeverPacks, NeverBytes: r.Verified.NeverBytes, Oldest: timeOrNull(r.Verified.Oldest),
		Damage: []damagedListing{}, Files: listFiles(r.Files), Orphans: nonNil(r.Orphans), Lost: listLost(r.Lost),
	}
	for _, p := range r.Damage {
		l.Damage = append(l.Damage, damagedListing{p.Path, p.Bytes, p.Fault.String(), p.BadBlocks, p.Healable, p.Lost, p.Unfinished})
	}
	return l
}

func (a *app) printScrub(r *repo.ScrubReport) error {
	if a.json {
		if err := a.printJSON(listScrub(r)); err != nil {
			return err
		}
	} else if err := a.printScrubText(r); err != nil {
		return err
	}
	if !r.Clean() {
		return errDifference
	}
	return nil
}

func (a *app) printScrubText(r *repo.ScrubReport) error {
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	for _, p := range r.Damage {
		fmt.Fprintf(w, "%s\t%s\t%s\n", p.Path, p.Fault, packOutlook(p))
	}
	for _, f := range r.Files {
		healed := "nothing here heals it"
		if f.HealedBy != "" {
			healed = "healed by " + f.HealedBy
		}
		fmt.Fprintf(w, "%s\t%s\t%s\n", f.Path, f.Problem, healed)
	}
	for _, name := range r.Orphans {
		fmt.Fprintf(w, "%s\tnothing names it\t\n", name)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if err := a.printLost(r.Lost); err != nil {
		return err
	}
	if !r.Continued.IsZero() {
		a.say("Went on with the scrub of %s", r.Continued.Local().Format(time.DateTime))
	}
	a.say("Read %d of %d packs, %s of %s, in %s", r.ReadPacks, r.Packs, formatSize(r.ReadBytes), formatSize(r.Bytes), r.Duration.Round(time.Millisecond))
	if v := r.Verified; v.NeverPacks > 0 {
		a.say("%s were never read by a scrub; the oldest were stored %s", formatSize(v.NeverBytes), v.Oldest.Local().Format(time.DateTime))
	} else if !v.Oldest.IsZero() {
		a.say("Everything was verified since %s", v.Oldest.Local().Format(time.DateTime))
	}
	if r.Clean() {
		a.say("Nothing is damaged")
		return nil
	}
	a.warn("%d packs and %d other files are damaged; %d ranges of restore points can't be had", len(r.Damage), len(r.Files), len(r.Lost))
	a.hint(`"holdfast repo repair DIR" heals what can be healed`)
	return nil
}

func packOutlook(p repo.DamagedPack) string {
	switch {
	case p.Healable:
		return fmt.Sprintf("%d bad blocks, healed by parity", p.BadBlocks)
	case p.Unfinished:
		return fmt.Sprintf("%d records lost, of an unfinished run", p.Lost)
	case p.Lost == 0:
		return "every record can be had"
	}
	return fmt.Sprintf("%d records lost", p.Lost)
}

// printLost names the ranges that can't be had.
func (a *app) printLost(list []repo.Lost) error {
	if len(list) == 0 {
		return nil
	}
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "LOST OF\tMACHINE\tDISK\tOFFSET\tBYTES")
	for _, l := range list {
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%d\n", l.Point, l.Machine, l.Disk, l.Off, l.Len)
	}
	return w.Flush()
}
