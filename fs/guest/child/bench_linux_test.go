package child

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"holdfast/fs"
	"holdfast/fs/guest"
	"holdfast/fs/treetest"
	"holdfast/internal/testreq"
)

// fileDisk is an image in a file.
type fileDisk struct {
	*os.File
	size int64
}

func (d fileDisk) Size() int64 { return d.size }

// ext4Disk makes an image with a tree of small files and some large ones.
func ext4Disk(b *testing.B, small int, large int64) fileDisk {
	b.Helper()
	testreq.Need(b, "mkfs.ext4")
	dir, name := b.TempDir(), filepath.Join(b.TempDir(), "img")
	if err := treetest.Populate(b, dir, treetest.Plan{Files: small, Dirs: max(1, small/30), FileBytes: 64 << 10}); err != nil {
		b.Fatal(err)
	}
	if large > 0 {
		p := make([]byte, large)
		for i := range p {
			p[i] = byte(i*7 + i>>12)
		}
		if err := os.WriteFile(filepath.Join(dir, "large"), p, 0o600); err != nil {
			b.Fatal(err)
		}
	}
	if out, err := exec.Command("mkfs.ext4", "-q", "-d", dir, name, "512M").CombinedOutput(); err != nil {
		b.Fatalf("%v: %s", err, out)
	}
	f, err := os.Open(name)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { f.Close() })
	return fileDisk{f, 512 << 20}
}

// readers are what is compared: this process, and another.
func readers(b *testing.B, d guest.Disk, run func(b *testing.B, t fs.Tree)) {
	v := guest.Volume{Name: "whole", Size: d.Size(), Format: "ext4"}
	b.Run("direct", func(b *testing.B) {
		t, err := guest.Direct{}.Open(b.Context(), d, v)
		if err != nil {
			b.Fatal(err)
		}
		defer t.Close()
		measure(b, func() (time.Duration, error) { return 0, nil }, func() { run(b, t) })
	})
	b.Run("child", func(b *testing.B) {
		c := start(b, Options{Command: []string{self, Verb}})
		t := open(b, c, d, v)
		measure(b, func() (time.Duration, error) { return cpuOf(c.process()) }, func() { run(b, t) })
	})
}

// measure adds what all processes used of the processor.
func measure(b *testing.B, other func() (time.Duration, error), run func()) {
	b.ReportAllocs()
	cpu := func() time.Duration {
		var ru unix.Rusage
		if err := unix.Getrusage(unix.RUSAGE_SELF, &ru); err != nil {
			b.Fatal(err)
		}
		its, err := other()
		if err != nil {
			b.Fatal(err)
		}
		return time.Duration(ru.Utime.Nano()+ru.Stime.Nano()) + its
	}
	before := cpu()
	b.ResetTimer()
	run()
	b.StopTimer()
	b.ReportMetric(float64(cpu()-before)/float64(b.N), "cpu-ns/op")
}

func readAll(b *testing.B, t fs.Tree) (bytes int64) {
	p := make([]byte, 1<<20)
	err := fs.Walk(b.Context(), t, t.Root(), func(_ string, a fs.Attr, err error) error {
		for off := int64(0); err == nil && a.Type == fs.TypeFile && off < a.Size; {
			var n int
			if n, err = t.ReadAt(b.Context(), a.ID, p[:min(int64(len(p)), a.Size-off)], off); n > 0 {
				err = nil
			}
			off += int64(n)
			bytes += int64(n)
		}
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	return bytes
}

// BenchmarkSmallFiles reads a tree of 3,000 files of some KiB.
func BenchmarkSmallFiles(b *testing.B) {
	readers(b, ext4Disk(b, 3000, 0), func(b *testing.B, t fs.Tree) {
		for b.Loop() {
			b.SetBytes(readAll(b, t))
		}
	})
}

// BenchmarkLargeFile reads a file of 256 MiB.
func BenchmarkLargeFile(b *testing.B) {
	readers(b, ext4Disk(b, -1, 256<<20), func(b *testing.B, t fs.Tree) {
		for b.Loop() {
			b.SetBytes(readAll(b, t))
		}
	})
}

// BenchmarkLookup looks up one name.
func BenchmarkLookup(b *testing.B) {
	readers(b, ext4Disk(b, 30, 1<<20), func(b *testing.B, t fs.Tree) {
		for b.Loop() {
			if _, err := t.Lookup(b.Context(), t.Root(), "large"); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkStart starts a process, opens a volume and lists its root.
func BenchmarkStart(b *testing.B) {
	d := ext4Disk(b, 30, 0)
	for b.Loop() {
		c, err := Start(b.Context(), Options{Command: []string{self, Verb}})
		if err != nil {
			b.Fatal(err)
		}
		t, err := c.Open(b.Context(), d, guest.Volume{Name: "whole", Size: d.Size(), Format: "ext4"})
		if err != nil {
			b.Fatal(err)
		}
		if err := t.ReadDir(b.Context(), t.Root(), 0, func(fs.Entry) bool { return true }); err != nil {
			b.Fatal(err)
		}
		if err := t.Close(); err != nil {
			b.Fatal(err)
		}
		if err := c.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
