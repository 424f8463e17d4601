package ntfs

import (
	"fmt"

	"holdfast/fs"
)

// bitReader gives bits from the top of little-endian words of 16, and bytes from
// behind the words that it has taken in. It always holds 16 bits or more, which
// is how far XPRESS reads ahead.
type bitReader struct {
	src  []byte
	pos  int    // in src; behind it where words were made up
	bits uint32 // those next are at the top
	have int
	over bool // there was less than was taken
}

func newBitReader(src []byte) bitReader {
	r := bitReader{src: src}
	r.fill()
	r.fill()
	return r
}

// fill takes in a word, or zeros behind the end: two such may be read ahead.
func (r *bitReader) fill() {
	if r.pos+2 <= len(r.src) {
		r.bits |= uint32(le.Uint16(r.src[r.pos:])) << (16 - r.have)
	} else if r.pos >= len(r.src)+4 {
		r.over = true
	}
	r.pos += 2
	r.have += 16
}

func (r *bitReader) skip(n int) {
	r.bits <<= n
	if r.have -= n; r.have < 16 {
		r.fill()
	}
}

// take returns the next n bits, at most 16.
func (r *bitReader) take(n int) int {
	v := r.bits >> 1 >> (31 - n)
	r.skip(n)
	return int(v)
}

// bytes returns the number in the next n bytes.
func (r *bitReader) bytes(n int) int {
	if r.pos+n > len(r.src) {
		r.over = true
		return 0
	}
	var v int
	for i, b := range r.src[r.pos : r.pos+n] {
		v |= int(b) << (8 * i)
	}
	r.pos += n
	return v
}

const (
	longestCode = 16
	fastBits    = 9
)

// huffman is a canonical code: shorter codes first, then by symbol.
type huffman struct {
	fast    [1 << fastBits]uint16 // by the next bits: symbol and length of a short code
	limit   [longestCode + 2]uint32
	first   [longestCode + 2]int // in symbols, of a length
	symbols []uint16
}

// newHuffman makes a code of the lengths of its symbols, 0 for one that has
// none. Codes may be left over; to read one of those is over.
func newHuffman(lengths []byte) (*huffman, error) {
	h := &huffman{symbols: make([]uint16, 0, len(lengths))}
	next := uint32(0) // code, at the top of 16 bits
	for n := 1; n <= longestCode; n++ {
		h.first[n] = len(h.symbols)
		for symbol, l := range lengths {
			if int(l) != n {
				continue
			}
			h.symbols = append(h.symbols, uint16(symbol))
			span := uint32(1) << (longestCode - n)
			if next+span > 1<<longestCode {
				return nil, fmt.Errorf("codes overlap: %w", fs.ErrDamaged)
			}
			if n <= fastBits {
				for i := range span >> (longestCode - fastBits) {
					h.fast[next>>(longestCode-fastBits)+i] = uint16(symbol<<5 | n)
				}
			}
			next += span
		}
		h.limit[n] = next
	}
	return h, nil
}

// read returns the next symbol.
func (h *huffman) read(r *bitReader) int {
	if e := h.fast[r.bits>>(32-fastBits)]; e != 0 {
		r.skip(int(e & 31))
		return int(e >> 5)
	}
	code := r.bits >> (32 - longestCode)
	for n := fastBits + 1; n <= longestCode; n++ {
		if code < h.limit[n] {
			r.skip(n)
			return int(h.symbols[h.first[n]+int((code-h.limit[n-1])>>(longestCode-n))])
		}
	}
	r.over = true
	return 0
}
