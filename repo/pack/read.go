package pack

import (
	"bytes"
	"io"
)

// poison fills what could not be read, so that its CRC is wrong and no magic is
// in it. Zeros would pass for a block of zeros.
var poison = bytes.Repeat([]byte{0xA5}, BlockBytes)

// readFull fills p from off, which is a block's start. What cannot be read,
// block by block, or lies behind the end is poisoned; err is the first error
// of reading, which is for the record only.
func readFull(r io.ReaderAt, p []byte, off int64) (err error) {
	n, err := r.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == nil || err == io.EOF {
		fillPoison(p[n:])
		return nil
	}
	for at := 0; at < len(p); at += BlockBytes {
		b := p[at:min(at+BlockBytes, len(p))]
		if n, _ := r.ReadAt(b, off+int64(at)); n < len(b) {
			fillPoison(b[max(n, 0):])
		}
	}
	return err
}

func fillPoison(p []byte) {
	for len(p) > 0 {
		p = p[copy(p, poison):]
	}
}
