package cli

import (
	"context"
	"log/slog"

	"holdfast/fs/guest"
)

// guests returns what makes readers of guests' file systems.
func guests(_ *slog.Logger) func(context.Context) (guest.Reader, error) {
	return func(context.Context) (guest.Reader, error) { return guest.Direct{}, nil }
}
