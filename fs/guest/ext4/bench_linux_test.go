package ext4

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"holdfast/fs"
	"holdfast/internal/testreq"
)

// counted counts what is read of a device.
type counted struct {
	io.ReaderAt
	reads, bytes atomic.Int64
}

func (c *counted) ReadAt(p []byte, off int64) (int, error) {
	c.reads.Add(1)
	c.bytes.Add(int64(len(p)))
	return c.ReaderAt.ReadAt(p, off)
}

// listRoot opens a file system and does what ls -l of its root does.
func listRoot(tb testing.TB, dev io.ReaderAt, size int64) int {
	tb.Helper()
	f, err := Open(dev, size)
	if err != nil {
		tb.Fatal(err)
	}
	n := 0
	err = f.ReadDir(tb.Context(), f.Root(), 0, func(e fs.Entry) bool {
		n++
		_, err := f.Attr(tb.Context(), e.ID)
		if err != nil {
			tb.Fatal(err)
		}
		return true
	})
	if err != nil {
		tb.Fatal(err)
	}
	return n
}

// hugeImage is a sparse file system of 4 TiB with some directories.
func hugeImage(tb testing.TB) (*os.File, int64) {
	tb.Helper()
	testreq.Need(tb, "mke2fs", "debugfs")
	const tib = 4
	image := makeImage(tb, tib<<20, "-O", journaled+"64bit,flex_bg,metadata_csum", "-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard", "-N", "1000000")
	var commands []string
	for i := range 20 {
		commands = append(commands, fmt.Sprintf("mkdir dir-%d", i))
	}
	debugfs(tb, image, commands...)
	file, err := os.Open(image)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = file.Close() })
	return file, tib << 40
}

// TestFirstListing sees to it that a first look at a large disk reads little.
func TestFirstListing(t *testing.T) {
	file, size := hugeImage(t)
	c := &counted{ReaderAt: file}
	if n := listRoot(t, c, size); n != 21 {
		t.Errorf("%d entries, want 21", n)
	}
	if reads, bytes := c.reads.Load(), c.bytes.Load(); reads > 50 || bytes > 1<<20 {
		t.Errorf("%d reads of %d bytes for the first listing", reads, bytes)
	} else {
		t.Logf("%d reads, %d bytes", reads, bytes)
	}
}

func BenchmarkFirstListing(b *testing.B) {
	file, size := hugeImage(b)
	c := &counted{ReaderAt: file}
	for b.Loop() {
		listRoot(b, c, size)
	}
	b.ReportMetric(float64(c.reads.Load())/float64(b.N), "reads/op")
}

// filledImage is a file system with the files of a directory that fill makes.
func filledImage(tb testing.TB, mib int, fill func(dir string), args ...string) (*os.File, int64) {
	tb.Helper()
	testreq.Need(tb, "mke2fs")
	dir := tempDir(tb)
	fill(dir)
	image := makeImage(tb, mib, append(args, "-d", dir)...)
	file, err := os.Open(image)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = file.Close() })
	return file, int64(mib) << 20
}

