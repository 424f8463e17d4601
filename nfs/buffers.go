package nfs

import (
	"math/bits"
	"sync"
)

// buffers are pools of byte slices, one for each power of two from 1 KiB to 2 MiB.
var buffers [12]sync.Pool

const smallestBuffer = 10 // log2

// getBuffer returns an empty slice with room for n bytes.
func getBuffer(n int) []byte {
	class := max(bits.Len(uint(max(n, 1)-1))-smallestBuffer, 0)
	if class >= len(buffers) {
		return make([]byte, 0, n)
	}
	if p, _ := buffers[class].Get().(*[]byte); p != nil {
		return (*p)[:0]
	}
	return make([]byte, 0, 1<<(class+smallestBuffer))
}

// putBuffer gives back what getBuffer returned, also if it has grown since.
func putBuffer(b []byte) {
	class := bits.Len(uint(cap(b))) - 1 - smallestBuffer
	if class < 0 || class >= len(buffers) {
		return
	}
	b = b[:0]
	buffers[class].Put(&b)
}
