package chunk

import "bytes"

var zeros [64 << 10]byte

// IsZero reports whether p holds only zeros.
func IsZero(p []byte) bool {
	// Data rarely starts with zeros, so the first word settles most frames.
	for len(p) > len(zeros) {
		if !bytes.Equal(p[:len(zeros)], zeros[:]) {
			return false
		}
		p = p[len(zeros):]
	}
	return bytes.Equal(p, zeros[:len(p)])
}
