package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"holdfast/repo"
	"holdfast/repo/retention"
)

type retainOptions struct {
	dir          string
	machine, job string
	rule         retention.Rule
	dryRun       bool
	noSweep      bool
	wait         time.Duration
}

func newRepoRetain(a *app) *cobra.Command {
	var opt retainOptions
	cmd := &cobra.Command{
		Use:   "retain DIR",
		Short: "Keep restore points by a rule, and let the others go",
		Long: `Keep the restore points that a rule wants, and let the others go as "expire" does.
What is printed says for each point what keeps it or what it lacks; --dry-run does
nothing but that and tell what would be free, and needs no lock. FREES is what the
point's own expiry would free; what points share with each other comes on top. When
points have gone, what only they held is freed, as "sweep" does it, unless --no-sweep
is given.

Points are judged by series: one machine under one job, "manual" for points that
no job made. No series has any influence on another. A point stays when any part
of the rule keeps it, when it is pinned, or when it is the newest of its series.
"last" counts schedule slots, the others count periods that have points; days are
those of the local calendar. A span is a number and h, d, w, m (months) or y.`,
		Example: `  holdfast repo retain /srv/backup --keep-last 14 --keep-weekly 8 --dry-run
  holdfast repo retain /srv/backup --machine db1 --keep-within 30d --keep-monthly 12 --at-least 14d`,
		Args: takes(false, "DIR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			opt.dir = args[0]
			return a.repoRetain(cmd.Context(), opt)
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&opt.machine, "machine", "", "only points of the machine of this `NAME` or id")
	f.StringVar(&opt.job, "job", "", "only points of this `JOB`")
	f.IntVar(&opt.rule.Last, "keep-last", 0, "keep the newest `N` schedule slots")
	for _, p := range []struct {
		name string
		n    *int
	}{
		{"hour", &opt.rule.Hourly}, {"day", &opt.rule.Daily}, {"week", &opt.rule.Weekly}, {"month", &opt.rule.Monthly}, {"year", &opt.rule.Yearly},
	} {
		f.IntVar(p.n, "keep-"+strings.Replace(p.name+"ly", "dayly", "daily", 1), 0, "keep the newest point of each of `N` "+p.name+"s")
	}
	f.Var(&spanFlag{&opt.rule.Within}, "keep-within", "keep what is younger than `SPAN`, 30d for example")
	f.Var(&spanFlag{&opt.rule.AtLeast}, "at-least", "let nothing go that is younger than `SPAN`, whatever else the rule says")
	f.Var(&spanFlag{&opt.rule.Extra}, "extra", "keep manual runs and retries for `SPAN`; default 7d")
	f.BoolVar(&opt.rule.ExpireNewest, "expire-newest", false, "let even the newest point of a series go, if the rule does not keep it")
	f.BoolVar(&opt.dryRun, "dry-run", false, "say what would be done, and do nothing")
	f.BoolVar(&opt.noSweep, "no-sweep", false, "let points go, and leave what they held to a later sweep")
	waitFlag(cmd, &opt.wait)
	return cmd
}

// spanFlag is a span of time as retention reads it.
type spanFlag struct{ *retention.Span }

func (f *spanFlag) String() string {
	if f.Span == nil || *f.Span == (retention.Span{}) {
		return ""
	}
	return f.Span.String()
}

func (f *spanFlag) Set(text string) error {
	if text == "" {
		return errors.New("no span of time")
	}
	s, err := retention.ParseSpan(text)
	*f.Span = s
	return err
}

func (f *spanFlag) Type() string { return "span" }

type retainListing struct {
	Schema  string            `json:"schema"`
	Rule    string            `json:"rule"`
	DryRun  bool              `json:"dryRun"`
	Points  []decisionListing `json:"points"`
	Expired []repo.PointID    `json:"expired"`
	Retired []repo.PointID    `json:"retired"`
	Head    *headListing      `json:"ledgerHead,omitempty"`

	Freed   *freedListing `json:"freed,omitempty"`   // by all that would expire together
	Unknown string        `json:"unknown,omitempty"` // why that isn't known
	Swept   *sweepListing `json:"swept,omitempty"`
}

type decisionListing struct {
	ID        string    `json:"id"`
	Machine   string    `json:"machine"`
	MachineID string    `json:"machineId"`
	Job       string    `json:"job"`
	Slot      string    `json:"slot"`
	Time      time.Time `json:"time"`
	Keep      bool      `json:"keep"`
	Reasons   []string  `json:"reasons"`

	FreedBytes *int64 `json:"freedBytes,omitempty"` // of records, by its expiry alone
}

func (a *app) repoRetain(ctx context.Context, opt retainOptions) error {
	if opt.rule.IsEmpty() {
		return withHint(usagef("a rule that keeps everything lets nothing go"), "say what to keep, for example --keep-last 14")
	}
	if err := opt.rule.Validate(); err != nil {
		return &usageError{err}
	}
	ask := repo.RetainOptions{Rule: opt.rule, Machine: opt.machine, Job: opt.job}
	l := retainListing{Schema: "holdfast.retain/1", Rule: opt.rule.String(), DryRun: opt.dryRun}
	names := make(map[string]string)
	var res repo.RetainResult
	var freed map[string]*int64
	err := a.reading(ctx, opt.dir, func(r *repo.Repository) error {
		points, err := r.Points(ctx)
		if err != nil {
			return err
		}
		for _, p := range points {
			names[string(p.ID)] = p.Machine
		}
		if opt.dryRun {
			if res.Decisions, err = r.PlanRetention(ctx, ask); err == nil {
				freed, err = freedByPlan(ctx, r, res.Decisions, &l)
			}
		}
		return err
	})
	if err == nil && !opt.dryRun {
		err = a.byOwner(ctx, opt.dir, "retain", opt.wait, true, ask, &res, nil)
	}
	if err != nil {
		return err
	}
	for _, d := range res.Decisions {
		l.Points = append(l.Points, decisionListing{d.ID, names[d.ID], d.Machine, d.Job, d.Slot, d.Time.UTC(), d.Keep, d.Reasons, freed[d.ID]})
	}
	if !opt.dryRun {
		head := listHead(res.Head)
		l.Expired, l.Retired, l.Head = res.Expired, res.Retired, &head
	}
	if opt.dryRun || opt.noSweep || len(res.Expired) == 0 {
		return a.printRetain(&l)
	}
	// The points have gone, whatever comes of the sweep.
	if !a.json {
		if err := a.printRetain(&l); err != nil {
			return err
		}
	}
	swept, err := a.sweep(ctx, sweepOptions{dir: opt.dir, wait: opt.wait})
	if err != nil {
		return withHint(fmt.Errorf("%d points have expired, but what they held is not freed: %w", len(res.Expired), err), "\"holdfast repo sweep %s\" frees it", opt.dir)
	}
	if a.json {
		sl := listSweep(&swept)
		l.Swept = &sl
		return a.printRetain(&l)
	}
	return a.printSweep(opt.dir, &swept, `"holdfast repo compact `+opt.dir+`" frees it`)
}

// freedByPlan asks what each point that would expire alone holds, and all of them
// together.
func freedByPlan(ctx context.Context, r *repo.Repository, plan []retention.Decision, l *retainListing) (alone map[string]*int64, err error) {
	w, err := r.WhatIf(ctx)
	if errors.Is(err, repo.ErrSweepFirst) {
		l.Unknown = err.Error()
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	alone = make(map[string]*int64)
	ask := func(ids ...repo.PointID) (*freedListing, error) {
		f, err := w.FreedBy(ctx, ids...)
		if errors.Is(err, repo.ErrTooLarge) || errors.Is(err, repo.ErrSweepFirst) {
			l.Unknown = err.Error()
			return nil, nil
		}
		return listFreed(f, err), err
	}
	var ids []repo.PointID
	for _, d := range plan {
		if d.Keep {
			continue
		}
		ids = append(ids, repo.PointID(d.ID))
		f, err := ask(repo.PointID(d.ID))
		if err != nil {
			return nil, err
		}
		if f != nil {
			alone[d.ID] = &f.RecordBytes
		}
	}
	l.Freed, err = ask(ids...)
	return alone, err
}

func (a *app) printRetain(l *retainListing) error {
	if a.json {
		l.Points, l.Expired, l.Retired = nonNil(l.Points), nonNil(l.Expired), nonNil(l.Retired)
		return a.printJSON(l)
	}
	if a.quiet {
		for _, d := range l.Points {
			if !d.Keep {
				fmt.Fprintln(a.out, d.ID)
			}
		}
		return nil
	}
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	frees := ""
	if l.DryRun {
		frees = "FREES\t"
	}
	fmt.Fprintf(w, "POINT\tMACHINE\tJOB\tTIME\t\t%sWHY\n", frees)
	goes := 0
	for _, d := range l.Points {
		verdict := "keep"
		if !d.Keep {
			verdict = "expire"
			goes++
		}
		if l.DryRun {
			frees = freesText(&d) + "\t"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s%s\n", d.ID, d.Machine, d.Job, d.Time.Local().Format("2006-01-02 15:04:05"), verdict, frees, strings.Join(d.Reasons, "; "))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	switch {
	case l.DryRun:
		a.say("%d of %d points would expire under: %s.", goes, len(l.Points), l.Rule)
		switch {
		case l.Freed != nil && goes > 0:
			a.say("That frees %s.", l.Freed)
		case l.Unknown != "":
			a.say("What that frees is not known: %s.", l.Unknown)
		}
	case len(l.Retired) > 0:
		a.say("%d of %d points have expired under: %s. %d of them are locked and retired.", len(l.Expired), len(l.Points), l.Rule, len(l.Retired))
	default:
		a.say("%d of %d points have expired under: %s.", len(l.Expired), len(l.Points), l.Rule)
	}
	if l.Head != nil && len(l.Expired) > 0 {
		a.say("  ledger    head %d %s", l.Head.Number, l.Head.SHA256)
	}
	return nil
}

func freesText(d *decisionListing) string {
	switch {
	case d.Keep:
		return "-"
	case d.FreedBytes == nil:
		return "?"
	}
	return formatSize(*d.FreedBytes)
}
