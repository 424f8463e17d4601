package cli

import (
	"context"
	"errors"
	"time"

	"github.com/spf13/cobra"

	"holdfast/repo"
)

type keyRemoveOptions struct {
	dir, key string
	wait     time.Duration
}

func newKeyRemove(a *app) *cobra.Command {
	var opt keyRemoveOptions
	cmd := &cobra.Command{
		Use:   "remove DIR KEY",
		Short: "Remove a key file",
		Long: `Remove a key file, so that its passphrase or recipient opens this directory no
more. The last one stays. A copy of the file, or an older copy of the repository,
still opens with what was removed: the master key stays as it is, so whoever must
lose access for good needs a new repository.`,
		Example: `  holdfast repo key list /srv/backup
  holdfast repo key remove /srv/backup key-2`,
		Args: takes(false, "DIR", "KEY"),
		RunE: func(cmd *cobra.Command, args []string) error {
			opt.dir, opt.key = args[0], args[1]
			return a.keyRemove(cmd.Context(), opt)
		},
	}
	waitFlag(cmd, &opt.wait)
	return cmd
}

func (a *app) keyRemove(ctx context.Context, opt keyRemoveOptions) error {
	return a.owning(ctx, opt.dir, "removing a key", opt.wait, func(o *repo.Owner) error {
		if err := o.RemoveKey(ctx, opt.key); err != nil {
			return keyHint(err)
		}
		return a.printKeyChange(nil, opt.key)
	})
}

// keyHint says where the names of keys are listed.
func keyHint(err error) error {
	if errors.Is(err, repo.ErrNotFound) {
		return withHint(err, `"holdfast repo key list DIR" lists the keys`)
	}
	return err
}
