package cli

import (
	"context"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"holdfast/repo"
)

type statsOptions struct {
	dir      string
	machines bool
	points   bool
}

func newRepoStats(a *app) *cobra.Command {
	var opt statsOptions
	cmd := &cobra.Command{
		Use:   "stats DIR",
		Short: "Print what a repository holds and what that takes",
		Long: `Print what a repository holds and what that takes. All block maps are read, each
part of them once, but no data.

--machines and --points also print what each machine or point holds: DATA is what
is not a hole, UNIQUE what of that no other has, ADDED the pack files its runs
wrote, and FREED the stored bytes that expiry of it alone, or of all the machine's
points, would free. That takes longer, in proportion to what points don't share.
Bytes are those before compression but for ADDED and FREED.`,
		Example: `  holdfast repo stats /srv/backup
  holdfast repo stats /srv/backup --machines
  holdfast repo stats /srv/backup --points --json`,
		Args: takes(false, "DIR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			opt.dir = args[0]
			return a.repoStats(cmd.Context(), opt)
		},
	}
	cmd.Flags().BoolVar(&opt.machines, "machines", false, "also what each machine holds")
	cmd.Flags().BoolVar(&opt.points, "points", false, "also what each restore point holds")
	return cmd
}

type statsListing struct {
	Schema           string   `json:"schema"`
	ID               string   `json:"id"`
	Sealed           bool     `json:"sealed"`
	Machines         int      `json:"machines"`
	Points           int      `json:"points"`
	Retired          int      `json:"retired"`
	Disks            int      `json:"disks"`
	LogicalBytes     int64    `json:"logicalBytes"`
	ReferencedBytes  int64    `json:"referencedBytes"`
	UniqueBytes      int64    `json:"uniqueBytes"`
	DedupeRatio      float64  `json:"dedupeRatio"`
	CompressionRatio float64  `json:"compressionRatio"`
	Chunks           int64    `json:"chunks"`
	Patches          int64    `json:"patches"`
	Nodes            int64    `json:"nodes"`
	ChunkBytes       int64    `json:"chunkBytes"`
	NodeBytes        int64    `json:"nodeBytes"`
	Packs            int64    `json:"packs"`
	PackBytes        int64    `json:"packBytes"`
	ParityBytes      int64    `json:"parityBytes"`
	OverheadBytes    int64    `json:"overheadBytes"`
	PacksPerTiB      *float64 `json:"packsPerTiB"`
	IndexBytes       int64    `json:"indexBytes"`

	UncommittedPacks int64               `json:"uncommittedPacks"`
	UncommittedBytes int64               `json:"uncommittedBytes"`
	Runs             []unfinishedListing `json:"runs"`

	Swept    *sweptListing   `json:"swept"`
	Verified verifiedListing `json:"verified"`

	LedgerSegments uint64      `json:"ledgerSegments"`
	Head           headListing `json:"ledgerHead"`
	Signer         string      `json:"signer"`

	ByMachine []machineListing `json:"byMachine,omitempty"`
	ByPoint   []holdingListing `json:"byPoint,omitempty"`
	Unknown   string           `json:"unknown,omitempty"`
}

type unfinishedListing struct {
	ID        string    `json:"id"`
	Machine   string    `json:"machine"`
	MachineID string    `json:"machineId"`
	Started   time.Time `json:"started"`
	Packs     int       `json:"packs"`
	Bytes     int64     `json:"bytes"`
}

type sweptListing struct {
	Segment     uint64    `json:"segment"`
	Time        time.Time `json:"time"`
	DeadPacks   int       `json:"deadPacks"`
	DeadBytes   int64     `json:"deadBytes"`
	EmptyPacks  int       `json:"emptyPacks"`
	EmptyBytes  int64     `json:"emptyBytes"`
	LockedPacks int       `json:"lockedPacks"`
	LockedBytes int64     `json:"lockedBytes"`
}

type verifiedListing struct {
	Oldest     *time.Time `json:"oldest"`
	NeverPacks int64      `json:"neverPacks"`
	NeverBytes int64      `json:"neverBytes"`
}

type machineListing struct {
	Machine         string        `json:"machine"`
	MachineID       string        `json:"machineId"`
	Points          int           `json:"points"`
	First           time.Time     `json:"first"`
	Last            time.Time     `json:"last"`
	LogicalBytes    int64         `json:"logicalBytes"`
	ReferencedBytes int64         `json:"referencedBytes"`
	UniqueBytes     *int64        `json:"uniqueBytes"`
	AddedBytes      int64         `json:"addedBytes"`
	Freed           *freedListing `json:"freed"`
}

type holdingListing struct {
	ID              string        `json:"id"`
	Machine         string        `json:"machine"`
	MachineID       string        `json:"machineId"`
	Time            time.Time     `json:"time"`
	LogicalBytes    int64         `json:"logicalBytes"`
	ReferencedBytes int64         `json:"referencedBytes"`
	UniqueBytes     *int64        `json:"uniqueBytes"`
	SharedBytes     *int64        `json:"sharedBytes"`
	AddedBytes      int64         `json:"addedBytes"`
	Freed           *freedListing `json:"freed"`
}

