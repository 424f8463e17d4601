package chunk

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"sync"
)

// A Hasher computes frame digests and IDs for one repository: SHA-256, or
// HMAC-SHA-256 under the repository's ID key when it seals, so that a digest
// tells nothing to those who have no key. It is safe for concurrent use.
//
// Each input starts with a domain of one byte, so that no frame, chunk or node
// can be passed off as another kind.
type Hasher struct {
	keyed *sync.Pool // of hash.Hash, nil when plain
	zero  Digest
	geo   Geometry
}

// The domains of a digest's input.
const (
	domainFrame = 'F'
	domainChunk = 'C'
	domainNode  = 'N'
)

// NewHasher returns a hasher for disks cut by g. A nil key means plain.
func NewHasher(g Geometry, key []byte) *Hasher {
	h := &Hasher{geo: g}
	if key != nil {
		key = append([]byte(nil), key...)
		h.keyed = &sync.Pool{New: func() any { return hmac.New(sha256.New, key) }}
	}
	h.zero = h.Frame(make([]byte, g.FrameBytes))
	return h
}

// Geometry returns the lengths the hasher was made for.
func (h *Hasher) Geometry() Geometry { return h.geo }

// Frame returns the digest of one frame's bytes.
func (h *Hasher) Frame(p []byte) Digest { return Digest(h.sum([]byte{domainFrame}, p)) }

// ZeroFrame returns the digest of a frame of zeros, without computing it.
func (h *Hasher) ZeroFrame() Digest { return h.zero }

// Chunk returns the ID of a chunk whose frames have the given digests.
func (h *Hasher) Chunk(frames []Digest) ID {
	var head [5]byte
	head[0] = domainChunk
	binary.LittleEndian.PutUint32(head[1:], uint32(h.geo.ChunkBytes))
	buf := make([]byte, 0, 64*IDBytes)
	for i := range frames {
		buf = append(buf, frames[i][:]...)
	}
	return h.sum(head[:], buf)
}

// Node returns the ID of a node with the given payload.
func (h *Hasher) Node(payload []byte) ID { return h.sum([]byte{domainNode}, payload) }

func (h *Hasher) sum(head, p []byte) (id ID) {
	if h.keyed == nil {
		s := sha256.New()
		s.Write(head)
		s.Write(p)
		s.Sum(id[:0])
		return id
	}
	s := h.keyed.Get().(hash.Hash)
	s.Reset()
	s.Write(head)
	s.Write(p)
	s.Sum(id[:0])
	h.keyed.Put(s)
	return id
}
