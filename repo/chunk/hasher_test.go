package chunk_test

import (
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"testing"

	"holdfast/repo/chunk"
)

var small = chunk.Geometry{ChunkBytes: chunk.MinChunkBytes, FrameBytes: chunk.MinFrameBytes}

// testFrame is the frame of the known answers, and testKey their key.
func testFrame() []byte {
	p := make([]byte, small.FrameBytes)
	for i := range p {
		p[i] = byte(i*7 + i/256)
	}
	return p
}

func testKey() []byte {
	k := make([]byte, 32)
	for i := range k {
		k[i] = byte(i)
	}
	return k
}

// The answers were computed with hashlib and hmac of Python 3.11 after the table
// in repo/FORMAT.md, "Digests and ids".
func TestHasherKnownAnswers(t *testing.T) {
	for _, c := range []struct {
		name                     string
		key                      []byte
		frame, zero, chunk, node string
	}{
		{
			"plain", nil,
			"509d23ea22dc2531db236649d6824c7989f22141e2201063f817a26b4bdce16f",
			"78162e8c34db80b4679c24735adb0ab4d9de8f7bd57598d7eb65aed6a5bf96c9",
			"5e2618febc9a6e6ea2c6adbe18c6bd2be21d559423903aa4ecebeabbfe1be85b",
			"c85a11d40baf632e819f58bbad004fdb2465aec53eeac5afe4350fd4311ce5e3",
		},
		{
			"keyed", testKey(),
			"c94b34089997627855c3f8b2f99e4b6e909179f54b87df8f178c25f8b7e14d62",
			"1996166c6f9a3aba2816ac1e123ca96e485f6bc39a5e004118ed349d3089de99",
			"3895111d60494d431af95dfabc6e02908b21602ae08db9c4d39fd25cf466fbc8",
			"4f47d7dad2fed16ce18a064346efe7011d7161f477b6a79477b8b91662905def",
		},
	} {
		h := chunk.NewHasher(small, c.key)
		if h.Geometry() != small {
			t.Errorf("%s: Geometry() = %v", c.name, h.Geometry())
		}
		clear(c.key) // the hasher has its own copy
		frame, zero := h.Frame(testFrame()), h.ZeroFrame()
		check := func(what, got, want string) {
			if got != want {
				t.Errorf("%s %s: got %s, want %s", c.name, what, got, want)
			}
		}
		check("frame", frame.String(), c.frame)
		check("zero frame", zero.String(), c.zero)
		check("zero frame, computed", h.Frame(make([]byte, small.FrameBytes)).String(), c.zero)
		check("chunk", h.Chunk([]chunk.Digest{frame, zero, zero, zero}).String(), c.chunk)
		check("node", h.Node([]byte("payload")).String(), c.node)
	}
}

func TestHasherSeparates(t *testing.T) {
	h := chunk.NewHasher(small, nil)
	other := chunk.NewHasher(chunk.Geometry{ChunkBytes: 2 * small.ChunkBytes, FrameBytes: small.FrameBytes}, nil)
	d := []chunk.Digest{{1}, {2}}
	swapped := []chunk.Digest{{2}, {1}}
	flat := append(d[0][:], d[1][:]...)
	ids := map[string]chunk.ID{
		"chunk": h.Chunk(d), "other order": h.Chunk(swapped), "fewer": h.Chunk(d[:1]), "other length": other.Chunk(d),
		"frame of digests": chunk.ID(h.Frame(flat)), "node of digests": h.Node(flat),
		"keyed": chunk.NewHasher(small, testKey()).Chunk(d), "other key": chunk.NewHasher(small, []byte("k")).Chunk(d),
		"empty key": chunk.NewHasher(small, []byte{}).Chunk(d),
	}
	seen := map[chunk.ID]string{}
	for name, id := range ids {
		if was, ok := seen[id]; ok {
			t.Errorf("%s and %s have the same id", name, was)
		}
		seen[id] = name
	}
}

func TestHasherConcurrent(t *testing.T) {
	for _, key := range [][]byte{nil, testKey()} {
		h := chunk.NewHasher(small, key)
		var wg sync.WaitGroup
		for g := range 4 {
			wg.Go(func() {
				p := []byte{byte(g)}
				d := chunk.NewHasher(small, key).Frame(p)
				id := chunk.NewHasher(small, key).Chunk([]chunk.Digest{d, d})
				for range 200 {
					if got := h.Frame(p); got != d {
						t.Errorf("frame %d: got %s, want %s", g, got, d)
						return
					}
					if got := h.Chunk([]chunk.Digest{d, d}); got != id {
						t.Errorf("chunk %d: got %s, want %s", g, got, id)
						return
					}
				}
			})
		}
		wg.Wait()
	}
}

func TestHasherAllocatesNothing(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // a collection empties the pool
	frame := testFrame()
	frames := slices.Repeat([]chunk.Digest{{1}}, 64)
	for name, key := range map[string][]byte{"plain": nil, "keyed": testKey()} {
		h := chunk.NewHasher(small, key)
		n := testing.AllocsPerRun(100, func() {
			h.Frame(frame)
			h.Chunk(frames)
			h.Node(frame[:100])
		})
		if n > 0 && !raceEnabled {
			t.Errorf("%s: %v allocations for a frame, a chunk and a node", name, n)
		}
	}
}

func BenchmarkHasher(b *testing.B) {
	for _, kind := range []struct {
		name string
		key  []byte
	}{{"plain", nil}, {"keyed", testKey()}} {
		for _, size := range []int{64 << 10, 128 << 10, 256 << 10} {
			h := chunk.NewHasher(chunk.Geometry{ChunkBytes: 1 << 20, FrameBytes: size}, kind.key)
			p := make([]byte, size)
			b.Run(fmt.Sprintf("frame/%s/%dKiB", kind.name, size>>10), func(b *testing.B) {
				b.SetBytes(int64(size))
				b.ReportAllocs()
				for b.Loop() {
					h.Frame(p)
				}
			})
		}
		h := chunk.NewHasher(chunk.Geometry{ChunkBytes: 1 << 20, FrameBytes: 128 << 10}, kind.key)
		frames := make([]chunk.Digest, 8)
		b.Run("chunk/"+kind.name, func(b *testing.B) {
			b.SetBytes(1 << 20)
			b.ReportAllocs()
			for b.Loop() {
				h.Chunk(frames)
			}
		})
	}
}
