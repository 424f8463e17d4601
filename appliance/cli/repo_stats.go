package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"holdfast/repo"
)

type statsOptions struct {
	dir string
}

func newRepoStats(a *app) *cobra.Command {
	var opt statsOptions
	return &cobra.Command{
		Use:   "stats DIR",
		Short: "Print what a repository holds and what that takes",
		Example: `  holdfast repo stats /srv/backup
  holdfast repo stats /srv/backup --json`,
		Args: takes(false, "DIR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			opt.dir = args[0]
			return a.repoStats(cmd.Context(), opt)
		},
	}
}

type statsListing struct {
	Schema           string  `json:"schema"`
	ID               string  `json:"id"`
	Sealed           bool    `json:"sealed"`
	Machines         int     `json:"machines"`
	Points           int     `json:"points"`
	Disks            int     `json:"disks"`
	LogicalBytes     int64   `json:"logicalBytes"`
	ReferencedBytes  int64   `json:"referencedBytes"`
	UniqueBytes      int64   `json:"uniqueBytes"`
	Chunks           int64   `json:"chunks"`
	Patches          int64   `json:"patches"`
	Nodes            int64   `json:"nodes"`
	ChunkBytes       int64   `json:"chunkBytes"`
	NodeBytes        int64   `json:"nodeBytes"`
	Packs            int64   `json:"packs"`
	PackBytes        int64   `json:"packBytes"`
	OverheadBytes    int64   `json:"overheadBytes"`
	PacksPerTiB      float64 `json:"packsPerTiB"`
	IndexBytes       int64   `json:"indexBytes"`
	UncommittedPacks int64   `json:"uncommittedPacks"`
	UncommittedBytes int64   `json:"uncommittedBytes"`
	LedgerSegments   uint64  `json:"ledgerSegments"`
}

func (a *app) repoStats(ctx context.Context, opt statsOptions) error {
	return a.reading(ctx, opt.dir, func(r *repo.Repository) error {
		s, err := r.Stats(ctx)
		if err != nil {
			return err
		}
		if a.json {
			return a.printJSON(statsListing{
				"holdfast.stats/1", r.Info().ID, r.Info().Sealed, s.Machines, s.Points, s.Disks, s.LogicalBytes, s.ReferencedBytes,
				s.UniqueBytes, s.Chunks, s.Patches, s.Nodes, s.ChunkBytes, s.NodeBytes, s.Packs, s.PackBytes, s.OverheadBytes(),
				s.PacksPerTiB(), s.IndexBytes, s.UncommittedPacks, s.UncommittedBytes, s.LedgerSegments,
			})
		}
		return a.printStats(r.Info(), &s)
	})
}

func (a *app) printStats(info repo.Info, s *repo.Stats) error {
	f := newFields(a.out)
	f.add("repository", "%s, sealed %v", info.ID, info.Sealed)
	f.add("signed by", "%s", info.SignerFingerprint)
	f.add("points", "%d of %d machines, %d disks", s.Points, s.Machines, s.Disks)
	f.add("disks", "%s, of which %s are not holes", formatSize(s.LogicalBytes), formatSize(s.ReferencedBytes))
	f.add("different", "%s in %d chunks%s", formatSize(s.UniqueBytes), s.Chunks+s.Patches, share(s.ReferencedBytes, s.UniqueBytes))
	f.add("stored", "%s%s, and %s of nodes", formatSize(s.ChunkBytes), share(s.UniqueBytes, s.ChunkBytes), formatSize(s.NodeBytes))
	f.add("packs", "%d, %s, of which %s parity and tables; %.0f in a TiB", s.Packs, formatSize(s.PackBytes), formatSize(s.OverheadBytes()), s.PacksPerTiB())
	f.add("index", "%s", formatSize(s.IndexBytes))
	f.add("ledger", "%d segments", s.LedgerSegments)
	if s.UncommittedPacks > 0 {
		f.add("unfinished runs", "%d packs, %s, for their next run", s.UncommittedPacks, formatSize(s.UncommittedBytes))
	}
	return f.end()
}

// share says how many times smaller a part is, nothing where there is none.
func share(whole, part int64) string {
	if part <= 0 || whole <= 0 {
		return ""
	}
	return fmt.Sprintf(" (1 : %.2f)", float64(whole)/float64(part))
}
