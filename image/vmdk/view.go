package vmdk

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/adler32"
	"io"
	"io/fs"
	"sync"
	"sync/atomic"

	"holdfast/image/internal/fault"
)

// StreamView shows a disk as a streamOptimized VMDK that is stored nowhere: the
// same kind of file as WriteStream writes, but with grains that are packed
// without being compressed, so that all have one length and the place of each
// is known without reading any other. The file is a little larger than the data
// of the disk; grains without data are left out of it.
//
// Where data lies is asked of the source once, by Load or whatever comes first,
// and kept as a bit per grain, in 72 bytes for each 32 MiB of the disk that are
// not all hole. The same source gives the same bytes every time.
//
// All methods may be called by several goroutines at once. The source must not
// change.
type StreamView struct {
	src  Source
	h    header
	head []byte // header and descriptor

	mu  sync.Mutex // held while the map is made
	all atomic.Pointer[grainMap]

	grains sync.Pool // of *[streamGrainBytes]byte
}

// A grain as it lies in the file: its marker, and a zlib stream of two stored
// blocks, half a grain each, padded to a sector.
//
//	 0  uint64  first sector in the disk      }
//	 8  uint32  bytes of the zlib stream      } grainStart
//	12  78 01   zlib header                   }
//	14  00      a stored block, not the last  }
//	15  uint16  its length, and the complement}
//	19  half of the grain
//	    01      the last block, length, complement
//	    the other half
//	    uint32  Adler-32 of the grain, big-endian
//
// Source: RFC 1950, RFC 1951 3.2.4.
const (
	halfGrain   = streamGrainBytes / 2
	grainStart  = markerBytes + 2 + blockStart
	blockStart  = 5
	secondBlock = grainStart + halfGrain
	secondHalf  = secondBlock + blockStart
	grainSum    = secondHalf + halfGrain
	grainEnd    = grainSum + adler32.Size

	viewGrainSectors = (grainEnd + sectorSize - 1) / sectorSize
)

// NewStreamView shows src as a streamOptimized VMDK called name whose content is
// named by cid, any number but ffffffff. Nothing is asked of src but its size,
// which is rounded up to a sector; more than 62 TiB is ErrTooLarge.
func NewStreamView(src Source, name string, cid uint32) (*StreamView, error) {
	if err := checkTarget(name, src.Size(), cid); err != nil {
		return nil, err
	}
	v := &StreamView{src: src, h: streamHeader(src.Size())}
	v.grains.New = func() any { return new([streamGrainBytes]byte) }
	var err error
	v.head, err = v.h.withDescriptor(name, cid)
	return v, err
}

// Load finds out where data lies, unless that is known. It returns ErrTooLarge
// if that is more than the format can hold, about 2 TiB, and what the source
// says. Afterwards Size can't fail.
func (v *StreamView) Load(ctx context.Context) error {
	_, err := v.load(ctx)
	return err
}

