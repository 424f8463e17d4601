package qcow2

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"sync"
	"sync/atomic"

	"holdfast/image/internal/fault"
	"holdfast/image/internal/layer"
	"holdfast/image/internal/lru"
)

const (
	// What one open file keeps: pages of tables, and unpacked clusters, at least
	// two. Little, because a chain has up to 64 files.
	pageBytes      = 16 << 10
	cachedPages    = 64
	cachedUnpacked = 2 << 20

	// maxRun cuts an extent of NextData. In a chain, each call on an overlay may
	// look this far ahead in the backing file, so it is small.
	maxRun = 16 << 20
)

// Backing is the disk below an overlay; image.Disk has the meaning of its
// methods.
type Backing interface {
	io.ReaderAt
	Size() int64
	NextData(off int64) (start, end int64, err error)
	io.Closer
}

// Disk is a qcow2 file open for reading. It meets image.Disk.
type Disk struct {
	ra       io.ReaderAt
	fileSize int64
	h        *header
	size     int64
	backing  Backing // nil: what is absent reads as zeros

	last     atomic.Pointer[stretch] // see nextBelow
	pages    *lru.Cache[int64, []byte]
	unpacked *lru.Cache[uint64, []byte]
	unpack   sync.Pool // of *unpacker
}

// Open reads the disk in the fileSize bytes of ra. If it has a backing file,
// open is called with the name and the format as the header has them, "" if it
// says no format. What open returns belongs to the Disk, ra does not.
func Open(ra io.ReaderAt, fileSize int64, open func(name, format string) (Backing, error)) (*Disk, error) {
	h, err := readHeader(ra, fileSize)
	if err != nil {
		return nil, err
	}
	d := &Disk{
		ra:       ra,
		fileSize: fileSize,
		h:        h,
		size:     int64(h.size),
		pages:    lru.New[int64, []byte](cachedPages),
		unpacked: lru.New[uint64, []byte](max(2, cachedUnpacked>>h.clusterBits)),
	}
	if h.backingName == "" {
		return d, nil
	}
	if before, _, ok := strings.Cut(h.backingName, ":"); ok && !strings.Contains(before, "/") {
		return nil, fmt.Errorf("qcow2 with the backing file %q, which is reached by protocol %q, is %w",
			h.backingName, before, fault.ErrUnsupported)
	}
	if d.backing, err = open(h.backingName, h.backingFormat); err != nil {
		return nil, fmt.Errorf("backing file %w", err)
	}
	return d, nil
}

// Size is the length of the disk in bytes.
func (d *Disk) Size() int64 { return d.size }

// Close closes the backing file.
func (d *Disk) Close() error {
	if d.backing == nil {
		return nil
	}
	return d.backing.Close()
}

// ReadAt has the meaning of image.Disk.
func (d *Disk) ReadAt(p []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, fs.ErrInvalid
	}
	for n < len(p) && off+int64(n) < d.size {
		at := off + int64(n)
		r, err := d.run(at)
		if err != nil {
			return n, err
		}
		piece := p[n:min(int64(len(p)), int64(n)+r.n, d.size-off)]
		switch r.kind {
		case zeros:
			clear(piece)
		case plain:
			err = layer.ReadFull(d.ra, piece, r.host)
		case packed:
			err = d.readPacked(piece, at, r.entry)
		case absent:
			err = d.readBacking(piece, at)
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

// readBacking reads what the overlay does not hold. Behind the end of a shorter
// backing file there are zeros.
func (d *Disk) readBacking(p []byte, off int64) error {
	if err := layer.ReadBelow(d.backing, p, off); err != nil {
		return d.below(err)
	}
	return nil
}

func (d *Disk) below(err error) error {
	return fmt.Errorf("backing file %q: %w", d.h.backingName, err)
}

// NextData has the meaning of image.Disk: data is what any layer of the chain
// holds and no layer above it declares zero.
func (d *Disk) NextData(off int64) (start, end int64, err error) {
	return layer.NextData(off, d.size, maxRun, d.dataAt)
}

// dataAt says whether data is at off, and up to where that holds.
func (d *Disk) dataAt(off int64) (data bool, until int64, err error) {
	r, err := d.run(off)
	if err != nil {
		return false, 0, err
	}
	until = min(off+r.n, d.size)
	if r.kind != absent || d.backing == nil {
		return r.kind == plain || r.kind == packed, until, nil
	}
	s, err := d.nextBelow(off)
	if err != nil {
		return false, 0, err
	}
	if off < s.start {
		return false, min(until, s.start), nil
	}
	return true, min(until, s.end), nil
}

// stretch is what the backing file said: no data from asked to start, then data
// to end.
type stretch struct{ asked, start, end int64 }

// nextBelow is where the backing file has data, at or after off. The answer is
// kept, or the walk over many small pieces of an overlay would look through the
// same hole below it again for each.
func (d *Disk) nextBelow(off int64) (stretch, error) {
	if s := d.last.Load(); s != nil && s.asked <= off && off < s.end {
		return *s, nil
	}
	s := stretch{asked: off}
	var err error
	s.start, s.end, err = d.backing.NextData(min(off, d.backing.Size()))
	if errors.Is(err, io.EOF) {
		s.start, s.end = d.size, d.size
	} else if err != nil {
		return s, d.below(err)
	}
	d.last.Store(&s)
	return s, nil
}
