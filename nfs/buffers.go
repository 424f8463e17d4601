package nfs

import (
	"math/bits"
	"sync"
)

// buffers are pools of byte slices. Each has room for a power of two, from 1 KiB
// to 1 MiB, and the header that goes with so many bytes of data.
var buffers [11]sync.Pool

const (
	smallestBuffer = 10 // log2
	bufferSlack    = 1 << 10
)

// getBuffer returns an empty slice with room for n bytes.
func getBuffer(n int) []byte {
	class := max(bits.Len(uint(max(n-bufferSlack, 1)-1))-smallestBuffer, 0)
	if class >= len(buffers) {
		return make([]byte, 0, n)
	}
	if p, _ := buffers[class].Get().(*[]byte); p != nil {
		return (*p)[:0]
	}
	return make([]byte, 0, 1<<(class+smallestBuffer)+bufferSlack)
}

// putBuffer gives back what getBuffer returned. One that had to grow is let go.
func putBuffer(b []byte) {
	class := bits.Len(uint(max(cap(b)-bufferSlack, 1)-1)) - smallestBuffer
	if class < 0 || class >= len(buffers) || cap(b) != 1<<(class+smallestBuffer)+bufferSlack {
		return
	}
	b = b[:0]
	buffers[class].Put(&b)
}
