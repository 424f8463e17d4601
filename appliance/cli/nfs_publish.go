package cli

import (
	"context"

	"github.com/spf13/cobra"

	"holdfast/appliance/recovery"
)

type publishOptions struct {
	state string
	point string
	uuid  string
	recovery.PublishOptions
}

func newNFSPublish(a *app) *cobra.Command {
	var opt publishOptions
	cmd := &cobra.Command{
		Use:   "publish POINT",
		Short: "Put a restore point into the datastore, ready to start",
		Long: `Put a restore point into the datastore: a directory with the machine's .vmx, a
descriptor and a flat file per disk, and .nvram if the backup has it. The point is
pinned until "stop" or until all its disks are migrated. Nothing is read but the
point's manifest.

The .vmx is the one that "repo backup --file" kept, with its disks found here and
without what belonged to the old place: swap file, change tracking, snapshots, logs,
media in drives. Without one the machine gets a minimal one: 1 processor, 2 GiB,
disks on SATA, no network.

By default the machine is the one it was, with its UUID and network addresses; with
--uuid create the hypervisor gives it others, and --no-network starts it with its
network adapters disconnected, to look at it beside the original.

The hypervisor makes a swap file of the size of the machine's memory. Where there is
no room for it this is refused, unless --swap-dir puts it elsewhere.`,
		Example: `  holdfast nfs publish web1@latest
  holdfast nfs publish 4f6q --name web1-test --uuid create --no-network`,
		Args: takes(false, "POINT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			opt.point = args[0]
			return a.nfsPublish(cmd.Context(), opt)
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&opt.Name, "name", "", "`NAME` of the session, its directory and the machine; default the machine's")
	f.StringVar(&opt.uuid, "uuid", "keep", "keep the machine's UUID and addresses, or create others")
	f.BoolVar(&opt.NoNetwork, "no-network", false, "start with network adapters disconnected")
	f.BoolVar(&opt.EFI, "efi", false, "a machine without .vmx starts by EFI")
	f.StringVar(&opt.SwapDir, "swap-dir", "", "`DIR` on the hypervisor for the swap file")
	f.BoolVar(&opt.NoSwapRoom, "no-swap-room", false, "publish without room for the swap file, as QEMU makes none")
	stateFlag(cmd, &opt.state)
	return cmd
}

type publishedListing struct {
	Schema  string           `json:"schema"`
	Session recovery.Session `json:"session"`
	Server  recovery.Server  `json:"server"`
}

func (a *app) nfsPublish(ctx context.Context, opt publishOptions) error {
	switch opt.uuid {
	case "keep":
	case "create":
		opt.NewUUID = true
	default:
		return usagef("--uuid %s: want keep or create", opt.uuid)
	}
	return askNFS(opt.state, func(c *recovery.Client) error {
		s, err := c.Publish(ctx, opt.point, opt.PublishOptions)
		if err != nil {
			return err
		}
		server, err := c.Status(ctx)
		if err != nil {
			return err
		}
		for _, w := range s.Warnings {
			a.warn("%s", w)
		}
		if a.json {
			return a.printJSON(publishedListing{"holdfast.published/1", s, server})
		}
		a.say("Point %s of %s is published as %s.", s.Point, s.Machine, s.Name)
		for _, l := range append(mountLines(server), machineLines(s)...) {
			a.say("  %s", l)
		}
		return nil
	})
}
