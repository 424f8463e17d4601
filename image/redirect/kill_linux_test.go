package redirect

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"holdfast/internal/testreq"
	"holdfast/repo/vfs"
)

const (
	childDir  = "HOLDFAST_REDIRECT_CHILD"
	killedMiB = 8
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		fmt.Fprintln(os.Stderr, writeForEver(dir))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// writeForEver writes sectors and grains and says of each on standard output
// when it is durable.
func writeForEver(dir string) error {
	fsys, err := vfs.OS(dir)
	if err != nil {
		return err
	}
	s, err := Open(fsys, specs(newBase(1, killedMiB*mib)), Options{})
	if err != nil {
		return err
	}
	rng := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 1))
	for gen := uint64(time.Now().UnixNano()); ; gen++ {
		n := 512 << rng.IntN(8)
		off := int64(rng.IntN(killedMiB*mib/n)) * int64(n)
		durable := rng.IntN(2) == 0
		if _, err := s.Disks()[0].Write(stamped(off, n, 1, gen), off, durable); err != nil {
			return err
		}
		if !durable {
			if err := s.Commit(); err != nil {
				return err
			}
		}
		fmt.Println(off, n, gen)
	}
}

// TestKilled kills a writing process again and again, on XFS: what it called
// durable is there, or something newer.
func TestKilled(t *testing.T) {
	testreq.Need(t, "root", "loop", "mkfs.xfs")
	dir := mountXFS(t, 512)
	fsys, err := vfs.OS(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer fsys.Close()
	base := newBase(1, killedMiB*mib)
	s, err := Create(fsys, specs(base), Options{WALBytes: 8 * mib})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	promised := make(map[int64]uint64)
	rng := rand.New(rand.NewPCG(3, 3))
	for range steps(4) {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), childDir+"="+dir)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		timer := time.AfterFunc(time.Duration(200+rng.IntN(600))*time.Millisecond, func() { _ = cmd.Process.Kill() })
		for in := bufio.NewScanner(out); in.Scan(); {
			var off, n int64
			var gen uint64
			if k, err := fmt.Sscan(in.Text(), &off, &n, &gen); k < 3 || err != nil {
				continue // cut off
			}
			for at := off; at < off+n; at += 512 {
				promised[at] = gen
			}
		}
		_ = cmd.Wait() // killed
		timer.Stop()
		began := time.Now()
		s, err := Open(fsys, specs(base), Options{})
		if err != nil {
			t.Fatal(err)
		}
		if d := time.Since(began); d > 5*time.Second {
			t.Errorf("opened in %v", d)
		}
		p := make([]byte, killedMiB*mib)
		if _, err := s.Disks()[0].ReadAt(p, 0); err != nil {
			t.Fatal(err)
		}
		for off, gen := range promised {
			q := p[off:]
			if at, g := binary.LittleEndian.Uint64(q), binary.LittleEndian.Uint64(q[16:]); at != uint64(off) || g < gen {
				t.Fatalf("sector at %d says %d, generation %d, promised is %d", off, at, g, gen)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d sectors promised", len(promised))
	if len(promised) < 100 {
		t.Error("hardly anything was written")
	}
}

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

func benchSession(b *testing.B, size int) *Disk {
	testreq.Need(b, "root", "loop", "mkfs.xfs")
	fsys, err := vfs.OS(mountXFS(b, 2048))
	if err != nil {
		b.Fatal(err)
	}
	s, err := Create(fsys, specs(&memBase{data: make([]byte, size)}), Options{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := s.Close(); err != nil {
			b.Error(err)
		}
		_ = fsys.Close()
	})
	return s.Disks()[0]
}

// BenchmarkSync4K has 32 writers of synced grains in random places.
func BenchmarkSync4K(b *testing.B) {
	const size = 256 * mib
	d := benchSession(b, size)
	p := stamped(0, grainBytes, 1, 1)
	b.SetBytes(grainBytes)
	b.SetParallelism(16) // × 2 cores
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := d.Write(p, rand.Int64N(size/grainBytes)*grainBytes, true); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

// BenchmarkUnstable1M writes 64 MiB in order, unsynced, and commits them.
func BenchmarkUnstable1M(b *testing.B) {
	const size = 1024 * mib
	d := benchSession(b, size)
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
