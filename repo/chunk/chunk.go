// Package chunk cuts a disk into chunks and names them.
//
// A disk is a row of chunks of one fixed length (1 MiB by default), and a chunk
// is a row of frames of one fixed length (128 KiB by default):
//
//	disk   |──────── chunk 0 ────────|──────── chunk 1 ────────|── … zero-padded
//	chunk  |frame 0|frame 1| … |frame 7|
//
// The frame is the unit of compression, sealing and reading; the chunk is the
// unit of deduplication. A chunk's ID is a digest over its length and its
// frames' digests, so one frame is verified without reading the others.
//
// The package does no I/O and is a leaf: anyone may import it.
package chunk

import (
	"encoding/hex"
	"errors"
	"fmt"
)

// IDBytes is the length of every digest and ID in a repository.
const IDBytes = 32

// Limits of a geometry, in bytes. A frame fits the 24-bit stored length of a
// record's frame entry, and a record has at most 64 frames.
const (
	MinChunkBytes = 256 << 10
	MaxChunkBytes = 4 << 20
	MinFrameBytes = 64 << 10
	MaxFrameBytes = 256 << 10
)

// Default geometry; repo/FORMAT.md has the measurements behind it.
const (
	DefaultChunkBytes = 1 << 20
	DefaultFrameBytes = 128 << 10
)

// ID names a chunk or a node: a digest over its content. The zero ID is Null.
type ID [IDBytes]byte

// Digest is the digest of one frame's bytes before compression.
type Digest [IDBytes]byte

// Null is the ID of everything that reads as zeros, at every level of a disk's
// tree. Nothing is stored under it.
var Null ID

// ErrGeometry says that chunk and frame lengths do not go together.
var ErrGeometry = errors.New("bad chunk geometry")

// ErrID says that a text is not an ID.
var ErrID = errors.New("not an id")

// IsNull reports whether id stands for zeros.
func (id ID) IsNull() bool { return id == Null }

// String returns the ID as 64 lower-case hexadecimal digits.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// Short returns the first 16 digits, enough for people and logs.
func (id ID) Short() string { return hex.EncodeToString(id[:8]) }

// String returns the digest as 64 lower-case hexadecimal digits.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// ParseID reads what String wrote.
func ParseID(s string) (ID, error) {
	var id ID
	if len(s) != hex.EncodedLen(IDBytes) {
		return id, fmt.Errorf("%w: %d characters, want %d", ErrID, len(s), hex.EncodedLen(IDBytes))
	}
	if _, err := hex.Decode(id[:], []byte(s)); err != nil {
		return ID{}, fmt.Errorf("%w: %w", ErrID, err)
	}
	return id, nil
}

// MarshalText writes the ID as String does.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (id *ID) UnmarshalText(p []byte) error {
	v, err := ParseID(string(p))
	if err != nil {
		return err
	}
	*id = v
	return nil
}
