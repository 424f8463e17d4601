package pack

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"

	"holdfast/repo/chunk"
	"holdfast/repo/seal"
)

// newRand returns a generator whose seed is in the test's log.
func newRand(tb testing.TB, seed uint64) *rand.Rand {
	tb.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

func fill32(r *rand.Rand) (p [32]byte) {
	for i := range p {
		p[i] = byte(r.Uint32()) | 1
	}
	return p
}

func randBytes(r *rand.Rand, n int) []byte {
	var seed [32]byte
	binary.LittleEndian.PutUint64(seed[:], r.Uint64())
	p := make([]byte, n)
	rand.NewChaCha8(seed).Read(p)
	return p
}

// chunkRecord makes a record of a chunk of 512 KiB in 8 frames, of which some are
// zeros and each other one is stored in at most most random bytes.
func chunkRecord(r *rand.Rand, most int) []byte {
	var a Assembler
	a.Begin(nil, 8)
	a.Kind, a.ID, a.LogicalBytes = Chunk, fill32(r), 512<<10
	for range 8 {
		if r.IntN(4) == 0 {
			a.AddZero(fill32(r))
			continue
		}
		a.Add(append(a.Bytes(), randBytes(r, 1+r.IntN(most))...), fill32(r), seal.Zstd)
	}
	return finish(&a)
}

// nodeRecord makes a record of a node with the given number of children.
func nodeRecord(r *rand.Rand, children int) []byte {
	var a Assembler
	a.Begin(nil, 1)
	a.Kind, a.ID = Node, fill32(r)
	payload := randBytes(r, nodeFixed+children*chunk.IDBytes)
	a.LogicalBytes = uint32(len(payload))
	a.Add(append(a.Bytes(), payload...), chunk.Digest(a.ID), seal.Raw)
	return finish(&a)
}

// patchRecord makes a record of a chunk of 512 KiB of which one frame of 8 is
// stored, in n bytes.
func patchRecord(r *rand.Rand, n int) []byte {
	var a Assembler
	a.Begin(nil, 8)
	a.Kind, a.Flags, a.ID, a.Base, a.LogicalBytes = Patch, HasBase, fill32(r), fill32(r), 512<<10
	a.Add(append(a.Bytes(), randBytes(r, n)...), fill32(r), seal.Zstd)
	for range 7 {
		a.AddBase(Frame{Digest: fill32(r), Off: uint32(HeaderBytes(8)), Stored: 9, Codec: seal.Zstd})
	}
	return finish(&a)
}

func finish(a *Assembler) []byte {
	p, err := a.Finish()
	if err != nil {
		panic(err)
	}
	return bytes.Clone(p)
}

// testPack is a pack with what it was made of.
type testPack struct {
	file    []byte
	sum     [32]byte
	entries []Entry
	records [][]byte
}

// makePack makes a pack of the given parity with records up to about size.
func makePack(tb testing.TB, r *rand.Rand, parity, size int) *testPack {
	id := fill32(r)
	b, err := NewBuilder(Data, Name(id[:16]), Options{Parity: parity, PackBytes: size + 1<<10, RecordBytes: 64 << 10})
	if err != nil {
		tb.Fatal(err)
	}
	p := new(testPack)
	for !b.Full() {
		left := size - b.Len()
		var rec []byte
		switch most := min(left/8, 1+r.IntN(7000)); {
		case left > 2000 && r.IntN(3) > 0:
			rec = chunkRecord(r, most)
		case left > 2000 && r.IntN(2) > 0:
			rec = patchRecord(r, most)
		default:
			rec = nodeRecord(r, 1+r.IntN(20))
		}
		if b.Len()+len(rec) > size {
			break
		}
		if _, err := b.Add(rec); err != nil {
			tb.Fatal(err)
		}
		p.records = append(p.records, rec)
	}
	p.file, p.sum, p.entries = b.Finish()
	return p
}

func (p *testPack) layout(tb testing.TB) Layout {
	l, ok := mustOpen(tb, p.file).Layout()
	if !ok {
		tb.Fatal("a sound pack has no layout")
	}
	return l
}

func mustOpen(tb testing.TB, file []byte) *File {
	tb.Helper()
	f, err := Open(bytes.NewReader(file), int64(len(file)))
	if err != nil {
		tb.Fatal(err)
	}
	return f
}

// flaky fails to read the blocks in bad, as a disk does.
type flaky struct {
	file []byte
	bad  map[int]bool
}

var errBadSector = errors.New("bad sector")

func (f flaky) ReadAt(p []byte, off int64) (int, error) {
	for b := int(off) / BlockBytes; b*BlockBytes < int(off)+len(p); b++ {
		if f.bad[b] {
			n := max(0, b*BlockBytes-int(off))
			return copy(p[:n], f.file[off:]), fmt.Errorf("block %d: %w", b, errBadSector)
		}
	}
	if off >= int64(len(f.file)) {
		return 0, io.EOF
	}
	n := copy(p, f.file[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}
