package seal

import (
	"fmt"
	"slices"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"

	"holdfast/repo/chunk"
)

// An Encoder compresses frames. It reuses its tables and allocates nothing
// once dst is large enough; it is for one goroutine at a time.
type Encoder struct {
	setting Compression
	zstd    *zstd.Encoder // nil unless the setting may use it
}

// NewEncoder returns an encoder for a setting ParseCompression accepts.
func NewEncoder(c Compression) (*Encoder, error) {
	c, err := ParseCompression(string(c))
	if err != nil {
		return nil, err
	}
	e := &Encoder{setting: c}
	switch c {
	case Auto, FastZstd:
		e.zstd, err = newZstd(zstd.SpeedFastest)
	case Dense:
		e.zstd, err = newZstd(zstd.SpeedBetterCompression)
	}
	if err != nil {
		return nil, fmt.Errorf("zstd encoder: %w", err)
	}
	return e, nil
}

// newZstd leaves the zstd checksum out: every frame has a digest.
func newZstd(level zstd.EncoderLevel) (*zstd.Encoder, error) {
	return zstd.NewWriter(nil,
		zstd.WithEncoderLevel(level),
		zstd.WithEncoderConcurrency(1),
		zstd.WithEncoderCRC(false),
		zstd.WithWindowSize(chunk.MaxFrameBytes),
	)
}

// Encode appends the stored form of frame, before sealing, to dst and says which
// codec it is. A frame that does not get smaller by the least gain is appended
// as it is (Raw); of a frame of zeros nothing is appended (Zero). dst must not
// overlap frame.
func (e *Encoder) Encode(dst, frame []byte) ([]byte, Codec) {
	if chunk.IsZero(frame) {
		return dst, Zero
	}
	had := len(dst)
	codec := Raw
	switch e.setting {
	case FastS2:
		dst = slices.Grow(dst, s2.MaxEncodedLen(len(frame)))
		dst = dst[:had+len(s2.Encode(dst[had:cap(dst)], frame))]
		codec = S2
	case Auto, FastZstd, Dense:
		dst = e.zstd.EncodeAll(frame, dst)
		codec = Zstd
	}
	if codec == Raw || !worth(len(dst)-had, len(frame)) {
		return append(dst[:had], frame...), Raw
	}
	return dst, codec
}

// worth reports whether storing n bytes for a frame of size pays for the reader's
// work: at least 1/64 saved.
func worth(n, size int) bool { return n <= size-size/64-1 }
