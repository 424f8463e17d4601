package refcount

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"holdfast/repo/chunk"
	"holdfast/repo/vfs"
)

var errClosed = fs.ErrClosed

func wantErr(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("got %v, want %v", err, want)
	}
}

// story is a row of changes as an owner makes them, and what the table must be
// after every Commit.
type story struct {
	ids     []chunk.ID
	commits []*model // 0 is the empty table; the payload is the place
	done    int      // the newest of which a Commit has returned
	live    *model
}

func newStory() *story {
	return &story{ids: universe(500), commits: []*model{newModel()}, live: newModel()}
}

// small keeps files and deltas small, so that there is much to do.
var small = Options{CacheBytes: 64 << 10, MaxDelta: 30, floorRows: 20}

// tell plays the story; each step's error goes to fail, which is nil if there
// must be none. What failed is tried again.
func (s *story) tell(t *testing.T, x *Table, fail func(error)) {
	r := rand.New(rand.NewPCG(8, 8))
	step := func(do func() error) {
		err := do()
		if err == nil {
			return
		}
		if fail == nil {
			t.Fatal(err)
		}
		fail(err)
		must(t, do())
	}
	for i := range 18 {
		for range r.IntN(80) {
			id, change := s.ids[r.IntN(len(s.ids))], int32(1+r.IntN(3))
			if s.live.counts[key(id[:PrefixBytes])] > 3 {
				change = -change
			}
			step(func() error { return x.Add(id, change) })
			s.live.add(id, change)
		}
		switch {
		case i == 10, i == 14:
			step(x.Rollback)
			s.live = s.commits[len(s.commits)-1].clone()
			continue
		case i == 12:
			step(x.Reset)
			s.live = newModel()
			continue
		}
		payload := fmt.Appendf(nil, "%d", len(s.commits))
		s.live = s.live.committed(payload)
		s.commits = append(s.commits, s.live.clone()) // a crash may leave it from now on
		step(func() error { return x.Commit(payload) })
		s.done = len(s.commits) - 1
	}
}

// leastOps is how many operations the story must have, so that the tests below
// stop at as many places.
const leastOps = 200

// TestCrash cuts the power before every operation of the story.
func TestCrash(t *testing.T) {
	mem := newMem(t)
	fsys := vfs.NewFaulty(mem)
	s := newStory()
	var seed uint64
	fsys.OnOp(func(int, vfs.Op) {
		seed++
		for _, opt := range vfs.Crashes(2*seed, 2*seed+1) {
			s.afterCrash(t, mem.CrashClone(opt), opt)
		}
	})
	s.tell(t, own(t, fsys, small), nil)
	t.Logf("stopped at %d operations", seed)
	if seed < leastOps {
		t.Errorf("stopped at %d operations, want at least %d", seed, leastOps)
	}
}

// afterCrash holds what is left to the last Commit that returned, or to the one
// under way.
func (s *story) afterCrash(t *testing.T, mem *vfs.Mem, opt vfs.CrashOptions) {
	t.Helper()
	reader := read(t, mem, small)
	got := s.place(reader)
	if got < s.done || reader.Skipped() != nil {
		t.Fatalf("crash with %v: commit %d, want one from %d on; skipped: %v", opt, got, s.done, reader.Skipped())
	}
	s.commits[got].check(t, reader, s.ids[:10])
	must(t, reader.Close())

	emptyTmp(t, mem)
	x := own(t, mem, small)
	s.commits[got].check(t, x, nil)
	accounted(t, mem, x)
	want := s.commits[got].clone()
	must(t, x.Add(s.ids[0], 5))
	want.add(s.ids[0], 5)
	must(t, x.Commit([]byte("on")))
	want.committed([]byte("on")).check(t, x, nil)
	accounted(t, mem, x)
	must(t, x.Close())
}

// place returns the commit that a table is of, by its payload.
func (s *story) place(x *Table) (i int) {
	if p := x.Payload(); p != nil {
		fmt.Sscan(string(p), &i)
	}
	return i
}

// emptyTmp does what the owner of a repository does when it opens.
func emptyTmp(tb testing.TB, fsys vfs.FS) {
	tb.Helper()
	infos, err := fsys.ReadDir(vfs.TempDir)
	must(tb, err)
	for _, info := range infos {
		must(tb, fsys.Remove(vfs.TempDir+"/"+info.Name))
	}
}

