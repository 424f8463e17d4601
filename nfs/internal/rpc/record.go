// Package rpc is the part of ONC RPC version 2 (RFC 5531) that a server needs:
// records on a stream, the header of calls with the credentials AUTH_NONE and
// AUTH_SYS, and replies that accept or deny.
//
// # Records
//
// On a stream each message is a record: one fragment or more, each preceded by
// four bytes, big-endian: the top bit says that it is the record's last, the
// rest is its length. Source: RFC 5531 section 11, "Record Marking Standard".
//
//	| L | length, 31 bits | bytes … | L | length | bytes … |
package rpc

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// ErrRecord is what a stream that holds no proper records gives. There is no
// way to go on with it.
var ErrRecord = errors.New("not a proper record")

const (
	lastFragment = 1 << 31

	// inPlace is up to which length a record stays in the reader's own buffer.
	inPlace = 16 << 10

	// firstRead is how much of a longer one is waited for before room is made
	// for all that its sender claims to send.
	firstRead = 64 << 10

	// maxFragments in one record keep a sender of empty ones from keeping us.
	maxFragments = 1024
)

// RecordReader cuts a stream into records. Not for concurrent use.
type RecordReader struct {
	src   io.Reader
	limit int
	buf   []byte
	r, w  int // what of buf is not used yet

	// Waiting, if not nil, is called before each read from the stream; mid says
	// that part of a record is there already.
	Waiting func(mid bool)

	// Room, if not nil, is called before a long record gets a buffer of n bytes
	// in place of the one it has, which is nil at first. It returns one at least
	// that long, holding what the old one held.
	Room func(old []byte, n int) ([]byte, error)
}

// NewRecordReader returns a reader of the records of src, none longer than limit
// bytes.
func NewRecordReader(src io.Reader, limit int) *RecordReader {
	return &RecordReader{src: src, limit: limit, buf: make([]byte, inPlace+4+firstRead)}
}

// Ready says whether Next has a whole record without reading.
func (r *RecordReader) Ready() bool {
	have := r.buf[r.r:r.w]
	if len(have) < 4 {
		return false
	}
	mark := binary.BigEndian.Uint32(have)
	n := mark &^ lastFragment
	return mark&lastFragment != 0 && n <= inPlace && int(n) <= len(have)-4
}

// Next returns the next record. If own is true the slice came from Room, else
// it is good until the next call. io.EOF is the stream's end between two
// records; an end within one is io.ErrUnexpectedEOF. ErrRecord.
func (r *RecordReader) Next() (rec []byte, own bool, err error) {
	if err := r.fill(4, false); err != nil {
		return nil, false, err
	}
	mark := binary.BigEndian.Uint32(r.buf[r.r:])
	n := int(mark &^ lastFragment)
	if n > r.limit {
		return nil, false, fmt.Errorf("%w: fragment of %d bytes, limit %d", ErrRecord, n, r.limit)
	}
	if mark&lastFragment == 0 || n > inPlace {
		rec, err = r.long()
		return rec, true, err
	}
	if err := r.fill(4+n, true); err != nil {
		return nil, false, err
	}
	rec = r.buf[r.r+4 : r.r+4+n]
	r.r += 4 + n
	return rec, false, nil
}

// long puts a record together in a buffer of its own.
func (r *RecordReader) long() ([]byte, error) {
	var rec []byte
	for range maxFragments {
		if err := r.fill(4, true); err != nil {
			return nil, err
		}
		mark := binary.BigEndian.Uint32(r.buf[r.r:])
		n := int(mark &^ lastFragment)
		r.r += 4
		if n > r.limit-len(rec) {
			return nil, fmt.Errorf("%w: longer than %d bytes", ErrRecord, r.limit)
		}
		var err error
		if rec, err = r.fragment(rec, n); err != nil {
			return nil, err
		}
		if mark&lastFragment != 0 {
			return rec, nil
		}
	}
	return nil, fmt.Errorf("%w: more than %d fragments", ErrRecord, maxFragments)
}

// fragment appends n bytes of the stream to rec.
func (r *RecordReader) fragment(rec []byte, n int) ([]byte, error) {
	for n > 0 {
		step := n
		if len(rec) < firstRead {
			step = min(n, firstRead-len(rec))
		}
		longer, err := r.room(rec, len(rec)+step)
		if err != nil {
			return nil, err
		}
		at := len(rec)
		rec = longer[:at+step]
		if err := r.read(rec[at:]); err != nil {
			return nil, err
		}
		n -= step
	}
	return rec, nil
}

// read fills p from the buffer and then from the stream.
func (r *RecordReader) read(p []byte) error {
	at := copy(p, r.buf[r.r:r.w])
	r.r += at
	for at < len(p) {
		if r.Waiting != nil {
			r.Waiting(true)
		}
		got, err := r.src.Read(p[at:])
		if at += got; err != nil && at < len(p) {
			return unexpected(err)
		}
	}
	return nil
}

func (r *RecordReader) room(rec []byte, n int) ([]byte, error) {
	if n <= cap(rec) {
		return rec, nil
	}
	if r.Room != nil {
		return r.Room(rec, n)
	}
	return append(make([]byte, 0, n), rec...), nil
}

// fill reads until n bytes are in the buffer.
func (r *RecordReader) fill(n int, mid bool) error {
	if r.r == r.w {
		r.r, r.w = 0, 0
	} else if len(r.buf)-r.r < n {
		r.w = copy(r.buf, r.buf[r.r:r.w])
		r.r = 0
	}
	for r.w-r.r < n {
		mid = mid || r.w > r.r
		if r.Waiting != nil {
			r.Waiting(mid)
		}
		got, err := r.src.Read(r.buf[r.w:])
		if r.w += got; err != nil && r.w-r.r < n {
			if mid || r.w > r.r {
				return unexpected(err)
			}
			return err
		}
	}
	return nil
}

func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
