package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"holdfast/repo"
)

type keyImportOptions struct {
	dir   string
	paper string
	wait  time.Duration
}

func newKeyImport(a *app) *cobra.Command {
	var opt keyImportOptions
	cmd := &cobra.Command{
		Use:   "import DIR --paper FILE",
		Short: "Put back key files that were typed in from paper",
		Long: `Put key files back into a repository that has lost them, from what "repo key
export --paper" printed. FILE holds the lines from "begin key" to "end" as they
were typed in, or the whole sheet. White space, hyphens and case mean nothing. A
line that was mistyped is named. The passphrase stays what it was.`,
		Example: `  holdfast repo key import /srv/backup --paper typed.txt`,
		Args:    takes(false, "DIR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			opt.dir = args[0]
			return a.keyImport(cmd.Context(), opt)
		},
	}
	cmd.Flags().StringVar(&opt.paper, "paper", "", "`FILE` that was typed in")
	waitFlag(cmd, &opt.wait)
	return cmd
}

type importListing struct {
	Schema string   `json:"schema"`
	Keys   []string `json:"keys"`
}

const maxSheetBytes = 4 << 20

func (a *app) keyImport(ctx context.Context, opt keyImportOptions) error {
	if opt.paper == "" {
		return usagef("--paper is missing")
	}
	text, err := readSmall(opt.paper, maxSheetBytes)
	if err != nil {
		return err
	}
	keys, err := repo.ParsePaper(text)
	if err != nil {
		return fmt.Errorf("%s: %w", opt.paper, err)
	}
	d, err := openDir(opt.dir)
	if err != nil {
		return err
	}
	defer d.Close() //nolint:errcheck // what was written is synced
	names, err := repo.ImportKeys(ctx, d, keys, opt.wait)
	if errors.Is(err, repo.ErrPaper) {
		err = withHint(err, "the sheet is that of another repository")
	}
	if err != nil {
		return fmt.Errorf("%s: %w", opt.dir, err)
	}
	if a.json {
		return a.printJSON(importListing{"holdfast.keyimport/1", names})
	}
	for _, name := range names {
		a.say("Key %s is there.", name)
	}
	return nil
}