// TestFaults lets every operation of the story fail, in one of two ways. What
// failed changed nothing, and succeeds when it is tried again.
func TestFaults(t *testing.T) {
	fsys := vfs.NewFaulty(newMem(t))
	newStory().tell(t, own(t, fsys, small), nil)
	count := fsys.Count()
	if count < leastOps {
		t.Fatalf("%d operations, want at least %d", count, leastOps)
	}
	for at := 2; at < count; at++ { // the first two make the directory
		fault := vfs.Fault{At: at, Err: syscall.ENOSPC, Partial: -1}
		if at%3 == 0 {
			fault = vfs.Fault{At: at, Err: syscall.EIO, Done: true}
		}
		survive(t, fault)
	}
	t.Logf("failed %d operations", count-2)
}

func survive(t *testing.T, fault vfs.Fault) {
	t.Helper()
	mem := newMem(t)
	fsys := vfs.NewFaulty(mem)
	fsys.Inject(fault)
	x := own(t, fsys, small)
	s := newStory()
	var failed error
	s.tell(t, x, func(err error) {
		if failed != nil || !errors.Is(err, fault.Err) {
			t.Fatalf("operation %d: %v, after %v", fault.At, err, failed)
		}
		failed = err
		y := read(t, mem, small)
		s.commits[s.place(y)].check(t, y, s.ids[:10])
		must(t, y.Close())
	})
	if failed == nil {
		t.Fatalf("operation %d failed and nobody heard of it", fault.At)
	}
	s.live.check(t, x, s.ids[:20])
	must(t, x.Close())
	emptyTmp(t, mem) // of a removal that failed
	x = own(t, mem, small)
	s.live.check(t, x, s.ids)
	accounted(t, mem, x)
	must(t, x.Close())
}

// TestRollbackAfterFault takes back a Commit that failed at any operation: the
// table is that before, and what the Commit wrote is gone.
func TestRollbackAfterFault(t *testing.T) {
	for at := 0; ; at++ {
		mem := newMem(t)
		fsys := vfs.NewFaulty(mem)
		x := own(t, fsys, small)
		ids := universe(300)
		want := newModel()
		for _, id := range ids[:200] {
			must(t, x.Add(id, 1))
			want.add(id, 1)
		}
		must(t, x.Commit([]byte("a")))
		want = want.committed([]byte("a"))
		for _, id := range ids[100:] {
			must(t, x.Add(id, 1))
		}
		start := fsys.Count()
		fsys.Inject(vfs.Fault{At: start + at, Err: syscall.ENOSPC, Done: at%2 == 0})
		err := x.Commit([]byte("b"))
		if err == nil {
			if fsys.Count() > start+at {
				t.Fatalf("operation %d failed and nobody heard of it", at)
			}
			if at < 12 {
				t.Errorf("only %d operations", at)
			}
			return
		}
		committed := string(x.Payload()) == "b"
		must(t, x.Rollback())
		if committed {
			for _, id := range ids[100:] {
				want.add(id, 1)
			}
			want = want.committed([]byte("b"))
		}
		want.check(t, x, ids)
		emptyTmp(t, mem) // of a removal that failed
		accounted(t, mem, x)
		must(t, x.Close())
		y := read(t, mem, small)
		want.check(t, y, ids)
		must(t, y.Close())
	}
}

// TestCommitOps holds the order of operations of a commit that merges: the new
// file, the new list, and only then the old ones go.
func TestCommitOps(t *testing.T) {
	fsys := vfs.NewFaulty(newMem(t))
	x := own(t, fsys, Options{})
	must(t, x.Add(testID(1), 1))
	must(t, x.Commit(nil))
	before := fsys.Count()
	must(t, x.Add(testID(2), 1))
	must(t, x.Commit(nil))
	var b strings.Builder
	for _, op := range fsys.Ops()[before:] {
		b.WriteString(op.String() + "\n")
	}
	golden(t, "commit.ops", []byte(b.String()))
}

// golden compares bytes with a file in testdata, which -update rewrites.
func golden(tb testing.TB, name string, got []byte) {
	tb.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		must(tb, os.MkdirAll("testdata", 0o777))
		must(tb, os.WriteFile(path, got, 0o666))
	}
	want, err := os.ReadFile(path)
	must(tb, err)
	if string(want) != string(got) {
		tb.Errorf("%s: got\n%q\nwant\n%q", path, got, want)
	}
}
