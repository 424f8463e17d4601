package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"holdfast/appliance/recovery"
)

type migrateOptions struct {
	state, session string
	to             string
	disks          []string
}

func newNFSMigrate(a *app) *cobra.Command {
	var opt migrateOptions
	cmd := &cobra.Command{
		Use:   "migrate SESSION --to DIR | --disk NAME=PATH…",
		Short: "Move the disks of what runs to where they are to stay",
		Long: `Copy the disks of a published machine, while it runs, to files or block devices of
this machine, read the copy back, and switch over: from then on what the machine reads
and writes is there, under the same file handles. When all its disks are, the restore
point is pinned no more.

--to DIR makes a raw file of each disk in DIR, called as in the datastore. --disk
NAME=PATH is for one disk: a file that isn't there yet, or a block device that nothing
uses and that is as large as the disk or larger; what it holds is gone.

What is interrupted is begun again with the same command; what the target has already
is not written again. If the target fails, the machine goes on as before.

Moving a machine to another datastore of the hypervisor is the hypervisor's own to do,
while it runs from here.`,
		Example: `  holdfast nfs migrate web1 --to /srv/machines/web1
  holdfast nfs migrate web1 --disk root=/dev/vg0/web1 --disk data=/dev/vg0/web1-data`,
		Args: takes(false, "SESSION"),
		RunE: func(cmd *cobra.Command, args []string) error {
			opt.session = args[0]
			outlivePipes()
			return a.nfsMigrate(cmd.Context(), opt)
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&opt.to, "to", "", "`DIR` for a file of each disk")
	f.StringArrayVar(&opt.disks, "disk", nil, "`NAME=PATH` of one disk; may be repeated")
	stateFlag(cmd, &opt.state)
	return cmd
}

type migratedListing struct {
	Schema  string           `json:"schema"`
	Session recovery.Session `json:"session"`
}

func (a *app) nfsMigrate(ctx context.Context, opt migrateOptions) error {
	to := make(map[string]string)
	if (opt.to == "") == (len(opt.disks) == 0) {
		return usagef("want --to DIR or --disk NAME=PATH")
	}
	args, err := parseDisks(opt.disks)
	if err != nil {
		return err
	}
	for _, d := range args {
		if to[d.name], err = filepath.Abs(d.path); err != nil {
			return err
		}
	}
	return askNFS(opt.state, func(c *recovery.Client) error {
		if opt.to != "" {
			if to, err = intoDirectory(ctx, c, opt); err != nil {
				return err
			}
		}
		b := &bar{app: a, what: "migration of " + opt.session}
		s, err := c.Migrate(ctx, opt.session, to, func(p recovery.Progress) { b.at(p.DoneBytes, p.Total) })
		b.end(err == nil)
		if err != nil {
			return err
		}
		if a.json {
			return a.printJSON(migratedListing{"holdfast.migrated/1", s})
		}
		for _, d := range s.Disks {
			if _, moved := to[d.Name]; moved {
				a.say("Disk %s is at %s.", d.Name, d.Target)
			}
		}
		if !slices.ContainsFunc(s.Disks, func(d recovery.DiskStatus) bool { return !d.Migrated }) {
			a.say(`All of %s is there; "holdfast nfs stop %s" ends the session.`, s.Name, shellQuote(s.Name))
		}
		return nil
	})
}

// intoDirectory names a file in a directory for each disk that is not elsewhere
// already.
func intoDirectory(ctx context.Context, c *recovery.Client, opt migrateOptions) (map[string]string, error) {
	dir, err := filepath.Abs(opt.to)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	list, err := c.List(ctx)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(list, func(s recovery.Session) bool { return s.Name == opt.session || s.ID == opt.session })
	if i < 0 {
		return nil, fmt.Errorf("%w: %q", recovery.ErrNoSession, opt.session)
	}
	to := make(map[string]string)
	for _, d := range list[i].Disks {
		if !d.Migrated {
			to[d.Name] = filepath.Join(dir, d.File)
		}
	}
	if len(to) == 0 {
		return nil, errors.New("all disks are elsewhere already")
	}
	return to, nil
}
