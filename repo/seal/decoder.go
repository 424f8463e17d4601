package seal

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
)

// maxLogicalBytes bounds what one stored frame may expand to. The longest are
// the frame tables of leaves, well under a MiB.
const maxLogicalBytes = 1<<24 - 1

// maxWindowBytes bounds the zstd window a frame may ask for; ours ask for
// 256 KiB or their own length. The window is no memory here: frames are
// decoded in place.
const maxWindowBytes = 8 << 20

// A Decoder undoes Encoder.Encode. It is safe for concurrent use and keeps one
// set of tables for each goroutine that is decoding.
type Decoder struct {
	zstd sync.Pool // of *zstd.Decoder
}

// NewDecoder returns a decoder for all codecs.
func NewDecoder() *Decoder { return &Decoder{} }

// Decode appends the logicalLen bytes that stored stands for to dst. Bytes that
// do not decode, or to another length, give ErrFormat and dst as it was. No
// more than logicalLen bytes are ever made room for, whatever stored asks for,
// and none when dst has the room. dst must not overlap stored.
func (d *Decoder) Decode(dst, stored []byte, codec Codec, logicalLen int) ([]byte, error) {
	if logicalLen < 0 || logicalLen > maxLogicalBytes {
		return dst, fmt.Errorf("decode %s: %w: logical length %d", codec, ErrFormat, logicalLen)
	}
	had := len(dst)
	dst = slices.Grow(dst, logicalLen)
	out := dst[had : had : had+logicalLen]
	var n int
	var err error
	switch codec {
	case Raw:
		if n = len(stored); n == logicalLen {
			copy(out[:n], stored)
		}
	case Zero:
		if len(stored) != 0 {
			err = errors.New("a frame of zeros has stored bytes")
		}
		n = logicalLen
		clear(out[:n])
	case S2:
		n, err = decodeS2(out[:logicalLen], stored)
	case Zstd:
		n, err = d.decodeZstd(out, stored)
	default:
		err = errors.New("unknown codec")
	}
	if err == nil && n != logicalLen {
		err = fmt.Errorf("%d bytes, want %d", n, logicalLen)
	}
	if err != nil {
		return dst[:had], fmt.Errorf("decode %s: %w: %w", codec, ErrFormat, err)
	}
	return dst[:had+logicalLen], nil
}

// decodeS2 returns the length stored claims; it decodes when that is len(out).
func decodeS2(out, stored []byte) (int, error) {
	n, err := s2.DecodedLen(stored)
	if err != nil || n != len(out) {
		return n, err
	}
	_, err = s2.Decode(out, stored)
	return n, err
}

// decodeZstd decodes into the capacity of out and returns how many bytes came.
func (d *Decoder) decodeZstd(out, stored []byte) (int, error) {
	z, _ := d.zstd.Get().(*zstd.Decoder)
	if z == nil {
		var err error
		z, err = zstd.NewReader(nil,
			zstd.WithDecoderConcurrency(1),
			zstd.WithDecoderLowmem(true),
			zstd.WithDecoderMaxMemory(maxLogicalBytes),
			zstd.WithDecoderMaxWindow(maxWindowBytes),
			zstd.WithDecodeAllCapLimit(true),
		)
		if err != nil {
			return 0, err
		}
	}
	defer d.zstd.Put(z)
	got, err := z.DecodeAll(stored, out)
	if len(got) > cap(out) {
		return len(got), err
	}
	// The decoder appends, so got lies where out does unless it outgrew it on the
	// way; to copy then costs nothing and assumes nothing.
	return copy(out[:len(got)], got), err
}
