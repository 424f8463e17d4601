package recovery

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"holdfast/repo"
	"holdfast/repo/chunk"
	"holdfast/repo/repotest"
	"holdfast/repo/vfs"
)

// smallGeometry makes a few MiB many frames.
var smallGeometry = chunk.Geometry{ChunkBytes: 256 << 10, FrameBytes: traceBlockBytes}

// backedUp makes a repository in memory with a point of each of the disks, one
// after the other, of one machine.
func backedUp(t testing.TB, disks ...*repotest.Disk) (*vfs.Mem, []repo.PointID) {
	t.Helper()
	mem, state := vfs.NewMem(), vfs.NewMem()
	if _, err := repo.Create(t.Context(), mem, repo.CreateOptions{
		Geometry: smallGeometry, PackBytes: repo.MinPackBytes, Parity: -1, Compression: "s2", ReserveBytes: -1, State: state,
	}); err != nil {
		t.Fatal(err)
	}
	o, err := repo.Own(t.Context(), mem, repo.Options{State: state}, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ids []repo.PointID
	for _, d := range disks {
		run, err := o.Backup(t.Context(), repo.BackupOptions{Machine: "db1", Disks: []repo.SourceDisk{{Name: "system", Source: repotest.NewSource(d)}}})
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, run.Point.ID)
	}
	if err := o.Close(); err != nil {
		t.Fatal(err)
	}
	return mem, ids
}

// opened opens the disk of a point.
func opened(t testing.TB, fsys vfs.FS, id repo.PointID, frames *repo.FrameCache) *repo.Disk {
	t.Helper()
	r, err := repo.Open(t.Context(), fsys, repo.Options{Frames: frames})
	if err != nil {
		t.Fatal(err)
	}
	reader, err := r.OpenPoint(id)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(reader.Close(), r.Close()); err != nil {
			t.Error(err)
		}
	})
	d, err := reader.Disk("system")
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// slowPacks takes a while for each read of a data pack.
type slowPacks struct {
	vfs.FS
	delay time.Duration
}

func (s slowPacks) Open(name string) (vfs.File, error) {
	f, err := s.FS.Open(name)
	if err != nil || !strings.HasPrefix(name, "packs/data/") {
		return f, err
	}
	return slowFile{f, s.delay}, nil
}

type slowFile struct {
	vfs.File
	delay time.Duration
}

func (f slowFile) ReadAt(p []byte, off int64) (int, error) {
	time.Sleep(f.delay)
	return f.File.ReadAt(p, off)
}

// bootRead is a read of a machine that boots, and how long it was busy before.
type bootRead struct {
	think time.Duration
	off   int64
	n     int
}

// bootReads makes the reads of a boot: a kernel from front to back, then programs
// and libraries, each some of its pages in some order, many looked at twice, a
// few blocks that differ from boot to boot.
func bootReads(size int64, luck uint64) []bootRead {
	same, other := rand.New(rand.NewPCG(11, 1)), rand.New(rand.NewPCG(luck, 2))
	var list []bootRead
	for off := int64(1 << 20); off < 3<<20; off += 64 << 10 {
		list = append(list, bootRead{0, off, 64 << 10})
	}
	for range 120 {
		at := same.Int64N(size-(1<<20)) &^ 4095
		for range 1 + same.IntN(6) {
			think := time.Duration(same.IntN(2000)) * time.Microsecond
			list = append(list, bootRead{think, at + int64(same.IntN(100))*4096, 4096 << same.IntN(4)})
		}
		if other.IntN(20) == 0 {
			list = append(list, bootRead{0, other.Int64N(size-4096) &^ 4095, 4096})
		}
	}
	return list
}

// bootOnce publishes a point through a cache that is empty, boots from it after
// a while, and returns what the boot waited for.
func bootOnce(t *testing.T, fsys vfs.FS, id repo.PointID, want *repotest.Disk, state vfs.FS, cacheBytes int64, after time.Duration, luck uint64) repo.FrameStats {
	frames := repo.NewFrameCache(cacheBytes, 1)
	d := opened(t, slowPacks{fsys, 5 * time.Millisecond}, id, frames)
	tr := &traces{fs: state, log: slog.New(slog.DiscardHandler), now: time.Now}
	b := tr.boot("db1", frames)
	below := b.base(d)
	ended := make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		defer close(ended)
		b.run(ctx)
	}()
	time.Sleep(after)
	for _, r := range bootReads(d.Size(), luck) {
		time.Sleep(r.think)
		got, exact := make([]byte, r.n), make([]byte, r.n)
		if _, err := below.ReadAt(got, r.off); err != nil && err != io.EOF {
			t.Fatal(err)
		}
		if _, err := want.ReadAt(exact, r.off); err != nil && err != io.EOF {
			t.Fatal(err)
		}
		if !bytes.Equal(got, exact) {
			t.Fatalf("%d bytes at %d differ", r.n, r.off)
		}
		if s := frames.Stats(); s.WarmBytes > s.BudgetBytes/4 {
			t.Fatalf("warming takes more than a quarter: %+v", s)
		}
	}
	stats := frames.Stats()
	time.Sleep(traceWindow + time.Second) // the whole time: what was recorded counts
	cancel()
	<-ended
	return stats
}

