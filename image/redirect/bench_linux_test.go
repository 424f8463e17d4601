package redirect

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"holdfast/internal/testreq"
	"holdfast/repo/vfs"
)

// mountXFS mounts a new XFS of some MiB.
func mountXFS(t testing.TB, sizeMiB int64) string {
	t.Helper()
	tmp := t.TempDir()
	img, dir := filepath.Join(tmp, "img"), filepath.Join(tmp, "mnt")
	run := func(name string, args ...string) {
		t.Helper()
		if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", name, err, out)
		}
	}
	f, err := os.Create(img)
	if err == nil {
		err = f.Truncate(sizeMiB * mib)
	}
	if err != nil || f.Close() != nil || os.Mkdir(dir, 0o755) != nil {
		t.Fatal(err)
	}
	run("mkfs.xfs", "-q", img)
	run("mount", "-o", "loop", img, dir)
	t.Cleanup(func() {
		if exec.Command("umount", dir).Run() != nil {
			_ = exec.Command("umount", "-l", dir).Run()
		}
	})
	return dir
}

// benchDir is a directory on an XFS of its own.
func benchDir(b *testing.B, sizeMiB int64) *vfs.Dir {
	b.Helper()
	testreq.Need(b, "root", "loop", "mkfs.xfs")
	fsys, err := vfs.OS(mountXFS(b, sizeMiB))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = fsys.Close() })
	return fsys
}

// emptyDisks describes disks without data.
func emptyDisks(n int, size int64) (list []DiskSpec) {
	for i := range n {
		list = append(list, DiskSpec{Name: fmt.Sprint("d", i), Base: emptyBase(size), Identity: Identity{Root: fmt.Sprint(i), Size: size}})
	}
	return list
}

func benchSession(b *testing.B, disks int, size int64) *Session {
	b.Helper()
	s, err := Create(benchDir(b, volumeMiB), emptyDisks(disks, size), Options{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := s.Close(); err != nil {
			b.Error(err)
		}
	})
	return s
}

// places gives out places for writes of n bytes: random ones that were written
// before, or ones that never were, in an order that jumps about.
type places struct {
	n     int64
	fresh bool
	next  atomic.Int64
}

const (
	writtenMiB = 64   // of the disk
	benchMiB   = 8192 // size of the disk

	// volumeMiB is large: a data file takes 256 KiB for each first grain.
	volumeMiB = 64 << 10
)

func (p *places) take() int64 {
	if !p.fresh {
		return rand.Int64N(writtenMiB*mib/p.n) * p.n
	}
	all := (benchMiB - writtenMiB) * mib / p.n
	return writtenMiB*mib + p.next.Add(1)*7919%all*p.n
}

// BenchmarkDurable has 32 writers of synced writes, through a session and, for
// comparison, to a plain file with an fdatasync each.
func BenchmarkDurable(b *testing.B) {
	for _, n := range []int64{4 << 10, 64 << 10} {
		for _, fresh := range []bool{false, true} {
			name := fmt.Sprintf("%dKiB/existing", n>>10)
			if fresh {
				name = fmt.Sprintf("%dKiB/fresh", n>>10)
			}
			b.Run(name+"/redirect", func(b *testing.B) {
				s := benchSession(b, 1, benchMiB*mib)
				d := s.Disks()[0]
				for off := int64(0); off < writtenMiB*mib; off += mib {
					if _, err := d.Write(stamped(off, mib, 1, 1), off, false); err != nil {
						b.Fatal(err)
					}
				}
				if err := s.Checkpoint(); err != nil {
					b.Fatal(err)
				}
				benchWrites(b, &places{n: n, fresh: fresh}, func(p []byte, off int64) error {
					_, err := d.Write(p, off, true)
					return err
				})
			})
			b.Run(name+"/plain", func(b *testing.B) {
				f, err := os.Create(filepath.Join(benchDir(b, volumeMiB).Path(), "plain"))
				if err != nil {
					b.Fatal(err)
				}
				defer f.Close()
				if err := f.Truncate(benchMiB * mib); err != nil {
					b.Fatal(err)
				}
				for off := int64(0); off < writtenMiB*mib; off += mib {
					if _, err := f.WriteAt(stamped(off, mib, 1, 1), off); err != nil {
						b.Fatal(err)
					}
				}
				if err := f.Sync(); err != nil {
					b.Fatal(err)
				}
				benchWrites(b, &places{n: n, fresh: fresh}, func(p []byte, off int64) error {
					if _, err := f.WriteAt(p, off); err != nil {
						return err
					}
					return unix.Fdatasync(int(f.Fd()))
				})
			})
		}
	}
}

// benchWrites measures 32 writers.
func benchWrites(b *testing.B, at *places, write func(p []byte, off int64) error) {
	p := stamped(0, int(at.n), 1, 1)
	b.SetBytes(at.n)
	b.SetParallelism(32 / runtime.GOMAXPROCS(0))
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := write(p, at.take()); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "writes/s")
}

// BenchmarkUnstable1M writes 64 MiB in order, unsynced, and commits them.
func BenchmarkUnstable1M(b *testing.B) {
	const size = 1024 * mib
	d := benchSession(b, 1, size).Disks()[0]
	p := stamped(0, mib, 1, 1)
	b.SetBytes(mib)
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		if _, err := d.Write(p, int64(i)*mib%size, false); err != nil {
			b.Fatal(err)
		}
		if i%64 == 63 || i == b.N-1 {
			if err := d.Commit(); err != nil {
				b.Fatal(err)
			}
		}
	}
}

