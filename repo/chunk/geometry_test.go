package chunk_test

import (
	"errors"
	"math"
	"testing"

	"holdfast/repo/chunk"
)

func TestGeometryCheck(t *testing.T) {
	for _, c := range []struct {
		name         string
		chunk, frame int
		ok           bool
	}{
		{"default", chunk.DefaultChunkBytes, chunk.DefaultFrameBytes, true},
		{"least", chunk.MinChunkBytes, chunk.MinFrameBytes, true},
		{"most", chunk.MaxChunkBytes, chunk.MaxFrameBytes, true},
		{"most frames", chunk.MaxChunkBytes, chunk.MinFrameBytes, true},
		{"one frame", chunk.MinChunkBytes, chunk.MaxFrameBytes, true},
		{"zero", 0, 0, false},
		{"negative", -chunk.DefaultChunkBytes, chunk.DefaultFrameBytes, false},
		{"least int", math.MinInt, chunk.DefaultFrameBytes, false},
		{"chunk no power of two", 3 << 18, chunk.DefaultFrameBytes, false},
		{"frame no power of two", chunk.DefaultChunkBytes, 96 << 10, false},
		{"chunk too short", chunk.MinChunkBytes / 2, chunk.MinFrameBytes, false},
		{"chunk too long", chunk.MaxChunkBytes * 2, chunk.DefaultFrameBytes, false},
		{"frame too short", chunk.DefaultChunkBytes, chunk.MinFrameBytes / 2, false},
		{"frame too long", chunk.DefaultChunkBytes, chunk.MaxFrameBytes * 2, false},
	} {
		g := chunk.Geometry{ChunkBytes: c.chunk, FrameBytes: c.frame}
		err := g.Check()
		if c.ok != (err == nil) || !c.ok && !errors.Is(err, chunk.ErrGeometry) {
			t.Errorf("%s: Check() = %v, want ok %v", c.name, err, c.ok)
		}
		if c.ok && (g.Frames() < 1 || g.Frames() > 64 || g.Frames()*c.frame != c.chunk) {
			t.Errorf("%s: %d frames", c.name, g.Frames())
		}
	}
}

func TestGeometryChunks(t *testing.T) {
	g := chunk.Geometry{ChunkBytes: 1 << 20, FrameBytes: 128 << 10}
	for size, want := range map[int64]int64{
		0: 0, 1: 1, 1 << 20: 1, 1<<20 + 1: 2, 4 << 40: 4 << 20, math.MaxInt64: 1 << 43,
	} {
		if got := g.Chunks(size); got != want {
			t.Errorf("Chunks(%d) = %d, want %d", size, got, want)
		}
	}
}
