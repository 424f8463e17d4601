package index

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"holdfast/repo/chunk"
	"holdfast/repo/pack"
	"holdfast/repo/vfs"
)

// story is a row of changes as an owner makes them, and what the index must be
// at every list that it writes.
type story struct {
	ids   []chunk.ID
	packs []pack.Name
	lists map[uint64]*model // by number of the list
	done  uint64            // the newest list of which a Flush has returned
	live  *model
}

func newStory() *story {
	s := &story{lists: map[uint64]*model{0: newModel()}, live: newModel()}
	s.ids, s.packs = universe(rand.New(rand.NewPCG(7, 7)))
	return s
}

// small keeps files and deltas small, so that there is much to do.
var small = Options{CacheBytes: 64 << 10, flushEntries: 150, floorEntries: 20}

// tell plays the story; each step's error goes to fail, which says whether to
// go on.
func (s *story) tell(x *Index, fail func(error) bool) {
	r := rand.New(rand.NewPCG(8, 8))
	step := func(change func(), do func() error) bool {
		change()
		s.lists[x.nextList] = s.live.clone() // should this step write it
		err := do()
		if err == nil {
			s.done = x.view.list.number
		}
		return fail(err)
	}
	for i, name := range s.packs {
		entries := randomEntries(r, s.ids)
		if !step(func() { s.live.add(name, entries) }, func() error { return x.Add(name, entries) }) {
			return
		}
		if i%7 == 6 {
			gone := s.packs[r.IntN(i)]
			if !step(func() { s.live.remove(gone) }, func() error { return x.Remove(gone) }) {
				return
			}
		}
		if i%4 == 3 {
			if !step(func() { s.live.head++ }, func() error { return x.Flush(s.live.head) }) {
				return
			}
		}
		if i == 25 {
			if !step(func() { s.live = newModel() }, x.Reset) {
				return
			}
		}
	}
}

// leastOps is how many operations the story must have, so that the tests below
// stop at as many places.
const leastOps = 130

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
	x := own(t, fsys, small)
	s.tell(x, func(err error) bool {
		must(t, err)
		return true
	})
	t.Logf("stopped at %d operations", seed)
	if seed < leastOps {
		t.Errorf("stopped at %d operations, want at least %d", seed, leastOps)
	}
}

// afterCrash holds what is left to one of the lists, and to the last whose
// Flush returned or a later one.
func (s *story) afterCrash(t *testing.T, mem *vfs.Mem, opt vfs.CrashOptions) {
	t.Helper()
	reader := read(t, mem, small)
	got := reader.view.list.number
	want := s.lists[got]
	if want == nil || got < s.done || reader.Skipped() != nil {
		t.Fatalf("crash with %v: list %d, want one from %d on; skipped: %v", opt, got, s.done, reader.Skipped())
	}
	want.check(t, reader, s.ids[:50], s.packs)
	must(t, reader.Close())

	emptyTmp(t, mem)
	x := own(t, mem, small)
	if x.view.list.number != got {
		t.Fatalf("crash with %v: the owner takes list %d, readers %d", opt, x.view.list.number, got)
	}
	accounted(t, mem, x)
	must(t, x.Verify(t.Context()))
	id := testID(1)
	must(t, x.Add(testPack(9, 9), []pack.Entry{chunkAt(id, 64, 100)}))
	must(t, x.Flush(99))
	accounted(t, mem, x)
	if len(lookup(t, x, id)) != 1 || x.Covers() != 99 {
		t.Fatalf("crash with %v: cannot go on", opt)
	}
	must(t, x.Close())
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

// TestFaults lets every operation of the story fail, in one of two ways. What is in
// memory stays right, and a later Flush makes it durable.
func TestFaults(t *testing.T) {
	fsys := vfs.NewFaulty(newMem(t))
	newStory().tell(own(t, fsys, small), func(err error) bool { must(t, err); return true })
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
	s.tell(x, func(err error) bool {
		if err != nil && (failed != nil || !errors.Is(err, fault.Err)) {
			t.Fatalf("operation %d: %v, after %v", fault.At, err, failed)
		}
		failed = errors.Join(failed, err)
		return true
	})
	if failed == nil {
		t.Fatalf("operation %d failed and nobody heard of it", fault.At)
	}
	s.live.head = 77
	must(t, x.Flush(77))
	s.live.check(t, x, s.ids[:20], nil)
	must(t, x.Close())
	emptyTmp(t, mem)
	x = own(t, mem, small)
	s.live.check(t, x, s.ids[:20], s.packs)
	accounted(t, mem, x)
	must(t, x.Close())
}

// TestFlushOps holds the order of operations of a flush that merges: the new
// file, the new list, and only then the old ones go.
func TestFlushOps(t *testing.T) {
	fsys := vfs.NewFaulty(newMem(t))
	x := own(t, fsys, Options{})
	must(t, x.Add(testPack(1, 1), []pack.Entry{chunkAt(testID(1), 64, 100)}))
	must(t, x.Flush(1))
	before := fsys.Count()
	must(t, x.Add(testPack(1, 2), []pack.Entry{chunkAt(testID(2), 64, 100)}))
	must(t, x.Flush(2))
	var b strings.Builder
	for _, op := range fsys.Ops()[before:] {
		b.WriteString(op.String() + "\n")
	}
	golden(t, "flush.ops", []byte(b.String()))
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
