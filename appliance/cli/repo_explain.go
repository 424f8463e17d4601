package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"holdfast/repo"
	"holdfast/repo/pack"
)

type explainOptions struct {
	dir  string
	what string
}

func newRepoExplain(a *app) *cobra.Command {
	var opt explainOptions
	return &cobra.Command{
		Use:   "explain DIR PACK|POINT",
		Short: "Print why a pack or a restore point is there, and who needs it",
		Long: `Print of a pack which machines and points need it, what of it is needed by none,
and what becomes of it: why its bytes are not free yet. PACK is its name or its
path in the repository. Of every machine the first block map is read and what
changed after it.

Print of a restore point where it stands in its chain, what keeps it, how many
packs it reaches, and how many stored bytes it alone holds. POINT is an id, a
unique prefix of one, MACHINE@latest or MACHINE@2026-11-22.`,
		Example: `  holdfast repo explain /srv/backup db1@latest
  holdfast repo explain /srv/backup 00000007-6b1d2f09c4e8a5b7d3f0a1c2
  holdfast repo explain /srv/backup packs/meta/6b/00000007-6b1d2f09c4e8a5b7d3f0a1c2.pack --json`,
		Args: takes(false, "DIR", "PACK|POINT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			opt.dir, opt.what = args[0], args[1]
			return a.repoExplain(cmd.Context(), opt)
		},
	}
}

func (a *app) repoExplain(ctx context.Context, opt explainOptions) error {
	return a.reading(ctx, opt.dir, func(r *repo.Repository) error {
		if _, err := pack.ParseName(strings.TrimSuffix(path.Base(opt.what), ".pack")); err == nil {
			s, err := r.ExplainPack(ctx, opt.what)
			if err != nil {
				return err
			}
			return a.printPackStory(&s)
		}
		p, err := r.Find(ctx, opt.what, time.Local)
		if errors.Is(err, repo.ErrNotFound) && !strings.Contains(opt.what, "@") {
			p.ID, err = repo.PointID(opt.what), nil // it may have expired and be held
		}
		if err != nil {
			return err
		}
		s, err := r.ExplainPoint(ctx, p.ID)
		if err != nil {
			return err
		}
		return a.printPointStory(&s)
	})
}

type holdListing struct {
	By   string `json:"by"`
	Name string `json:"name"`
}

func listHolds(holds []repo.Hold) []holdListing {
	list := []holdListing{}
	for _, h := range holds {
		list = append(list, holdListing{string(h.By), h.Name})
	}
	return list
}

type packStoryListing struct {
	Schema      string          `json:"schema"`
	Pack        string          `json:"pack"`
	Kind        string          `json:"kind"`
	Bytes       int64           `json:"bytes"`
	Recorded    time.Time       `json:"recorded"`
	Segment     uint64          `json:"segment"`
	Records     int             `json:"records"`
	RecordBytes int64           `json:"recordBytes"`
	LivingBytes int64           `json:"livingBytes"`
	DeadBytes   int64           `json:"deadBytes"`
	NeededBy    []neederListing `json:"neededBy"`
	Locked      bool            `json:"locked"`
	Verified    *time.Time      `json:"verified"`
	Fault       string          `json:"fault"`
	Holds       []holdListing   `json:"holds"`
	Fate        string          `json:"fate"`
}

type neederListing struct {
	Machine   string `json:"machine"`
	MachineID string `json:"machineId"`
	Points    int    `json:"points"`
	First     string `json:"first"`
	Last      string `json:"last"`
}

func (a *app) printPackStory(s *repo.PackStory) error {
	fault := ""
	if s.Fault != repo.FaultNone {
		fault = s.Fault.String()
	}
	if a.json {
		l := packStoryListing{
			"holdfast.explain-pack/1", s.Name.String(), s.Kind.String(), s.Bytes, s.Recorded, s.Segment, s.Records, s.RecordBytes,
			s.LivingBytes, s.DeadBytes(), []neederListing{}, s.Locked, nil, fault, listHolds(s.Holds), string(s.Fate),
		}
		if !s.Verified.IsZero() {
			l.Verified = &s.Verified
		}
		for _, n := range s.Needers {
			l.NeededBy = append(l.NeededBy, neederListing{n.Machine, n.MachineID, n.Points, string(n.First), string(n.Last)})
		}
		return a.printJSON(l)
	}
	f := newFields(a.out)
	f.add("pack", "%s", s.Name.Path(s.Kind))
	f.add("file", "%s, %s", formatSize(s.Bytes), recordedText(s))
	f.add("records", "%d, %s, of which %s are needed and %s are not", s.Records, formatSize(s.RecordBytes), formatSize(s.LivingBytes), formatSize(s.DeadBytes()))
	for _, n := range s.Needers {
		name := n.Machine
		if name == "" {
			name = n.MachineID
		}
		if n.Points == 1 {
			f.add("needed by", "%s: 1 point, %s", name, n.First)
			continue
		}
		f.add("needed by", "%s: %d points, %s to %s", name, n.Points, n.First, n.Last)
	}
	printHolds(f, s.Holds)
	if s.Verified.IsZero() {
		f.add("verified", "never")
	} else {
		f.add("verified", "%s", day(s.Verified))
	}
	if fault != "" {
		f.add("damage", "%s", fault)
	}
	f.add("why", "%s", fateText(s))
	return f.end()
}

