package repo

import (
	"context"
	"fmt"
	"time"

	"holdfast/repo/chunk"
	"holdfast/repo/index"
	"holdfast/repo/ledger"
	"holdfast/repo/pack"
)

// StatsOptions say what Stats is to find out beyond the whole.
type StatsOptions struct {
	Machines bool // what each machine holds
	Points   bool // what each point holds

	Progress func(done, total int) // machines and points asked about
}

// Stats says what a repository holds and what that takes. All bytes but where
// said otherwise.
type Stats struct {
	Machines int
	Points   int // restore points, without those that are retired
	Retired  int // expired points that are still there
	Disks    int

	LogicalBytes    int64 // all disks of all points at their full size
	ReferencedBytes int64 // of those, what is not a hole, in whole chunks
	UniqueBytes     int64 // different chunks stored, before compression

	Chunks  int64 // records of each kind
	Patches int64
	Nodes   int64

	ChunkBytes  int64 // stored records of chunks and patches
	NodeBytes   int64 // stored records of nodes
	Packs       int64 // pack files
	PackBytes   int64 // pack files, all in all
	ParityBytes int64 // of these, parity and the checksums of blocks
	IndexBytes  int64

	UncommittedPacks int64 // of unfinished runs
	UncommittedBytes int64
	Runs             []UnfinishedRun

	Swept    *SweptStats // nil: there was no sweep yet
	Verified Verified

	LedgerSegments uint64
	Head           ledger.Head
	Signer         string // fingerprint of the key that signs the next segment

	ByMachine []MachineStats // with StatsOptions.Machines, by name
	ByPoint   []PointStats   // with StatsOptions.Points, in order of time
	Unknown   error          // ErrSweepFirst: what machines and points alone hold isn't known
}

// SweptStats is what the last sweep left.
type SweptStats struct {
	Segment uint64    // of the ledger, as of which this is
	At      time.Time // of that segment

	DeadPacks int   // packs with bytes that nothing needs beside others
	DeadBytes int64 // of these

	EmptyPacks int   // packs that nothing needs and that could not go yet
	EmptyBytes int64 // of these files

	LockedPacks int   // of EmptyPacks, those that wait for the end of their lock
	LockedBytes int64 // of these files
}

// OverheadBytes is what packs take beyond their records: parity, checksums,
// headers, tables.
func (s *Stats) OverheadBytes() int64 { return s.PackBytes - s.ChunkBytes - s.NodeBytes }

// DedupeRatio is how many times the disks' bytes are more than the different
// chunks of them; 0 when there are none.
func (s *Stats) DedupeRatio() float64 { return ratio(s.ReferencedBytes, s.UniqueBytes) }

// CompressionRatio is how many times these are more than their records; 0 when
// there are none.
func (s *Stats) CompressionRatio() float64 { return ratio(s.UniqueBytes, s.ChunkBytes) }

func ratio(whole, part int64) float64 {
	if part <= 0 {
		return 0
	}
	return float64(whole) / float64(part)
}

// fewPackBytes is less than what tells how many packs a TiB would have.
const fewPackBytes = 64 << 30

// PacksPerTiB is the number of packs for each TiB that they take; 0 when they
// take too little to tell.
func (s *Stats) PacksPerTiB() float64 {
	if s.PackBytes < fewPackBytes {
		return 0
	}
	return float64(s.Packs) / float64(s.PackBytes) * (1 << 40)
}

// Stats reads all points' block maps, each node once, the index and the ledger.
// What machines and points hold takes time in proportion to what they don't
// share with their neighbours.
func (r *Repository) Stats(ctx context.Context, opt StatsOptions) (Stats, error) {
	var s Stats
	for _, do := range []func(context.Context, *Stats) error{r.statRecords, r.statPacks, r.statSwept} {
		if err := do(ctx, &s); err != nil {
			return s, fmt.Errorf("stats: %w", err)
		}
	}
	if err := r.statPoints(ctx, opt, &s); err != nil {
		return s, fmt.Errorf("stats: %w", err)
	}
	return s, nil
}

func (r *Repository) statRecords(ctx context.Context, s *Stats) error {
	before := *s
	for _, f := range r.store.index.Files() {
		before.IndexBytes += f.Bytes
	}
	return r.store.withIndex(func(x *index.Index) error {
		*s = before // a walk that met damage counted a part
		return r.walkRecords(ctx, x, s)
	})
}

func (r *Repository) walkRecords(ctx context.Context, x *index.Index, s *Stats) error {
	var last prefix
	return x.Walk(func(n uint64, e index.Entry) error {
		again := n > 0 && e.Prefix == last
		last = e.Prefix
		switch e.Kind {
		case pack.Chunk:
			s.Chunks++
			s.ChunkBytes += int64(e.Len)
		case pack.Patch:
			s.Patches++
			s.ChunkBytes += int64(e.Len)
		case pack.Node:
			s.Nodes++
			s.NodeBytes += int64(e.Len)
			again = true
		}
		if !again {
			s.UniqueBytes += int64(r.settings.Geometry.ChunkBytes)
		}
		if n%4096 == 0 {
			return ctx.Err()
		}
		return nil
	})
}

