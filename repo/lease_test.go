package repo_test

import (
	"bytes"
	"errors"
	"io/fs"
	"log/slog"
	"strings"
	"syscall"
	"testing"

	"holdfast/repo"
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

// TestPinAgain: a pin whose directory could not be synced is durable once
// pinning it again has succeeded.
func TestPinAgain(t *testing.T) {
	w := base(t, false)
	r, err := repo.Open(t.Context(), w.disk, w.options())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close() //nolint:errcheck // only read
	points, err := r.Points(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	id := points[0].ID
	if err := r.Pin(id, "before"); err != nil { // makes the lease, too
		t.Fatal(err)
	}
	start := w.disk.Count()
	if err := r.Pin(id, "steps"); err != nil {
		t.Fatal(err)
	}
	last := w.disk.Ops()[w.disk.Count()-1]
	if last.Kind != vfs.OpSyncDir {
		t.Fatalf("the last step of a pin is %v", last)
	}
	w.disk.FailAt(2*w.disk.Count()-start-1, syscall.EIO)
	is(t, "pin", r.Pin(id, "again"), syscall.EIO)
	if err := r.Pin(id, "again"); err != nil {
		t.Fatal(err)
	}
	if _, err := w.fork(vfs.CrashOptions{}).mem.Stat("leases/pin-" + string(id) + "-again"); err != nil {
		t.Errorf("after a power cut: %v", err)
	}
}
