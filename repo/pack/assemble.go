package pack

import (
	"holdfast/repo/chunk"
	"holdfast/repo/seal"
)

// An Assembler lays out one record in a buffer, with room for the header kept
// in front, so that frames are compressed or sealed straight to where they
// stay:
//
//	a.Begin(buf, frames)                     // buf's memory is used again
//	out, codec := enc.Encode(a.Bytes(), frame)
//	a.Add(out, digest, codec)                // … once per frame, in order
//	record, err := a.Finish()
//
// Kind, Flags, ID, Base, Salt and LogicalBytes of the embedded Header are set
// by the caller between Begin and Finish; the rest is filled in. The zero value
// is ready for Begin. Not safe for concurrent use.
type Assembler struct {
	Header
	buf []byte
}

// Begin starts a record of the given number of frames in buf's memory; what
// buf holds is overwritten. The header is cleared.
func (a *Assembler) Begin(buf []byte, frames int) {
	n := HeaderBytes(frames)
	if cap(buf) < n {
		buf = make([]byte, n)
	}
	a.buf = buf[:n]
	clear(a.buf)
	a.Header = Header{Frames: a.Frames[:0]}
}

// Bytes returns the record so far: what the next frame's stored bytes are
// appended to.
func (a *Assembler) Bytes() []byte { return a.buf }

// Add takes the record back with the next frame's stored bytes appended.
func (a *Assembler) Add(record []byte, d chunk.Digest, c seal.Codec) {
	off := len(a.buf)
	a.buf = record
	a.Frames = append(a.Frames, Frame{Digest: d, Off: uint32(off), Stored: uint32(len(record) - off), Codec: c})
}

// AddZero adds a frame of zeros as the next one.
func (a *Assembler) AddZero(d chunk.Digest) { a.Add(a.buf, d, seal.Zero) }

// AddBase adds a frame that lies in the base as the next one: f is its entry
// there.
func (a *Assembler) AddBase(f Frame) {
	f.InBase = true
	a.Frames = append(a.Frames, f)
}

// Finish writes the header and returns the whole record, which shares memory
// with the buffer of Begin unless that had to grow. A record that ParseHeader
// would refuse, and one with other than the number of frames told to Begin, is
// ErrFormat.
func (a *Assembler) Finish() ([]byte, error) {
	body := min(a.HeaderBytes(), len(a.buf))
	a.BodyBytes = uint32(len(a.buf) - body)
	a.BodyCRC = crc(a.buf[body:])
	// With another number of frames the offsets do not start at the header's
	// end, which AppendHeader refuses before it writes.
	if _, err := AppendHeader(a.buf[:0], &a.Header); err != nil {
		return nil, err
	}
	return a.buf, nil
}
