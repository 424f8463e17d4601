package cli

import (
	"github.com/spf13/cobra"

	"holdfast/repo/ledger"
)

func newRepoLedger(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ledger VERB",
		Short: "Read and verify the signed record of a repository",
		Long: `The ledger is the signed record of what was made in a repository, expired,
removed and repaired: segments, each of which names the digest of the one before.
Its head, a number and a digest, stands for all of it. Every run prints the head;
keep it somewhere else, and "ledger verify --head" tells later whether the ledger
still is a continuation of what it was.

These verbs need no passphrase and no lock.`,
	}
	group(cmd)
	cmd.AddCommand(newLedgerVerify(a), newLedgerHead(a), newLedgerShow(a))
	return cmd
}

// headListing is a ledger's head in JSON.
type headListing struct {
	Number uint64     `json:"number"`
	SHA256 ledger.Sum `json:"sha256"`
}

func listHead(h ledger.Head) headListing { return headListing{h.Number, h.Sum} }