func (r *Repository) statPacks(ctx context.Context, s *Stats) error {
	inv, err := r.inventory(ctx)
	if err != nil {
		return err
	}
	for _, err := range inv.noSegments {
		r.log.Error("ledger segment can't be read; its packs are not counted", "err", err)
	}
	for i := range inv.packs {
		p := &inv.packs[i]
		if p.unfinished {
			s.UncommittedPacks++
			s.UncommittedBytes += p.Bytes
			continue
		}
		s.Packs++
		s.PackBytes += p.Bytes
		if l, ok := pack.LayoutOf(p.Bytes, r.settings.Parity); ok {
			s.ParityBytes += l.ParityBytes()
		}
	}
	verified, err := readVerified(r.fsys, r.log)
	if err != nil {
		return err
	}
	s.Verified = verified.sum(inv.packs)
	if s.Runs, err = r.UnfinishedRuns(ctx); err != nil {
		return err
	}
	s.LedgerSegments = inv.last
	s.Head, s.Signer = r.signing()
	return nil
}

// signing returns the head of the ledger as the reader sees it, and who signs.
func (r *Repository) signing() (ledger.Head, string) {
	r.view.mu.Lock()
	defer r.view.mu.Unlock()
	if r.view.state == nil {
		return ledger.Head{}, ""
	}
	signer, _ := r.view.state.Signer()
	return r.view.state.Head(), signer
}

// statSwept reads what the counts of the last sweep say.
func (r *Repository) statSwept(_ context.Context, s *Stats) error {
	c, err := readRefs(r.fsys, r.store)
	if err != nil {
		r.log.Warn("what the last sweep left can't be read", "err", err)
		return nil
	}
	err = c.table.Close()
	if err != nil || c.head.Number == 0 {
		return err
	}
	s.Swept = &SweptStats{Segment: c.head.Number}
	if seg, err := readSegment(r.fsys, c.head.Number); err == nil {
		s.Swept.At = seg.Time.UTC()
	}
	for name, d := range c.dead {
		if !d.empty() {
			s.Swept.DeadPacks++
			s.Swept.DeadBytes += d.deadBytes
			continue
		}
		locked, err := r.fsys.Locked(name.Path(d.kind))
		if err != nil {
			if err := notThere(err); err != nil {
				return err
			}
			continue // removed since
		}
		s.Swept.EmptyPacks++
		s.Swept.EmptyBytes += d.fileBytes
		if locked {
			s.Swept.LockedPacks++
			s.Swept.LockedBytes += d.fileBytes
		}
	}
	return nil
}

// statPoints counts what points refer to, and if wanted what they alone hold.
func (r *Repository) statPoints(ctx context.Context, opt StatsOptions, s *Stats) error {
	points, err := r.Points(ctx)
	if err != nil {
		return err
	}
	retired, err := r.Retired(ctx)
	if err != nil {
		return err
	}
	s.Points, s.Retired = len(points), len(retired)
	referenced := make([]int64, len(points))
	machines := make(map[string]bool)
	counts := make(map[chunk.ID]int64)
	for i := range points {
		p := &points[i]
		machines[p.MachineID] = true
		for _, d := range p.Disks {
			s.Disks++
			n, err := r.countChunks(ctx, d.Root, counts)
			if err != nil {
				return fmt.Errorf("point %s, disk %s: %w", p.ID, d.Name, err)
			}
			referenced[i] += n * int64(r.settings.Geometry.ChunkBytes)
		}
		s.LogicalBytes += p.SizeBytes()
		s.ReferencedBytes += referenced[i]
	}
	s.Machines = len(machines)
	if !opt.Machines && !opt.Points {
		return nil
	}
	return r.statHolders(ctx, opt, s, points, referenced)
}

// countChunks counts the chunks below a node, and remembers it for the points
// that share it.
func (r *Repository) countChunks(ctx context.Context, id chunk.ID, counts map[chunk.ID]int64) (int64, error) {
	if id.IsNull() {
		return 0, nil
	}
	if n, ok := counts[id]; ok {
		return n, nil
	}
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	node, err := r.store.Node(ctx, id)
	if err != nil {
		return 0, err
	}
	var total int64
	for _, child := range node.Children {
		switch {
		case child.IsNull():
		case node.Level == 0:
			total++
		default:
			n, err := r.countChunks(ctx, child, counts)
			if err != nil {
				return 0, err
			}
			total += n
		}
	}
	counts[id] = total
	return total, nil
}
