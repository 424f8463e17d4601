package chunk

import (
	"fmt"
	"math/bits"
)

// Geometry is the one pair of lengths that a repository cuts its disks by. It
// is fixed when the repository is made.
type Geometry struct {
	ChunkBytes int // unit of deduplication; a power of two, MinChunkBytes to MaxChunkBytes
	FrameBytes int // unit of compression and reading; a power of two that divides ChunkBytes
}

// Check returns ErrGeometry unless both lengths are powers of two within their
// limits and the frame divides the chunk.
func (g Geometry) Check() error {
	pow2 := func(n int) bool { return n > 0 && bits.OnesCount(uint(n)) == 1 }
	switch {
	case !pow2(g.ChunkBytes) || g.ChunkBytes < MinChunkBytes || g.ChunkBytes > MaxChunkBytes:
		return fmt.Errorf("%w: chunk of %d bytes, want a power of two from %d to %d", ErrGeometry, g.ChunkBytes, MinChunkBytes, MaxChunkBytes)
	case !pow2(g.FrameBytes) || g.FrameBytes < MinFrameBytes || g.FrameBytes > MaxFrameBytes:
		return fmt.Errorf("%w: frame of %d bytes, want a power of two from %d to %d", ErrGeometry, g.FrameBytes, MinFrameBytes, MaxFrameBytes)
	}
	// A frame never exceeds a chunk: MaxFrameBytes is MinChunkBytes.
	return nil
}

// Frames is the number of frames in a chunk.
func (g Geometry) Frames() int { return g.ChunkBytes / g.FrameBytes }

// Chunks is the number of chunks that hold a disk of sizeBytes.
func (g Geometry) Chunks(sizeBytes int64) int64 {
	n := sizeBytes / int64(g.ChunkBytes)
	if sizeBytes%int64(g.ChunkBytes) != 0 {
		n++ // never by adding first: a size may be next to the largest
	}
	return n
}