func recordedText(s *repo.PackStory) string {
	switch {
	case s.Recorded.IsZero():
		return "which no segment of the ledger names"
	case s.Segment == 0:
		return fmt.Sprintf("of a run begun %s, in no segment of the ledger yet", day(s.Recorded))
	}
	return fmt.Sprintf("in ledger segment %d of %s", s.Segment, day(s.Recorded))
}

func printHolds(f fields, holds []repo.Hold) {
	for _, h := range holds {
		switch h.By {
		case repo.HoldPin:
			f.add("kept by", "pin %q", h.Name)
		case repo.HoldReader:
			f.add("kept by", "a reader (%s)", h.Name)
		case repo.HoldLock:
			f.add("kept by", "the lock of %s", h.Name)
		case repo.HoldRun:
			f.add("kept by", "the unfinished run %s", h.Name)
		}
	}
}

// fateText says why the pack is there, and what would change that.
func fateText(s *repo.PackStory) string {
	dead := 0.0
	if s.RecordBytes > 0 {
		dead = 100 * float64(s.DeadBytes()) / float64(s.RecordBytes)
	}
	switch s.Fate {
	case repo.PackNeeded:
		if s.DeadBytes() == 0 {
			return "all of it is needed"
		}
		return fmt.Sprintf("%.0f %% of it is dead, and compact begins at %.0f %%", dead, 100*repo.DefaultDeadShare)
	case repo.PackCompact:
		return fmt.Sprintf(`%.0f %% of it is dead: "holdfast repo compact" copies the rest out of it`, dead)
	case repo.PackSweep:
		return `nothing needs it: the next "holdfast repo sweep" removes it`
	case repo.PackHeld:
		return "nothing needs it, but it is kept"
	case repo.PackGone:
		return "a sweep was removing it: the next to write the repository goes on with that"
	}
	return string(s.Fate)
}

type pointStoryListing struct {
	Schema          string        `json:"schema"`
	Point           pointListing  `json:"point"`
	State           string        `json:"state"`
	Reason          string        `json:"reason"`
	Holds           []holdListing `json:"holds"`
	Full            string        `json:"full"`
	Chain           int           `json:"chain"`
	Children        []string      `json:"children"`
	ReferencedBytes int64         `json:"referencedBytes"`
	Packs           int           `json:"packs"`
	PackBytes       int64         `json:"packBytes"`
	Freed           *freedListing `json:"freed"`
	Unknown         string        `json:"unknown,omitempty"`
}

func (a *app) printPointStory(s *repo.PointStory) error {
	p := &s.Point
	if a.json {
		l := pointStoryListing{
			"holdfast.explain-point/1", listPoint(*p), string(s.State), p.Reason, listHolds(s.Holds), string(s.Full), s.Chain, []string{},
			s.ReferencedBytes, s.Packs, s.PackBytes, listFreed(s.Freed, s.Unknown), "",
		}
		for _, id := range s.Children {
			l.Children = append(l.Children, string(id))
		}
		if s.Unknown != nil {
			l.Unknown = s.Unknown.Error()
		}
		return a.printJSON(l)
	}
	f := newFields(a.out)
	f.add("point", "%s, number %d of %s", p.ID, p.Sequence, cmp.Or(p.Machine, p.MachineID))
	switch s.State {
	case repo.PointLive:
		f.add("state", "live, made %s by job %s", day(p.Time), p.Job)
	case repo.PointRetired:
		f.add("state", `retired: it expired (%s) and is still there; "holdfast repo recall" brings it back`, p.Reason)
	case repo.PointHeld:
		f.add("state", "expired (%s) and gone, but its bytes are held", p.Reason)
	}
	printHolds(f, s.Holds)
	if p.Full {
		f.add("chain", "a full; %d points came from it and are kept, itself included if it is", s.Chain)
	} else {
		f.add("chain", "an increment of %s; %d points are kept that came from %s", p.Parent, s.Chain, s.Full)
	}
	for _, id := range s.Children {
		f.add("parent of", "%s", id)
	}
	f.add("disks", "%d, %s, of which %s are not holes", len(p.Disks), formatSize(p.SizeBytes()), formatSize(s.ReferencedBytes))
	f.add("reaches", "%d packs, %s", s.Packs, formatSize(s.PackBytes))
	if s.Unknown != nil {
		f.add("alone holds", "not known: %v", s.Unknown)
	} else {
		f.add("alone holds", "%s", listFreed(s.Freed, nil))
	}
	return f.end()
}
