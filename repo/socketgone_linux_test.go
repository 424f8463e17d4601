package repo

import (
	"errors"
	"net"
	"testing"
	"time"

	"holdfast/repo/vfs"
)

// TestOwnerEndsUnasked asks an owner that ends before it has taken the request:
// that is no owner, and whoever asks goes on to become it.
func TestOwnerEndsUnasked(t *testing.T) {
	d, err := vfs.OS(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	l, err := net.Listen("unix", socketPath(d))
	if err != nil {
		t.Fatal(err)
	}
	ending := time.AfterFunc(100*time.Millisecond, func() { _ = l.Close() })
	defer ending.Stop()
	err = askOwner(t.Context(), d, "sweep", nil, nil, nil)
	if !errors.Is(err, errNoOwner) {
		t.Errorf("got %v, want that there is no owner", err)
	}
}
