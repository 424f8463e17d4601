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
	states sync.Pool // of *state
	zero   Digest
	geo    Geometry
}

// A state is what one digest takes. What is handed to a hash.Hash escapes, so
// its buffers are kept with it.
type state struct {
	hash hash.Hash
	head [5]byte
	list []byte // digests of a chunk's frames
	sum  [IDBytes]byte
}

// The domains of a digest's input.
const (
	domainFrame = 'F'
	domainChunk = 'C'
	domainNode  = 'N'
	domainLabel = 'L'
)

// NewHasher returns a hasher for disks cut by g. A nil key means plain.
func NewHasher(g Geometry, key []byte) *Hasher {
	h := &Hasher{geo: g}
	newHash := sha256.New
	if key != nil {
		key = append([]byte(nil), key...)
		newHash = func() hash.Hash { return hmac.New(sha256.New, key) }
	}
	h.states.New = func() any { return &state{hash: newHash()} }
	h.zero = h.Frame(make([]byte, g.FrameBytes))
	return h
}

// Geometry returns the lengths the hasher was made for.
func (h *Hasher) Geometry() Geometry { return h.geo }

// Frame returns the digest of one frame's bytes.
func (h *Hasher) Frame(p []byte) Digest {
	s := h.states.Get().(*state)
	defer h.states.Put(s)
	return Digest(s.digest(domainFrame, 1, p))
}

// ZeroFrame returns the digest of a frame of zeros, without computing it.
func (h *Hasher) ZeroFrame() Digest { return h.zero }

// Chunk returns the ID of a chunk whose frames have the given digests.
func (h *Hasher) Chunk(frames []Digest) ID {
	s := h.states.Get().(*state)
	defer h.states.Put(s)
	s.list = s.list[:0]
	for i := range frames {
		s.list = append(s.list, frames[i][:]...)
	}
	binary.LittleEndian.PutUint32(s.head[1:], uint32(h.geo.ChunkBytes))
	return s.digest(domainChunk, 5, s.list)
}

// Node returns the ID of a node with the given payload.
func (h *Hasher) Node(payload []byte) ID {
	s := h.states.Get().(*state)
	defer h.states.Put(s)
	return s.digest(domainNode, 1, payload)
}

// Label returns an ID for a text that is not to be stored in clear: the same for
// the same text, and telling nothing without the repository's key.
func (h *Hasher) Label(text string) ID {
	s := h.states.Get().(*state)
	defer h.states.Put(s)
	return s.digest(domainLabel, 1, []byte(text))
}

// digest hashes p after the first n bytes of the head, which begins with domain.
func (s *state) digest(domain byte, n int, p []byte) ID {
	s.head[0] = domain
	s.hash.Reset()
	s.hash.Write(s.head[:n])
	s.hash.Write(p)
	s.hash.Sum(s.sum[:0])
	return s.sum
}
