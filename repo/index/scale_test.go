package index

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"holdfast/repo/chunk"
	"holdfast/repo/pack"
	"holdfast/repo/vfs"
)

// A synthetic repository: chunks of 1 MiB in packs of 32 MiB.
const (
	chunksPerTiB  = 1 << 20
	chunksPerPack = 32
)

// scaleID is a testID that is quick to make. mix is splitmix64's, by
// Sebastiano Vigna, in the public domain.
func scaleID(i uint64) (id chunk.ID) {
	mix := func(z uint64) uint64 {
		z = (z ^ z>>30) * 0xBF58476D1CE4E5B9
		z = (z ^ z>>27) * 0x94D049BB133111EB
		return z ^ z>>31
	}
	hi := mix(i*0x9E3779B97F4A7C15 + 1)
	binary.BigEndian.PutUint64(id[:], hi)
	binary.BigEndian.PutUint64(id[8:], mix(hi))
	return id
}

// scaleFill adds chunks in packs, and returns how many lists were written and
// how many files lived at most.
func scaleFill(tb testing.TB, x *Index, chunks uint64) (lists uint64, files int) {
	tb.Helper()
	entries := make([]pack.Entry, chunksPerPack)
	for i := uint64(0); i < chunks; i += chunksPerPack {
		for j := range entries {
			entries[j] = chunkAt(scaleID(i+uint64(j)), offAt(j), 1<<20)
		}
		must(tb, x.Add(testPack(1, i), entries))
		files = max(files, len(x.view.files))
	}
	must(tb, x.Flush(1))
	return x.view.list.number, max(files, len(x.view.files))
}

func offAt(j int) uint32 { return 64 + uint32(j)<<20 }

func diskBytes(x *Index) (n int64) {
	for _, f := range x.Files() {
		n += f.Bytes
	}
	return n
}

// TestBytesPerChunk holds the index to its budget on disk, 32 MiB for each TiB
// of chunks, which is 32 bytes for each, at a size that is quick.
func TestBytesPerChunk(t *testing.T) {
	x := own(t, newMem(t), Options{})
	const chunks = chunksPerTiB / 4
	scaleFill(t, x, chunks)
	per := float64(diskBytes(x)) / chunks
	t.Logf("%.2f bytes per chunk on disk", per)
	if per > 32 {
		t.Errorf("%.2f bytes per chunk on disk, want at most 32", per)
	}
	must(t, x.Close())
}

// TestDeltaBytes holds an entry that is only in memory to 40 bytes.
func TestDeltaBytes(t *testing.T) {
	const n = defaultFlushEntries
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	d := newDelta()
	for i := range uint64(n) {
		id := scaleID(i)
		d.add(keyOf(id[:]), d.pack(testPack(1, i/chunksPerPack/64)), 0, 1)
	}
	per := float64(heap()-before) / n
	runtime.KeepAlive(d)
	t.Logf("%.1f bytes per entry in memory", per)
	if per > 40 {
		t.Errorf("%.1f bytes per entry in memory, want at most 40", per)
	}
}

