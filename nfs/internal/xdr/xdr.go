// Package xdr encodes and decodes the External Data Representation of RFC 4506,
// as far as ONC RPC and NFS use it, without reflection and without copying.
//
// Everything takes a multiple of four bytes, numbers are big-endian, and bytes
// of variable length are preceded by their number and followed by zeros up to
// the next multiple of four.
package xdr

import "encoding/binary"

// Reader decodes what is in a slice. After the first thing that doesn't decode
// all answers are zero and Bad is true.
type Reader struct {
	b   []byte
	bad bool
}

// NewReader returns a Reader of b, whose slices it hands out.
func NewReader(b []byte) Reader { return Reader{b: b} }

// Bad says whether something could not be decoded.
func (r *Reader) Bad() bool { return r.bad }

// Done says whether all was decoded and nothing is left.
func (r *Reader) Done() bool { return !r.bad && len(r.b) == 0 }

// Rest returns what is left.
func (r *Reader) Rest() []byte { return r.b }

// Uint32 decodes an unsigned integer, or an enumeration.
func (r *Reader) Uint32() uint32 {
	if len(r.b) < 4 {
		r.bad, r.b = true, nil
		return 0
	}
	v := binary.BigEndian.Uint32(r.b)
	r.b = r.b[4:]
	return v
}

// Uint64 decodes an unsigned hyper integer.
func (r *Reader) Uint64() uint64 {
	if len(r.b) < 8 {
		r.bad, r.b = true, nil
		return 0
	}
	v := binary.BigEndian.Uint64(r.b)
	r.b = r.b[8:]
	return v
}

// Bool decodes a boolean, which is 0 or 1 and nothing else.
func (r *Reader) Bool() bool {
	v := r.Uint32()
	if v > 1 {
		r.bad, r.b = true, nil
	}
	return v == 1
}

// Fixed decodes n bytes of opaque data. The slice is part of the Reader's.
func (r *Reader) Fixed(n int) []byte {
	padded := (n + 3) &^ 3
	if n < 0 || len(r.b) < padded {
		r.bad, r.b = true, nil
		return nil
	}
	v := r.b[:n:n]
	r.b = r.b[padded:]
	return v
}

// Opaque decodes opaque data of variable length, at most limit bytes. The slice
// is part of the Reader's.
func (r *Reader) Opaque(limit int) []byte {
	n := r.Uint32()
	if uint64(n) > uint64(limit) {
		r.bad, r.b = true, nil
		return nil
	}
	return r.Fixed(int(n))
}

// Writer appends to B.
type Writer struct{ B []byte }

func (w *Writer) Uint32(v uint32) { w.B = binary.BigEndian.AppendUint32(w.B, v) }
func (w *Writer) Uint64(v uint64) { w.B = binary.BigEndian.AppendUint64(w.B, v) }

// Bool encodes v as 1 or 0.
func (w *Writer) Bool(v bool) {
	var n uint32
	if v {
		n = 1
	}
	w.Uint32(n)
}

// Fixed encodes opaque data whose length the other side knows.
func (w *Writer) Fixed(p []byte) {
	w.B = append(w.B, p...)
	w.Pad(len(p))
}

// Opaque encodes opaque data with its length.
func (w *Writer) Opaque(p []byte) {
	w.Uint32(uint32(len(p)))
	w.Fixed(p)
}

// String encodes a string.
func (w *Writer) String(s string) {
	w.Uint32(uint32(len(s)))
	w.B = append(w.B, s...)
	w.Pad(len(s))
}

// Pad appends the zeros that follow n bytes.
func (w *Writer) Pad(n int) {
	var zeros [3]byte
	w.B = append(w.B, zeros[:Padding(n)]...)
}

// Padding is how many zeros follow n bytes.
func Padding(n int) int { return -n & 3 }

// SetUint32 writes v over the four bytes at offset at.
func (w *Writer) SetUint32(at int, v uint32) { binary.BigEndian.PutUint32(w.B[at:], v) }
