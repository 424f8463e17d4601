package vhd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"holdfast/image/internal/fault"
	"holdfast/image/internal/layer"
)

const (
	footerMagic = "conectix"
	footerBytes = 512
	sectorSize  = 512

	// shortFooter is the footer of programs before Virtual PC 2004.
	shortFooter = 511

	// maxSize bounds what a footer may claim, at 1 PiB. The format itself ends
	// at 2 TiB of file.
	maxSize = 1 << 50
)

// kind is the type of a disk in its footer.
type kind uint32

const (
	fixed        kind = 2
	dynamic      kind = 3
	differencing kind = 4
)

// epoch is where time stamps begin to count seconds.
var epoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// footer is what we use of the footer.
//
// Source: "Hard Disk Footer Format".
type footer struct {
	version     uint32 // at 12
	header      uint64 // 16: where the header of a dynamic disk lies
	stamp       uint32 // 24
	currentSize uint64 // 48
	kind        kind   // 60
	uniqueID    ID     // 68
}

// ID is the unique ID of a disk, as its footer has it.
type ID [16]byte

func (id ID) String() string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", id[0:4], id[4:6], id[6:8], id[8:10], id[10:16])
}

// Detect says whether ra is a VHD: it begins like one or, with a checksum that
// keeps a raw disk raw whose last sector happens to look so, ends like one.
func Detect(ra io.ReaderAt, size int64) bool {
	head := make([]byte, len(footerMagic))
	if n, _ := ra.ReadAt(head, 0); string(head[:n]) == footerMagic {
		return true
	}
	_, _, err := lastFooter(ra, size)
	return err == nil
}

// findFooter returns the footer that counts, and where the blocks of the disk
// must end.
func findFooter(ra io.ReaderAt, size int64) (f *footer, end int64, err error) {
	last, end, err := lastFooter(ra, size)
	if err == nil && last.kind == fixed {
		return last, end, last.check()
	}
	first, errFirst := readFooter(ra, 0, min(size, footerBytes))
	for _, err := range []error{err, errFirst} {
		if err != nil && !errors.Is(err, fault.ErrDamaged) && !errors.Is(err, fault.ErrTruncated) {
			return nil, 0, fmt.Errorf("footer: %w", err) // not read, which is not the same as not there
		}
	}
	switch {
	case err != nil && errFirst != nil:
		return nil, 0, fmt.Errorf("footer: %w; its copy: %w", err, errFirst)
	case err != nil && first.kind == fixed:
		return nil, 0, fmt.Errorf("%w: a fixed VHD without a footer at its end", fault.ErrTruncated)
	case err != nil:
		return first, size, first.check()
	case errFirst != nil:
		return last, end, last.check()
	}
	if first.stamp = last.stamp; *first != *last {
		return nil, 0, fmt.Errorf("%w: the VHD footer and its copy differ", fault.ErrDamaged)
	}
	return last, end, last.check()
}

// lastFooter reads the footer at the end of the file, and returns where it
// begins.
func lastFooter(ra io.ReaderAt, size int64) (*footer, int64, error) {
	f, err := readFooter(ra, size-footerBytes, footerBytes)
	if err == nil {
		return f, size - footerBytes, nil
	}
	if f, err := readFooter(ra, size-shortFooter, shortFooter); err == nil {
		return f, size - shortFooter, nil
	}
	return nil, 0, err
}

func readFooter(ra io.ReaderAt, off, n int64) (*footer, error) {
	b := make([]byte, footerBytes)
	if off < 0 || n < shortFooter {
		return nil, fmt.Errorf("%w: no room for a VHD footer", fault.ErrTruncated)
	}
	if err := layer.ReadFull(ra, b[:n], off); err != nil {
		return nil, err
	}
	if string(b[:8]) != footerMagic {
		return nil, fmt.Errorf("%w: no VHD footer at %d", fault.ErrDamaged, off)
	}
	if got, want := binary.BigEndian.Uint32(b[64:]), checksum(b, 64); got != want {
		return nil, fmt.Errorf("%w: the VHD footer at %d has the checksum %08x, not %08x", fault.ErrDamaged, off, want, got)
	}
	be := binary.BigEndian
	return &footer{
		version:     be.Uint32(b[12:]),
		header:      be.Uint64(b[16:]),
		stamp:       be.Uint32(b[24:]),
		currentSize: be.Uint64(b[48:]),
		kind:        kind(be.Uint32(b[60:])),
		uniqueID:    ID(b[68:84]),
	}, nil
}

// checksum is the complement of the sum of all bytes, but for the four at own
// that hold it.
func checksum(b []byte, own int) uint32 {
	var sum uint32
	for i, c := range b {
		if i < own || i >= own+4 {
			sum += uint32(c)
		}
	}
	return ^sum
}

func (f *footer) check() error {
	switch {
	case f.version>>16 != 1:
		return fmt.Errorf("VHD version %d.%d is %w", f.version>>16, f.version&0xffff, fault.ErrUnsupported)
	case f.kind != fixed && f.kind != dynamic && f.kind != differencing:
		return fmt.Errorf("VHD of type %d is %w", f.kind, fault.ErrUnsupported)
	case f.currentSize > maxSize || f.currentSize%sectorSize != 0:
		return fmt.Errorf("%w: VHD footer: disk size is %d", fault.ErrDamaged, f.currentSize)
	}
	return nil
}
