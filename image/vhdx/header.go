package vhdx

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"holdfast/image/internal/fault"
	"holdfast/image/internal/layer"
)

const (
	fileMagic    = "vhdxfile"
	headerMagic  = "head"
	regionsMagic = "regi"

	kib = 1 << 10
	mib = 1 << 20

	header1At, header2At   = 64 * kib, 128 * kib
	regions1At, regions2At = 192 * kib, 256 * kib
	headerBytes            = 4 * kib
	regionsBytes           = 64 * kib

	formatVersion = 1
	logVersion    = 0

	maxRegions = 2047

	// maxFileSize bounds places in the file, so that two may be added.
	maxFileSize = 1 << 61
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checksum is the CRC-32C of b with zeros in the four bytes at own, which hold
// it.
func checksum(b []byte, own int) uint32 {
	sum := crc32.Update(0, castagnoli, b[:own])
	sum = crc32.Update(sum, castagnoli, make([]byte, 4))
	return crc32.Update(sum, castagnoli, b[own+4:])
}

// extent is a stretch of the file.
type extent struct{ off, len int64 }

func (e extent) end() int64 { return e.off + e.len }

func (e extent) overlaps(o extent) bool { return e.off < o.end() && o.off < e.end() }

// header is what we use of the header.
//
// Source: [MS-VHDX] 2.2.2.
type header struct {
	sequence  uint64 // at 8
	dataGUID  GUID   // 32: changes when the disk does; a child names this file by it
	logGUID   GUID   // 48: zero means that the log is empty
	logFormat uint16 // 64
	version   uint16 // 66
	log       extent // 72, 68
}

// Detect says whether ra begins like a VHDX.
func Detect(ra io.ReaderAt, _ int64) bool {
	b := make([]byte, len(fileMagic))
	n, _ := ra.ReadAt(b, 0)
	return string(b[:n]) == fileMagic
}

// currentHeader returns the header that counts.
func currentHeader(ra io.ReaderAt, size int64) (*header, error) {
	magic := make([]byte, min(size, int64(len(fileMagic))))
	if err := layer.ReadFull(ra, magic, 0); err != nil {
		return nil, err
	}
	if string(magic) != fileMagic {
		return nil, fmt.Errorf("%w: no VHDX", fault.ErrDamaged)
	}
	b1, err1 := readChecked(ra, header1At, headerBytes, headerMagic)
	b2, err2 := readChecked(ra, header2At, headerBytes, headerMagic)
	for _, err := range []error{err1, err2} {
		if err != nil && !errors.Is(err, fault.ErrDamaged) && !errors.Is(err, fault.ErrTruncated) {
			return nil, fmt.Errorf("VHDX header: %w", err) // not read, which is not the same as not valid
		}
	}
	b := b1
	switch {
	case err1 != nil && err2 != nil:
		return nil, fmt.Errorf("VHDX header: %w; the other: %w", err1, err2)
	case err1 != nil:
		b = b2
	case err2 != nil:
	case sequenceOf(b1) < sequenceOf(b2):
		b = b2
	case sequenceOf(b1) == sequenceOf(b2) && !bytes.Equal(b1, b2):
		return nil, fmt.Errorf("%w: two VHDX headers with the sequence number %d", fault.ErrDamaged, sequenceOf(b1))
	}
	h := decodeHeader(b)
	return h, h.check(size)
}

func sequenceOf(header []byte) uint64 { return binary.LittleEndian.Uint64(header[8:]) }

func decodeHeader(b []byte) *header {
	le := binary.LittleEndian
	return &header{
		sequence:  le.Uint64(b[8:]),
		dataGUID:  GUID(b[32:48]),
		logGUID:   GUID(b[48:64]),
		logFormat: le.Uint16(b[64:]),
		version:   le.Uint16(b[66:]),
		log:       extent{int64(min(le.Uint64(b[72:]), maxFileSize)), int64(le.Uint32(b[68:]))},
	}
}

func (h *header) check(size int64) error {
	switch {
	case h.version != formatVersion:
		return fmt.Errorf("VHDX version %d is %w", h.version, fault.ErrUnsupported)
	case h.logGUID == GUID{}:
		return nil // whatever it says of a log does not matter
	case h.logFormat != logVersion:
		return fmt.Errorf("VHDX with a log of version %d is %w", h.logFormat, fault.ErrUnsupported)
	case h.log.off%mib != 0 || h.log.len%mib != 0 || h.log.off < mib || h.log.len == 0:
		return fmt.Errorf("%w: VHDX header: a log of %d bytes at %d", fault.ErrDamaged, h.log.len, h.log.off)
	case h.log.end() > size:
		return fmt.Errorf("%w: VHDX log of %d bytes at %d", fault.ErrTruncated, h.log.len, h.log.off)
	}
	return nil
}

// readChecked reads n bytes that begin with magic and their checksum.
func readChecked(ra io.ReaderAt, off int64, n int, magic string) ([]byte, error) {
	b := make([]byte, n)
	if err := layer.ReadFull(ra, b, off); err != nil {
		return nil, err
	}
	if string(b[:4]) != magic {
		return nil, fmt.Errorf("%w: no %q at %d", fault.ErrDamaged, magic, off)
	}
	if got, want := binary.LittleEndian.Uint32(b[4:]), checksum(b, 4); got != want {
		return nil, fmt.Errorf("%w: %q at %d has the checksum %08x, not %08x", fault.ErrDamaged, magic, off, want, got)
	}
	return b, nil
}

var (
	batRegion      = known("2dc27766-f623-4200-9d64-115e9bfd4a08")
	metadataRegion = known("8b7ca206-4790-4b9a-b8fe-575f050f886e")
)

// regions is where the structures of the file lie.
type regions struct {
	bat, metadata extent
	all           []extent // nothing else may lie there
}

// readRegions reads the region table, or its copy when that fails a check.
//
// Source: [MS-VHDX] 2.2.3.
func readRegions(f *file, h *header) (*regions, error) {
	b, err := readChecked(f, regions1At, regionsBytes, regionsMagic)
	if errors.Is(err, fault.ErrDamaged) {
		if second, err2 := readChecked(f, regions2At, regionsBytes, regionsMagic); err2 == nil {
			b, err = second, nil
		}
	}
	if err != nil {
		return nil, fmt.Errorf("region table: %w", err)
	}
	le := binary.LittleEndian
	n := le.Uint32(b[8:])
	if n > maxRegions {
		return nil, fmt.Errorf("%w: region table of %d entries", fault.ErrDamaged, n)
	}
	r := &regions{all: []extent{{0, mib}}}
	if h.log.len > 0 && h.log.off < maxFileSize {
		r.all = append(r.all, h.log)
	}
	for i := range n {
		e := b[16+32*i:]
		if err := r.add(f, GUID(e[:16]), le.Uint64(e[16:]), le.Uint32(e[24:]), le.Uint32(e[28:])&1 != 0); err != nil {
			return nil, err
		}
	}
	if r.bat.len == 0 || r.metadata.len == 0 {
		return nil, fmt.Errorf("%w: region table without BAT or metadata", fault.ErrDamaged)
	}
	return r, nil
}

// add takes in an entry of the table.
func (r *regions) add(f *file, id GUID, off uint64, n uint32, required bool) error {
	e := extent{int64(min(off, maxFileSize)), int64(n)}
	var of *extent
	switch id {
	case batRegion:
		of = &r.bat
	case metadataRegion:
		of = &r.metadata
	default:
		if required {
			return fmt.Errorf("VHDX with the required region %v is %w", id, fault.ErrUnsupported)
		}
		of = new(extent)
	}
	switch {
	case of.len != 0:
		return fmt.Errorf("%w: two regions %v", fault.ErrDamaged, id)
	case e.off%mib != 0 || e.len%mib != 0 || e.len == 0:
		return fmt.Errorf("%w: region %v of %d bytes at %d", fault.ErrDamaged, id, e.len, e.off)
	case e.end() > f.end:
		return fmt.Errorf("%w: region %v of %d bytes at %d", fault.ErrTruncated, id, e.len, e.off)
	}
	for _, o := range r.all {
		if e.overlaps(o) {
			return fmt.Errorf("%w: region %v at %d lies over another", fault.ErrDamaged, id, e.off)
		}
	}
	*of = e
	r.all = append(r.all, e)
	return nil
}
