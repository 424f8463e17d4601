package cli

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"holdfast/repo/ledger"
)

func newDumpLedger(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "ledger FILE…",
		Short: "Segments of the ledger",
		Args:  takes(true, "FILE"),
		RunE:  func(_ *cobra.Command, args []string) error { return a.dumpLedger(args) },
	}
}

type ledgerListing struct {
	Schema   string           `json:"schema"`
	Segments []segmentListing `json:"segments"`
}

type segmentListing struct {
	Number  uint64            `json:"number"`
	Digest  ledger.Sum        `json:"digest"`
	Before  ledger.Sum        `json:"before"` // digest of the segment before
	Time    time.Time         `json:"time"`
	Epoch   uint64            `json:"epoch"`
	Actor   string            `json:"actor"`
	Records ledger.RecordList `json:"records"`
	Packs   []ledger.Pack     `json:"packs"`
}

func (a *app) dumpLedger(names []string) error {
	l := ledgerListing{Schema: "holdfast.ledger/1"}
	for _, name := range names {
		p, err := readSmall(name, ledger.MaxSegmentBytes)
		if err != nil {
			return err
		}
		s, err := ledger.ParseSegment(p)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		l.Segments = append(l.Segments, segmentListing{s.Number, s.Sum, s.Prev, s.Time, s.Epoch, s.Actor, s.Records, append([]ledger.Pack{}, s.Packs...)})
	}
	if a.json {
		return a.printJSON(l)
	}
	for _, s := range l.Segments {
		f := newFields(a.out)
		f.add("segment", "%d", s.Number)
		f.add("sha256", "%s", s.Digest)
		f.add("before", "%s", s.Before)
		f.add("time", "%s", s.Time.UTC().Format(time.RFC3339))
		f.add("epoch", "%d", s.Epoch)
		f.add("actor", "%s", s.Actor)
		if err := f.end(); err != nil {
			return err
		}
		records, err := json.MarshalIndent(s.Records, "", "  ")
		if err != nil {
			return err
		}
		fmt.Fprintf(a.out, "%s\n", records)
		for _, p := range s.Packs {
			fmt.Fprintf(a.out, "pack %s, %d bytes, sha256 %s\n", p.Name.Path(p.Kind), p.Bytes, p.SHA256)
		}
	}
	return nil
}
