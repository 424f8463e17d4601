package vhd

import (
	"encoding/binary"
	"fmt"
	"math/bits"

	"holdfast/image/internal/fault"
	"holdfast/image/internal/layer"
)

const (
	// What one open file keeps: pages of the block table and of bitmaps. Little,
	// because a chain has up to 64 files.
	pageBytes    = 4 << 10
	cachedPages  = 128
	bitsOfPage   = pageBytes * 8
	entriesBytes = 4
)

// run says how the disk is held from byte off, as far as one page of the block
// table or of a bitmap says the same.
func (d *Disk) run(off int64) (layer.Run, error) {
	size := int64(d.h.blockBytes)
	block := off / size
	page, err := d.tablePage(block)
	if err != nil {
		return layer.Run{}, fmt.Errorf("block table: %w", err)
	}
	if binary.BigEndian.Uint32(page) == entryAbsent {
		n := int64(1)
		for 4*n < int64(len(page)) && binary.BigEndian.Uint32(page[4*n:]) == entryAbsent {
			n++
		}
		return layer.Run{Kind: layer.Absent, N: n*size - off%size}, nil
	}
	place := int64(binary.BigEndian.Uint32(page)) * sectorSize
	if err := d.checkPlace(block, place); err != nil {
		return layer.Run{}, err
	}
	sector := off % size / sectorSize
	bitmap, err := d.bitmapPage(place, sector)
	if err != nil {
		return layer.Run{}, fmt.Errorf("bitmap of block %d: %w", block, err)
	}
	n, held := layer.Equal(bitmap, sector%bitsOfPage)
	r := layer.Run{N: min(n*sectorSize-off%sectorSize, size-off%size)}
	if held {
		r.Kind, r.Host = layer.Held, place+d.h.blockBitmap+off%size
	}
	return r, nil
}

// checkPlace refuses a block that can't be in the file where its entry says.
func (d *Disk) checkPlace(block, place int64) error {
	data := min(int64(d.h.blockBytes), d.l.SizeBytes-block*int64(d.h.blockBytes))
	end := place + d.h.blockBitmap + data
	if end > d.end {
		return fmt.Errorf("%w: block %d lies at sector %d", fault.ErrTruncated, block, place/sectorSize)
	}
	for _, r := range d.h.reserved {
		if place < r[1] && end > r[0] {
			return fmt.Errorf("%w: block %d lies at sector %d, over a header or the block table", fault.ErrDamaged, block, place/sectorSize)
		}
	}
	return nil
}

// tablePage returns the block table from the entry of block on to the end of a
// page of the table.
func (d *Disk) tablePage(block int64) ([]byte, error) {
	at := block * entriesBytes
	start := at / pageBytes * pageBytes
	page, err := d.page(int64(d.h.table)+start, min(pageBytes, entriesBytes*int64(d.h.entries)-start), false)
	if err != nil {
		return nil, err
	}
	return page[at-start:], nil
}

// bitmapPage returns the page with the bit of a sector of the block at place,
// the first sector in the least significant bit.
func (d *Disk) bitmapPage(place, sector int64) ([]byte, error) {
	start := sector / bitsOfPage * pageBytes
	return d.page(place+start, min(pageBytes, d.h.blockBitmap-start), true)
}

func (d *Disk) page(off, n int64, reversed bool) ([]byte, error) {
	return d.pages.Get(off, func() ([]byte, error) {
		b := make([]byte, n)
		if err := layer.ReadFull(d.l.File, b, off); err != nil {
			return nil, err
		}
		if reversed {
			for i, c := range b {
				b[i] = bits.Reverse8(c)
			}
		}
		return b, nil
	})
}
