package qcow2

import (
	"encoding/binary"
	"fmt"
	"io"
	"strings"

	"holdfast/image/internal/fault"
	"holdfast/image/internal/layer"
)

const (
	magic = "QFI\xfb"

	minClusterBits, maxClusterBits = 9, 21
	minExtendedBits                = 14 // a subcluster has at least 512 bytes

	headerV2, headerV3 = 72, 104

	// maxSize bounds what a header may claim, at 1 PiB; maxL1Bytes is QEMU's own
	// bound of the first table.
	maxSize    = 1 << 50
	maxL1Bytes = 32 << 20

	maxNameBytes = 1023

	subclusters = 32
)

// Bits of the incompatible features.
const (
	featureDirty = 1 << iota // reference counts may be wrong; we use none
	featureCorrupt
	featureDataFile
	featureCompression
	featureExtendedL2
)

const (
	compressionDeflate = 0
	compressionZstd    = 1
)

// extensionFormat is the header extension with the format of the backing file.
const extensionFormat = 0xe2792aca

// header is what we use of the header and its extensions.
type header struct {
	version       uint32 // at 4
	backingOffset uint64 // 8
	backingBytes  uint32 // 16
	clusterBits   uint32 // 20
	size          uint64 // 24
	crypt         uint32 // 32
	l1Entries     uint32 // 36
	l1Offset      uint64 // 40
	features      uint64 // 72
	headerBytes   uint32 // 100
	compression   uint8  // 104

	backingName   string
	backingFormat string
}

// Detect says whether ra begins like a qcow2 file.
func Detect(ra io.ReaderAt, _ int64) bool {
	b := make([]byte, len(magic))
	n, _ := ra.ReadAt(b, 0)
	return string(b[:n]) == magic
}

func readHeader(ra io.ReaderAt, fileSize int64) (*header, error) {
	b := make([]byte, headerV3+8)
	if err := layer.ReadFull(ra, b[:min(int64(len(b)), max(fileSize, headerV2))], 0); err != nil {
		return nil, fmt.Errorf("header: %w", err)
	}
	if string(b[:4]) != magic {
		return nil, fmt.Errorf("%w: no qcow2 header", fault.ErrDamaged)
	}
	h := decodeHeader(b)
	if h.version >= 3 && fileSize < headerV3 {
		return nil, fmt.Errorf("header: %w: %d bytes", fault.ErrTruncated, fileSize)
	}
	if err := h.check(fileSize); err != nil {
		return nil, err
	}
	return h, h.readExtensions(ra, fileSize)
}

func decodeHeader(b []byte) *header {
	be := binary.BigEndian
	h := &header{
		version:       be.Uint32(b[4:]),
		backingOffset: be.Uint64(b[8:]),
		backingBytes:  be.Uint32(b[16:]),
		clusterBits:   be.Uint32(b[20:]),
		size:          be.Uint64(b[24:]),
		crypt:         be.Uint32(b[32:]),
		l1Entries:     be.Uint32(b[36:]),
		l1Offset:      be.Uint64(b[40:]),
		headerBytes:   headerV2,
	}
	if h.version >= 3 {
		h.features = be.Uint64(b[72:])
		h.headerBytes = be.Uint32(b[100:])
		if h.headerBytes > headerV3 {
			h.compression = b[104]
		}
	}
	return h
}

