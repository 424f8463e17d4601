package vmdk

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/klauspost/compress/zlib"

	"holdfast/image/internal/fault"
	"holdfast/image/internal/layer"
)

// markerBytes is what precedes the zlib stream of a grain: uint64 first sector
// of the grain in the disk, uint32 bytes that follow.
const markerBytes = 12

// readPacked fills p from byte in of grain g, compressed at a sector.
func (s *sparse) readPacked(p []byte, g, in int64, sector int64) error {
	if int64(len(p)) == s.grainBytes {
		return s.unpack(p, g, sector)
	}
	cache := s.unpacked
	if s.grainBytes > streamGrainBytes {
		cache = s.large
	}
	b, err := cache.Get(place{s, g}, func() ([]byte, error) {
		b := make([]byte, s.grainBytes)
		return b, s.unpack(b, g, sector)
	})
	if err != nil {
		return err
	}
	copy(p, b[in:])
	return nil
}

// inflater is a zlib reader with its input, kept for the next grain.
type inflater struct {
	in  []byte
	src bytes.Reader
	z   io.ReadCloser // also a zlib.Resetter; nil before its first use
}

// unpack fills dst, a whole grain, with grain g. The last grain of the disk may
// have been packed without what lies behind the end.
func (s *sparse) unpack(dst []byte, g int64, sector int64) error {
	var m [markerBytes]byte
	off := sector * sectorSize
	if err := layer.ReadFull(s.ra, m[:], off); err != nil {
		return err
	}
	first, size := binary.LittleEndian.Uint64(m[:]), int64(binary.LittleEndian.Uint32(m[8:]))
	off += markerBytes
	switch {
	case first != uint64(g)*s.h.grainSectors:
		return fmt.Errorf("%w: the marker at sector %d is that of disk sector %d", fault.ErrDamaged, sector, first)
	case size == 0 || size > 2*s.grainBytes:
		return fmt.Errorf("%w: a compressed grain of %d bytes", fault.ErrDamaged, size)
	case size > s.fileBytes-off:
		return fmt.Errorf("%w: a compressed grain of %d bytes at %d", fault.ErrTruncated, size, off)
	}
	f, _ := s.inflate.Get().(*inflater)
	if f == nil {
		f = new(inflater)
	}
	defer s.inflate.Put(f)
	if int64(cap(f.in)) < size {
		f.in = make([]byte, size, max(size, s.grainBytes+sectorSize))
	}
	f.in = f.in[:size]
	if err := layer.ReadFull(s.ra, f.in, off); err != nil {
		return err
	}
	n, err := f.run(dst)
	if err != nil {
		return fmt.Errorf("%w: compressed grain: %v", fault.ErrDamaged, err)
	}
	if want := min(s.grainBytes, s.sizeBytes-g*s.grainBytes); int64(n) < want {
		return fmt.Errorf("%w: compressed grain holds %d bytes of %d", fault.ErrDamaged, n, want)
	}
	clear(dst[n:])
	return nil
}

// run unpacks f.in into dst and returns how much there was; more than dst holds
// is an error, as is a wrong checksum.
func (f *inflater) run(dst []byte) (n int, err error) {
	f.src.Reset(f.in)
	if f.z == nil {
		f.z, err = zlib.NewReader(&f.src)
	} else {
		err = f.z.(zlib.Resetter).Reset(&f.src, nil)
	}
	if err != nil {
		return 0, err
	}
	n, err = io.ReadFull(f.z, dst)
	if err == io.ErrUnexpectedEOF {
		return n, nil
	}
	if err != nil {
		return n, err
	}
	var more [1]byte
	if k, err := f.z.Read(more[:]); k > 0 {
		return n, fmt.Errorf("it holds more than a grain")
	} else if err != io.EOF {
		return n, err
	}
	return n, nil
}
