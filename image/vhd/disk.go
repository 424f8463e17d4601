package vhd

import (
	"fmt"
	"io"
	"time"

	"holdfast/image/internal/fault"
	"holdfast/image/internal/layer"
	"holdfast/image/internal/lru"
)

// Parent is the disk below a differencing disk, itself a VHD; image.Disk has the
// meaning of its first methods. *Disk is one.
type Parent interface {
	io.ReaderAt
	Size() int64
	NextData(off int64) (start, end int64, err error)
	io.Closer

	UniqueID() ID
	Stamp() time.Time
}

// Disk is a VHD open for reading. It meets image.Disk.
type Disk struct {
	l   layer.Disk
	f   *footer
	h   *header // nil in a fixed disk
	end int64   // where blocks must end

	pages *lru.Cache[int64, []byte]
}

// Open reads the disk in the size bytes of ra. If ra has a NextData, holes that
// it finds are holes of the disk.
//
// For a differencing disk, open is called with the names its parent may have,
// with slashes, one after the other until something is found: fs.ErrNotExist
// and image.ErrOutside mean that nothing was. What open returns belongs to the
// Disk, ra does not.
func Open(ra io.ReaderAt, size int64, open func(name string) (Parent, error)) (*Disk, error) {
	f, end, err := findFooter(ra, size)
	if err != nil {
		return nil, err
	}
	d := &Disk{f: f, end: end, l: layer.Disk{File: ra, SizeBytes: int64(f.currentSize)}}
	if f.kind == fixed {
		if f.currentSize > uint64(end) {
			return nil, fmt.Errorf("%w: a fixed VHD of %d bytes before its footer says it has %d", fault.ErrTruncated, end, f.currentSize)
		}
		d.l.Run = d.fixedRun
		return d, nil
	}
	if d.h, err = readHeader(ra, f, end); err != nil {
		return nil, err
	}
	d.pages = lru.New[int64, []byte](cachedPages)
	d.l.Run = d.run
	if f.kind == differencing {
		names, err := d.h.parentNames(ra, end)
		if err != nil {
			return nil, err
		}
		parent, err := layer.FindParent(names, open, d.fits)
		if err != nil {
			return nil, err
		}
		d.l.Parent = parent
	}
	return d, nil
}

// stampSlack is how exactly some file systems keep the dates that a child
// records.
const stampSlack = 2 * time.Second

// fits says whether p is the disk that d was made over.
func (d *Disk) fits(p Parent) error {
	if got := p.UniqueID(); got != d.h.parentID {
		return fmt.Errorf("%w: it is the disk %v, and the parent is %v", fault.ErrDamaged, got, d.h.parentID)
	}
	recorded := stampTime(d.h.parentStamp)
	if d.h.parentStamp != 0 && p.Stamp().After(recorded.Add(stampSlack)) {
		return fmt.Errorf("%w: it is of %v, changed since the disk above it recorded %v",
			fault.ErrDamaged, p.Stamp().Format(time.DateTime), recorded.Format(time.DateTime))
	}
	return nil
}

func stampTime(seconds uint32) time.Time { return epoch.Add(time.Duration(seconds) * time.Second) }

func (d *Disk) fixedRun(off int64) (layer.Run, error) {
	return layer.Run{Kind: layer.Held, N: d.l.SizeBytes - off, Host: off}, nil
}

// Size is the length of the disk in bytes.
func (d *Disk) Size() int64 { return d.l.SizeBytes }

// UniqueID is what a child names this disk by.
func (d *Disk) UniqueID() ID { return d.f.uniqueID }

// Stamp is the time in the footer: when the disk was made or, by some programs,
// last written.
func (d *Disk) Stamp() time.Time { return stampTime(d.f.stamp) }

// ReadAt has the meaning of image.Disk.
func (d *Disk) ReadAt(p []byte, off int64) (int, error) { return d.l.ReadAt(p, off) }

// NextData has the meaning of image.Disk.
func (d *Disk) NextData(off int64) (start, end int64, err error) { return d.l.NextData(off) }

// Close closes the parent.
func (d *Disk) Close() error { return d.l.Close() }
