package disktest

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"
)

// Pieces counts the stretches of data that a walk over d finds.
func Pieces(tb testing.TB, d Disk) (n int) {
	tb.Helper()
	for off := int64(0); ; n++ {
		_, end, err := d.NextData(off)
		if errors.Is(err, io.EOF) {
			return n
		}
		if err != nil {
			tb.Fatal(err)
		}
		off = end
	}
}

// Asks opens a disk that needs a parent, and holds the names that it asks for it by
// to want and the error to is. No name leads to one.
func Asks(tb testing.TB, want []string, is error, open func(parent func(name string)) error) {
	tb.Helper()
	var asked []string
	err := open(func(name string) { asked = append(asked, name) })
	if !errors.Is(err, is) {
		tb.Errorf("error is %v, want %v", err, is)
	}
	if !slices.Equal(asked, want) {
		tb.Errorf("asked for %q, want %q", asked, want)
	}
}

// ErrBroken is the error of a Broken.
var ErrBroken = errors.New("a read failed")

// Broken is a file of which one read, counted from 0, fails in its middle.
type Broken struct {
	io.ReaderAt
	Left int // reads before that
}

func (b *Broken) ReadAt(p []byte, off int64) (int, error) {
	if b.Left--; b.Left == -1 {
		return len(p) / 2, fmt.Errorf("at %d: %w", off, ErrBroken)
	}
	return b.ReaderAt.ReadAt(p, off)
}
