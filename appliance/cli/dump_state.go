package cli

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"holdfast/repo"
	"holdfast/repo/vfs"
)

// maxStateBytes is the longest file that repo dump state reads.
const maxStateBytes = 1 << 30

func newDumpState(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "state FILE",
		Short: "A run's record, a list of verified packs or of known damage, a checkpoint",
		Args:  takes(false, "FILE"),
		RunE: func(_ *cobra.Command, args []string) error {
			p, err := readSmall(args[0], maxStateBytes)
			if err != nil {
				return err
			}
			s, err := repo.ReadState(p)
			if err != nil {
				err = fmt.Errorf("%s: %w", args[0], err)
			}
			return errors.Join(a.printState(s), err)
		},
	}
}

func newDumpCounts(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "counts DIR",
		Short: "What the reference counts are for, and the packs with bytes nothing needs",
		Args:  takes(false, "DIR"),
		RunE: func(_ *cobra.Command, args []string) error {
			d, err := vfs.OS(args[0])
			if err != nil {
				return err
			}
			defer d.Close() //nolint:errcheck // it was only read
			s, err := repo.ReadCounts(d)
			return errors.Join(a.printState(s), err)
		},
	}
}

// printState prints the head and then a row a line, or all in one object.
func (a *app) printState(s repo.StateFile) error {
	if s.Kind == "" {
		return nil
	}
	if a.json {
		return a.printJSON(struct {
			Schema string `json:"schema"`
			repo.StateFile
		}{"holdfast.state/1", s})
	}
	head, err := json.MarshalIndent(s.Head, "", "  ")
	if err != nil {
		return err
	}
	fmt.Fprintf(a.out, "%s %s\n", s.Kind, head)
	for _, row := range s.Rows {
		line, err := json.Marshal(row)
		if err != nil {
			return err
		}
		fmt.Fprintf(a.out, "%s\n", line)
	}
	return nil
}
