package pack

import (
	"encoding/binary"
	"fmt"

	"holdfast/repo/chunk"
	"holdfast/repo/seal"
)

// RecordKind says what a record holds.
type RecordKind uint8

// The kinds of records.
const (
	Chunk RecordKind = 1 // a chunk with all its frames
	Patch RecordKind = 2 // a chunk of which some frames lie in another record, its base
	Node  RecordKind = 3 // a node of a disk's tree; a leaf with its frame table
	Blob  RecordKind = 4 // reserved: readers skip it
)

// String returns the kind's name.
func (k RecordKind) String() string {
	switch k {
	case Chunk:
		return "chunk"
	case Patch:
		return "patch"
	case Node:
		return "node"
	case Blob:
		return "blob"
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// Flags of a record.
type Flags uint8

// The flags; all others are refused.
const (
	Sealed  Flags = 1 << 0 // stored frames are encrypted
	HasBase Flags = 1 << 1 // Header.Base names another record
)

const knownFlags = Sealed | HasBase

// Limits and sizes of records, in bytes.
const (
	MaxFrames       = 64
	FrameEntryBytes = 40      // of a frame entry in a header or in a leaf's frame table
	SaltBytes       = 24      // of Header.Salt
	maxStored       = 1 << 24 // stored length of a frame is below this

	headerFixed    = 120 // a header without its frame entries
	headerEntries  = 116 // where the frame entries start
	MaxHeaderBytes = headerFixed + MaxFrames*FrameEntryBytes

	sealBytes = 16 // what sealing adds to a frame

	// A node's payload has 1 to 256 children; its frame table, at most 256
	// entries of a patch with two salts, a base and 64 frames.
	nodeFixed     = 36
	minNodeBytes  = nodeFixed + chunk.IDBytes
	maxNodeBytes  = nodeFixed + 256*chunk.IDBytes
	maxTableBytes = 8 + 256*(4+2*SaltBytes+chunk.IDBytes+MaxFrames*FrameEntryBytes)

	// MaxRecordBytes is the length of the longest record: the longest chunk,
	// sealed, in the most frames, none of which got shorter.
	MaxRecordBytes = MaxHeaderBytes + chunk.MaxChunkBytes + MaxFrames*sealBytes
)

const (
	recordMagic   = "HFrc"
	recordVersion = 1
	inBase        = 0x80 // in the codec byte of a frame entry
)

// A Frame is a frame entry: where one frame's stored bytes lie, and the digest
// of what they decode to.
type Frame struct {
	Digest chunk.Digest
	Off    uint32 // from the start of the record that holds it
	Stored uint32 // stored length, below 1<<24; 0 for zeros
	Codec  seal.Codec
	InBase bool // Off, Stored and Codec speak of the base's record
}

// A Header is what stands before a record's body. The same fields are in the
// file, in FORMAT.md's table.
type Header struct {
	Kind         RecordKind
	Flags        Flags
	ID           chunk.ID
	Base         chunk.ID        // Null unless Flags has HasBase
	Salt         [SaltBytes]byte // zeros unless Flags has Sealed
	LogicalBytes uint32          // sum of the frames' lengths before compression
	BodyBytes    uint32
	BodyCRC      uint32
	Frames       []Frame
}

// HeaderBytes returns the length of a header with the given number of frames.
func HeaderBytes(frames int) int { return headerFixed + frames*FrameEntryBytes }

// HeaderBytes returns the length of this header.
func (h *Header) HeaderBytes() int { return HeaderBytes(len(h.Frames)) }

// RecordBytes returns the length of header and body.
func (h *Header) RecordBytes() int { return h.HeaderBytes() + int(h.BodyBytes) }

// FrameBytes returns the length of frame i once decoded.
func (h *Header) FrameBytes(i int) int {
	if h.Kind != Node {
		return int(h.LogicalBytes) / len(h.Frames)
	}
	if i == 0 {
		return int(h.Frames[0].Stored)
	}
	return int(h.LogicalBytes - h.Frames[0].Stored)
}

// AppendFrame appends a frame entry of FrameEntryBytes.
func AppendFrame(dst []byte, f *Frame) []byte {
	codec := uint32(f.Codec)
	if f.InBase {
		codec |= inBase
	}
	dst = append(dst, f.Digest[:]...)
	dst = binary.LittleEndian.AppendUint32(dst, f.Off)
	return binary.LittleEndian.AppendUint32(dst, f.Stored|codec<<24)
}

// ParseFrame reads the frame entry at p's start, which has at least
// FrameEntryBytes. An unknown codec, and a stored length that does not go with
// the codec, are ErrFormat.
func ParseFrame(p []byte) (Frame, error) {
	word := binary.LittleEndian.Uint32(p[36:])
	f := Frame{
		Digest: chunk.Digest(p[:32]),
		Off:    binary.LittleEndian.Uint32(p[32:]),
		Stored: word & (maxStored - 1),
		Codec:  seal.Codec(word >> 24 &^ inBase),
		InBase: word>>24&inBase != 0,
	}
	return f, f.check()
}

func (f *Frame) check() error {
	switch {
	case f.Codec > seal.Zero:
		return fmt.Errorf("%w: codec %d of a frame", ErrFormat, f.Codec)
	case (f.Codec == seal.Zero) != (f.Stored == 0):
		return fmt.Errorf("%w: frame of codec %d stored in %d bytes", ErrFormat, f.Codec, f.Stored)
	case f.Stored >= maxStored:
		return fmt.Errorf("%w: frame stored in %d bytes", ErrFormat, f.Stored)
	}
	return nil
}

// AppendHeader appends the header, its CRC included. A header that ParseHeader
// would refuse is an error, and nothing is appended.
func AppendHeader(dst []byte, h *Header) ([]byte, error) {
	if err := h.check(); err != nil {
		return dst, err
	}
	start := len(dst)
	le := binary.LittleEndian
	dst = append(dst, recordMagic...)
	dst = append(dst, recordVersion, byte(h.Kind), byte(h.Flags), 0)
	dst = le.AppendUint32(dst, uint32(h.HeaderBytes()))
	dst = le.AppendUint32(dst, h.BodyBytes)
	dst = le.AppendUint32(dst, h.LogicalBytes)
	dst = le.AppendUint32(dst, uint32(len(h.Frames)))
	dst = append(dst, h.ID[:]...)
	dst = append(dst, h.Salt[:]...)
	dst = append(dst, h.Base[:]...)
	dst = le.AppendUint32(dst, h.BodyCRC)
	for i := range h.Frames {
		dst = AppendFrame(dst, &h.Frames[i])
	}
	return le.AppendUint32(dst, crc(dst[start:])), nil
}

// ParseHeader reads the record header at p's start and returns it with its
// length. It refuses whatever AppendHeader does not write: ErrVersion when the
// header is sound but of another version, else ErrFormat.
func ParseHeader(p []byte) (Header, int, error) {
	n, ok := soundHeader(p)
	if !ok {
		return Header{}, 0, fmt.Errorf("%w: no record header", ErrFormat)
	}
	if p[4] != recordVersion {
		return Header{}, 0, fmt.Errorf("%w: %d of a record", ErrVersion, p[4])
	}
	le := binary.LittleEndian
	if p[7] != 0 || le.Uint16(p[22:]) != 0 {
		return Header{}, 0, fmt.Errorf("%w: record header with reserved bits set", ErrFormat)
	}
	h := Header{
		Kind:         RecordKind(p[5]),
		Flags:        Flags(p[6]),
		BodyBytes:    le.Uint32(p[12:]),
		LogicalBytes: le.Uint32(p[16:]),
		ID:           chunk.ID(p[24:56]),
		Salt:         [SaltBytes]byte(p[56:80]),
		Base:         chunk.ID(p[80:112]),
		BodyCRC:      le.Uint32(p[112:]),
		Frames:       make([]Frame, le.Uint16(p[20:])),
	}
	for i := range h.Frames {
		var err error
		if h.Frames[i], err = ParseFrame(p[headerEntries+i*FrameEntryBytes:]); err != nil {
			return Header{}, 0, err
		}
	}
	if err := h.check(); err != nil {
		return Header{}, 0, err
	}
	return h, n, nil
}

// ParseRecord reads a whole record, and checks its body's CRC. Errors are those
// of ParseHeader.
func ParseRecord(p []byte) (Header, error) {
	h, n, err := ParseHeader(p)
	switch {
	case err != nil:
		return Header{}, err
	case h.RecordBytes() != len(p):
		return Header{}, fmt.Errorf("%w: record %s of %d bytes in %d", ErrFormat, h.ID.Short(), h.RecordBytes(), len(p))
	case crc(p[n:]) != h.BodyCRC:
		return Header{}, fmt.Errorf("%w: record %s: wrong CRC of the body", ErrFormat, h.ID.Short())
	}
	return h, nil
}

// soundHeader reports whether p starts with the magic and the right CRC of a
// record header, and the header's length. It allocates nothing, so that a scan
// over bytes full of magics stays fast.
func soundHeader(p []byte) (n int, ok bool) {
	if len(p) < headerFixed+FrameEntryBytes || string(p[:4]) != recordMagic {
		return 0, false
	}
	frames := int(binary.LittleEndian.Uint16(p[20:]))
	n = HeaderBytes(frames)
	if frames < 1 || frames > MaxFrames || len(p) < n ||
		binary.LittleEndian.Uint32(p[8:]) != uint32(n) {
		return 0, false
	}
	return n, crc(p[:n-4]) == binary.LittleEndian.Uint32(p[n-4:])
}

// check is what both directions ask of a header.
func (h *Header) check() error {
	bad := func(format string, a ...any) error {
		return fmt.Errorf("%w: record of %v %s: %s", ErrFormat, h.Kind, h.ID.Short(), fmt.Sprintf(format, a...))
	}
	switch {
	case len(h.Frames) < 1 || len(h.Frames) > MaxFrames:
		return bad("%d frames", len(h.Frames))
	case h.Flags&^knownFlags != 0:
		return bad("flags %#x", uint8(h.Flags))
	case h.ID.IsNull():
		return bad("null id")
	case h.Base.IsNull() == (h.Flags&HasBase != 0):
		return bad("flags %#x with base %s", uint8(h.Flags), h.Base.Short())
	case h.Flags&Sealed == 0 && h.Salt != [SaltBytes]byte{}:
		return bad("a salt, but not sealed")
	case h.RecordBytes() > MaxRecordBytes:
		return bad("%d bytes", h.RecordBytes())
	}
	var err error
	switch h.Kind {
	case Chunk, Patch:
		err = h.checkChunk()
	case Node:
		err = h.checkNode()
	case Blob:
	default:
		err = fmt.Errorf("unknown kind")
	}
	if err == nil {
		err = h.checkFrames()
	}
	if err != nil {
		return bad("%v", err)
	}
	return nil
}

func (h *Header) checkChunk() error {
	logical, frames := int(h.LogicalBytes), len(h.Frames)
	if logical%frames != 0 {
		return fmt.Errorf("%d bytes in %d frames", logical, frames)
	}
	if err := (chunk.Geometry{ChunkBytes: logical, FrameBytes: logical / frames}).Check(); err != nil {
		return err
	}
	based := 0
	for i := range h.Frames {
		if h.Frames[i].InBase {
			based++
		}
	}
	switch {
	case h.Kind == Chunk && h.Flags&HasBase != 0:
		return fmt.Errorf("has a base")
	case h.Kind == Patch && (h.Flags&HasBase == 0 || based == 0 || based == frames || h.Base == h.ID):
		return fmt.Errorf("%d of %d frames in base %s", based, frames, h.Base.Short())
	}
	return nil
}

func (h *Header) checkNode() error {
	payload := h.Frames[0]
	table := int64(h.LogicalBytes) - int64(payload.Stored)
	switch {
	case len(h.Frames) > 2:
		return fmt.Errorf("%d frames", len(h.Frames))
	case payload.Codec != seal.Raw || payload.InBase || payload.Digest != chunk.Digest(h.ID):
		return fmt.Errorf("payload not raw, or not of this id")
	case payload.Stored < minNodeBytes || payload.Stored > maxNodeBytes || (payload.Stored-nodeFixed)%chunk.IDBytes != 0:
		return fmt.Errorf("payload of %d bytes", payload.Stored)
	case len(h.Frames) == 1 && (table != 0 || h.Flags&HasBase != 0):
		return fmt.Errorf("no frame table, but a base or %d bytes of one", table)
	case len(h.Frames) == 2 && (table < 1 || table > maxTableBytes):
		return fmt.Errorf("frame table of %d bytes", table)
	}
	return nil
}

// checkFrames checks that the frames stored here fill the body in order, that
// those in the base can lie there, and that none is longer than its content.
func (h *Header) checkFrames() error {
	next := uint64(h.HeaderBytes())
	for i := range h.Frames {
		f := &h.Frames[i]
		if err := f.check(); err != nil {
			return err
		}
		if f.InBase && (h.Kind != Patch || f.Off < uint32(h.HeaderBytes()) || uint64(f.Off)+uint64(f.Stored) > MaxRecordBytes) {
			return fmt.Errorf("frame %d at %d in the base", i, f.Off)
		}
		if err := h.checkStored(i); err != nil {
			return err
		}
		if f.InBase {
			continue
		}
		if uint64(f.Off) != next {
			return fmt.Errorf("frame %d at %d, want %d", i, f.Off, next)
		}
		next += uint64(f.Stored)
	}
	if next != uint64(h.RecordBytes()) {
		return fmt.Errorf("frames end at %d, the body at %d", next, h.RecordBytes())
	}
	return nil
}

func (h *Header) checkStored(i int) error {
	f := &h.Frames[i]
	if h.Kind == Blob || f.Codec == seal.Zero {
		return nil
	}
	stored, logical := int(f.Stored), h.FrameBytes(i)
	if h.Flags&Sealed != 0 && !(h.Kind == Node && i == 0) {
		stored -= sealBytes
	}
	if stored < 1 || stored > logical || f.Codec == seal.Raw && stored != logical {
		return fmt.Errorf("frame %d of %d bytes stored in %d, codec %d", i, logical, f.Stored, f.Codec)
	}
	return nil
}
