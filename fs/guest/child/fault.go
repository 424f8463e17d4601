package child

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"

	"holdfast/fs"
)

// sentinels are what errors.Is still finds on the other side, by bit.
var sentinels = [...]error{
	fs.ErrNotFound, fs.ErrStale, fs.ErrNotDir, fs.ErrIsDir, fs.ErrInvalid, fs.ErrNoXattr, fs.ErrLoop, fs.ErrDamaged,
	fs.ErrUnsupported, fs.ErrRetry, fs.ErrNoSpace, fs.ErrReadOnly, fs.ErrPermission,
	io.EOF, context.Canceled, context.DeadlineExceeded,
}

// fault appends an error, nil too.
func (f frame) fault(err error) frame {
	if err == nil {
		return f.u16(0).u64(0).u32(0)
	}
	bits := uint16(0)
	for i, s := range sentinels {
		if errors.Is(err, s) {
			bits |= 1 << i
		}
	}
	var disk *diskError
	number := uint64(0)
	if errors.As(err, &disk) {
		number = disk.number
	}
	text := err.Error()
	return f.u16(bits).u64(number).str(text[:min(len(text), maxText)])
}

// fault takes an error. cause finds the error of the disk that has a number, and
// may be nil.
func (c *cursor) fault(cause func(uint64) error) error {
	bits, number := c.u16(), c.u64()
	text := c.str(maxText)
	if bits == 0 && number == 0 && text == "" {
		return nil
	}
	far := &farError{text: printable(text)}
	for i, s := range sentinels {
		if bits&(1<<i) != 0 {
			far.is = append(far.is, s)
		}
	}
	if number != 0 && cause != nil {
		if err := cause(number); err != nil {
			far.is = append(far.is, err)
		}
	}
	if len(far.is) == 1 && far.text == far.is[0].Error() {
		return far.is[0] // io.EOF is compared, not unwrapped
	}
	if len(far.is) == 0 { // every error of a Tree is one of these; the child's word for it is not needed
		far.is = append(far.is, fs.ErrDamaged)
	}
	return far
}

// farError is an error of the other process.
type farError struct {
	text string
	is   []error
}

func (e *farError) Error() string   { return e.text }
func (e *farError) Unwrap() []error { return e.is }

// printable makes a text fit for a log: what would steer a terminal is quoted.
func printable(s string) string {
	fine := func(r rune) bool { return r != utf8.RuneError && unicode.IsPrint(r) }
	if strings.IndexFunc(s, func(r rune) bool { return !fine(r) }) < 0 {
		return s
	}
	b := strings.Builder{}
	for _, r := range s {
		if fine(r) {
			b.WriteRune(r)
		} else {
			fmt.Fprintf(&b, "\\u%04x", r)
		}
	}
	return b.String()
}

// diskError is, in the child, an error of the parent's disk. The parent keeps
// the error itself under the number.
type diskError struct {
	number uint64
	err    error
}

func (e *diskError) Error() string { return e.err.Error() }
func (e *diskError) Unwrap() error { return e.err }
