package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"holdfast/repo"
)

type keyAddOptions struct {
	dir    string
	secret secretOptions
	wait   time.Duration
}

func newKeyAdd(a *app) *cobra.Command {
	var opt keyAddOptions
	cmd := &cobra.Command{
		Use:   "add DIR",
		Short: "Let another passphrase or recipient open a repository",
		Long: `Let another passphrase, or an age recipient, open a sealed repository. What opens
it now must be given too, by --passphrase-file or --identity-file. No data is
written again.`,
		Example: `  holdfast repo key add /srv/backup --recipient age1… --label "the vault"
  holdfast repo key add /srv/backup --passphrase-file old --new-passphrase-file new`,
		Args: takes(false, "DIR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			opt.dir = args[0]
			return a.keyAdd(cmd.Context(), opt)
		},
	}
	opt.secret.flags(cmd)
	waitFlag(cmd, &opt.wait)
	return cmd
}

func (a *app) keyAdd(ctx context.Context, opt keyAddOptions) error {
	if err := opt.secret.check(a); err != nil {
		return err
	}
	return a.owning(ctx, opt.dir, "adding a key", opt.wait, func(o *repo.Owner) error {
		key, err := opt.secret.options(a)
		if err != nil {
			return err
		}
		added, err := o.AddKey(ctx, key)
		if err != nil {
			return err
		}
		return a.printKeyChange(&added, "")
	})
}
