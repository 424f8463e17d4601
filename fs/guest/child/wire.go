package child

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// version is the protocol's. Parent and child are the same program, so another
// number means that the file was replaced between.
const version = 1

const (
	headerBytes = 4 + 1 + 8
	maxBody     = 1<<20 + 64<<10

	// maxCalls is how many questions of the parent are under way at most.
	maxCalls = 64

	// maxReads is how many reads of the child are under way at most, and
	// maxRead how long each may be.
	maxReads = 64
	maxRead  = 1 << 20
)

type kind uint8

const (
	kindConfig kind = iota + 1
	kindHello
	kindLayout
	kindOpen
	kindClose
	kindAttr
	kindLookup
	kindReadDir
	kindReadLink
	kindReadAt
	kindExtents
	kindStatFS
	kindXattrs
	kindXattr
	kindStreams
	kindCancel
	kindAnswer
	kindRead
	kindBlock
	kindAhead
)

var kindNames = [...]string{
	"", "config", "hello", "layout", "open", "close", "describe an inode", "look up a name", "read a directory", "read a link",
	"read a file", "ask for extents", "ask about the file system", "list attributes", "read an attribute", "list streams",
	"cancel", "answer", "read", "block", "ask for the extents of several files",
}

func (k kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// errProtocol is a frame that should not be.
var errProtocol = errors.New("protocol broken")

// frame is a message being written: its header, filled in by bytes, and body.
type frame []byte

func newFrame(room int) frame { return make(frame, headerBytes, headerBytes+room) }

// bytes finishes the frame.
func (f frame) bytes(k kind, number uint64) []byte {
	binary.LittleEndian.PutUint32(f, uint32(len(f)-headerBytes))
	f[4] = byte(k)
	binary.LittleEndian.PutUint64(f[5:], number)
	return f
}

func (f frame) u8(v uint8) frame   { return append(f, v) }
func (f frame) u16(v uint16) frame { return binary.LittleEndian.AppendUint16(f, v) }
func (f frame) u32(v uint32) frame { return binary.LittleEndian.AppendUint32(f, v) }
func (f frame) u64(v uint64) frame { return binary.LittleEndian.AppendUint64(f, v) }
func (f frame) i64(v int64) frame  { return f.u64(uint64(v)) }
func (f frame) str(s string) frame { return append(f.u32(uint32(len(s))), s...) }

func (f frame) flag(v bool) frame {
	if v {
		return f.u8(1)
	}
	return f.u8(0)
}

func (f frame) strs(list []string) frame {
	f = f.u32(uint32(len(list)))
	for _, s := range list {
		f = f.str(s)
	}
	return f
}

// readFrame reads one frame, with a body of its own.
func readFrame(r io.Reader) (k kind, number uint64, body []byte, err error) {
	var h [headerBytes]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return 0, 0, nil, err
	}
	n := binary.LittleEndian.Uint32(h[:])
	if n > maxBody {
		return 0, 0, nil, fmt.Errorf("frame of %d bytes: %w", n, errProtocol)
	}
	body = make([]byte, n)
	if _, err := io.ReadFull(r, body); err != nil {
		return 0, 0, nil, err
	}
	return kind(h[4]), binary.LittleEndian.Uint64(h[5:]), body, nil
}

// cursor takes a body apart. After the first thing that does not fit it is bad
// and gives zeros.
type cursor struct {
	b   []byte
	bad bool
}

// take returns the next n bytes, which stay the body's.
func (c *cursor) take(n int) []byte {
	if c.bad || n < 0 || n > len(c.b) {
		c.bad = true
		return nil
	}
	p := c.b[:n:n]
	c.b = c.b[n:]
	return p
}

func (c *cursor) u8() uint8 {
	if p := c.take(1); p != nil {
		return p[0]
	}
	return 0
}

func (c *cursor) u16() uint16 {
	if p := c.take(2); p != nil {
		return binary.LittleEndian.Uint16(p)
	}
	return 0
}

func (c *cursor) u32() uint32 {
	if p := c.take(4); p != nil {
		return binary.LittleEndian.Uint32(p)
	}
	return 0
}

func (c *cursor) u64() uint64 {
	if p := c.take(8); p != nil {
		return binary.LittleEndian.Uint64(p)
	}
	return 0
}

func (c *cursor) i64() int64 { return int64(c.u64()) }

func (c *cursor) flag() bool {
	v := c.u8()
	c.bad = c.bad || v > 1
	return v == 1
}

// str takes a string of at most limit bytes.
func (c *cursor) str(limit int) string {
	n := c.u32()
	if uint64(n) > uint64(limit) {
		c.bad = true
	}
	if c.bad {
		return ""
	}
	return string(c.take(int(n)))
}

// count takes the count of a list whose elements have at least size bytes each.
func (c *cursor) count(size int) int {
	n := c.u32()
	if uint64(n)*uint64(size) > uint64(len(c.b)) {
		c.bad = true
	}
	if c.bad {
		return 0
	}
	return int(n)
}

// strs takes a list of strings of at most limit bytes each.
func (c *cursor) strs(limit int) []string {
	n := c.count(4)
	var list []string
	for range n {
		list = append(list, c.str(limit))
	}
	return list
}

// end says whether the body was what it should be, to its last byte.
func (c *cursor) end() error {
	if c.bad || len(c.b) > 0 {
		return fmt.Errorf("body of a frame: %w", errProtocol)
	}
	return nil
}
