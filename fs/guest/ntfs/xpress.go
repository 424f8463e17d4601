package ntfs

import (
	"fmt"

	"holdfast/fs"
)

// xpressSymbols are 256 literals, then matches by length and distance.
const xpressSymbols = 512

// unpackXpress fills dst from src, one chunk of XPRESS with Huffman codes: 256
// bytes with the lengths of the codes, then bits, with bytes for the lengths of
// long matches among them. Source: [MS-XCA] 2.1 and 2.2.
func unpackXpress(dst, src []byte) error {
	if len(src) < xpressSymbols/2+4 {
		return fmt.Errorf("XPRESS in %d bytes: %w", len(src), fs.ErrDamaged)
	}
	var lengths [xpressSymbols]byte
	for i, b := range src[:xpressSymbols/2] {
		lengths[2*i], lengths[2*i+1] = b&15, b>>4
	}
	codes, err := newHuffman(lengths[:])
	if err != nil {
		return err
	}
	r := newBitReader(src[xpressSymbols/2:])
	for at := 0; at < len(dst) && !r.over; {
		symbol := codes.read(&r)
		if symbol < 256 {
			dst[at] = byte(symbol)
			at++
			continue
		}
		distBits := symbol >> 4 & 15
		n := xpressLen(&r, symbol&15)
		dist := 1<<distBits + r.take(distBits)
		if err := copyMatch(dst, at, dist, n); err != nil {
			return fmt.Errorf("XPRESS %w", err)
		}
		at += n
	}
	if r.over {
		return fmt.Errorf("XPRESS ends too early: %w", fs.ErrDamaged)
	}
	return nil
}

// xpressLen returns the length that four bits of a symbol stand for, with the
// bytes that follow for a long one.
func xpressLen(r *bitReader, n int) int {
	if n == 15 {
		if n = r.bytes(1); n == 255 {
			if n = r.bytes(2); n == 0 {
				n = r.bytes(4)
			}
			if n < 15 {
				r.over = true
			}
			n -= 15
		}
		n += 15
	}
	return n + 3
}

// copyMatch copies n bytes to dst[at:] from dist before, which may overlap.
func copyMatch(dst []byte, at, dist, n int) error {
	if dist < 1 || dist > at || n < 0 || n > len(dst)-at {
		return fmt.Errorf("match of %d bytes, %d back, at %d of %d: %w", n, dist, at, len(dst), fs.ErrDamaged)
	}
	for i := at; i < at+n; i++ {
		dst[i] = dst[i-dist]
	}
	return nil
}