// TestBootTrace boots a machine, changes it, backs it up, and boots it again
// with what the first boot has taught, with 5 ms for each read of a pack. The
// clock is the test's, so what is measured is waiting alone.
func TestBootTrace(t *testing.T) {
	const size = 32 << 20
	rng := rand.New(rand.NewPCG(3, 3))
	first := repotest.New(rng, repotest.Dense, size)
	second, _ := repotest.Change(rng, first)
	mem, ids := backedUp(t, first, second)
	for _, c := range []struct {
		name  string
		cache int64
		after time.Duration
	}{
		{"the host takes two seconds", 64 << 20, 2 * time.Second},
		{"it boots at once", 64 << 20, 0},
		{"a quarter of the cache is less than a boot", 20 << 20, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				state := vfs.NewMem()
				without := bootOnce(t, mem, ids[1], second, vfs.NewMem(), c.cache, c.after, 2)
				taught := bootOnce(t, mem, ids[0], first, state, c.cache, c.after, 1)
				with := bootOnce(t, mem, ids[1], second, state, c.cache, c.after, 2)
				t.Logf("misses %d without, %d with the trace; waited %v and %v", without.Misses, with.Misses, without.Waited, with.Waited)
				if without.Misses < 150 || without.Waited < 150*5*time.Millisecond || taught.Misses < 150 {
					t.Errorf("that is no boot: %+v", without)
				}
				if with.Misses*10 > without.Misses*3 || with.Waited*10 > without.Waited*3 {
					t.Errorf("with the trace: %d misses of %d, %v of %v waited", with.Misses, without.Misses, with.Waited, without.Waited)
				}
			})
		})
	}
}

// TestTraceFiles: a file that is no trace is as good as none, and is replaced.
func TestTraceFiles(t *testing.T) {
	state := vfs.NewMem()
	var log bytes.Buffer
	tr := &traces{fs: state, log: slog.New(slog.NewTextHandler(&log, nil)), now: time.Now}
	if got := tr.load("m", "d"); got != nil || log.Len() > 0 {
		t.Errorf("none: %v, %s", got, log.String())
	}
	want := trace{1, 5, 2}
	for range 2 {
		if err := tr.save("m", "d", want); err != nil {
			t.Fatal(err)
		}
	}
	if got := tr.load("m", "d"); len(got) != len(want) {
		t.Errorf("got %v", got)
	}
	if got := tr.load("m d", ""); got != nil {
		t.Errorf("another machine's: %v", got)
	}
	if err := state.Corrupt(tracePath("m", "d"), 9, 1); err != nil {
		t.Fatal(err)
	}
	if got := tr.load("m", "d"); got != nil || !strings.Contains(log.String(), "no use") {
		t.Errorf("damaged: %v, %s", got, log.String())
	}
	if err := tr.save("m", "d", want); err != nil {
		t.Fatal(err)
	}
	if got := tr.load("m", "d"); len(got) != len(want) {
		t.Errorf("replaced: %v", got)
	}
}

// TestBootCutShort: a machine that is stopped early keeps what was learnt before.
func TestBootCutShort(t *testing.T) {
	const size = 2 << 20
	disk := repotest.New(rand.New(rand.NewPCG(4, 4)), repotest.Dense, size)
	mem, ids := backedUp(t, disk)
	synctest.Test(t, func(t *testing.T) {
		tr := &traces{fs: vfs.NewMem(), log: slog.New(slog.DiscardHandler), now: time.Now}
		boot := func(blocks int, whole bool) {
			frames := repo.NewFrameCache(8<<20, 1)
			b := tr.boot("db1", frames)
			below := b.base(opened(t, mem, ids[0], frames))
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				b.run(ctx)
			}()
			for i := range blocks {
				if _, err := below.ReadAt(make([]byte, 1), int64(i)*traceBlockBytes); err != nil {
					t.Error(err)
				}
			}
			if whole {
				time.Sleep(traceWindow + time.Second)
			}
			cancel()
			<-ended
		}
		for _, c := range []struct {
			blocks int
			whole  bool
			want   int
		}{{5, false, 5}, {9, true, 9}, {3, false, 9}, {4, true, 4}} {
			boot(c.blocks, c.whole)
			if got := len(tr.load("db1", "system")); got != c.want {
				t.Errorf("after %d blocks, whole %v: %d are kept, want %d", c.blocks, c.whole, got, c.want)
			}
		}
	})
}

// TestPublishWarms: what a machine has asked for is in memory after the next
// publish of it, in another process, and what a verb reads teaches nothing.
func TestPublishWarms(t *testing.T) {
	w := newWorld(t, inMemory)
	m := w.open(t)
	publish(t, m, w, PublishOptions{})
	const n = 6
	root := file(t, m, "web1", "root-flat.vmdk").ID
	for i := range int64(n) {
		if _, err := m.store.ReadAt(t.Context(), root, make([]byte, 1), (10+3*i)*traceBlockBytes); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := m.Keep(t.Context(), "web1", KeepOptions{}); err != nil {
		t.Fatal(err)
	}
	bytesOf(t, m, "web1", "root-flat.vmdk")
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	m = w.opened(t)
	if s := m.frames.Stats(); s.WarmBytes != 0 {
		t.Errorf("a session that was brought back is warmed: %+v", s)
	}
	publish(t, m, w, PublishOptions{})
	for deadline := time.Now().Add(time.Minute); m.frames.Stats().WarmBytes < n*traceBlockBytes && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	if s := m.frames.Stats(); s.WarmBytes != n*traceBlockBytes || s.Misses != 0 {
		t.Errorf("after the publish: %+v", s)
	}
}
