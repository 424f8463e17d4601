package repo

import (
	"fmt"
	"io"

	"holdfast/repo/blockmap"
	"holdfast/repo/chunk"
	"holdfast/repo/pack"
	"holdfast/repo/seal"
)

// An encoder turns a chunk's bytes into a record. One goroutine has one.
type encoder struct {
	geo     chunk.Geometry
	hasher  *chunk.Hasher
	keys    *seal.Keys // nil when plain
	rand    io.Reader
	enc     *seal.Encoder
	asm     pack.Assembler
	digests []chunk.Digest
	scratch []byte // one compressed frame on its way to being sealed
}

func newEncoder(s *store, compression seal.Compression, rand io.Reader) (*encoder, error) {
	enc, err := seal.NewEncoder(compression)
	if err != nil {
		return nil, err
	}
	geo := s.settings.Geometry
	return &encoder{
		geo: geo, hasher: s.hasher, keys: s.keys, rand: rand, enc: enc,
		digests: make([]chunk.Digest, geo.Frames()),
	}, nil
}

// digest computes the id of a chunk's bytes and keeps its frames' digests for
// record.
func (e *encoder) digest(data []byte) chunk.ID {
	for i := range e.digests {
		if f := e.frame(data, i); chunk.IsZero(f) {
			e.digests[i] = e.hasher.ZeroFrame()
		} else {
			e.digests[i] = e.hasher.Frame(f)
		}
	}
	return e.hasher.Chunk(e.digests)
}

func (e *encoder) frame(data []byte, i int) []byte {
	return data[i*e.geo.FrameBytes : (i+1)*e.geo.FrameBytes]
}

// A base is the chunk record that a patch leans on, as the parent's leaf knows
// it: the frames of it that may be shared, the others nil.
type base struct {
	id     chunk.ID
	salt   [pack.SaltBytes]byte
	frames []*pack.Frame
}

// baseOf returns what a patch over the parent's chunk would lean on: the chunk
// itself, or, since a patch never leans on a patch, that chunk's own base.
func baseOf(id chunk.ID, e *blockmap.Entry) base {
	b := base{id: id, salt: e.Salt, frames: make([]*pack.Frame, len(e.Frames))}
	if e.Patch {
		b.id, b.salt = e.Base, e.BaseSalt
	}
	for i := range e.Frames {
		if e.Frames[i].InBase == e.Patch {
			b.frames[i] = &e.Frames[i]
		}
	}
	return b
}

// shared counts the frames that need not be stored again.
func (e *encoder) shared(b base) int {
	n := 0
	for i, f := range b.frames {
		if f != nil && f.Digest == e.digests[i] && f.Codec != seal.Zero {
			n++
		}
	}
	return n
}

// patchWorth says whether a chunk of which shared frames lie in a base is
// stored as a patch. With fewer than half shared, a patch would make every
// later read go to two places for little.
func patchWorth(shared, frames int) bool { return shared > 0 && 2*shared >= frames }

// record makes the record of the chunk that digest was last called for, in
// buf's memory, and the entry for its leaf's frame table. With a base worth it
// the record is a patch.
func (e *encoder) record(buf, data []byte, id chunk.ID, b *base) ([]byte, *blockmap.Entry, error) {
	frames := e.geo.Frames()
	patch := b != nil && patchWorth(e.shared(*b), frames)
	a := &e.asm
	a.Begin(buf, frames)
	a.Kind, a.ID, a.LogicalBytes = pack.Chunk, id, uint32(e.geo.ChunkBytes)
	entry := &blockmap.Entry{Patch: patch, Frames: make([]pack.Frame, frames)}
	if patch {
		a.Kind, a.Flags, a.Base = pack.Patch, pack.HasBase, b.id
		entry.Base, entry.BaseSalt = b.id, b.salt
	}
	var key *seal.RecordKey
	if e.keys != nil {
		a.Flags |= pack.Sealed
		if _, err := io.ReadFull(e.rand, a.Salt[:]); err != nil {
			return nil, nil, fmt.Errorf("make a salt: %w", err)
		}
		entry.Salt = a.Salt
		key = e.keys.Record(a.Salt)
	}
	for i := range frames {
		switch {
		case e.digests[i] == e.hasher.ZeroFrame():
			a.AddZero(e.digests[i])
		case patch && b.frames[i] != nil && b.frames[i].Digest == e.digests[i]:
			a.AddBase(*b.frames[i])
		case key == nil:
			out, codec := e.enc.Encode(a.Bytes(), e.frame(data, i))
			a.Add(out, e.digests[i], codec)
		default:
			var codec seal.Codec
			e.scratch, codec = e.enc.Encode(e.scratch[:0], e.frame(data, i))
			a.Add(key.Seal(a.Bytes(), e.scratch, id, i, e.geo.FrameBytes, codec), e.digests[i], codec)
		}
	}
	rec, err := a.Finish()
	if err != nil {
		return nil, nil, fmt.Errorf("make record %s: %w", id.Short(), err)
	}
	copy(entry.Frames, a.Frames)
	return rec, entry, nil
}
