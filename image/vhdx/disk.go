package vhdx

import (
	"fmt"
	"io"

	"holdfast/image/internal/fault"
	"holdfast/image/internal/layer"
	"holdfast/image/internal/lru"
)

// Parent is the disk below a differencing disk, itself a VHDX; image.Disk has
// the meaning of its first methods. *Disk is one.
type Parent interface {
	io.ReaderAt
	Size() int64
	NextData(off int64) (start, end int64, err error)
	io.Closer

	DataID() GUID
	SectorBytes() int
}

// Disk is a VHDX open for reading. It meets image.Disk.
type Disk struct {
	layout
	f       *file
	h       *header
	m       *metadata
	regions *regions
	l       layer.Disk

	pages *lru.Cache[int64, []byte]
}

// Open reads the disk in the fileSize bytes of ra, with its log replayed. If ra
// has a NextData, holes that it finds are holes of the disk.
//
// For a differencing disk, open is called with the names its parent may have,
// with slashes, one after the other until something is found: fs.ErrNotExist
// and image.ErrOutside mean that nothing was. What open returns belongs to the
// Disk, ra does not.
func Open(ra io.ReaderAt, fileSize int64, open func(name string) (Parent, error)) (*Disk, error) {
	h, err := currentHeader(ra, fileSize)
	if err != nil {
		return nil, err
	}
	f, err := replay(ra, fileSize, h)
	if err != nil {
		return nil, err
	}
	r, err := readRegions(f, h)
	if err != nil {
		return nil, err
	}
	m, err := readMetadata(f, r.metadata)
	if err != nil {
		return nil, err
	}
	d := &Disk{
		layout:  layout{block: m.block, size: m.size, sector: m.sector},
		f:       f,
		h:       h,
		m:       m,
		regions: r,
		pages:   lru.New[int64, []byte](cachedPages),
	}
	if need := d.entries(m.parent != nil) * batEntryBytes; r.bat.len < need {
		return nil, fmt.Errorf("%w: a BAT of %d bytes for a disk of %d bytes", fault.ErrDamaged, r.bat.len, m.size)
	}
	d.l = layer.Disk{File: f, SizeBytes: m.size, Run: d.run}
	if own, ok := ra.(interface {
		NextData(off int64) (start, end int64, err error)
	}); ok {
		d.l.File = holeyFile{f, own}
	}
	if m.parent != nil {
		parent, err := layer.FindParent(m.parent.names, open, d.fits)
		if err != nil {
			return nil, err
		}
		d.l.Parent = parent
	}
	return d, nil
}

// fits says whether p is the disk that d was made over.
func (d *Disk) fits(p Parent) error {
	if int64(p.SectorBytes()) != d.sector {
		return fmt.Errorf("%w: it has sectors of %d bytes, and the disk above it has %d", fault.ErrDamaged, p.SectorBytes(), d.sector)
	}
	for _, want := range d.m.parent.linkage {
		if p.DataID() == want {
			return nil
		}
	}
	return fmt.Errorf("%w: its data is %v, and the parent is %v: another disk, or changed since", fault.ErrDamaged, p.DataID(), d.m.parent.linkage[0])
}

// Size is the length of the disk in bytes.
func (d *Disk) Size() int64 { return d.size }

// SectorBytes is the length of the disk's logical sectors, 512 or 4096.
func (d *Disk) SectorBytes() int { return int(d.sector) }

// DataID is what a child names this disk by; it changes when the data does.
func (d *Disk) DataID() GUID { return d.h.dataGUID }

// ReadAt has the meaning of image.Disk.
func (d *Disk) ReadAt(p []byte, off int64) (int, error) { return d.l.ReadAt(p, off) }

// NextData has the meaning of image.Disk.
func (d *Disk) NextData(off int64) (start, end int64, err error) { return d.l.NextData(off) }

// Close closes the parent.
func (d *Disk) Close() error { return d.l.Close() }