// BenchmarkReadTree reads a whole tree of small and large files.
func BenchmarkReadTree(b *testing.B) {
	total := int64(0)
	file, size := filledImage(b, 512, func(dir string) {
		r := rand.New(rand.NewPCG(1, 1))
		data := make([]byte, 32<<20)
		for i := range data {
			data[i] = byte(r.Uint32())
		}
		write := func(name string, n int) {
			total += int64(n)
			if err := os.WriteFile(filepath.Join(dir, name), data[:n], 0o600); err != nil {
				b.Fatal(err)
			}
		}
		for d := range 50 {
			if err := os.Mkdir(filepath.Join(dir, fmt.Sprint(d)), 0o700); err != nil {
				b.Fatal(err)
			}
			for i := range 100 {
				write(fmt.Sprintf("%d/%d", d, i), 1+r.IntN(40000))
			}
			write(fmt.Sprintf("%d/large", d), r.IntN(8<<20))
		}
	}, "-O", journaled+"64bit,flex_bg,metadata_csum")
	buf := make([]byte, 1<<20)
	b.SetBytes(total)
	before := cpuSeconds(b)
	for b.Loop() {
		f, err := Open(file, size)
		if err != nil {
			b.Fatal(err)
		}
		read := int64(0)
		err = fs.Walk(context.Background(), f, f.Root(), func(_ string, a fs.Attr, err error) error {
			for off := int64(0); err == nil && a.Type == fs.TypeFile && off < a.Size; {
				var n int
				n, err = f.ReadAt(context.Background(), a.ID, buf, off)
				off, read = off+int64(n), read+int64(n)
				if err == io.EOF {
					err = nil
				}
			}
			return err
		})
		if err != nil || read != total {
			b.Fatalf("%d bytes of %d, %v", read, total, err)
		}
	}
	used := cpuSeconds(b) - before
	b.ReportMetric(float64(total)*float64(b.N)/(1<<20)/used, "MiB/cpu-s")
}

func cpuSeconds(tb testing.TB) float64 {
	tb.Helper()
	var ru unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &ru); err != nil {
		tb.Fatal(err)
	}
	sec := func(t unix.Timeval) float64 { return float64(t.Sec) + float64(t.Usec)/1e6 }
	return sec(ru.Utime) + sec(ru.Stime)
}

// BenchmarkLookup looks up all names of a directory of 10,000.
func BenchmarkLookup(b *testing.B) {
	const names = 10000
	for _, form := range []struct{ name, features string }{
		{"indexed", journaled + "metadata_csum"},
		{"plain", "none,has_journal,filetype,extent,metadata_csum"},
	} {
		b.Run(form.name, func(b *testing.B) {
			file, size := filledImage(b, 128, func(dir string) {
				for i := range names {
					if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("a-name-%d", i)), nil, 0o600); err != nil {
						b.Fatal(err)
					}
				}
			}, "-N", "20000", "-O", form.features)
			for b.Loop() {
				f, err := Open(file, size)
				if err != nil {
					b.Fatal(err)
				}
				for i := range names {
					if _, err := f.Lookup(context.Background(), f.Root(), fmt.Sprintf("a-name-%d", i)); err != nil {
						b.Fatal(err)
					}
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/names, "ns/lookup")
		})
	}
}

// TestMillionFiles walks over a tree of a million files with little memory.
func TestMillionFiles(t *testing.T) {
	if os.Getenv("HOLDFAST_LONG") != "1" {
		t.Skip("needs HOLDFAST_LONG=1")
	}
	testreq.Need(t, "root", "loop", "mke2fs")
	const dirs, files = 100, 10000
	image := makeImage(t, 1024, "-O", "none,ext_attr,dir_index,filetype,extent,64bit,flex_bg,metadata_csum", "-N", "1100000")
	m := mount(t, image, "noatime")
	for d := range dirs {
		dir := filepath.Join(m.dir, fmt.Sprint(d))
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		for i := range files {
			if err := unix.Mknod(filepath.Join(dir, fmt.Sprintf("file-%d", i)), unix.S_IFREG|0o600, 0); err != nil {
				t.Fatal(err)
			}
		}
	}
	m.unmount()
	f, _ := openImage(t, image)
	n, peak := 0, uint64(0)
	var mem runtime.MemStats
	before := cpuSeconds(t)
	err := fs.Walk(t.Context(), f, f.Root(), func(_ string, a fs.Attr, err error) error {
		if n++; n%50000 == 0 {
			runtime.ReadMemStats(&mem)
			peak = max(peak, mem.HeapInuse)
		}
		return err
	})
	if want := dirs*files + dirs + 2; err != nil || n != want {
		t.Fatalf("%d paths, %v; want %d", n, err, want)
	}
	t.Logf("%d paths in %.1f CPU seconds, heap at most %d MiB", n, cpuSeconds(t)-before, peak>>20)
	if peak > 128<<20 {
		t.Errorf("heap of %d MiB", peak>>20)
	}
}
