package repo

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
)

// An owner that backs up what another process reads asks that for bytes, over a
// socket of its user alone. A request has 16 bytes:
//
//	u8 what · u8 0 · u16 disk · u32 n · u64 off
//
//	1 read     n bytes from off
//	2 next     the next stretch with data at or behind off
//	3 ranges   n changed ranges from number off on
//
// An answer is u8 kind · u32 length · so many bytes: 0 the bytes read, fewer only
// at the disk's end; 1 pairs of u64 offset and u64 length; 2 there is no more;
// 3 an error in words. Several connections may ask at once, each one question at
// a time. Numbers are little-endian.
const (
	lendRead   = 1
	lendNext   = 2
	lendRanges = 3

	lentBytes = 0
	lentPairs = 1
	lentEnd   = 2
	lentError = 3

	maxLentRead   = 4 << 20
	maxLentRanges = 1 << 18
	maxLentError  = 4 << 10
)

// errLend says that the process that lends a disk answers what can't be.
var errLend = errors.New("the process that reads the disk answers nonsense")

type lendRequest struct {
	op   uint8
	disk uint16
	n    uint32
	off  int64
}

func (r lendRequest) bytes() []byte {
	b := []byte{r.op, 0}
	b = binary.LittleEndian.AppendUint16(b, r.disk)
	b = binary.LittleEndian.AppendUint32(b, r.n)
	return binary.LittleEndian.AppendUint64(b, uint64(r.off))
}

func (r *lendRequest) readFrom(in io.Reader) error {
	var b [16]byte
	if _, err := io.ReadFull(in, b[:]); err != nil {
		return err
	}
	le := binary.LittleEndian
	*r = lendRequest{b[0], le.Uint16(b[2:]), le.Uint32(b[4:]), int64(le.Uint64(b[8:]))}
	return nil
}

// appendLent appends an answer.
func appendLent(b []byte, kind uint8, p []byte) []byte {
	if kind == lentError {
		p = p[:min(len(p), maxLentError)]
	}
	b = append(b, kind)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(p)))
	return append(b, p...)
}

func appendPair(b []byte, r Range) []byte {
	b = binary.LittleEndian.AppendUint64(b, uint64(r.Off))
	return binary.LittleEndian.AppendUint64(b, uint64(r.Len))
}

// readLent reads an answer of the given kind, of at most limit bytes, into p if
// that is long enough. io.EOF: there is no more.
func readLent(in io.Reader, want uint8, p []byte, limit int) ([]byte, error) {
	var head [5]byte
	if _, err := io.ReadFull(in, head[:]); err != nil {
		return nil, lenderGone(err)
	}
	kind, n := head[0], int(binary.LittleEndian.Uint32(head[1:]))
	if kind == lentError {
		limit = maxLentError
	}
	if n > limit || kind != want && kind != lentEnd && kind != lentError {
		return nil, fmt.Errorf("%w: kind %d of %d bytes", errLend, kind, n)
	}
	if n > len(p) {
		p = make([]byte, n)
	}
	if _, err := io.ReadFull(in, p[:n]); err != nil {
		return nil, lenderGone(err)
	}
	switch kind {
	case lentEnd:
		return nil, io.EOF
	case lentError:
		return nil, fmt.Errorf("read lent disk: %s", p[:n])
	}
	return p[:n], nil
}

// lenderGone is the error of an answer that did not come. It is not io.EOF, which
// would mean that the disk ends there.
func lenderGone(err error) error {
	return fmt.Errorf("the process that reads the disk went away: %v", err)
}

// borrower asks a lender, over as many connections as there are questions at
// once.
type borrower struct {
	socket string

	mu     sync.Mutex // guards what follows
	idle   []net.Conn
	busy   map[net.Conn]bool
	closed bool
}

// ask sends a request and has read take the answer. A connection on which that
// fails is not used again.
func (b *borrower) ask(req lendRequest, read func(net.Conn) error) error {
	c, err := b.conn()
	if err != nil {
		return err
	}
	_, err = c.Write(req.bytes())
	if err == nil {
		err = read(c)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.busy, c)
	if b.closed || err != nil && !errors.Is(err, io.EOF) {
		_ = c.Close()
	} else {
		b.idle = append(b.idle, c)
	}
	return err
}

func (b *borrower) conn() (net.Conn, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil, net.ErrClosed
	}
	var c net.Conn
	if n := len(b.idle); n > 0 {
		c, b.idle = b.idle[n-1], b.idle[:n-1]
	} else {
		var err error
		if c, err = net.Dial("unix", b.socket); err != nil {
			return nil, err
		}
	}
	if b.busy == nil {
		b.busy = make(map[net.Conn]bool)
	}
	b.busy[c] = true
	return c, nil
}

// close ends all connections; who waits for an answer gets an error.
func (b *borrower) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	for _, c := range b.idle {
		_ = c.Close()
	}
	b.idle = nil
	for c := range b.busy {
		_ = c.Close()
	}
}

// read reads a part of a disk.
func (b *borrower) read(disk uint16, p []byte, off int64) (n int, err error) {
	err = b.ask(lendRequest{lendRead, disk, uint32(len(p)), off}, func(c net.Conn) error {
		got, err := readLent(c, lentBytes, p, len(p))
		n = len(got)
		return err
	})
	if err == nil && n < len(p) {
		err = io.EOF
	}
	return n, err
}

// pairs asks for stretches of a disk.
func (b *borrower) pairs(what uint8, disk uint16, off int64, most int) (list []Range, err error) {
	err = b.ask(lendRequest{what, disk, uint32(most), off}, func(c net.Conn) error {
		p, err := readLent(c, lentPairs, nil, 16*most)
		for ; len(p) >= 16; p = p[16:] {
			le := binary.LittleEndian
			list = append(list, Range{int64(le.Uint64(p)), int64(le.Uint64(p[8:]))})
		}
		return err
	})
	return list, err
}