func (h *header) check(fileSize int64) error {
	unsupported := func(format string, args ...any) error {
		return fmt.Errorf("qcow2 %s is %w", fmt.Sprintf(format, args...), fault.ErrUnsupported)
	}
	bad := func(what string, got uint64) error {
		return fmt.Errorf("%w: qcow2 header: %s is %d", fault.ErrDamaged, what, got)
	}
	known := uint64(featureDirty | featureCorrupt | featureDataFile | featureCompression | featureExtendedL2)
	switch {
	case h.version != 2 && h.version != 3:
		return unsupported("version %d", h.version)
	case h.crypt != 0:
		return unsupported("with encryption")
	case h.features&featureDataFile != 0:
		return unsupported("with an external data file")
	case h.features&^known != 0:
		return unsupported("with incompatible features %#x", h.features&^known)
	case h.features&featureCorrupt != 0:
		return fmt.Errorf("%w: the qcow2 header marks it as corrupt", fault.ErrDamaged)
	case h.compression > compressionZstd:
		return unsupported("with compression %d", h.compression)
	case (h.compression != 0) != (h.features&featureCompression != 0):
		return bad("compression beside its feature bit", uint64(h.compression))
	case h.clusterBits < minClusterBits || h.clusterBits > maxClusterBits:
		return bad("cluster bits", uint64(h.clusterBits))
	case h.extended() && h.clusterBits < minExtendedBits:
		return bad("cluster bits with extended entries", uint64(h.clusterBits))
	case h.version == 3 && (h.headerBytes < headerV3 || h.headerBytes%8 != 0 || int64(h.headerBytes) > h.clusterSize()):
		return bad("its own length", uint64(h.headerBytes))
	case h.size > maxSize:
		return bad("disk size", h.size)
	case int64(h.l1Entries)*8 > maxL1Bytes || int64(h.l1Entries) < h.l1Needed():
		return bad("number of L1 entries", uint64(h.l1Entries))
	case h.l1Offset%uint64(h.clusterSize()) != 0 || (h.l1Entries > 0 && h.l1Offset == 0):
		return bad("place of the L1 table", h.l1Offset)
	case h.l1Offset > uint64(fileSize) || fileSize-int64(h.l1Offset) < int64(h.l1Entries)*8:
		return fmt.Errorf("%w: L1 table of %d entries at %d", fault.ErrTruncated, h.l1Entries, h.l1Offset)
	case h.backingBytes > maxNameBytes:
		return bad("length of the backing file's name", uint64(h.backingBytes))
	case h.backingOffset != 0 && (h.backingOffset < uint64(h.headerBytes) || h.backingOffset > uint64(h.clusterSize())):
		return bad("place of the backing file's name", h.backingOffset)
	}
	return nil
}

func (h *header) extended() bool     { return h.features&featureExtendedL2 != 0 }
func (h *header) clusterSize() int64 { return 1 << h.clusterBits }

// entryBytes is the length of an L2 entry.
func (h *header) entryBytes() int64 {
	if h.extended() {
		return 16
	}
	return 8
}

// perL2 is how many bytes of disk an L2 table speaks of.
func (h *header) perL2() int64 { return h.clusterSize() / h.entryBytes() * h.clusterSize() }

func (h *header) l1Needed() int64 { return (int64(h.size) + h.perL2() - 1) / h.perL2() }

// readExtensions reads the name of the backing file and its format.
func (h *header) readExtensions(ra io.ReaderAt, fileSize int64) error {
	if h.backingOffset == 0 {
		return nil // no extension matters without a backing file
	}
	name := make([]byte, h.backingBytes)
	if err := layer.ReadFull(ra, name, int64(h.backingOffset)); err != nil {
		return fmt.Errorf("name of the backing file: %w", err)
	}
	h.backingName = string(name)
	b := make([]byte, h.backingOffset-uint64(h.headerBytes))
	if err := layer.ReadFull(ra, b, int64(h.headerBytes)); err != nil {
		return fmt.Errorf("header extensions: %w", err)
	}
	for len(b) >= 8 {
		kind, n := binary.BigEndian.Uint32(b), int64(binary.BigEndian.Uint32(b[4:]))
		if kind == 0 {
			return nil
		}
		if b = b[8:]; n > int64(len(b)) {
			return fmt.Errorf("%w: a qcow2 header extension of %d bytes", fault.ErrDamaged, n)
		}
		if kind == extensionFormat {
			h.backingFormat = strings.ToLower(string(b[:n]))
		}
		b = b[min((n+7)/8*8, int64(len(b))):]
	}
	return nil
}
