package repo_test

import (
	"bytes"
	"errors"
	"io/fs"
	"log/slog"
	"strings"
	"syscall"
	"testing"

	"holdfast/repo/repotest"
	"holdfast/repo/vfs"
)

// TestReadOnFullMedium: where there is no room for a lease, everything reads all
// the same, with one warning.
func TestReadOnFullMedium(t *testing.T) {
	for _, full := range []error{syscall.ENOSPC, syscall.EDQUOT} {
		w := base(t, false)
		for _, p := range w.points { // leases that are there could be locked
			if err := w.mem.Remove("leases/" + string(p.ID)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Fatal(err)
			}
		}
		disk := vfs.NewFaulty(w.disk)
		disk.Inject(vfs.Fault{Err: full, Sticky: true})
		var log bytes.Buffer
		opt := w.options()
		opt.Log = slog.New(slog.NewTextHandler(&log, nil))
		repotest.Check(t, disk, opt, w.model())
		if n := strings.Count(log.String(), "\n"); n != 1 || !strings.Contains(log.String(), "without a lease") {
			t.Errorf("%v: %d lines logged, want one:\n%s", full, n, log.String())
		}
	}
}
