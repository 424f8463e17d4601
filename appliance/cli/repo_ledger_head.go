package cli

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"holdfast/repo"
)

type ledgerHeadOptions struct {
	dir string
}

func newLedgerHead(a *app) *cobra.Command {
	var opt ledgerHeadOptions
	return &cobra.Command{
		Use:   "head DIR",
		Short: "Print the head of the ledger",
		Long: `Print the number and the digest of the last segment, as "ledger verify --head"
takes them. Nothing before it is read.`,
		Example: `  holdfast repo ledger head /srv/backup | mail -s head auditor`,
		Args:    takes(false, "DIR"),
		RunE: func(_ *cobra.Command, args []string) error {
			opt.dir = args[0]
			return a.ledgerHead(opt)
		},
	}
}

type ledgerHeadListing struct {
	Schema string      `json:"schema"`
	Head   headListing `json:"ledgerHead"`
	Time   time.Time   `json:"time"`
}

func (a *app) ledgerHead(opt ledgerHeadOptions) error {
	d, err := openDir(opt.dir)
	if err != nil {
		return err
	}
	defer d.Close() //nolint:errcheck // it was only read
	head, at, err := repo.LedgerHead(d)
	if err != nil {
		return fmt.Errorf("%s: %w", opt.dir, err)
	}
	if a.json {
		return a.printJSON(ledgerHeadListing{"holdfast.head/1", listHead(head), at.UTC()})
	}
	_, err = fmt.Fprintf(a.out, "%d %s\n", head.Number, head.Sum)
	return err
}
