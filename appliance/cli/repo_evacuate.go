package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"holdfast/repo"
)

type evacuateOptions struct {
	dir  string
	live shareFlag
	wait time.Duration
}

func newRepoEvacuate(a *app) *cobra.Command {
	opt := evacuateOptions{live: repo.DefaultLiveShare}
	cmd := &cobra.Command{
		Use:   "evacuate DIR",
		Short: "Copy what is needed out of locked packs, so that they can go",
		Long: `Copy what is needed out of locked packs of which little is, into new ones. A sweep
removes the old packs when their locks have ended; until then what was copied takes
room twice. Without this, the little that is needed would keep an old pack, and its
lock, for ever.

It may be interrupted at any moment, and runs beside backups and restores: while
another process owns the repository, that one does it.`,
		Example: `  holdfast repo evacuate /srv/backup
  holdfast repo evacuate /srv/backup --live 20%`,
		Args: takes(false, "DIR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			opt.dir = args[0]
			outlivePipes()
			return a.repoEvacuate(cmd.Context(), opt)
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.Var(&opt.live, "live", "empty locked packs of which less than this is needed")
	waitFlag(cmd, &opt.wait)
	return cmd
}

func (a *app) repoEvacuate(ctx context.Context, opt evacuateOptions) error {
	res, err := a.rewrite(ctx, opt.dir, "evacuate", opt.wait, repo.CompactOptions{LiveShare: float64(opt.live)})
	if err != nil {
		return err
	}
	return a.printRewrite(opt.dir, "evacuate", &res, "")
}
