// Package layer reads a disk that lies in one file, perhaps over a parent: what
// the formats of Microsoft have in common, and some of it the others too.
package layer

import (
	"errors"
	"fmt"
	"io"
	"io/fs"

	"holdfast/image/internal/fault"
)

// maxRun cuts an extent of NextData. In a chain, each call on a disk may look
// this far ahead in its parent, so it is small.
const maxRun = 16 << 20

// Kind is how a part of the disk is held.
type Kind uint8

const (
	Absent Kind = iota // by the parent; zeros when there is none
	Zeros
	Held // by the file
)

// Run is N bytes of the disk, N > 0, that are held in one way.
type Run struct {
	Kind Kind
	N    int64
	Host int64 // Held: where the bytes begin in the file
}

// Parent is the disk below; image.Disk has the meaning of its methods.
type Parent interface {
	io.ReaderAt
	Size() int64
	NextData(off int64) (start, end int64, err error)
	io.Closer
}

// Disk is a disk in a file. Its fields are set before it is used and do not
// change; then it is safe for concurrent use.
type Disk struct {
	File      io.ReaderAt
	SizeBytes int64

	// Run says how the disk is held from byte off, 0 <= off < SizeBytes.
	Run func(off int64) (Run, error)

	// Parent is nil when there is none. Behind its end there are zeros.
	Parent Parent
}

// holey is a file that knows its own holes, which read as zeros.
type holey interface {
	NextData(off int64) (start, end int64, err error)
}

// ReadAt has the meaning of image.Disk.
func (d *Disk) ReadAt(p []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, fs.ErrInvalid
	}
	for n < len(p) && off+int64(n) < d.SizeBytes {
		at := off + int64(n)
		r, err := d.Run(at)
		if err != nil {
			return n, err
		}
		piece := p[n:min(int64(len(p)), int64(n)+r.N, d.SizeBytes-off)]
		switch r.Kind {
		case Zeros:
			clear(piece)
		case Held:
			err = ReadFull(d.File, piece, r.Host)
		default:
			err = d.readParent(piece, at)
		}
		if err != nil {
			return n, err
		}
		n += len(piece)
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (d *Disk) readParent(p []byte, off int64) error {
	if err := ReadBelow(d.Parent, p, off); err != nil {
		return ofParent(err)
	}
	return nil
}

// ReadBelow fills p from byte off of the disk below. Behind its end, and where
// there is none, there are zeros.
func ReadBelow(parent Parent, p []byte, off int64) error {
	if parent == nil || off >= parent.Size() {
		clear(p)
		return nil
	}
	below := p[:min(int64(len(p)), parent.Size()-off)]
	clear(p[len(below):])
	return ReadFull(parent, below, off)
}

// Close closes the parent.
func (d *Disk) Close() error {
	if d.Parent == nil {
		return nil
	}
	if err := d.Parent.Close(); err != nil {
		return errors.Join(errors.New("close parent"), err)
	}
	return nil
}

func ofParent(err error) error { return fmt.Errorf("parent: %w", err) }

// NextData has the meaning of image.Disk: data is what any layer of the chain
// holds and no layer above it declares zero, less the holes of the files.
func (d *Disk) NextData(off int64) (start, end int64, err error) {
	return NextData(off, d.SizeBytes, maxRun, newAhead(d).at)
}

// NextData is the method of that name for a disk of size bytes of which at says
// whether data is at an offset, and up to where that holds. Offsets rise. An
// extent is cut when it has maxRun bytes.
func NextData(off, size, maxRun int64, at func(off int64) (data bool, until int64, err error)) (start, end int64, err error) {
	if off < 0 {
		return 0, 0, fs.ErrInvalid
	}
	for start = -1; off < size; {
		data, until, err := at(off)
		switch {
		case err != nil:
			return 0, 0, err
		case data && start < 0:
			start = off
		case !data && start >= 0:
			return start, off, nil
		}
		if off = min(until, size); start >= 0 && off-start >= maxRun {
			break
		}
	}
	if start < 0 {
		return 0, 0, io.EOF
	}
	return start, off, nil
}

// ahead answers where data is for rising offsets.
type ahead struct {
	d      *Disk
	file   extents // of the file, unless it cannot say
	parent extents
}

func newAhead(d *Disk) *ahead {
	a := &ahead{d: d}
	if f, ok := d.File.(holey); ok {
		a.file = extents{next: f.NextData}
	}
	if d.Parent != nil {
		a.parent = extents{next: func(off int64) (int64, int64, error) {
			return d.Parent.NextData(min(off, d.Parent.Size()))
		}}
	}
	return a
}

// at says whether data is at off, and up to where that holds.
func (a *ahead) at(off int64) (data bool, until int64, err error) {
	r, err := a.d.Run(off)
	if err != nil {
		return false, 0, err
	}
	until = min(off+r.N, a.d.SizeBytes)
	switch {
	case r.Kind == Held && a.file.next != nil:
		data, n, err := a.file.at(r.Host)
		return data, min(until, off+n), err
	case r.Kind == Absent && a.parent.next != nil:
		data, n, err := a.parent.at(off)
		if err != nil {
			return false, 0, ofParent(err)
		}
		return data, min(until, off+n), nil
	}
	return r.Kind == Held, until, nil
}

// extents asks once for each extent of something that has a NextData.
type extents struct {
	next             func(off int64) (start, end int64, err error)
	asked            int64 // where it was asked from, and the answer
	start, end       int64
	known, exhausted bool
}

// far is behind the end of any file, and may be added to.
const far = 1 << 62

// at says whether data is at off, and for how many bytes that holds.
func (x *extents) at(off int64) (data bool, n int64, err error) {
	if !x.known || off < x.asked || (off >= x.end && !x.exhausted) {
		x.start, x.end, err = x.next(off)
		if x.exhausted = errors.Is(err, io.EOF); x.exhausted {
			x.start, x.end = far, far
		} else if err != nil {
			return false, 0, err
		}
		x.asked, x.known = off, true
	}
	if off < x.start {
		return false, x.start - off, nil
	}
	return true, x.end - off, nil
}

// ReadFull fills p from byte off; the end of r before that is ErrTruncated.
func ReadFull(r io.ReaderAt, p []byte, off int64) error {
	if len(p) == 0 {
		return nil
	}
	n, err := r.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == io.EOF {
		return fmt.Errorf("%w: %d bytes at %d are missing", fault.ErrTruncated, len(p)-n, off+int64(n))
	}
	return err
}

// Equal returns how many bits of b from bit first on are like it, least
// significant bit of a byte first, and that bit.
func Equal(b []byte, first int64) (n int64, set bool) {
	set = b[first/8]>>(first%8)&1 != 0
	whole := byte(0)
	if set {
		whole = 0xff
	}
	for i := first; i < int64(len(b))*8; {
		if i%8 == 0 && b[i/8] == whole {
			i += 8
			n += 8
			continue
		}
		if (b[i/8]>>(i%8)&1 != 0) != set {
			break
		}
		i++
		n++
	}
	return n, set
}
