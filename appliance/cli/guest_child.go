package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"holdfast/fs/guest/child"
)

// newGuestChild is the process that reads the file systems in backed-up disks.
func newGuestChild() *cobra.Command {
	return &cobra.Command{
		Use:    child.Verb,
		Short:  "Read the file systems of strangers, for the process that starts this",
		Hidden: true,
		Args:   takes(false),
		RunE: func(*cobra.Command, []string) error {
			if code := child.Main(); code != exitDone {
				return fmt.Errorf("ended with code %d", code) // why stands above it
			}
			return nil
		},
	}
}