// TestScale measures an index of 64 TiB of chunks: set HOLDFAST_SCALE=1. It
// needs 4 GB of disk and some minutes.
func TestScale(t *testing.T) {
	if os.Getenv("HOLDFAST_SCALE") == "" {
		t.Skip("needs HOLDFAST_SCALE=1, 4 GB of disk and some minutes")
	}
	const tib = 64
	root := t.TempDir()
	must(t, os.Mkdir(root+"/"+vfs.TempDir, 0o700))
	fsys, err := vfs.OS(root)
	must(t, err)
	defer fsys.Close()
	counted := vfs.NewFaulty(fsys)
	x := own(t, counted, Options{})
	start := time.Now()
	lists, files := scaleFill(t, x, tib*chunksPerTiB)
	var written int64
	for _, op := range counted.Ops() {
		if op.Kind == vfs.OpWrite {
			written += op.Len
		}
	}
	size := diskBytes(x)
	t.Logf("%d TiB, %d chunks in %d packs: filled in %.0f s, %d lists, at most %d files, now %d",
		tib, tib*chunksPerTiB, tib*chunksPerTiB/chunksPerPack, time.Since(start).Seconds(), lists, files, len(x.Files()))
	if mib(size)/tib > 32 {
		t.Errorf("%.2f MiB per TiB on disk, want at most 32", mib(size)/tib)
	}
	t.Logf("on disk %.1f MiB, %.2f bytes per chunk, %.2f MiB per TiB; written %.1f times",
		mib(size), float64(size)/(tib*chunksPerTiB), mib(size)/tib, float64(written)/float64(size))
	t.Logf("owner after filling: RssAnon %.1f MiB of which block cache at most %.0f", rssAnon(t), mib(defaultCacheBytes))
	must(t, x.Close())

	for _, cache := range []int64{1, 16 << 20, 256 << 20} {
		cmd := exec.Command(os.Args[0], "-test.run=^TestScaleReader$", "-test.v")
		cmd.Env = append(os.Environ(), "HOLDFAST_SCALE_DIR="+root, fmt.Sprintf("HOLDFAST_SCALE_CACHE=%d", cache))
		out, err := cmd.CombinedOutput()
		for line := range strings.Lines(string(out)) {
			if _, text, ok := strings.Cut(line, "scale: "); ok {
				t.Logf("cache %.0f MiB: %s", mib(cache), strings.TrimSpace(text))
			}
		}
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
}

// TestScaleReader is the part of TestScale that runs in a process of its own,
// so that its memory is the reader's.
func TestScaleReader(t *testing.T) {
	root := os.Getenv("HOLDFAST_SCALE_DIR")
	if root == "" {
		t.Skip("is run by TestScale")
	}
	var opt Options
	fmt.Sscan(os.Getenv("HOLDFAST_SCALE_CACHE"), &opt.CacheBytes)
	fsys, err := vfs.OS(root)
	must(t, err)
	defer fsys.Close()
	base := rssAnon(t)
	start := time.Now()
	x := read(t, fsys, opt)
	t.Logf("scale: opened in %.1f ms, RssAnon +%.1f MiB", float64(time.Since(start).Microseconds())/1e3, rssAnon(t)-base)
	start = time.Now()
	must(t, x.Verify(t.Context()))
	t.Logf("scale: verified in %.1f s, which fills the page cache", time.Since(start).Seconds())
	total := x.Count()
	run := func(what string, id func(i uint64) chunk.ID, hits int) {
		const most, limit = 1 << 20, 4 * time.Second
		start := time.Now()
		n := 0
		for ; n < most && time.Since(start) < limit; n++ {
			if list := lookup(t, x, id(uint64(n))); len(list) != hits {
				t.Fatalf("%s %d: %d places, want %d", what, n, len(list), hits)
			}
		}
		t.Logf("scale: %s: %.0f look-ups/s", what, float64(n)/time.Since(start).Seconds())
	}
	spread := func(i uint64) chunk.ID { return scaleID(i * 0x9E3779B97F4A7C15 % total) }
	few := func(i uint64) chunk.ID { return scaleID(i % 100) }
	run("hits all over", spread, 1)
	run("misses all over", func(i uint64) chunk.ID { return scaleID(total + i) }, 0)
	run("hits in 100 ids", few, 1)
	run("misses in 100 ids", func(i uint64) chunk.ID { return scaleID(total + i%100) }, 0)
	beyond := rssAnon(t) - base - mib(opt.CacheBytes)
	t.Logf("scale: RssAnon beyond the cache +%.1f MiB", beyond)
	if beyond > 64 {
		t.Errorf("RssAnon beyond the cache is %.1f MiB, want at most 64", beyond)
	}

	debug.FreeOSMemory()
	for _, f := range x.view.files {
		r, err := x.fsys.Open(f.name)
		must(t, err)
		must(t, r.DropCache(0, 0))
		must(t, r.Close())
	}
	start = time.Now()
	const cold = 2000
	for i := range uint64(cold) {
		lookup(t, x, scaleID((i*7919+total/3)%total))
	}
	t.Logf("scale: hits with the page cache dropped: %.0f look-ups/s", cold/time.Since(start).Seconds())
	must(t, x.Close())
}

func mib(n int64) float64 { return float64(n) / (1 << 20) }

// rssAnon returns the anonymous resident memory of this process in MiB.
func rssAnon(tb testing.TB) float64 {
	tb.Helper()
	f, err := os.Open("/proc/self/status")
	must(tb, err)
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		var kib float64
		if n, _ := fmt.Sscanf(s.Text(), "RssAnon: %f kB", &kib); n == 1 {
			return kib / 1024
		}
	}
	tb.Skip("needs RssAnon in /proc/self/status")
	return 0
}

func BenchmarkAdd(b *testing.B) {
	x := own(b, newMem(b), Options{flushEntries: 1 << 30})
	entries := make([]pack.Entry, chunksPerPack)
	b.ReportAllocs()
	for i := range b.N {
		if i%defaultFlushEntries == 0 {
			must(b, x.Reset())
		}
		if i%chunksPerPack == 0 {
			for j := range entries {
				entries[j] = chunkAt(scaleID(uint64(i+j)), offAt(j), 1<<20)
			}
			must(b, x.Add(testPack(1, uint64(i)), entries))
		}
	}
}

func BenchmarkLookup(b *testing.B) {
	fsys := newMem(b)
	x := own(b, fsys, Options{})
	const chunks = chunksPerTiB
	scaleFill(b, x, chunks)
	must(b, x.Close())
	for _, bench := range []struct {
		name  string
		cache int64
		first uint64
	}{
		{"hit/cached", 64 << 20, 0},
		{"hit/uncached", 1, 0},
		{"miss/cached", 64 << 20, chunks},
		{"miss/uncached", 1, chunks},
	} {
		b.Run(bench.name, func(b *testing.B) {
			x := read(b, fsys, Options{CacheBytes: bench.cache})
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for i := uint64(0); pb.Next(); i++ {
					if _, err := x.Lookup(scaleID(bench.first + i*0x9E3779B97F4A7C15%chunks)); err != nil {
						b.Error(err)
					}
				}
			})
			must(b, x.Close())
		})
	}
}

// BenchmarkMerge is the rate at which two files of like size become one.
func BenchmarkMerge(b *testing.B) {
	x := own(b, newMem(b), Options{flushEntries: 1 << 30, floorEntries: 1})
	const chunks = 1 << 19
	scaleFill(b, x, chunks)
	v, f := x.view, x.view.files[0]
	b.SetBytes(f.head.bytes())
	for b.Loop() {
		_, err := x.writeFile(newSources(v, []*file{f}, nil))
		must(b, err)
	}
}
