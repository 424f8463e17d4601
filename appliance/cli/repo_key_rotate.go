package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"holdfast/repo"
)

type keyRotateOptions struct {
	dir, key string
	secret   secretOptions
	wait     time.Duration
}

func newKeyRotate(a *app) *cobra.Command {
	var opt keyRotateOptions
	cmd := &cobra.Command{
		Use:   "rotate DIR [KEY]",
		Short: "Replace a passphrase or recipient by a new one",
		Long: `Replace a key file by a new one: KEY, or the one that opens the repository with
what was given. The new one is there before the old one goes. No data is written
again, and the master key stays: an older copy of the key file, or of the
repository, still opens with the old passphrase.`,
		Example: `  holdfast repo key rotate /srv/backup --passphrase-file old --new-passphrase-file new
  holdfast repo key rotate /srv/backup key-2 --recipient age1…`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 2 {
				return nil
			}
			return takes(false, "DIR")(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			opt.dir = args[0]
			if len(args) > 1 {
				opt.key = args[1]
			}
			return a.keyRotate(cmd.Context(), opt)
		},
	}
	opt.secret.flags(cmd)
	waitFlag(cmd, &opt.wait)
	return cmd
}

func (a *app) keyRotate(ctx context.Context, opt keyRotateOptions) error {
	if err := opt.secret.check(a); err != nil {
		return err
	}
	return a.owning(ctx, opt.dir, "replacing a key", opt.wait, func(o *repo.Owner) error {
		key, err := opt.secret.options(a)
		if err != nil {
			return err
		}
		added, removed, err := o.RotateKey(ctx, opt.key, key)
		if err != nil {
			return keyHint(err)
		}
		return a.printKeyChange(&added, removed)
	})
}
