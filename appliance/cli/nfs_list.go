package cli

import (
	"context"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"holdfast/appliance/recovery"
)

func newNFSList(a *app) *cobra.Command {
	var state string
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List what is published",
		Long: `List what is published: of which point, since when, in what state, how much was
written and how much still can be. Warnings stand below.`,
		Example: `  holdfast nfs list
  holdfast nfs list --json`,
		Args: takes(false),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.nfsList(cmd.Context(), state) },
	}
	stateFlag(cmd, &state)
	return cmd
}

type sessionsListing struct {
	Schema   string             `json:"schema"`
	Server   recovery.Server    `json:"server"`
	Sessions []recovery.Session `json:"sessions"`
}

func (a *app) nfsList(ctx context.Context, state string) error {
	return askNFS(state, func(c *recovery.Client) error {
		server, err := c.Status(ctx)
		if err != nil {
			return err
		}
		list, err := c.List(ctx)
		switch {
		case err != nil:
			return err
		case a.json:
			return a.printJSON(sessionsListing{"holdfast.sessions/1", server, list})
		case len(list) == 0:
			a.say("Nothing is published.")
			return nil
		}
		return a.printSessions(list)
	})
}

func (a *app) printSessions(list []recovery.Session) error {
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "SESSION\tMACHINE\tPOINT\tOF\tSINCE\tSTATE\tWRITTEN\tFREE")
	for _, s := range list {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", s.Name, s.Machine, s.Point, day(s.PointTime), day(s.Published), stateText(s),
			formatSize(s.UsedBytes), formatSize(s.FreeBytes))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, s := range list {
		for _, d := range s.Disks {
			if d.Migrated {
				a.say("%s: disk %s is at %s", s.Name, d.Name, d.Target)
			}
		}
		for _, k := range s.Kept {
			a.say("%s: kept as %s of %s, %s", s.Name, k.Point, k.Machine, day(k.Time))
		}
		if s.Error != "" {
			a.say("%s: %s", s.Name, s.Error)
		}
		for _, text := range s.Warnings {
			a.say("%s: %s", s.Name, text)
		}
		if s.Seconds > 0 && s.Seconds < 24*3600 && len(s.Warnings) > 0 {
			a.say("%s: at this pace for %s", s.Name, time.Duration(s.Seconds*float64(time.Second)).Round(time.Second))
		}
	}
	return nil
}

// stateText is a session's state, and what is being done with it.
func stateText(s recovery.Session) string {
	if s.Doing != "" {
		return s.State + ", " + s.Doing
	}
	return s.State
}
