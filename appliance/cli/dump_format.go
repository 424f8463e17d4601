package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"holdfast/repo/seal"
)

const maxLineBytes = 1 << 20

func newDumpFormat(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "format FILE",
		Short: "Settings or a key file: format.json, keys/NAME",
		Args:  takes(false, "FILE"),
		RunE:  func(_ *cobra.Command, args []string) error { return a.dumpFormat(args[0]) },
	}
}

// dumpFormat prints a line of JSON that ends in its own digest.
func (a *app) dumpFormat(name string) error {
	p, err := readSmall(name, maxLineBytes)
	if err != nil {
		return err
	}
	if !json.Valid(p) {
		return fmt.Errorf("%s: not JSON", name)
	}
	_, err = seal.CutCheck(p)
	if err != nil {
		err = fmt.Errorf("%s: %w", name, err)
	}
	if a.json {
		return errors.Join(a.printJSON(struct {
			Schema string          `json:"schema"`
			Whole  bool            `json:"whole"`
			Line   json.RawMessage `json:"line"`
		}{"holdfast.format/1", err == nil, bytes.TrimSpace(p)}), err)
	}
	fmt.Fprintln(a.out, indented(bytes.TrimSpace(p)))
	return err
}
