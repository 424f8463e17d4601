package repo_test

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"holdfast/repo"
	"holdfast/repo/repotest"
	"holdfast/repo/vfs"
)

// TestLockedTemporary: a temporary file that somebody has locked keeps nobody
// from writing, and goes when its lock ends.
func TestLockedTemporary(t *testing.T) {
	w := base(t, false)
	const locked, other = "tmp/points-left", "tmp/other"
	for _, name := range []string{locked, other} {
		f, err := w.mem.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.mem.SetLocked(locked, true); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	opt := w.options()
	opt.Log = slog.New(slog.NewTextHandler(&log, nil))
	o, err := repo.Own(t.Context(), w.disk, opt, 0)
	if err != nil {
		t.Fatal(err)
	}
	w.must(t, o, w.next(), nil)
	if err := o.Close(); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(log.String(), "\n"); n != 1 || !strings.Contains(log.String(), locked) {
		t.Errorf("%d lines logged, want one about %s:\n%s", n, locked, log.String())
	}
	left := func() (names []string) {
		err := vfs.Walk(w.mem, "tmp", func(name string, _ vfs.Info) error {
			names = append(names, name)
			return nil
		})
		if err != nil {
			t.Error(err)
		}
		return names
	}
	if got := left(); len(got) != 1 || got[0] != locked {
		t.Errorf("%q is left in tmp/, want %q", got, locked)
	}
	if err := w.mem.SetLocked(locked, false); err != nil {
		t.Fatal(err)
	}
	repotest.CheckAccount(t, w.disk, w.options())
	if got := left(); len(got) != 0 {
		t.Errorf("%q is left in tmp/, want nothing", got)
	}
}
