package vhd

import (
	"encoding/binary"
	"fmt"
	"io"
	"net/url"
	"strings"

	"holdfast/image/internal/fault"
	"holdfast/image/internal/layer"
)

const (
	headerMagic = "cxsparse"
	headerBytes = 1024

	entryAbsent = 0xffffffff

	// Blocks of other sizes than 512 KiB and 2 MiB are rare; QEMU's bounds.
	minBlock, maxBlock = sectorSize, 1 << 31

	maxLocators     = 8
	maxLocatorBytes = 64 << 10
)

// header is what we use of the header of a dynamic disk.
//
// Source: "Dynamic Disk Header Format".
type header struct {
	table       uint64      // at 16
	version     uint32      // 24
	entries     uint32      // 28
	blockBytes  uint32      // 32
	parentID    ID          // 40
	parentStamp uint32      // 56
	parentName  string      // 64: UTF-16
	locators    [][]byte    // 576: what the places below hold, of 24 bytes each
	blockBitmap int64       // bytes of the bitmap before a block
	reserved    [3][2]int64 // where no block may lie, from and to
}

func readHeader(ra io.ReaderAt, f *footer, end int64) (*header, error) {
	if f.header > uint64(end) || end-int64(f.header) < headerBytes {
		return nil, fmt.Errorf("%w: VHD header at %d", fault.ErrTruncated, f.header)
	}
	b := make([]byte, headerBytes)
	if err := layer.ReadFull(ra, b, int64(f.header)); err != nil {
		return nil, fmt.Errorf("VHD header: %w", err)
	}
	if string(b[:8]) != headerMagic {
		return nil, fmt.Errorf("%w: no VHD header at %d", fault.ErrDamaged, f.header)
	}
	be := binary.BigEndian
	if got, want := be.Uint32(b[36:]), checksum(b, 36); got != want {
		return nil, fmt.Errorf("%w: the VHD header has the checksum %08x, not %08x", fault.ErrDamaged, want, got)
	}
	h := &header{
		table:       be.Uint64(b[16:]),
		version:     be.Uint32(b[24:]),
		entries:     be.Uint32(b[28:]),
		blockBytes:  be.Uint32(b[32:]),
		parentID:    ID(b[40:56]),
		parentStamp: be.Uint32(b[56:]),
		parentName:  layer.UTF16(b[64:576], be),
	}
	for i := range maxLocators {
		h.locators = append(h.locators, b[576+24*i:][:24])
	}
	if err := h.check(f, end); err != nil {
		return nil, err
	}
	bits := int64(h.blockBytes) / sectorSize
	h.blockBitmap = (bits/8 + sectorSize - 1) / sectorSize * sectorSize
	if h.blockBitmap == 0 {
		h.blockBitmap = sectorSize
	}
	h.reserved = [...][2]int64{
		{0, footerBytes},
		{int64(f.header), int64(f.header) + headerBytes},
		{int64(h.table), int64(h.table) + 4*int64(h.entries)},
	}
	return h, nil
}

func (h *header) check(f *footer, end int64) error {
	bad := func(what string, got uint64) error {
		return fmt.Errorf("%w: VHD header: %s is %d", fault.ErrDamaged, what, got)
	}
	size := uint64(h.blockBytes)
	switch {
	case h.version>>16 != 1:
		return fmt.Errorf("VHD header version %d.%d is %w", h.version>>16, h.version&0xffff, fault.ErrUnsupported)
	case size < minBlock || size > maxBlock || size&(size-1) != 0:
		return bad("block size", size)
	case (f.currentSize+size-1)/size > uint64(h.entries):
		return bad("number of blocks", uint64(h.entries))
	case h.table > uint64(end) || uint64(end)-h.table < 4*uint64(h.entries):
		return fmt.Errorf("%w: VHD block table of %d entries at %d", fault.ErrTruncated, h.entries, h.table)
	}
	return nil
}

// parentNames are the names of the parent that the disk has, the one to try
// first first. A locator that leads out of the file is passed over: whatever is
// found by another must have the right ID.
func (h *header) parentNames(ra io.ReaderAt, end int64) ([]string, error) {
	rank := map[string]int{"W2ru": 0, "Wi2r": 1, "MacX": 2, "W2ku": 3, "Wi2k": 4}
	byRank := make([][]string, len(rank)+1)
	for _, l := range h.locators {
		code := string(l[:4])
		i, known := rank[code]
		n, off := binary.BigEndian.Uint32(l[8:]), binary.BigEndian.Uint64(l[16:])
		if !known || n > maxLocatorBytes || off > uint64(end) || int64(off)+int64(n) > end {
			continue
		}
		b := make([]byte, n)
		if err := layer.ReadFull(ra, b, int64(off)); err != nil {
			return nil, fmt.Errorf("parent locator: %w", err)
		}
		byRank[i] = append(byRank[i], locatorName(code, b))
	}
	byRank[len(rank)] = []string{h.parentName}
	var all []string
	for _, names := range byRank {
		all = append(all, names...)
	}
	return layer.Names(all...), nil
}

// locatorName decodes the data of a parent locator.
//
// Source: "Parent Locator", and for MacX RFC 2396; XenServer writes such URLs
// with a relative path in place of the host.
func locatorName(code string, b []byte) string {
	if strings.HasPrefix(code, "W2") {
		return layer.UTF16(b, binary.LittleEndian)
	}
	name, _, _ := strings.Cut(string(b), "\x00")
	if code != "MacX" {
		return name
	}
	name = strings.TrimPrefix(strings.TrimPrefix(name, "file://"), "localhost")
	if plain, err := url.PathUnescape(name); err == nil {
		name = plain
	}
	return name
}
