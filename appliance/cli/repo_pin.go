package cli

import (
	"context"
	"slices"

	"github.com/spf13/cobra"

	"holdfast/repo"
)

type pinOptions struct {
	dir, point, name string
}

// defaultPin is the name of a pin that was given none.
const defaultPin = "pin"

func newRepoPin(a *app) *cobra.Command {
	var opt pinOptions
	cmd := &cobra.Command{
		Use:   "pin DIR POINT",
		Short: "Keep a restore point whatever retention says",
		Long: `Keep a restore point, whatever retention says, until "unpin" takes the pin away. A
point may have several pins of different names. The name is in clear, also in a
sealed repository. Pinning needs no lock.`,
		Example: `  holdfast repo pin /srv/backup db1@latest
  holdfast repo pin /srv/backup db1@2026-12-31 --name "annual accounts 2026"`,
		Args: takes(false, "DIR", "POINT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			opt.dir, opt.point = args[0], args[1]
			return a.repoPin(cmd.Context(), opt)
		},
	}
	cmd.Flags().StringVar(&opt.name, "name", defaultPin, "`WHY`: the pin's name")
	return cmd
}

func newRepoUnpin(a *app) *cobra.Command {
	var opt pinOptions
	cmd := &cobra.Command{
		Use:   "unpin DIR POINT",
		Short: "Take a pin away",
		Long: `Take a pin away. Without --name the point must have just one. The point stays until
retention or "expire" lets it go.`,
		Example: `  holdfast repo unpin /srv/backup db1@latest
  holdfast repo unpin /srv/backup 4f6q --name "annual accounts 2026"`,
		Args: takes(false, "DIR", "POINT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			opt.dir, opt.point = args[0], args[1]
			return a.repoUnpin(cmd.Context(), opt)
		},
	}
	cmd.Flags().StringVar(&opt.name, "name", "", "`WHY`: the pin's name")
	return cmd
}

type pinsListing struct {
	Schema string       `json:"schema"`
	Point  repo.PointID `json:"point"`
	Pins   []string     `json:"pins"` // those there are now
}

func (a *app) repoPin(ctx context.Context, opt pinOptions) error {
	return a.pinning(ctx, opt, func(r *repo.Repository, p repo.Point, _ []string) error {
		return r.Pin(p.ID, opt.name)
	})
}

func (a *app) repoUnpin(ctx context.Context, opt pinOptions) error {
	return a.pinning(ctx, opt, func(r *repo.Repository, p repo.Point, pins []string) error {
		name := opt.name
		switch {
		case name == "" && len(pins) == 0:
			return withHint(usagef("point %s is not pinned", p.ID), `"holdfast repo points DIR" shows the pins`)
		case name == "" && len(pins) > 1:
			return withHint(usagef("point %s has %d pins", p.ID, len(pins)), "say which with --name: %q", pins)
		case name == "":
			name = pins[0]
		case !slices.Contains(pins, name):
			return withHint(usagef("point %s has no pin %q", p.ID, name), "it has %q", pins)
		}
		return r.Unpin(p.ID, name)
	})
}

// pinning changes a point's pins, and shows what it has then.
func (a *app) pinning(ctx context.Context, opt pinOptions, change func(*repo.Repository, repo.Point, []string) error) error {
	return a.reading(ctx, opt.dir, func(r *repo.Repository) error {
		p, err := r.Find(ctx, opt.point, nil)
		if err != nil {
			return err
		}
		pins, err := r.Pins(p.ID)
		if err != nil {
			return err
		}
		if err := change(r, p, pins); err != nil {
			return err
		}
		if pins, err = r.Pins(p.ID); err != nil {
			return err
		}
		if a.json {
			return a.printJSON(pinsListing{"holdfast.pins/1", p.ID, nonNil(pins)})
		}
		if len(pins) == 0 {
			a.say("Point %s of %s is not pinned any more.", p.ID, p.Machine)
		} else {
			a.say("Point %s of %s is pinned by %q.", p.ID, p.Machine, pins)
		}
		return nil
	})
}