func (v *StreamView) load(ctx context.Context) (*grainMap, error) {
	if m := v.all.Load(); m != nil {
		return m, nil
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if m := v.all.Load(); m != nil {
		return m, nil
	}
	m, err := mapGrains(ctx, v.src, v.h.tables())
	if err != nil {
		return nil, err
	}
	v.all.Store(m)
	return m, nil
}

// Size is the length of the file in bytes. It is 0 if where data lies can't be
// found out: Load says why.
func (v *StreamView) Size() int64 {
	m, err := v.load(context.Background())
	if err != nil {
		return 0
	}
	return m.sectors * sectorSize
}

// NextData says that all of the file is data.
func (v *StreamView) NextData(off int64) (start, end int64, err error) {
	if off < 0 {
		return 0, 0, fs.ErrInvalid
	}
	m, err := v.load(context.Background())
	if err != nil {
		return 0, 0, err
	}
	if end = m.sectors * sectorSize; off >= end {
		return 0, 0, io.EOF
	}
	return off, end, nil
}

// ReadAt reads bytes of the file, with the meaning of image.Disk.
func (v *StreamView) ReadAt(p []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, fs.ErrInvalid
	}
	m, err := v.load(context.Background())
	if err != nil {
		return 0, err
	}
	for n < len(p) && off+int64(n) < m.sectors*sectorSize {
		k, err := v.read(m, p[n:], off+int64(n))
		if err != nil {
			return n, err
		}
		n += k
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// read reads from byte off of the file up to the end of the part that it is in.
func (v *StreamView) read(m *grainMap, p []byte, off int64) (int, error) {
	sector := off / sectorSize
	if sector < streamOverhead {
		return show(p, v.head, off, streamOverhead*sectorSize), nil
	}
	if sector >= m.directory {
		return v.readEnd(m, p, off-m.directory*sectorSize), nil
	}
	t := m.tableAt(sector)
	in := off - int64(t.at)*sectorSize
	packed := t.sectors() * sectorSize
	if in >= packed {
		return show(p, t.encode(), in-packed, (1+tableBytes/sectorSize)*sectorSize), nil
	}
	const grainBytes = viewGrainSectors * sectorSize
	p = p[:min(int64(len(p)), grainBytes-in%grainBytes)]
	return len(p), v.readGrain(p, t.grain(in/grainBytes), in%grainBytes)
}

// show copies what b, followed by zeros up to size bytes, has from off on.
func show(p, b []byte, off, size int64) int {
	p = p[:min(int64(len(p)), size-off)]
	n := 0
	if off < int64(len(b)) {
		n = copy(p, b[off:])
	}
	clear(p[n:])
	return len(p)
}

// readGrain fills p from byte in of the packed grain g.
func (v *StreamView) readGrain(p []byte, g, in int64) error {
	le := binary.LittleEndian
	block := func(last byte) []byte {
		b := le.AppendUint16([]byte{last}, halfGrain)
		return le.AppendUint16(b, 0xffff-halfGrain)
	}
	start := le.AppendUint64(nil, uint64(g)*streamGrainSectors)
	start = le.AppendUint32(start, grainEnd-markerBytes)
	start = append(start, 0x78, 0x01)

	clear(p)
	piece := func(from, to int64) []byte { // of p: bytes from up to to of the packed grain
		clamp := func(at int64) int64 { return max(0, min(at-in, int64(len(p)))) }
		return p[clamp(from):clamp(to)]
	}
	put := func(at int64, b []byte) {
		if part := piece(at, at+int64(len(b))); len(part) > 0 {
			copy(part, b[max(in-at, 0):])
		}
	}
	put(0, append(start, block(0)...))
	put(secondBlock, block(1))
	first, second := piece(grainStart, secondBlock), piece(secondHalf, grainSum)
	if err := readPadded(v.src, first, g*streamGrainBytes+max(in-grainStart, 0)); err != nil {
		return err
	}
	if err := readPadded(v.src, second, g*streamGrainBytes+halfGrain+max(in-secondHalf, 0)); err != nil {
		return err
	}
	if len(piece(grainSum, grainEnd)) == 0 {
		return nil
	}
	sum := adler32.New()
	if len(first) == halfGrain && len(second) == halfGrain {
		sum.Write(first)
		sum.Write(second)
	} else {
		b := v.grains.Get().(*[streamGrainBytes]byte)
		defer v.grains.Put(b)
		if err := readPadded(v.src, b[:], g*streamGrainBytes); err != nil {
			return err
		}
		sum.Write(b[:])
	}
	put(grainSum, sum.Sum(nil))
	return nil
}

// readEnd reads from byte off behind the last table: the directory, the footer
// and the end of the stream.
func (v *StreamView) readEnd(m *grainMap, p []byte, off int64) int {
	directory := sectorsOf(v.h.tables()*4) * sectorSize
	if off < sectorSize {
		return show(p, marker(markerDirectory, directory), off, sectorSize)
	}
	if off -= sectorSize; off < directory {
		p = p[:min(int64(len(p)), directory-off)]
		m.readDirectory(p, off)
		return len(p)
	}
	footer := v.h
	footer.directoryOffset = uint64(m.directory + 1)
	end := append(marker(markerFooter, sectorSize), footer.encode()...)
	end = append(end, marker(markerEnd, 0)...)
	return show(p, end, off-directory, int64(len(end)))
}

// checkData refuses data that cannot be what a source found at or after off.
func checkData(src Source, off, start, end int64) error {
	if start < off || end <= start || end > src.Size() {
		return fmt.Errorf("%w: data from %d to %d after %d", fault.ErrDamaged, start, end, off)
	}
	return nil
}
