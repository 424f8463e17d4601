package vmdk

import (
	"fmt"
	"io"
	"sync/atomic"

	"holdfast/image/internal/layer"
)

// Parent is the disk that a delta was made from: the delta holds what was
// written since. CID names the content that the delta was made from.
type Parent interface {
	Extent
	CID() uint32
}

// held is how an extent holds a part of the disk.
type held uint8

const (
	absent held = iota // the parent has it; without a parent it is zeros
	zeroed
	stored
)

// heldAs is what an entry of a table says.
func heldAs(entry int64) held {
	switch entry {
	case grainAbsent:
		return absent
	case grainZeros:
		return zeroed
	}
	return stored
}

// delta is an extent of a disk with a parent.
type delta struct {
	top    *sparse
	parent *below
}

// over is the extent with a parent below it, nil for none.
func (s *sparse) over(parent *below) blocks {
	if parent == nil {
		return s
	}
	return delta{s, parent}
}

// ReadAt is called for what lies in the extent only.
func (d delta) ReadAt(p []byte, off int64) (n int, err error) {
	for n < len(p) {
		at := off + int64(n)
		h, end, err := d.top.run(at)
		if err != nil {
			return n, err
		}
		piece := p[n:min(int64(len(p)), int64(n)+end-at)]
		switch h {
		case absent:
			err = d.parent.read(piece, at)
		case zeroed:
			clear(piece)
		case stored:
			_, err = d.top.ReadAt(piece, at)
		}
		if err != nil {
			return n, err
		}
		n += len(piece)
	}
	return n, nil
}

// NextData has the meaning of image.Disk: data is what the extent stores, and
// what the parent has where the extent is absent.
func (d delta) NextData(off int64) (start, end int64, err error) {
	return layer.NextData(off, d.top.sizeBytes, d.top.maxRun(), func(off int64) (data bool, end int64, err error) {
		h, end, err := d.top.run(off)
		if err != nil || h != absent {
			return h == stored, end, err
		}
		next, err := d.parent.next(off)
		if err != nil || off >= next.start {
			return true, min(end, next.end), err
		}
		return false, min(end, next.start), nil
	})
}

// below is what lies below an extent: the bytes of the parent from base on, and
// zeros where a smaller parent ends.
type below struct {
	parent Parent
	base   int64
	last   atomic.Pointer[stretch] // the last answer of the parent
}

// stretch is what a parent said: no data from asked to start, then data to end.
type stretch struct{ asked, start, end int64 }

func (b *below) read(p []byte, off int64) error {
	return inParent(readPadded(b.parent, p, b.base+off))
}

// next is where the parent has data, at or after off. The answer is kept, or the
// walk over many small pieces would look through the same hole of the parent
// again for each.
func (b *below) next(off int64) (stretch, error) {
	at := b.base + off
	s := b.last.Load()
	if s == nil || at < s.asked || at >= s.end {
		s = &stretch{asked: at}
		var err error
		if at >= b.parent.Size() {
			err = io.EOF
		} else {
			s.start, s.end, err = b.parent.NextData(at)
		}
		if err == io.EOF {
			s.start, s.end, err = maxReadSectors*sectorSize, maxReadSectors*sectorSize, nil
		}
		if err != nil {
			return stretch{}, inParent(err)
		}
		b.last.Store(s)
	}
	return stretch{s.asked - b.base, s.start - b.base, s.end - b.base}, nil
}

func inParent(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("parent: %w", err)
}
