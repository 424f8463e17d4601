package vmdk

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sort"
	"strings"

	"holdfast/image/internal/fault"
)

// Source is a row of bytes that knows its holes; image.Disk has the meaning of
// its methods.
type Source interface {
	io.ReaderAt
	Size() int64
	NextData(off int64) (start, end int64, err error)
}

// Extent is a file that holds a part of a disk.
type Extent interface {
	Source
	io.Closer
}

// Disk is a VMDK open for reading. It meets image.Disk.
type Disk struct {
	createType string
	sizeBytes  int64
	parts      []part // in order and without gaps
	files      []io.Closer
	caches     *caches
}

// part is one extent as it lies in the disk. A nil src reads as zeros.
type part struct {
	start, end int64
	src        blocks
}

// blocks is what a part is read from, with offsets from its own start.
type blocks interface {
	io.ReaderAt
	NextData(off int64) (start, end int64, err error)
}

// Detect says whether ra is a VMDK we know of: a hosted sparse extent or a
// descriptor. It looks at the first bytes only.
func Detect(ra io.ReaderAt, size int64) bool {
	b := make([]byte, min(size, sectorSize))
	n, _ := ra.ReadAt(b, 0)
	return strings.HasPrefix(string(b[:n]), sparseMagic) || isDescriptor(b[:n])
}

func isDescriptor(b []byte) bool {
	text := strings.TrimLeft(string(b), " \t\r\n")
	return len(text) >= len(descriptorMagic) && strings.EqualFold(text[:len(descriptorMagic)], descriptorMagic)
}

// Open reads the disk whose descriptor, or single extent with a descriptor
// inside, is the size bytes of ra. Other extents are opened through open, with
// the name as the descriptor has it; they belong to the Disk. ra does not.
func Open(ra io.ReaderAt, size int64, open func(name string) (Extent, error)) (*Disk, error) {
	head := make([]byte, min(size, sectorSize))
	if err := readFull(ra, head, 0); err != nil {
		return nil, err
	}
	switch {
	case strings.HasPrefix(string(head), sparseMagic):
		return openMonolithic(ra, size)
	case isDescriptor(head):
		return openDescriptor(ra, size, open)
	}
	return nil, fmt.Errorf("%w: neither a VMDK descriptor nor a sparse extent", fault.ErrDamaged)
}

// openMonolithic opens a sparse extent that is a whole disk.
func openMonolithic(ra io.ReaderAt, size int64) (*Disk, error) {
	sp, err := openSparse(ra, size, newCaches())
	if err != nil {
		return nil, err
	}
	text, err := sp.descriptor()
	if err != nil {
		return nil, err
	}
	if !isDescriptor([]byte(text)) {
		return nil, fmt.Errorf("%w: an extent of a VMDK without its descriptor; name the descriptor file instead",
			fault.ErrUnsupported)
	}
	desc, err := parseDescriptor(text)
	if err != nil {
		return nil, err
	}
	if err := desc.checkParent(); err != nil {
		return nil, err
	}
	if len(desc.extents) != 1 || desc.extents[0].kind != "SPARSE" {
		return nil, fmt.Errorf("%w: a %s with its descriptor inside has one SPARSE extent", fault.ErrDamaged, desc.createType)
	}
	return &Disk{
		createType: desc.createType,
		sizeBytes:  sp.sizeBytes,
		parts:      []part{{0, sp.sizeBytes, sp}},
	}, nil
}

func openDescriptor(ra io.ReaderAt, size int64, open func(name string) (Extent, error)) (*Disk, error) {
	if size > maxDescriptor {
		return nil, fmt.Errorf("%w: a descriptor of %d bytes, at most %d are allowed", fault.ErrDamaged, size, maxDescriptor)
	}
	text := make([]byte, size)
	if err := readFull(ra, text, 0); err != nil {
		return nil, err
	}
	desc, err := parseDescriptor(string(text))
	if err != nil {
		return nil, err
	}
	if err := desc.checkParent(); err != nil {
		return nil, err
	}
	if len(desc.extents) == 0 {
		return nil, fmt.Errorf("%w: the descriptor has no extents", fault.ErrDamaged)
	}
	d := &Disk{createType: desc.createType, caches: newCaches()}
	for _, line := range desc.extents {
		if err := d.add(line, open); err != nil {
			return nil, errors.Join(err, d.Close())
		}
	}
	return d, nil
}

// add puts the extent of line at the end of the disk.
func (d *Disk) add(line extentLine, open func(name string) (Extent, error)) error {
	if line.sectors > maxReadSectors-d.sizeBytes/sectorSize {
		return fmt.Errorf("%w: the extents add up to more than %d sectors", fault.ErrDamaged, int64(maxReadSectors))
	}
	p := part{start: d.sizeBytes, end: d.sizeBytes + line.sectors*sectorSize}
	switch {
	case line.access == "NOACCESS":
		return fmt.Errorf("VMDK with an extent of no access is %w", fault.ErrUnsupported)
	case line.kind == "ZERO":
	case line.kind == "FLAT" || line.kind == "VMFS" || line.kind == "SPARSE":
		f, err := open(line.file)
		if err != nil {
			return fmt.Errorf("extent %w", err)
		}
		d.files = append(d.files, f)
		if p.src, err = line.view(f, d.caches); err != nil {
			return fmt.Errorf("extent %q: %w", line.file, err)
		}
	default:
		return fmt.Errorf("VMDK with a %s extent is %w", line.kind, fault.ErrUnsupported)
	}
	d.parts = append(d.parts, p)
	d.sizeBytes = p.end
	return nil
}

// Size is the length of the disk in bytes.
func (d *Disk) Size() int64 { return d.sizeBytes }

// CreateType is the kind of the disk as its descriptor has it, as
// "monolithicSparse".
func (d *Disk) CreateType() string { return d.createType }

// Close closes the extents that Open opened.
func (d *Disk) Close() error {
	var errs []error
	for _, f := range d.files {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}

// ReadAt has the meaning of image.Disk.
func (d *Disk) ReadAt(p []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, fs.ErrInvalid
	}
	for i := d.partAt(off); n < len(p) && i < len(d.parts); i++ {
		pt := d.parts[i]
		at := off + int64(n)
		piece := p[n : n+int(min(int64(len(p)-n), pt.end-at))]
		if pt.src == nil {
			clear(piece)
		} else if err := readFull(pt.src, piece, at-pt.start); err != nil {
			return n, err
		}
		n += len(piece)
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// NextData has the meaning of image.Disk; an extent of it ends where an extent
// of the VMDK does.
func (d *Disk) NextData(off int64) (start, end int64, err error) {
	if off < 0 {
		return 0, 0, fs.ErrInvalid
	}
	for i := d.partAt(off); i < len(d.parts); i++ {
		pt := d.parts[i]
		if pt.src == nil {
			continue
		}
		start, end, err := pt.src.NextData(max(off-pt.start, 0))
		if err == io.EOF {
			continue
		}
		return start + pt.start, end + pt.start, err
	}
	return 0, 0, io.EOF
}

// partAt is the index of the part that holds off, or len(d.parts).
func (d *Disk) partAt(off int64) int {
	return sort.Search(len(d.parts), func(i int) bool { return off < d.parts[i].end })
}
