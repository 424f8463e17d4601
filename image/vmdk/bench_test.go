package vmdk

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"testing"

	"holdfast/image/internal/disktest"
)

func BenchmarkRead(b *testing.B) {
	content := disktest.Pattern(64<<20, 31)
	for name, file := range map[string][]byte{
		"monolithicSparse": makeSparse(content).bytes,
		"streamOptimized":  stream1(b, content, 2),
	} {
		b.Run(name, func(b *testing.B) {
			d, err := Open(bytes.NewReader(file), int64(len(file)), noExtents)
			if err != nil {
				b.Fatal(err)
			}
			buf := make([]byte, 1<<20)
			b.SetBytes(int64(len(content)))
			b.ReportAllocs()
			for b.Loop() {
				for off := int64(0); off < d.Size(); off += int64(len(buf)) {
					if _, err := d.ReadAt(buf, off); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}

func BenchmarkWriteStream(b *testing.B) {
	content := disktest.Memory(disktest.Pattern(64<<20, 32))
	for _, level := range []int{1, 3, 6} {
		for _, workers := range []int{1, 2} {
			b.Run(fmt.Sprintf("level=%d/workers=%d", level, workers), func(b *testing.B) {
				var n counter
				b.SetBytes(int64(len(content)))
				b.ReportAllocs()
				for b.Loop() {
					n = 0
					opt := StreamOptions{Name: "a.vmdk", Level: level, Workers: workers}
					if err := WriteStream(context.Background(), &n, content, opt); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(n), "stored-bytes")
			})
		}
	}
}

type counter int64

func (c *counter) Write(b []byte) (int, error) { *c += counter(len(b)); return len(b), nil }

var _ io.Writer = (*counter)(nil)
