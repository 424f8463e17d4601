package chunk_test

import (
	"fmt"
	"testing"

	"holdfast/repo/chunk"
)

func TestIsZero(t *testing.T) {
	const most = 200 << 10 // beyond the table of zeros, several times
	for _, size := range []int{0, 1, 7, 63, 64, 4096, 64<<10 - 1, 64 << 10, 64<<10 + 1, 128 << 10, most} {
		p := make([]byte, size)
		if !chunk.IsZero(p) {
			t.Errorf("IsZero is false for %d zeros", size)
		}
		for _, at := range []int{0, 1, size / 2, 64<<10 - 1, 64 << 10, size - 1} {
			if at < 0 || at >= size {
				continue
			}
			p[at] = 0x80
			if chunk.IsZero(p) {
				t.Errorf("IsZero is true for %d bytes with one at %d", size, at)
			}
			p[at] = 0
		}
	}
}

func BenchmarkIsZero(b *testing.B) {
	for _, size := range []int{4 << 10, 128 << 10, 1 << 20} {
		p := make([]byte, size)
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			b.SetBytes(int64(size))
			for b.Loop() {
				if !chunk.IsZero(p) {
					b.Fatal("not zero")
				}
			}
		})
	}
}
