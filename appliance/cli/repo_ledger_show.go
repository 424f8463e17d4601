package cli

import (
	"context"
	"fmt"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"holdfast/repo"
	"holdfast/repo/ledger"
)

type ledgerShowOptions struct {
	dir   string
	limit int
}

func newLedgerShow(a *app) *cobra.Command {
	var opt ledgerShowOptions
	cmd := &cobra.Command{
		Use:   "show DIR",
		Short: "List what the ledger records, newest first",
		Long: `List what the ledger records, newest first. In a sealed repository the ledger names
nothing of the customer's: machines and jobs have ids there. "repo dump ledger"
prints single segments with all that is in them.`,
		Example: `  holdfast repo ledger show /srv/backup --limit 20`,
		Args:    takes(false, "DIR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			opt.dir = args[0]
			return a.ledgerShow(cmd.Context(), opt)
		},
	}
	cmd.Flags().IntVar(&opt.limit, "limit", 0, "only the last `N` segments")
	return cmd
}

type recordsListing struct {
	Schema   string            `json:"schema"`
	Segments []recordedSegment `json:"segments"`
}

type recordedSegment struct {
	Number    uint64            `json:"number"`
	Digest    ledger.Sum        `json:"digest"`
	Time      time.Time         `json:"time"`
	Epoch     uint64            `json:"epoch"`
	Actor     string            `json:"actor"`
	Packs     int               `json:"packs"`
	PackBytes int64             `json:"packBytes"`
	Records   ledger.RecordList `json:"records"`
}

func (a *app) ledgerShow(ctx context.Context, opt ledgerShowOptions) error {
	if opt.limit < 0 {
		return usagef("--limit %d is negative", opt.limit)
	}
	d, err := openDir(opt.dir)
	if err != nil {
		return err
	}
	defer d.Close() //nolint:errcheck // it was only read
	l := recordsListing{"holdfast.records/1", []recordedSegment{}}
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	if !a.json {
		fmt.Fprintln(w, "SEGMENT\tTIME\tEPOCH\tRECORD\tWHAT")
	}
	n := 0
	err = repo.LedgerSegments(ctx, d, func(s *ledger.Segment) bool {
		n++
		r := recordedSegment{Number: s.Number, Digest: s.Sum, Time: s.Time.UTC(), Epoch: s.Epoch, Actor: s.Actor, Packs: len(s.Packs), Records: s.Records}
		if r.Records == nil {
			r.Records = ledger.RecordList{}
		}
		for i := range s.Packs {
			r.PackBytes += s.Packs[i].Bytes
		}
		if a.json {
			l.Segments = append(l.Segments, r)
		} else {
			showSegment(w, &r)
		}
		return n != opt.limit
	})
	// What was read before a segment that can't be is worth printing.
	if a.json && err == nil {
		return a.printJSON(l)
	}
	if ferr := w.Flush(); err == nil {
		return ferr
	}
	return fmt.Errorf("%s: %w", opt.dir, err)
}

func showSegment(w *tabwriter.Writer, s *recordedSegment) {
	line := func(record, what string) {
		fmt.Fprintf(w, "%d\t%s\t%d\t%s\t%s\n", s.Number, day(s.Time), s.Epoch, record, what)
	}
	for _, r := range slices.Backward(s.Records) {
		line(recordType(r), describe(r))
	}
	if s.Packs > 0 {
		line("packs", fmt.Sprintf("%d, %s", s.Packs, formatSize(s.PackBytes)))
	}
}

func recordType(r ledger.Record) string {
	switch r := r.(type) {
	case *ledger.Init:
		return "init"
	case *ledger.Point:
		return "point"
	case *ledger.Void:
		return "void"
	case *ledger.Expire:
		return "expire"
	case *ledger.Recall:
		return "recall"
	case *ledger.Sweep:
		return "sweep"
	case *ledger.Repair:
		return "repair"
	case *ledger.Adopt:
		return "adopt"
	case *ledger.Key:
		return "key"
	case *ledger.Unknown:
		return r.Type
	}
	return "?"
}

// describe says what a record is about.
func describe(r ledger.Record) string {
	switch r := r.(type) {
	case *ledger.Init:
		return fmt.Sprintf("repository %s, signed by %s", r.Repository, r.Signer)
	case *ledger.Point:
		kind := "increment of " + r.Parent
		if r.Full {
			kind = "full"
		}
		return fmt.Sprintf("%s, number %d of %s, job %s, %s", r.ID, r.Sequence, r.Machine, r.Job, kind)
	case *ledger.Void:
		return fmt.Sprintf("%s of segment %d", r.Point, r.Segment)
	case *ledger.Expire:
		if r.Reason != "" {
			return fmt.Sprintf("%s: %s", r.Point, r.Reason)
		}
		return r.Point
	case *ledger.Recall:
		return r.Point
	case *ledger.Sweep:
		var n int64
		for i := range r.Packs {
			n += r.Packs[i].Bytes
		}
		return fmt.Sprintf("%d packs, %s", len(r.Packs), formatSize(n))
	case *ledger.Repair:
		return fmt.Sprintf("pack %s by %s, %d records lost", r.Pack.Name, orDash(r.By), r.Lost)
	case *ledger.Adopt:
		return fmt.Sprintf("signed by %s from here on, before by %s", r.Signer, orDash(r.Previous))
	case *ledger.Key:
		return fmt.Sprintf("%s %s, %s", r.Action, r.Name, orDash(r.Kind))
	case *ledger.Unknown:
		return string(r.JSON)
	}
	return ""
}
