package vhdx

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"sort"

	"holdfast/image/internal/fault"
	"holdfast/image/internal/layer"
)

// maxWrites bounds what one log may write.
const maxWrites = 1 << 18

// file is the file as it is once its log is replayed. Behind its own end, up to
// end, it has zeros.
type file struct {
	ra     io.ReaderAt
	size   int64 // of ra
	end    int64
	log    *ring
	writes []write // in order, none over another
}

// write is a stretch of the file that the log overwrites: with zeros, or with a
// data sector.
type write struct {
	extent
	from     int64 // place in the ring of the data sector, -1 zeros
	leading  [8]byte
	trailing [4]byte
}

// replay returns the file with its log, if the header names one.
func replay(ra io.ReaderAt, size int64, h *header) (*file, error) {
	f := &file{ra: ra, size: size, end: size}
	if h.logGUID == (GUID{}) {
		return f, nil
	}
	if h.log.len > maxLog {
		return nil, fmt.Errorf("VHDX with %d bytes of log to replay is %w", h.log.len, fault.ErrUnsupported)
	}
	f.log = &ring{ra, h.log, h.logGUID}
	sequence, err := f.log.activeSequence()
	if err != nil || len(sequence) == 0 {
		return f, err
	}
	head := sequence[len(sequence)-1]
	if head.flushed > size {
		return nil, fmt.Errorf("%w: the VHDX had %d bytes when its log was written and has %d", fault.ErrTruncated, head.flushed, size)
	}
	f.end = max(f.end, head.last)
	var writes []write
	for _, e := range sequence {
		if writes, err = f.log.appendWrites(writes, e); err != nil {
			return nil, err
		}
	}
	for _, w := range writes {
		if w.off < regions1At || w.overlaps(h.log) {
			return nil, fmt.Errorf("%w: the VHDX log writes over the header or itself, at %d", fault.ErrDamaged, w.off)
		}
		f.end = max(f.end, w.extent.end())
	}
	f.writes = latest(writes)
	return f, nil
}

// appendWrites adds what the descriptors of e say.
func (g *ring) appendWrites(writes []write, e entry) ([]write, error) {
	if int64(len(writes))+e.descriptors > maxWrites {
		return nil, fmt.Errorf("VHDX with a log of more than %d writes is %w", maxWrites, fault.ErrUnsupported)
	}
	b := make([]byte, entryHeaderBytes+e.descriptors*descriptorBytes)
	if err := g.read(b, e.at); err != nil {
		return nil, err
	}
	data := e.at + e.descriptorsEnd()
	for b = b[entryHeaderBytes:]; len(b) > 0; b = b[descriptorBytes:] {
		d := decodeDescriptor(b)
		w := write{extent: extent{d.off, d.len}, from: -1}
		if d.magic == descMagic {
			w.from, w.leading, w.trailing = data%g.len, d.leading, d.trailing
			data += logSector
		}
		if w.len > 0 {
			writes = append(writes, w)
		}
	}
	return writes, nil
}

// latest returns what is to be seen of writes made one after the other: in the
// order of the file, and none over another.
func latest(writes []write) []write {
	var borders []int64
	for _, w := range writes {
		borders = append(borders, w.off, w.end())
	}
	slices.Sort(borders)
	borders = slices.Compact(borders)

	// A cell is what lies between two borders. free[c] is, perhaps by way of
	// others, the first cell from c on that no later write has taken.
	by := make([]int32, len(borders))
	free := make([]int32, len(borders))
	for c := range free {
		free[c], by[c] = int32(c), -1
	}
	firstFree := func(c int32) int32 {
		for free[c] != c {
			free[c] = free[free[c]]
			c = free[c]
		}
		return c
	}
	for i := len(writes) - 1; i >= 0; i-- {
		first, _ := slices.BinarySearch(borders, writes[i].off)
		last, _ := slices.BinarySearch(borders, writes[i].end())
		for c := firstFree(int32(first)); c < int32(last); c = firstFree(c) {
			by[c], free[c] = int32(i), c+1
		}
	}
	var seen []write
	for c, i := range by {
		if i < 0 {
			continue
		}
		w := writes[i]
		w.off, w.len = borders[c], borders[c+1]-borders[c]
		if k := len(seen) - 1; k >= 0 && w.from < 0 && seen[k].from < 0 && seen[k].end() == w.off {
			seen[k].len += w.len
			continue
		}
		seen = append(seen, w)
	}
	return seen
}

// writeAt returns the first write that ends behind off.
func (f *file) writeAt(off int64) (w write, ok bool) {
	i := sort.Search(len(f.writes), func(i int) bool { return off < f.writes[i].end() })
	if i == len(f.writes) {
		return write{}, false
	}
	return f.writes[i], true
}

// ReadAt reads the file as it is once its log is replayed.
func (f *file) ReadAt(p []byte, off int64) (n int, err error) {
	for n < len(p) && off+int64(n) < f.end {
		at := off + int64(n)
		piece := p[n:min(int64(len(p)), f.end-off)]
		w, ok := f.writeAt(at)
		switch {
		case ok && w.off <= at:
			piece = piece[:min(int64(len(piece)), w.end()-at)]
			err = f.readWrite(piece, w, at-w.off)
		default:
			if ok {
				piece = piece[:min(int64(len(piece)), w.off-at)]
			}
			err = f.readOwn(piece, at)
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

func (f *file) readOwn(p []byte, off int64) error {
	own := p[:max(0, min(int64(len(p)), f.size-off))]
	clear(p[len(own):])
	return layer.ReadFull(f.ra, own, off)
}

// readWrite reads from byte in of what w writes.
func (f *file) readWrite(p []byte, w write, in int64) error {
	if w.from < 0 {
		clear(p)
		return nil
	}
	var sector [logSector]byte
	if err := f.log.read(sector[:], w.from); err != nil {
		return err
	}
	copy(sector[:], w.leading[:])
	copy(sector[logSector-len(w.trailing):], w.trailing[:])
	copy(p, sector[in:])
	return nil
}

// holeyFile is a file that knows the holes of its own. What the log writes is
// data.
type holeyFile struct {
	*file
	own interface {
		NextData(off int64) (start, end int64, err error)
	}
}

func (f holeyFile) NextData(off int64) (start, end int64, err error) {
	w, ok := f.writeAt(off)
	if ok && w.off <= off {
		return off, w.end(), nil
	}
	start, end, err = f.own.NextData(min(off, f.size))
	switch {
	case err != nil && !errors.Is(err, io.EOF):
		return 0, 0, err
	case ok && (err != nil || w.off <= start):
		return w.off, w.end(), nil
	case ok:
		return start, min(end, w.off), nil
	}
	return start, end, err
}
