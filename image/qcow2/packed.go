package qcow2

import (
	"bytes"
	"fmt"
	"io"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/zstd"

	"holdfast/image/internal/fault"
	"holdfast/image/internal/layer"
)

const sectorSize = 512

// maxWindow bounds what a zstd frame may make its decoder allocate. QEMU writes
// frames of one cluster, 2 MiB at most.
const maxWindow = 8 << 20

// readPacked fills p from disk offset off, which a packed entry holds.
func (d *Disk) readPacked(p []byte, off int64, entry uint64) error {
	cluster := d.h.clusterSize()
	if int64(len(p)) == cluster {
		return d.unpackTo(p, off, entry)
	}
	b, err := d.unpacked.Get(entry, func() ([]byte, error) {
		b := make([]byte, cluster)
		return b, d.unpackTo(b, off, entry)
	})
	if err != nil {
		return err
	}
	copy(p, b[off%cluster:])
	return nil
}

// stream is where the bytes of a packed entry lie. Its length is that of the
// sectors it touches; a stream may end before.
func (h *header) stream(entry uint64) (off, n int64) {
	x := 62 - (h.clusterBits - 8)
	off = int64(entry & (1<<x - 1))
	sectors := int64(entry&(1<<62-1))>>x + 1
	return off, sectors*sectorSize - off%sectorSize
}

// unpackTo fills dst, a whole cluster, from a packed entry.
func (d *Disk) unpackTo(dst []byte, off int64, entry uint64) error {
	place, n := d.h.stream(entry)
	if place >= d.fileSize {
		return fmt.Errorf("%w: compressed cluster at %d", fault.ErrTruncated, place)
	}
	u, _ := d.unpack.Get().(*unpacker)
	if u == nil {
		u = new(unpacker)
	}
	defer d.unpack.Put(u)
	have := min(n, d.fileSize-place) // the last stream may end the file
	if int64(cap(u.in)) < have {
		u.in = make([]byte, have)
	}
	u.in = u.in[:have]
	if err := layer.ReadFull(d.ra, u.in, place); err != nil {
		return err
	}
	if err := u.run(dst, d.h.compression); err != nil {
		kind := fault.ErrDamaged
		if have < n {
			kind = fault.ErrTruncated
		}
		return fmt.Errorf("%w: compressed cluster for disk offset %d: %v", kind, off/d.h.clusterSize()*d.h.clusterSize(), err)
	}
	return nil
}

// unpacker is a decoder with its input, kept for the next cluster.
type unpacker struct {
	in      []byte
	src     bytes.Reader // hides in, which ends in bytes of others, from the zstd decoder
	deflate io.ReadCloser
	zstd    *zstd.Decoder
}

// run unpacks u.in into dst, which it fills.
func (u *unpacker) run(dst []byte, compression uint8) error {
	u.src.Reset(u.in)
	r, err := u.decoder(compression)
	if err != nil {
		return err
	}
	_, err = io.ReadFull(r, dst)
	return err
}

func (u *unpacker) decoder(compression uint8) (r io.Reader, err error) {
	if compression == compressionDeflate {
		if u.deflate == nil {
			u.deflate = flate.NewReader(&u.src)
			return u.deflate, nil
		}
		return u.deflate, u.deflate.(flate.Resetter).Reset(&u.src, nil)
	}
	if u.zstd == nil {
		// With a concurrency of one the decoder starts no goroutine.
		u.zstd, err = zstd.NewReader(&u.src, zstd.WithDecoderConcurrency(1),
			zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow))
		return u.zstd, err
	}
	return u.zstd, u.zstd.Reset(&u.src)
}