type freedListing struct {
	RecordBytes int64 `json:"recordBytes"`
	Packs       int   `json:"packs"`
	PackBytes   int64 `json:"packBytes"`
	LockedPacks int   `json:"lockedPacks"`
	LockedBytes int64 `json:"lockedBytes"`
	DeadBytes   int64 `json:"deadBytes"`
}

// String says it to people.
func (f *freedListing) String() string {
	text := fmt.Sprintf("%s of records: %d packs, %s, at the next sweep, and %s by a compaction",
		formatSize(f.RecordBytes), f.Packs, formatSize(f.PackBytes), formatSize(f.DeadBytes))
	if f.LockedPacks > 0 {
		text += fmt.Sprintf("; %d of the packs, %s, when their locks end", f.LockedPacks, formatSize(f.LockedBytes))
	}
	return text
}

// listFreed lists what would be free, null where that isn't known.
func listFreed(f repo.Freed, unknown error) *freedListing {
	if unknown != nil {
		return nil
	}
	return &freedListing{f.RecordBytes, f.Packs, f.PackBytes, f.LockedPacks, f.LockedBytes, f.DeadBytes}
}

// unlessUnknown is n, null where that isn't known.
func unlessUnknown(n int64, unknown error) *int64 {
	if unknown != nil {
		return nil
	}
	return &n
}

func listStats(info repo.Info, s *repo.Stats) statsListing {
	l := statsListing{
		Schema: "holdfast.stats/1", ID: info.ID, Sealed: info.Sealed, Machines: s.Machines, Points: s.Points, Retired: s.Retired,
		Disks: s.Disks, LogicalBytes: s.LogicalBytes, ReferencedBytes: s.ReferencedBytes, UniqueBytes: s.UniqueBytes,
		DedupeRatio: s.DedupeRatio(), CompressionRatio: s.CompressionRatio(), Chunks: s.Chunks, Patches: s.Patches, Nodes: s.Nodes,
		ChunkBytes: s.ChunkBytes, NodeBytes: s.NodeBytes, Packs: s.Packs, PackBytes: s.PackBytes, ParityBytes: s.ParityBytes,
		OverheadBytes: s.OverheadBytes(), IndexBytes: s.IndexBytes, UncommittedPacks: s.UncommittedPacks,
		UncommittedBytes: s.UncommittedBytes, Runs: []unfinishedListing{}, LedgerSegments: s.LedgerSegments,
		Verified: verifiedListing{NeverPacks: s.Verified.NeverPacks, NeverBytes: s.Verified.NeverBytes},
		Head:     listHead(s.Head), Signer: s.Signer,
	}
	if n := s.PacksPerTiB(); n > 0 {
		l.PacksPerTiB = &n
	}
	if !s.Verified.Oldest.IsZero() {
		l.Verified.Oldest = &s.Verified.Oldest
	}
	for _, r := range s.Runs {
		l.Runs = append(l.Runs, unfinishedListing{string(r.ID), r.Machine, r.MachineID, r.Started.UTC(), r.Packs, r.Bytes})
	}
	if w := s.Swept; w != nil {
		l.Swept = &sweptListing{w.Segment, w.At, w.DeadPacks, w.DeadBytes, w.EmptyPacks, w.EmptyBytes, w.LockedPacks, w.LockedBytes}
	}
	if s.Unknown != nil {
		l.Unknown = s.Unknown.Error()
	}
	for _, m := range s.ByMachine {
		unknown := firstError(s.Unknown, m.Unknown)
		l.ByMachine = append(l.ByMachine, machineListing{
			m.Machine, m.MachineID, m.Points, m.First, m.Last, m.LogicalBytes, m.ReferencedBytes,
			unlessUnknown(m.UniqueBytes, unknown), m.AddedBytes, listFreed(m.Freed, unknown),
		})
	}
	for _, p := range s.ByPoint {
		unknown := firstError(s.Unknown, p.Unknown)
		l.ByPoint = append(l.ByPoint, holdingListing{
			string(p.Point.ID), p.Point.Machine, p.Point.MachineID, p.Point.Time, p.Point.SizeBytes(), p.ReferencedBytes,
			unlessUnknown(p.UniqueBytes, unknown), unlessUnknown(p.SharedBytes(), unknown), p.Point.Counters.PackBytes,
			listFreed(p.Freed, unknown),
		})
	}
	return l
}

// firstError is the first error there is.
func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func (a *app) repoStats(ctx context.Context, opt statsOptions) error {
	return a.reading(ctx, opt.dir, func(r *repo.Repository) error {
		s, err := r.Stats(ctx, repo.StatsOptions{Machines: opt.machines, Points: opt.points})
		if err != nil {
			return err
		}
		if a.json {
			return a.printJSON(listStats(r.Info(), &s))
		}
		if err := a.printStats(r.Info(), &s); err != nil {
			return err
		}
		if opt.machines {
			if err := a.printMachines(&s); err != nil {
				return err
			}
		}
		if opt.points {
			if err := a.printHoldings(&s); err != nil {
				return err
			}
		}
		if s.Unknown != nil {
			a.warn("what each holds alone is not known: %v; \"holdfast repo sweep %s\" brings the counts up", s.Unknown, opt.dir)
		}
		return nil
	})
}

