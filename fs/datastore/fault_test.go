package datastore

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"syscall"
	"testing"

	"holdfast/fs"
	"holdfast/repo/vfs"
)

// TestFaults lets one operation fail, and then another one: a change either is
// answered and stays, or fails and is not there; what the store shows is what
// it has, also after a power cut; and after the first failure it goes on.
func TestFaults(t *testing.T) {
	count := func() int {
		w := newWorld(1)
		if err := w.begin(); err != nil {
			t.Fatal(err)
		}
		if err := w.work(40); err != nil {
			t.Fatal(err)
		}
		if err := w.s.Close(); err != nil {
			t.Fatal(err)
		}
		return w.disk.Count()
	}()
	w := newWorld(1)
	if err := w.begin(); err != nil {
		t.Fatal(err)
	}
	first := w.disk.Count()
	if err := w.s.Close(); err != nil {
		t.Fatal(err)
	}
	every := 19
	if long {
		every = 1
	}
	failures := 0
	for at := first; at < count; at += every {
		failures += faultAt(t, at)
	}
	t.Logf("%d changes failed", failures)
	if failures < (count-first)/every/2 {
		t.Errorf("of %d faults %d were noticed", (count-first)/every, failures)
	}
}

// begin makes a store with a session.
func (w *world) begin() (err error) {
	if err = Create(w.disk, w.opt); err != nil {
		return err
	}
	if w.s, err = Open(w.disk, w.opt); err != nil {
		return err
	}
	return w.do("add a session", none, func() error { return w.session("first") })
}

// faultAt lets the operation of that number fail, and every 50th later.
func faultAt(t *testing.T, at int) (failures int) {
	t.Helper()
	w := newWorld(1)
	if err := w.begin(); err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		w.disk.FailAt(at+50*i, syscall.EIO)
	}
	bad := func(format string, args ...any) {
		t.Helper()
		op := w.disk.Ops()[at]
		t.Errorf("fault at %d, %v: "+format, append([]any{at, op}, args...)...)
	}
	for range 40 {
		before := maps.Clone(w.acked)
		err := w.change()
		if err == nil {
			continue
		}
		failures++
		if strings.HasPrefix(err.Error(), "open again") {
			return failures // it could not be opened, or not closed: elsewhere
		}
		now, derr := dump(w.s)
		if derr != nil {
			// The file that failed may not be opened: only it.
			if !errors.Is(derr, syscall.EIO) {
				bad("after %v the store can't be read: %v", err, derr)
			}
			return failures
		}
		if lost := missing(before, now); len(lost) > 1 {
			bad("after %v these are not as they were: %q", err, lost)
		}
		w.mu.Lock()
		w.acked = now
		w.mu.Unlock()
	}
	live, err := dump(w.s)
	if err != nil {
		return failures
	}
	mem := w.mem.CrashClone(vfs.CrashOptions{})
	_ = w.s.Close() // may fail too
	s, err := Open(mem, w.opt)
	if err != nil {
		bad("can't be opened after a power cut: %v", err)
		return failures
	}
	after, err := dump(s)
	if err != nil {
		bad("can't be read after a power cut: %v", err)
	} else if lost := missing(live, after); len(lost) > failures { // files whose own sync failed
		bad("after a power cut these are not as they were: %q", lost)
	}
	if err := s.Close(); err != nil {
		bad("close after a power cut: %v", err)
	}
	return failures
}

// missing lists objects of which names, IDs or bytes are not as they were, by
// one name each. Directories have changed if a name in them has.
func missing(was, is map[string]fact) (list []string) {
	seen := map[fs.ID]bool{}
	for _, path := range slices.Sorted(maps.Keys(was)) {
		w, g := was[path], is[path]
		if w.attr.IsDir() && g.attr.IsDir() && w.attr.ID == g.attr.ID || seen[w.attr.ID] {
			continue
		}
		if g.attr.ID != w.attr.ID || g.content != w.content || g.cookie != w.cookie {
			seen[w.attr.ID] = true
			list = append(list, fmt.Sprintf("%s (%v)", path, w.attr.ID))
		}
	}
	return list
}
