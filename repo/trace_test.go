package repo_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/google/go-cmp/cmp"

	"holdfast/repo"
	"holdfast/repo/vfs"
)

// TestTrace compares the file operations of a session with a golden list: what
// is written, synced and named in which order is the repository's promise.
func TestTrace(t *testing.T) {
	w := base(t, false)
	w.mount()
	p, _ := grown(w)
	if _, err := w.session(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	got := anonymous(vfs.Trace(w.disk.Ops()))
	golden := filepath.Join("testdata", "commit-trace.golden")
	if rewrite() {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("file operations of a backup (-want +got):\n%s", diff)
	}
}

var (
	packNames = regexp.MustCompile(`[0-9a-f]{2}([/-])[0-9a-f]{8}-[0-9a-f]{24}`)
	packDirs  = regexp.MustCompile(`(packs[/-](?:data|meta))/[0-9a-f]{2}\b`)
	ids       = regexp.MustCompile(`\b[a-z2-7]{20}\b`)
)

// anonymous replaces what chance decides in names, the same by the same.
func anonymous(trace string) string {
	trace = packNames.ReplaceAllString(trace, "XX${1}PACK")
	trace = packDirs.ReplaceAllString(trace, "${1}/XX")
	seen := make(map[string]string)
	return ids.ReplaceAllStringFunc(trace, func(id string) string {
		if seen[id] == "" {
			seen[id] = fmt.Sprintf("ID%d", len(seen)+1)
		}
		return seen[id]
	})
}

// TestTraceOrder reads the golden list's promise out of a first backup: every
// pack's bytes are synced before it has its name and its name before the
// segment, the segment before the manifest, twins first.
func TestTraceOrder(t *testing.T) {
	w := newWorld(true, 1)
	if err := w.init(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.mount()
	if err := w.with(t.Context(), func(o *repo.Owner) error { return firstIn(t.Context(), w, o) }); err != nil {
		t.Fatal(err)
	}
	type state struct{ written, synced bool }
	files := make(map[string]*state)
	var named []string // in the order in which names became durable
	renamed := make(map[string][]string)
	for _, op := range w.disk.Ops() {
		switch op.Kind {
		case vfs.OpCreate:
			files[op.Name] = new(state)
		case vfs.OpWrite:
			if f := files[op.Name]; f != nil {
				f.written, f.synced = true, false
			}
		case vfs.OpSync:
			if f := files[op.Name]; f != nil {
				f.synced = true
			}
		case vfs.OpRename:
			if f := files[op.Name]; f == nil || !f.written || !f.synced {
				t.Errorf("%v: its bytes are not synced", op)
			}
			dir := filepath.Dir(op.To)
			renamed[dir] = append(renamed[dir], op.To)
		case vfs.OpSyncDir:
			named = append(named, renamed[op.Name]...)
			delete(renamed, op.Name)
		}
	}
	for dir, names := range renamed {
		t.Errorf("%s was not synced after %v", dir, names)
	}
	rank := func(name string) int {
		for i, pattern := range []string{"runs/*", "packs/*/*/*", "ledger/*.twin", "ledger/*", "points/*.twin", "points/*", "index/*"} {
			if ok, _ := filepath.Match(pattern, name); ok {
				return i
			}
		}
		t.Errorf("%s should not be written", name)
		return -1
	}
	for i := 1; i < len(named); i++ {
		if rank(named[i]) < rank(named[i-1]) {
			t.Errorf("%s became durable after %s", named[i], named[i-1])
		}
	}
	if len(named) < 9 {
		t.Errorf("%d files became durable, there should be more: %v", len(named), named)
	}
}
