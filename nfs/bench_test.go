package nfs_test

import (
	"fmt"
	"testing"

	"holdfast/fs/treetest"
	"holdfast/nfs"
	"holdfast/nfs/nfstest"
)

// The benchmarks have client and server on the same cores, as everything that
// runs on one machine has.

func benchLoad(b *testing.B, l nfstest.Load) {
	const size = 256 << 20
	tree := treetest.NewMemWrite(treetest.MemOptions{Bytes: 1 << 30})
	stamped(b, tree, "file", size)
	_, addr := start(b, nfs.Options{Exports: []nfs.Export{exported(tree)}})
	c := dial(b, addr)
	root := must(c.Mount("/data"))(b)
	file, _, err := c.Lookup(root, "file")
	if err != nil {
		b.Fatal(err)
	}
	l.Addr, l.File, l.Bytes, l.Gen, l.Cred = addr, []nfstest.Handle{file}, size, 1, nfstest.Sys(0, 0)
	l.Requests = max(b.N, 2*max(l.InFlight, 1))
	b.SetBytes(int64(l.Size))
	b.ResetTimer()
	res, err := l.Run(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(res.PerSecond(), "req/s")
	b.ReportMetric(float64(res.P99.Microseconds()), "p99-µs")
	if l.Size > 0 {
		b.ReportMetric(res.MiBPerSecond(), "MiB/s")
	}
}

func BenchmarkNull(b *testing.B) { benchLoad(b, nfstest.Load{Proc: nfstest.Null, InFlight: 64}) }

func BenchmarkGetAttr(b *testing.B) { benchLoad(b, nfstest.Load{Proc: nfstest.GetAttr, InFlight: 64}) }

func BenchmarkRead(b *testing.B) {
	for _, bb := range []struct{ size, inFlight int }{{4 << 10, 64}, {4 << 10, 1}, {64 << 10, 16}, {1 << 20, 8}} {
		for _, random := range []bool{false, true} {
			b.Run(fmt.Sprintf("%dKiB×%d,random=%v", bb.size>>10, bb.inFlight, random), func(b *testing.B) {
				benchLoad(b, nfstest.Load{Proc: nfstest.Read, Size: bb.size, InFlight: bb.inFlight, Random: random})
			})
		}
	}
}

func BenchmarkWrite(b *testing.B) {
	b.Run("1MiB×8", func(b *testing.B) {
		benchLoad(b, nfstest.Load{Proc: nfstest.Write, Size: 1 << 20, InFlight: 8, Stable: nfstest.FileSync})
	})
	b.Run("4KiB×32", func(b *testing.B) {
		benchLoad(b, nfstest.Load{Proc: nfstest.Write, Size: 4 << 10, InFlight: 32, Stable: nfstest.FileSync, Random: true})
	})
}
