package repo

import (
	"context"
	"fmt"

	"holdfast/repo/blockmap"
	"holdfast/repo/chunk"
	"holdfast/repo/index"
	"holdfast/repo/ledger"
	"holdfast/repo/pack"
)

// Stats says what a repository holds and what that takes. All bytes but where
// said otherwise.
type Stats struct {
	Machines int
	Points   int
	Disks    int

	LogicalBytes    int64 // all disks of all points at their full size
	ReferencedBytes int64 // of those, what is not a hole, in whole chunks
	UniqueBytes     int64 // different chunks stored, before compression

	Chunks  int64 // records of each kind
	Patches int64
	Nodes   int64

	ChunkBytes int64 // stored records of chunks and patches
	NodeBytes  int64 // stored records of nodes
	Packs      int64 // pack files
	PackBytes  int64 // pack files, all in all
	IndexBytes int64

	UncommittedPacks int64 // of unfinished runs
	UncommittedBytes int64

	LedgerSegments uint64
}

// OverheadBytes is what packs take beyond their records: parity, checksums,
// headers, tables.
func (s *Stats) OverheadBytes() int64 { return s.PackBytes - s.ChunkBytes - s.NodeBytes }

// PacksPerTiB is the number of packs for each TiB that they take.
func (s *Stats) PacksPerTiB() float64 {
	if s.PackBytes == 0 {
		return 0
	}
	return float64(s.Packs) / float64(s.PackBytes) * (1 << 40)
}

// Stats reads all points' block maps, each node once, and the index.
func (r *Repository) Stats(ctx context.Context) (Stats, error) {
	var s Stats
	if err := r.statPoints(ctx, &s); err != nil {
		return s, fmt.Errorf("stats: %w", err)
	}
	if err := r.statRecords(ctx, &s); err != nil {
		return s, fmt.Errorf("stats: %w", err)
	}
	if err := r.statPacks(ctx, &s); err != nil {
		return s, fmt.Errorf("stats: %w", err)
	}
	return s, nil
}

func (r *Repository) statPoints(ctx context.Context, s *Stats) error {
	points, err := r.Points(ctx)
	if err != nil {
		return err
	}
	machines := make(map[string]bool)
	counts := make(map[chunk.ID]int64)
	for _, p := range points {
		machines[p.MachineID] = true
		s.Points++
		for _, d := range p.Disks {
			s.Disks++
			s.LogicalBytes += d.SizeBytes
			tree := blockmap.NewTree(d.Root, d.SizeBytes, r.settings.Geometry)
			n, err := r.countChunks(ctx, tree.Root, counts)
			if err != nil {
				return fmt.Errorf("point %s, disk %s: %w", p.ID, d.Name, err)
			}
			s.ReferencedBytes += n * int64(r.settings.Geometry.ChunkBytes)
		}
	}
	s.Machines = len(machines)
	return nil
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

func (r *Repository) statRecords(ctx context.Context, s *Stats) error {
	before := *s
	return r.store.withIndex(func(x *index.Index) error {
		*s = before // a walk that met damage counted a part
		return r.walkRecords(ctx, x, s)
	})
}

func (r *Repository) walkRecords(ctx context.Context, x *index.Index, s *Stats) error {
	var last [index.PrefixBytes]byte
	return x.Walk(func(n uint64, e index.Entry) error {
		again := n > 0 && e.Prefix == last
		last = e.Prefix
		switch pack.RecordKind(e.Kind) {
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
		return ctx.Err()
	})
}

func (r *Repository) statPacks(ctx context.Context, s *Stats) error {
	last, err := lastSegment(r.fsys)
	if err != nil {
		return err
	}
	s.LedgerSegments = last
	runs := make(map[packKey]int64)
	ids, err := listRuns(r.fsys)
	if err != nil {
		return err
	}
	for _, id := range ids {
		_, packs, err := readRunRecord(r.fsys, id)
		if err != nil {
			r.log.Warn("run record can't be read", "run", id, "err", err)
			continue
		}
		for _, p := range packs {
			runs[packKey{p.Kind, p.Name}] = p.Bytes
		}
	}
	err = readLedger(r.fsys, 1, last, func(seg *ledger.Segment) error {
		for _, p := range seg.Packs {
			s.Packs++
			s.PackBytes += p.Bytes
			delete(runs, packKey{p.Kind, p.Name})
		}
		for _, rec := range seg.Records {
			if sweep, ok := rec.(*ledger.Sweep); ok {
				for _, p := range sweep.Packs {
					s.Packs--
					s.PackBytes -= p.Bytes
				}
			}
		}
		return ctx.Err()
	})
	if err != nil {
		return err
	}
	for _, n := range runs {
		s.UncommittedPacks++
		s.UncommittedBytes += n
	}
	for _, f := range r.store.index.Files() {
		s.IndexBytes += f.Bytes
	}
	return nil
}
