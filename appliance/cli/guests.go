package cli

import (
	"context"
	"log/slog"

	"holdfast/fs/guest"
	"holdfast/fs/guest/child"
)

// guests returns what makes readers of guests' file systems: each a process of
// its own, which may do nothing else.
func guests(log *slog.Logger) func(context.Context) (guest.Reader, error) {
	return func(ctx context.Context) (guest.Reader, error) {
		c, err := child.Start(ctx, child.Options{Logger: log})
		if err != nil {
			return nil, err // not a nil Child that is a Reader
		}
		return c, nil
	}
}
