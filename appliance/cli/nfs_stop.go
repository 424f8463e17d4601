package cli

import (
	"context"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"holdfast/appliance/recovery"
)

type stopOptions struct {
	state, session string
	yes            bool
}

func newNFSStop(a *app) *cobra.Command {
	var opt stopOptions
	cmd := &cobra.Command{
		Use:   "stop SESSION",
		Short: "End what is published, and drop what was written",
		Long: `End what is published: its directory goes, what the machine wrote since "publish" is
dropped, and the point is pinned no more. Stop the machine before. "keep" makes a
restore point of what was written, "migrate" moves the disks elsewhere; what they made
stays.`,
		Example: `  holdfast nfs stop web1
  holdfast nfs stop web1-test --yes`,
		Args: takes(false, "SESSION"),
		RunE: func(cmd *cobra.Command, args []string) error {
			opt.session = args[0]
			return a.nfsStop(cmd.Context(), opt)
		},
	}
	cmd.Flags().BoolVar(&opt.yes, "yes", false, "don't ask on a terminal")
	stateFlag(cmd, &opt.state)
	return cmd
}

type stoppedListing struct {
	Schema  string           `json:"schema"`
	Session recovery.Session `json:"session"` // as it was
}

func (a *app) nfsStop(ctx context.Context, opt stopOptions) error {
	return askNFS(opt.state, func(c *recovery.Client) error {
		list, err := c.List(ctx)
		if err != nil {
			return err
		}
		i := slices.IndexFunc(list, func(s recovery.Session) bool { return s.Name == opt.session || s.ID == opt.session })
		if i < 0 {
			return fmt.Errorf("%w: %q", recovery.ErrNoSession, opt.session)
		}
		if s := list[i]; !opt.yes && a.interactive() {
			yes, err := a.confirm(fmt.Sprintf("End %s and drop %s that it has written?", s.Name, formatSize(s.UsedBytes)))
			if err != nil || !yes {
				return err
			}
		}
		if err := c.Stop(ctx, opt.session); err != nil {
			return err
		}
		if a.json {
			return a.printJSON(stoppedListing{"holdfast.stopped/1", list[i]})
		}
		a.say("%s has ended; %s that it had written is dropped.", list[i].Name, formatSize(list[i].UsedBytes))
		return nil
	})
}
