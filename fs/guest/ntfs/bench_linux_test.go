package ntfs_test

import (
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"holdfast/fs"
	"holdfast/fs/guest/ntfs"
)

// busy makes a volume with a directory of 10,000 entries and a tree of files as
// people have them: most are small, most bytes are in large ones.
func busy(tb testing.TB, files int) *volume {
	v := format(tb, 1<<30)
	v.mounted("", func(dir string) {
		must(tb, os.Mkdir(dir+"/many", 0o755))
		for i := range 10_000 {
			must(tb, os.WriteFile(fmt.Sprintf("%s/many/a name as people give them %d.txt", dir, i), nil, 0o644))
		}
		r := rand.New(rand.NewPCG(1, 1))
		for i := range files {
			sub := fmt.Sprintf("%s/tree/%d", dir, i/50)
			must(tb, os.MkdirAll(sub, 0o755))
			n := 1 << (8 + r.IntN(13))
			must(tb, os.WriteFile(fmt.Sprintf("%s/%d", sub, i), noise(uint64(i), n+r.IntN(n)), 0o644))
		}
	})
	return v
}

// cpu is the time that this process has computed.
func cpu(tb testing.TB) time.Duration {
	var u unix.Rusage
	must(tb, unix.Getrusage(unix.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func perCPU(b *testing.B, bytes int64, began time.Duration) {
	b.SetBytes(bytes)
	b.ReportMetric(float64(bytes)*float64(b.N)/(1<<20)/(cpu(b)-began).Seconds(), "MiB/cpu-s")
}

func BenchmarkTree(b *testing.B) {
	v := busy(b, 3000)
	buf := make([]byte, 256<<10)
	var total int64
	began := cpu(b)
	for b.Loop() {
		f, dev := v.open()
		total = 0
		must(b, fs.Walk(b.Context(), f, f.Root(), func(_ string, a fs.Attr, err error) error {
			if err != nil || a.Type != fs.TypeFile {
				return err
			}
			n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, fs.File(b.Context(), f, a), buf)
			total += n
			return err
		}))
		dev.Close()
	}
	perCPU(b, total, began)
}

func BenchmarkList10000(b *testing.B) {
	v := busy(b, 0)
	f, _ := v.open()
	dir := find(b, f, "many").ID
	b.Run("hot", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			list(b, f, dir)
		}
	})
	b.Run("cold", func(b *testing.B) {
		for b.Loop() {
			f, dev := v.open()
			list(b, f, dir)
			dev.Close()
		}
	})
	b.Run("look up each", func(b *testing.B) {
		for b.Loop() {
			for i := range 10_000 {
				if _, err := f.Lookup(b.Context(), dir, fmt.Sprintf("a name as people give them %d.txt", i)); err != nil {
					b.Fatal(err)
				}
			}
		}
	})
}

func list(tb testing.TB, f *ntfs.FS, dir fs.ID) {
	n := 0
	must(tb, f.ReadDir(tb.Context(), dir, 0, func(fs.Entry) bool { n++; return true }))
	if n != 10_000 {
		tb.Fatalf("%d entries", n)
	}
}
