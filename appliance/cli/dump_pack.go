package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"holdfast/repo/pack"
)

func newDumpPack(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "pack FILE",
		Short: "Layout, damage and records of a pack",
		Args:  takes(false, "FILE"),
		RunE:  func(cmd *cobra.Command, args []string) error { return a.dumpPack(cmd.Context(), args[0]) },
	}
}

type packListing struct {
	Schema  string          `json:"schema"`
	Kind    string          `json:"kind"`
	Name    string          `json:"name"`
	Bytes   int64           `json:"bytes"`
	Layout  *layoutListing  `json:"layout"` // null when both tails are lost
	Damage  *damageListing  `json:"damage"` // null when there is none
	Records []recordSummary `json:"records"`
}

// layoutListing has the names of FORMAT.md's N, S, m and T, in blocks.
type layoutListing struct {
	Data    int `json:"data"`
	Stripes int `json:"stripes"`
	Parity  int `json:"parityPerStripe"`
	Tail    int `json:"tail"`
}

type damageListing struct {
	BadBlocks  []uint32 `json:"badBlocks"`
	Worst      int      `json:"worstStripe"`
	ExtraBytes int64    `json:"extraBytes"`
	Blind      bool     `json:"blind"` // nothing is known of the blocks
	Healable   bool     `json:"healable"`
}

type recordSummary struct {
	Off   uint32 `json:"off"`
	Bytes uint32 `json:"bytes"`
	Kind  string `json:"kind"`
	ID    string `json:"id"`
}

func (a *app) dumpPack(ctx context.Context, name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	l := packListing{Schema: "holdfast.pack/1", Bytes: info.Size(), Records: []recordSummary{}}
	p, err := pack.Open(f, info.Size())
	if err != nil {
		// Without header and tails there may still be records.
		scanErr := pack.Scan(f, info.Size(), func(e pack.Entry, _ *pack.Header) error {
			l.Records = append(l.Records, summary(e))
			return nil
		})
		return errors.Join(a.printPack(l), err, scanErr)
	}
	l.Kind, l.Name = p.Kind().String(), p.Name().String()
	if lay, ok := p.Layout(); ok {
		l.Layout = &layoutListing{lay.Data, lay.Stripes, lay.Parity, lay.Tail}
	}
	d, err := p.Check(ctx)
	if err != nil {
		return err
	}
	if d.Any() {
		l.Damage = &damageListing{nonNil(d.Bad), d.Worst, d.Extra, d.Blind, d.Healable()}
	}
	entries, err := p.Records()
	for _, e := range entries {
		l.Records = append(l.Records, summary(e))
	}
	return errors.Join(a.printPack(l), err)
}

func summary(e pack.Entry) recordSummary {
	return recordSummary{e.Off, e.Len, e.Kind.String(), e.ID.String()}
}

func (a *app) printPack(l packListing) error {
	if a.json {
		return a.printJSON(l)
	}
	f := newFields(a.out)
	f.add("pack", "%s %s", l.Kind, l.Name)
	f.add("bytes", "%d", l.Bytes)
	if y := l.Layout; y != nil {
		f.add("layout", "%d data blocks in %d stripes with %d parity blocks each, tails of %d", y.Data, y.Stripes, y.Parity, y.Tail)
	} else {
		f.add("layout", "unknown: both tails are lost")
	}
	switch d := l.Damage; {
	case d == nil:
		f.add("damage", "none")
	case d.Blind:
		f.add("damage", "block checksums are lost")
	case d.Healable:
		f.add("damage", "blocks %v, parity heals them; %d bytes too many", d.BadBlocks, d.ExtraBytes)
	default:
		f.add("damage", "blocks %v, %d in one stripe: more than parity heals", d.BadBlocks, d.Worst)
	}
	f.add("records", "%d", len(l.Records))
	if err := f.end(); err != nil {
		return err
	}
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "offset\tbytes\tkind\t id\t")
	for _, r := range l.Records {
		fmt.Fprintf(w, "%d\t%d\t%s\t %s\t\n", r.Off, r.Bytes, r.Kind, r.ID)
	}
	return w.Flush()
}
