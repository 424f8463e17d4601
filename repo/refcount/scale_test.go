package refcount

import (
	"math/rand/v2"
	"os"
	"runtime"
	"testing"
	"time"

	"holdfast/repo/vfs"
)

// TestDeltaBytes holds a row that is only in memory to 50 bytes.
func TestDeltaBytes(t *testing.T) {
	const n = defaultMaxDelta / 4
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	x := own(t, newMem(t), Options{})
	before := heap()
	for i := range uint64(n) {
		must(t, x.Add(testID(i), 1))
	}
	per := float64(heap()-before) / n
	t.Logf("%.1f bytes per row in memory", per)
	if per > 50 {
		t.Errorf("%.1f bytes per row in memory, want at most 50", per)
	}
	must(t, x.Close())
}

// ownDir returns a table in a real directory.
func ownDir(tb testing.TB, opt Options) (*Table, *vfs.Faulty) {
	tb.Helper()
	root := tb.TempDir()
	must(tb, os.MkdirAll(root+"/index", 0o700))
	must(tb, os.Mkdir(root+"/"+vfs.TempDir, 0o700))
	fsys, err := vfs.OS(root)
	must(tb, err)
	tb.Cleanup(func() { must(tb, fsys.Close()) })
	counted := vfs.NewFaulty(fsys)
	return own(tb, counted, opt), counted
}

// TestScale measures a table of 10 million ids: set HOLDFAST_SCALE=1. It needs
// 1 GB of disk and half a minute.
func TestScale(t *testing.T) {
	if os.Getenv("HOLDFAST_SCALE") == "" {
		t.Skip("needs HOLDFAST_SCALE=1, 1 GB of disk and half a minute")
	}
	const rows, fresh, commits = 10_000_000, 10_000, 50
	x, counted := ownDir(t, Options{})
	written := func() (n int64) {
		for _, op := range counted.Ops() {
			if op.Kind == vfs.OpWrite {
				n += op.Len
			}
		}
		return n
	}
	start := time.Now()
	for i := range uint64(rows) {
		must(t, x.Add(testID(i), 1))
	}
	added := time.Now()
	must(t, x.Commit(make([]byte, 1<<20)))
	t.Logf("counted %d ids in %v, committed in %v; %d bytes on disk, %d written", rows, added.Sub(start), time.Since(added), x.Bytes(), written())

	before, worst := written(), time.Duration(0)
	start = time.Now()
	for i := range commits {
		one := time.Now()
		for range fresh {
			must(t, x.Add(testID(rand.Uint64N(rows)), 1))
		}
		must(t, x.Commit(make([]byte, 1<<20+i)))
		worst = max(worst, time.Since(one))
	}
	t.Logf("%d commits of %d changes: %v each, %v at most, %d bytes written each, %d files", commits, fresh,
		time.Since(start)/commits, worst, (written()-before)/commits, len(x.files))
	if worst > 10*time.Second || (written()-before)/commits > 20<<20 {
		t.Error("a small commit costs as much as a large one")
	}

	const counts = 500_000
	start = time.Now()
	for range counts {
		if n, err := x.Count(testID(rand.Uint64N(rows))); n < 1 || err != nil {
			t.Fatal(n, err)
		}
	}
	t.Logf("%.0f counts a second, in %d files", counts/time.Since(start).Seconds(), len(x.files))
	start = time.Now()
	n := 0
	must(t, x.Walk(func([PrefixBytes]byte, int64) error { n++; return nil }))
	t.Logf("walked %d ids in %v", n, time.Since(start))
	must(t, x.Close())
}

// BenchmarkCount looks for random ids of a million, of which the cache holds a
// part.
func BenchmarkCount(b *testing.B) {
	x, _ := ownDir(b, Options{})
	for i := range uint64(1_000_000) {
		must(b, x.Add(testID(i), 1))
	}
	must(b, x.Commit(nil))
	b.ReportAllocs()
	for b.Loop() {
		if n, err := x.Count(testID(rand.Uint64N(1_000_000))); n != 1 || err != nil {
			b.Fatal(n, err)
		}
	}
	must(b, x.Close())
}

// BenchmarkCommit commits 10,000 changes to a million ids.
func BenchmarkCommit(b *testing.B) {
	x, _ := ownDir(b, Options{})
	for i := range uint64(1_000_000) {
		must(b, x.Add(testID(i), 1))
	}
	must(b, x.Commit(nil))
	for b.Loop() {
		for range 10_000 {
			must(b, x.Add(testID(rand.Uint64N(1_000_000)), 1))
		}
		must(b, x.Commit(nil))
	}
	must(b, x.Close())
}
