package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"holdfast/repo"
)

type keyAdoptOptions struct {
	dir  string
	wait time.Duration
}

func newKeyAdopt(a *app) *cobra.Command {
	var opt keyAdoptOptions
	cmd := &cobra.Command{
		Use:   "adopt DIR",
		Short: "Write a repository whose signing key is lost or elsewhere",
		Long: `Make this machine the writer of a repository whose signing key is not in its
state directory: lost with the machine that had it, or still on another one. A
new key is made, and the ledger says from which segment on it signs. Points made
before stay as they are, signed by the key of then.

The machine that wrote before can't write any more, unless it adopts in turn. Do
this only where you know that it has stopped, and tell those who audit the ledger
the new fingerprint. Interrupted, nothing has changed; do it again.`,
		Example: `  holdfast repo key adopt /srv/backup`,
		Args:    takes(false, "DIR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			opt.dir = args[0]
			return a.keyAdopt(cmd.Context(), opt)
		},
	}
	waitFlag(cmd, &opt.wait)
	return cmd
}

type adoptionListing struct {
	Schema   string      `json:"schema"`
	Signer   string      `json:"signer"`
	Previous string      `json:"previous"` // empty: nothing was to be adopted
	Epoch    uint64      `json:"epoch"`
	Head     headListing `json:"ledgerHead"`
}

func (a *app) keyAdopt(ctx context.Context, opt keyAdoptOptions) error {
	d, err := openDir(opt.dir)
	if err != nil {
		return err
	}
	defer d.Close() //nolint:errcheck // what was written is synced
	state, err := openState()
	if err != nil {
		return err
	}
	defer state.Close() //nolint:errcheck // the same
	did, err := withKeys(a, func(o repo.Options) (repo.Adoption, error) {
		o.State, o.Doing = state, "adoption"
		return repo.Adopt(ctx, d, o, opt.wait)
	})
	if err != nil {
		return fmt.Errorf("%s: %w", opt.dir, err)
	}
	if a.json {
		return a.printJSON(adoptionListing{"holdfast.adoption/1", did.Signer, did.Previous, did.Epoch, listHead(did.Head)})
	}
	if did.Previous == "" {
		a.say("The signing key is in %s already: nothing to adopt.", state.Path())
		return nil
	}
	a.say("The ledger is signed from epoch %d on by a key in %s with the fingerprint", did.Epoch, state.Path())
	a.say("  %s", did.Signer)
	a.say("and was before by")
	a.say("  %s", did.Previous)
	a.say("ledger head %d %s", did.Head.Number, did.Head.Sum)
	return nil
}
