package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"holdfast/appliance/recovery"
)

type keepOptions struct {
	state, session string
	as             string
	same           bool
	wait           time.Duration
}

func newNFSKeep(a *app) *cobra.Command {
	var opt keepOptions
	cmd := &cobra.Command{
		Use:   "keep SESSION",
		Short: "Make a new restore point of what runs",
		Long: `Make a new restore point of a published machine as it is now, while it runs: all
disks at one instant, as after a power cut, its .vmx and its .nvram. Only what was
written is read. The point's parent is the one that was published; the session goes
on.

It is a point of another machine, called as the original with "-recovered" behind it,
or as --as says. With --same it is the latest point of the original itself.

Where another process owns the repository, that makes the point.`,
		Example: `  holdfast nfs keep web1
  holdfast nfs keep web1 --as web1-repaired
  holdfast nfs keep web1 --same`,
		Args: takes(false, "SESSION"),
		RunE: func(cmd *cobra.Command, args []string) error {
			opt.session = args[0]
			outlivePipes()
			return a.nfsKeep(cmd.Context(), opt)
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&opt.as, "as", "", "`NAME` of the machine that the point is of")
	f.BoolVar(&opt.same, "same", false, "make it the latest point of the original machine")
	f.DurationVar(&opt.wait, "wait", 0, "how long to wait while another process owns the repository and can't be asked")
	stateFlag(cmd, &opt.state)
	return cmd
}

type keptListing struct {
	Schema string `json:"schema"`
	recovery.KeptRun
}

func (a *app) nfsKeep(ctx context.Context, opt keepOptions) error {
	switch {
	case opt.as != "" && opt.same:
		return usagef("--as and --same: want one of them")
	case opt.wait < 0:
		return usagef("--wait %s is negative", opt.wait)
	}
	return askNFS(opt.state, func(c *recovery.Client) error {
		b := &bar{app: a, what: "keep of " + opt.session}
		k, err := c.Keep(ctx, opt.session, recovery.KeepOptions{As: opt.as, Same: opt.same, Wait: opt.wait},
			func(p recovery.Progress) { b.at(p.DoneBytes, p.Total) })
		b.end(err == nil)
		if err != nil {
			return err
		}
		for _, w := range k.Warnings {
			a.warn("%s", w)
		}
		if a.json {
			return a.printJSON(keptListing{"holdfast.kept/1", k})
		}
		if a.quiet {
			_, err := fmt.Fprintln(a.out, k.Point)
			return err
		}
		var read, stored int64
		for _, d := range k.Disks {
			read, stored = read+d.ReadBytes, stored+d.NewBytes
		}
		a.say("Point %s of %s: %s read, %s of that new.", k.Point, k.Machine, formatSize(read), formatSize(stored))
		return nil
	})
}
