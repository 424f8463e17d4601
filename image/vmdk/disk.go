package vmdk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sort"
	"strings"

	"holdfast/image/internal/fault"
	"holdfast/image/internal/layer"
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
	cid        uint32
	sizeBytes  int64
	parts      []part      // in order and without gaps
	files      []io.Closer // extents and the parent
	parent     Parent      // nil: what is absent reads as zeros
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

// Files opens what a VMDK names, by the name as the descriptor has it. What is
// opened belongs to the Disk.
type Files struct {
	Extent func(name string) (Extent, error)
	Parent func(name string) (Parent, error)
}

// Detect says whether ra is a VMDK we know of: an extent of grains, of whatever
// kind, or a descriptor. It looks at the first bytes only.
func Detect(ra io.ReaderAt, size int64) bool {
	b := make([]byte, min(size, sectorSize))
	n, _ := ra.ReadAt(b, 0)
	return strings.HasPrefix(string(b[:n]), sparseMagic) || isDescriptor(b[:n]) || bareKind(b[:n]) != ""
}

// bareKind names the extent that b begins, if it is of a kind that never holds
// its descriptor.
func bareKind(b []byte) string {
	switch {
	case strings.HasPrefix(string(b), cowdMagic):
		return "COWD (vmfsSparse)"
	case len(b) >= 8 && binary.LittleEndian.Uint64(b) == seMagic:
		return "seSparse"
	}
	return ""
}

func isDescriptor(b []byte) bool {
	text := strings.TrimLeft(string(b), " \t\r\n")
	return len(text) >= len(descriptorMagic) && strings.EqualFold(text[:len(descriptorMagic)], descriptorMagic)
}

// Open reads the disk whose descriptor, or single extent with a descriptor
// inside, is the size bytes of ra, which stays the caller's. Where the disk
// holds only what changed since a parent, the rest is read from that. A parent
// whose CID is not the one the descriptor says is ErrDamaged: the disk would be
// made of pieces that don't belong together.
func Open(ra io.ReaderAt, size int64, files Files) (*Disk, error) {
	head := make([]byte, min(size, sectorSize))
	if err := layer.ReadFull(ra, head, 0); err != nil {
		return nil, err
	}
	switch {
	case strings.HasPrefix(string(head), sparseMagic):
		return openMonolithic(ra, size, files)
	case isDescriptor(head):
		return openDescriptor(ra, size, files)
	case bareKind(head) != "":
		return nil, errBare(bareKind(head))
	}
	return nil, fmt.Errorf("%w: neither a VMDK descriptor nor a sparse extent", fault.ErrDamaged)
}

func errBare(kind string) error {
	return fmt.Errorf("%w: a %s extent of a VMDK without its descriptor; name the descriptor file instead", fault.ErrUnsupported, kind)
}

// openMonolithic opens a sparse extent that is a whole disk.
func openMonolithic(ra io.ReaderAt, size int64, files Files) (*Disk, error) {
	sp, err := openHosted(ra, size, newCaches())
	if err != nil {
		return nil, err
	}
	text, err := sp.descriptor()
	if err != nil {
		return nil, err
	}
	if !isDescriptor([]byte(text)) {
		return nil, errBare("sparse")
	}
	desc, err := parseDescriptor(text)
	if err != nil {
		return nil, err
	}
	if len(desc.extents) != 1 || desc.extents[0].kind != "SPARSE" {
		return nil, fmt.Errorf("%w: a %s with its descriptor inside has one SPARSE extent", fault.ErrDamaged, desc.createType)
	}
	d, err := desc.disk(files)
	if err != nil {
		return nil, err
	}
	d.sizeBytes = sp.sizeBytes
	d.parts = []part{{0, sp.sizeBytes, sp.over(d.below(0))}}
	return d, nil
}

// disk makes the disk, with its parent and without its extents.
func (desc *descriptor) disk(files Files) (*Disk, error) {
	d := &Disk{createType: desc.createType, cid: desc.cid}
	var err error
	if d.parent, err = desc.openParent(files.Parent); err != nil {
		return nil, err
	}
	if d.parent != nil {
		d.files = append(d.files, d.parent)
	}
	return d, nil
}

func openDescriptor(ra io.ReaderAt, size int64, files Files) (*Disk, error) {
	if size > maxDescriptor {
		return nil, fmt.Errorf("%w: a descriptor of %d bytes, at most %d are allowed", fault.ErrDamaged, size, maxDescriptor)
	}
	text := make([]byte, size)
	if err := layer.ReadFull(ra, text, 0); err != nil {
		return nil, err
	}
	desc, err := parseDescriptor(string(text))
	if err != nil {
		return nil, err
	}
	if len(desc.extents) == 0 {
		return nil, fmt.Errorf("%w: the descriptor has no extents", fault.ErrDamaged)
	}
	d, err := desc.disk(files)
	if err != nil {
		return nil, err
	}
	caches := newCaches()
	for _, line := range desc.extents {
		if err := d.add(line, files, caches); err != nil {
			return nil, errors.Join(err, d.Close())
		}
	}
	return d, nil
}

// add puts the extent of line at the end of the disk.
func (d *Disk) add(line extentLine, files Files, c *caches) error {
	if line.sectors > maxReadSectors-d.sizeBytes/sectorSize {
		return fmt.Errorf("%w: the extents add up to more than %d sectors", fault.ErrDamaged, int64(maxReadSectors))
	}
	p := part{start: d.sizeBytes, end: d.sizeBytes + line.sectors*sectorSize}
	switch {
	case line.access == "NOACCESS":
		return fmt.Errorf("VMDK with an extent of no access is %w", fault.ErrUnsupported)
	case line.kind == "ZERO":
	case line.kind == "FLAT" || line.kind == "VMFS" || sparseKinds[line.kind] != nil:
		f, err := files.Extent(line.file)
		if err != nil {
			return fmt.Errorf("extent %w", err)
		}
		d.files = append(d.files, f)
		if p.src, err = line.view(f, d.below(p.start), c); err != nil {
			return fmt.Errorf("extent %q: %w", line.file, err)
		}
	default:
		return fmt.Errorf("VMDK with a %s extent is %w", line.kind, fault.ErrUnsupported)
	}
	d.parts = append(d.parts, p)
	d.sizeBytes = p.end
	return nil
}

// below is the parent from byte base on, nil without one.
func (d *Disk) below(base int64) *below {
	if d.parent == nil {
		return nil
	}
	return &below{parent: d.parent, base: base}
}

// Size is the length of the disk in bytes.
func (d *Disk) Size() int64 { return d.sizeBytes }

// CreateType is the kind of the disk as its descriptor has it, as
// "monolithicSparse".
func (d *Disk) CreateType() string { return d.createType }

// CID names the content of the disk. Whoever writes to it gives it another.
func (d *Disk) CID() uint32 { return d.cid }

// Close closes the extents and the parent that Open opened.
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
		} else if err := layer.ReadFull(pt.src, piece, at-pt.start); err != nil {
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
