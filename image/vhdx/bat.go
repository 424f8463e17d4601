package vhdx

import (
	"encoding/binary"
	"fmt"

	"holdfast/image/internal/fault"
	"holdfast/image/internal/layer"
)

// state is the low three bits of a BAT entry.
type state uint8

// Source: [MS-VHDX] 2.5.1.1; 5 is "unmapped" of version 0.95, which QEMU reads.
const (
	notPresent       state = 0
	undefined        state = 1
	zero             state = 2
	unmapped         state = 3
	unmappedOld      state = 5
	fullyPresent     state = 6
	partiallyPresent state = 7

	bitmapPresent state = 6
)

const (
	entryStateMask    = 7
	entryReservedMask = 0xffff8
	entryPlaceMask    = ^uint64(mib - 1)
	batEntryBytes     = 8

	// chunkSectors is how many sectors a sector bitmap block speaks of.
	chunkSectors = 1 << 23
	bitmapBytes  = chunkSectors / 8

	// What one open file keeps: pages of BAT and bitmaps. Little, because a
	// chain has up to 64 files.
	pageBytes   = 8 << 10
	cachedPages = 128

	// maxHeldRun is where it stops to pay to look for what follows.
	maxHeldRun = 64 << 20
)

// layout is the arithmetic of blocks, chunks and BAT entries.
type layout struct {
	block  int64 // bytes
	size   int64 // of the disk
	sector int64
}

// ratio is how many payload blocks a chunk has. At least one: the largest block
// with the smallest sector makes 16.
func (l layout) ratio() int64 { return chunkSectors * l.sector / l.block }

func (l layout) blocks() int64 { return (l.size + l.block - 1) / l.block }

// entry is the number of the BAT entry of a payload block.
func (l layout) entry(block int64) int64 { return block + block/l.ratio() }

// bitmapEntry is the number of the BAT entry of a block's sector bitmap.
func (l layout) bitmapEntry(block int64) int64 {
	return (block/l.ratio()+1)*(l.ratio()+1) - 1
}

// entries is how many the BAT must have.
func (l layout) entries(differencing bool) int64 {
	n := l.blocks()
	switch {
	case n == 0:
		return 0
	case differencing:
		return l.bitmapEntry(n-1) + 1
	}
	return l.entry(n-1) + 1
}

// run says how the disk is held from byte off, as far as one page of the BAT or
// of a bitmap says the same.
func (d *Disk) run(off int64) (layer.Run, error) {
	block, in := off/d.block, off%d.block
	entries, err := d.batEntries(d.entry(block))
	if err != nil {
		return layer.Run{}, err
	}
	first, err := d.blockRun(block, binary.LittleEndian.Uint64(entries))
	if err != nil {
		return layer.Run{}, err
	}
	if first.partial {
		return d.sectorRun(block, in, first.Host)
	}
	r := first.Run
	// Blocks that follow and are held alike, while their entries do. What is
	// wrong with one is told when it is read.
	last := min(d.blocks(), (block/d.ratio()+1)*d.ratio(), block+int64(len(entries))/batEntryBytes)
	for next := block + 1; next < last && (r.Kind != layer.Held || r.N < maxHeldRun); next++ {
		b, err := d.blockRun(next, binary.LittleEndian.Uint64(entries[batEntryBytes*(next-block):]))
		if err != nil || b.partial || b.Kind != r.Kind || (r.Kind == layer.Held && b.Host != r.Host+r.N) {
			break
		}
		r.N += b.N
	}
	r.Host += in
	r.N -= in
	return r, nil
}

// blockRun is how a block is held; partial: by its sectors, those of the file
// at Host.
type blockRun struct {
	layer.Run
	partial bool
}

// blockRun reads the BAT entry e of a block.
func (d *Disk) blockRun(block int64, e uint64) (blockRun, error) {
	r := blockRun{Run: layer.Run{N: d.block}}
	switch st := state(e & entryStateMask); {
	case e&entryReservedMask != 0:
		return r, fmt.Errorf("%w: the BAT entry of block %d is %016x", fault.ErrDamaged, block, e)
	case st == notPresent:
		return r, nil
	case st == undefined || st == zero || st == unmapped || st == unmappedOld:
		r.Kind = layer.Zeros
		return r, nil
	case st == fullyPresent:
		r.Kind = layer.Held
	case st == partiallyPresent && d.m.parent != nil:
		r.partial = true
	default:
		return r, fmt.Errorf("%w: block %d has the state %d", fault.ErrDamaged, block, st)
	}
	r.Host = int64(min(e&entryPlaceMask, maxFileSize))
	return r, d.checkPlace("block", block, extent{r.Host, min(d.block, d.size-block*d.block)})
}

// sectorRun is how a block that is held in part is held from byte in on.
func (d *Disk) sectorRun(block, in, host int64) (layer.Run, error) {
	entries, err := d.batEntries(d.bitmapEntry(block))
	if err != nil {
		return layer.Run{}, err
	}
	e := binary.LittleEndian.Uint64(entries)
	if state(e&entryStateMask) != bitmapPresent || e&entryReservedMask != 0 {
		return layer.Run{}, fmt.Errorf("%w: block %d is held in part, and the BAT entry of its sector bitmap is %016x", fault.ErrDamaged, block, e)
	}
	bitmap := extent{int64(min(e&entryPlaceMask, maxFileSize)), bitmapBytes}
	if err := d.checkPlace("the sector bitmap of block", block, bitmap); err != nil {
		return layer.Run{}, err
	}
	sector := (block%d.ratio()*d.block + in) / d.sector // of the chunk
	start := sector / 8 / pageBytes * pageBytes
	page, err := d.page(bitmap.off + start)
	if err != nil {
		return layer.Run{}, fmt.Errorf("sector bitmap of block %d: %w", block, err)
	}
	n, held := layer.Equal(page, sector-start*8)
	r := layer.Run{N: min(n*d.sector-in%d.sector, d.block-in)}
	if held {
		r.Kind, r.Host = layer.Held, host+in
	}
	return r, nil
}

// checkPlace refuses what the file cannot hold where the BAT says.
func (d *Disk) checkPlace(what string, block int64, e extent) error {
	if e.end() > d.f.end {
		return fmt.Errorf("%w: %s %d lies at %d", fault.ErrTruncated, what, block, e.off)
	}
	for _, o := range d.regions.all {
		if e.overlaps(o) {
			return fmt.Errorf("%w: %s %d lies at %d, over a header or a table", fault.ErrDamaged, what, block, e.off)
		}
	}
	return nil
}

// batEntries returns the BAT from entry i on to the end of a page.
func (d *Disk) batEntries(i int64) ([]byte, error) {
	at := i * batEntryBytes
	start := at / pageBytes * pageBytes
	page, err := d.page(d.regions.bat.off + start)
	if err != nil {
		return nil, fmt.Errorf("BAT: %w", err)
	}
	return page[at-start:], nil
}

func (d *Disk) page(off int64) ([]byte, error) {
	return d.pages.Get(off, func() ([]byte, error) {
		b := make([]byte, pageBytes)
		return b, layer.ReadFull(d.f, b, off)
	})
}