// BenchmarkSeal seals 8 disks with 64 MiB unsynced between them, half in pieces
// and half in grains, while a writer for each goes on.
func BenchmarkSeal(b *testing.B) {
	for _, n := range []int64{grainBytes, 64 << 10} {
		b.Run(fmt.Sprintf("%dKiB-writers", n>>10), func(b *testing.B) { benchSeal(b, n) })
	}
}

func benchSeal(b *testing.B, writes int64) {
	const disks, each = 8, 8 * mib
	s := benchSession(b, disks, 1024*mib)
	var worst, barrier time.Duration
	for range b.N {
		b.StopTimer()
		for i, d := range s.Disks() {
			for off := int64(0); off < each; {
				n := int64(256 << 10)
				if off >= each/2 {
					n = grainBytes
				}
				at := rand.Int64N(1024*mib/n) * n
				if _, err := d.Write(stamped(at, int(n), uint64(i), 1), at, false); err != nil {
					b.Fatal(err)
				}
				off += n
			}
		}
		stop := make(chan struct{})
		var g errgroup.Group
		var mu sync.Mutex
		for i, d := range s.Disks() {
			rng := rand.New(rand.NewPCG(uint64(i), 3))
			g.Go(func() error {
				for {
					select {
					case <-stop:
						return nil
					default:
					}
					began := time.Now()
					at := rng.Int64N(1024*mib/writes) * writes
					if _, err := d.Write(stamped(at, int(writes), 1, 1), at, false); err != nil {
						return err
					}
					mu.Lock()
					worst = max(worst, time.Since(began))
					mu.Unlock()
					time.Sleep(time.Millisecond)
				}
			})
		}
		b.StartTimer()
		x, err := s.Seal()
		b.StopTimer()
		close(stop)
		if err := errors.Join(err, g.Wait()); err != nil {
			b.Fatal(err)
		}
		barrier = max(barrier, x.Barrier())
		if err := x.Release(b.Context()); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	b.ReportMetric(float64(barrier.Milliseconds()), "worst-barrier-ms")
	b.ReportMetric(float64(worst.Milliseconds()), "worst-write-ms")
}

// BenchmarkOpen opens sessions at once whose logs are full.
func BenchmarkOpen(b *testing.B) {
	for _, n := range []int{4, 32} {
		b.Run(fmt.Sprintf("%d-sessions", n), func(b *testing.B) { benchOpen(b, n) })
	}
}

func benchOpen(b *testing.B, sessions int) {
	const walMiB = 64
	fsys := benchDir(b, volumeMiB)
	dirs := make([]*vfs.Dir, sessions)
	for i := range dirs {
		at := filepath.Join(fsys.Path(), fmt.Sprint(i))
		if err := os.Mkdir(at, 0o700); err != nil {
			b.Fatal(err)
		}
		var err error
		if dirs[i], err = vfs.OS(at); err != nil {
			b.Fatal(err)
		}
		defer dirs[i].Close()
		fillLog(b, dirs[i], walMiB*mib)
	}
	disks := emptyDisks(1, 1024*mib)
	for range b.N {
		b.StopTimer()
		for _, dir := range dirs {
			for i := range 2 {
				f, err := dir.Open(walName(i))
				if err == nil {
					err = errors.Join(f.DropCache(0, 0), f.Close())
				}
				if err != nil {
					b.Fatal(err)
				}
			}
		}
		b.StartTimer()
		var g errgroup.Group
		open := make([]*Session, sessions)
		for i := range dirs {
			g.Go(func() (err error) {
				open[i], err = Open(dirs[i], disks, Options{})
				return err
			})
		}
		if err := g.Wait(); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		for _, s := range open {
			stopKeeper(s)
			if err := s.closeFiles(); err != nil { // and leave the log as full as it is
				b.Fatal(err)
			}
		}
		b.StartTimer()
	}
}

// fillLog makes a session and leaves it with both log files full of grains.
func fillLog(b *testing.B, dir *vfs.Dir, walBytes int64) {
	b.Helper()
	s, err := Create(dir, emptyDisks(1, 1024*mib), Options{WALBytes: walBytes})
	if err != nil {
		b.Fatal(err)
	}
	stopKeeper(s)
	d := s.Disks()[0]
	full := func() bool {
		s.log.mu.Lock()
		defer s.log.mu.Unlock()
		return s.log.spare == nil && s.log.active.size-s.log.active.end < maxQueue*2
	}
	for off := int64(0); !full(); off += grainBytes {
		if _, err := d.Write(stamped(off, grainBytes, 1, 1), off, false); err != nil {
			b.Fatal(err)
		}
	}
	if err := errors.Join(s.sync(), s.closeFiles()); err != nil {
		b.Fatal(err)
	}
}

// stopKeeper ends the keeper alone.
func stopKeeper(s *Session) {
	close(s.quit)
	s.done.Wait()
}

// BenchmarkMemory writes one grain to each of many regions of 64 MiB and says
// how much memory a region takes, and then how much a grain in the log does.
func BenchmarkMemory(b *testing.B) {
	const regions = 4096
	fsys := vfs.NewMem()
	s, err := Create(fsys, emptyDisks(1, regions*pageGrains*grainBytes), Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	d := s.Disks()[0]
	heap := func() int64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	_ = d
	for range b.N {
		s.mu.Lock()
		before := heap()
		var m grainMap
		for n := range uint64(regions) {
			m.set(n*pageGrains, stateData)
		}
		b.ReportMetric(float64(heap()-before)/regions, "B/region")
		before = heap()
		t := make(table)
		for g := range uint64(8192) {
			t[g*3] = cell{r: &rec{kind: kindData, d: d, first: g, count: 1}}
		}
		b.ReportMetric(float64(heap()-before)/8192, "B/logged-grain")
		runtime.KeepAlive(&m)
		runtime.KeepAlive(t)
		s.mu.Unlock()
	}
}
