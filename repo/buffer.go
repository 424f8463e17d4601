package repo

import "sync"

// buffers keeps slices for stored bytes on their way to being decoded, so that
// reading makes no garbage.
var buffers = sync.Pool{New: func() any { return new([]byte) }}

// getBuffer returns a buffer of n bytes whose content is undefined.
func getBuffer(n int) *[]byte {
	b := buffers.Get().(*[]byte)
	if cap(*b) < n {
		*b = make([]byte, n)
	}
	*b = (*b)[:n]
	return b
}

func putBuffer(b *[]byte) { buffers.Put(b) }
