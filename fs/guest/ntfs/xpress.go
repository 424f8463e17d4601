package ntfs

import (
	"fmt"

	"holdfast/fs"
)

const (
	xpressSymbols = 512 // 256 literals, then matches by length and distance
	xpressBits    = 15  // of the longest code
)

// unpackXpress fills dst from src, one chunk of XPRESS with Huffman codes: 256
// bytes with the lengths of 512 codes, then bits from the top of 16-bit words,
// with bytes of long matches among the words. Source: [MS-XCA] 2.1 and 2.2.
func unpackXpress(dst, src []byte) error {
	if len(src) < xpressSymbols/2+4 {
		return fmt.Errorf("XPRESS in %d bytes: %w", len(src), fs.ErrDamaged)
	}
	codes, err := newHuffman(src[:xpressSymbols/2])
	if err != nil {
		return err
	}
	r := bitReader{src: src[xpressSymbols/2:]}
	r.fill()
	r.fill()
	for at := 0; at < len(dst); {
		symbol := codes.read(&r)
		if symbol < 256 {
			dst[at] = byte(symbol)
			at++
			continue
		}
		distBits := symbol >> 4 & 15
		n := r.matchLen(symbol & 15)
		dist := 1<<distBits + int(r.take(distBits))
		if dist > at || n > len(dst)-at || r.over {
			return fmt.Errorf("XPRESS match of %d bytes %d back at %d of %d: %w", n, dist, at, len(dst), fs.ErrDamaged)
		}
		for range n {
			dst[at] = dst[at-dist]
			at++
		}
	}
	if r.over {
		return fmt.Errorf("XPRESS ends too early: %w", fs.ErrDamaged)
	}
	return nil
}

// bitReader gives bits from the top of little-endian words of 16.
type bitReader struct {
	src  []byte
	bits uint32 // those next are at the top
	have int    // how many; always 16 or more
	over bool   // more was taken than there is
	past int    // words made up behind the end
}

// fill takes in a word. One or two behind the end are read ahead, not used.
func (r *bitReader) fill() {
	var word uint32
	if len(r.src) >= 2 {
		word = uint32(le.Uint16(r.src))
		r.src = r.src[2:]
	} else if r.past++; r.past > 2 {
		r.over = true
	}
	r.bits |= word << (16 - r.have)
	r.have += 16
}

func (r *bitReader) skip(n int) {
	r.bits <<= n
	if r.have -= n; r.have < 16 {
		r.fill()
	}
}

func (r *bitReader) take(n int) uint32 {
	v := r.bits >> 1 >> (31 - n)
	r.skip(n)
	return v
}

func (r *bitReader) bytes(n int) int {
	if len(r.src) < n {
		r.over = true
		return 0
	}
	var v int
	for i := range n {
		v |= int(r.src[i]) << (8 * i)
	}
	r.src = r.src[n:]
	return v
}

// matchLen returns the length that four bits of a symbol stand for, with the
// bytes that follow for a long one.
func (r *bitReader) matchLen(n int) int {
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

// huffman is a canonical code: by the next 15 bits, the symbol and its length.
type huffman [1 << xpressBits]uint16

func newHuffman(lengths []byte) (*huffman, error) {
	var h huffman
	at := 0
	for n := 1; n <= xpressBits; n++ {
		for symbol := range xpressSymbols {
			if int(lengths[symbol/2]>>(4*(symbol%2))&15) != n {
				continue
			}
			span := 1 << (xpressBits - n)
			if at+span > len(h) {
				return nil, fmt.Errorf("XPRESS codes overlap: %w", fs.ErrDamaged)
			}
			for i := range span {
				h[at+i] = uint16(symbol<<4 | n)
			}
			at += span
		}
	}
	if at != len(h) {
		return nil, fmt.Errorf("XPRESS codes leave %d of %d out: %w", len(h)-at, len(h), fs.ErrDamaged)
	}
	return &h, nil
}

func (h *huffman) read(r *bitReader) int {
	e := h[r.bits>>(32-xpressBits)]
	r.skip(int(e & 15))
	return int(e >> 4)
}
