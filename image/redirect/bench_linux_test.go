package redirect

import (
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

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