func (a *app) printStats(info repo.Info, s *repo.Stats) error {
	f := newFields(a.out)
	f.add("repository", "%s, sealed %v", info.ID, info.Sealed)
	f.add("signed by", "%s", info.SignerFingerprint)
	retired := ""
	if s.Retired > 0 {
		retired = fmt.Sprintf("; %d retired", s.Retired)
	}
	f.add("points", "%d of %d machines, %d disks%s", s.Points, s.Machines, s.Disks, retired)
	f.add("disks", "%s, of which %s are not holes", formatSize(s.LogicalBytes), formatSize(s.ReferencedBytes))
	f.add("different", "%s in %d chunks%s", formatSize(s.UniqueBytes), s.Chunks+s.Patches, share(s.DedupeRatio()))
	f.add("stored", "%s%s, and %s of nodes", formatSize(s.ChunkBytes), share(s.CompressionRatio()), formatSize(s.NodeBytes))
	each := ""
	if n := s.PacksPerTiB(); n > 0 {
		each = fmt.Sprintf("; %.0f in a TiB", n)
	}
	f.add("packs", "%d, %s, of which %s parity and %s headers and tables%s", s.Packs, formatSize(s.PackBytes),
		formatSize(s.ParityBytes), formatSize(s.OverheadBytes()-s.ParityBytes), each)
	f.add("index", "%s", formatSize(s.IndexBytes))
	f.add("ledger", "%d segments, the last is %s", s.LedgerSegments, s.Head.Sum)
	printSwept(f, s.Swept)
	f.add("verified", "%s", verifiedText(s.Verified))
	for _, r := range s.Runs {
		name := r.Machine
		if name == "" {
			name = r.MachineID
		}
		f.add("unfinished run", "%s of %s, begun %s: %d packs, %s, for its next run", r.ID, name, day(r.Started), r.Packs, formatSize(r.Bytes))
	}
	return f.end()
}

func printSwept(f fields, s *repo.SweptStats) {
	if s == nil {
		f.add("dead", "not known: there was no sweep yet")
		return
	}
	f.add("dead", "%s in %d packs with others, at the last sweep, %s, segment %d", formatSize(s.DeadBytes), s.DeadPacks, day(s.At), s.Segment)
	if s.EmptyPacks > 0 {
		f.add("waiting", "%d packs that nothing needs, %s, of which %d, %s, for the end of their lock", s.EmptyPacks,
			formatSize(s.EmptyBytes), s.LockedPacks, formatSize(s.LockedBytes))
	}
}

func verifiedText(v repo.Verified) string {
	switch {
	case v.Packs == 0:
		return "nothing is stored"
	case v.NeverPacks == v.Packs:
		return fmt.Sprintf("nothing yet; the oldest is of %s", day(v.Oldest))
	case v.NeverPacks > 0:
		return fmt.Sprintf("all but %s in %d packs; the oldest unverified byte is of %s", formatSize(v.NeverBytes), v.NeverPacks, day(v.Oldest))
	}
	return fmt.Sprintf("every byte since %s", day(v.Oldest))
}

func (a *app) printMachines(s *repo.Stats) error {
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "\nMACHINE\tPOINTS\tFIRST\tLAST\tSIZE\tDATA\tUNIQUE\tADDED\tFREED")
	for _, m := range s.ByMachine {
		unknown := firstError(s.Unknown, m.Unknown)
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", m.Machine, m.Points, day(m.First), day(m.Last), formatSize(m.LogicalBytes),
			formatSize(m.ReferencedBytes), sizeOr(m.UniqueBytes, unknown), formatSize(m.AddedBytes), sizeOr(m.Freed.RecordBytes, unknown))
	}
	return w.Flush()
}

func (a *app) printHoldings(s *repo.Stats) error {
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "\nPOINT\tMACHINE\tTIME\tSIZE\tDATA\tUNIQUE\tSHARED\tADDED\tFREED")
	for _, p := range s.ByPoint {
		unknown := firstError(s.Unknown, p.Unknown)
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", p.Point.ID, p.Point.Machine, day(p.Point.Time), formatSize(p.Point.SizeBytes()),
			formatSize(p.ReferencedBytes), sizeOr(p.UniqueBytes, unknown), sizeOr(p.SharedBytes(), unknown),
			formatSize(p.Point.Counters.PackBytes), sizeOr(p.Freed.RecordBytes, unknown))
	}
	return w.Flush()
}

// sizeOr prints a size, or a question mark where it isn't known.
func sizeOr(n int64, unknown error) string {
	if unknown != nil {
		return "?"
	}
	return formatSize(n)
}

// share prints how many times smaller a part is, nothing where there is none.
func share(ratio float64) string {
	if ratio == 0 {
		return ""
	}
	return fmt.Sprintf(" (1 : %.2f)", ratio)
}
