package vhdx

import (
	"encoding/binary"
	"fmt"

	"holdfast/image/internal/fault"
	"holdfast/image/internal/layer"
)

const (
	metadataMagic  = "metadata"
	metadataTable  = 64 * kib
	maxItems       = 2047
	maxItemBytes   = mib
	itemEntryBytes = 32

	itemIsUser, itemIsVirtualDisk, itemIsRequired = 1, 2, 4

	minBlock, maxBlock = mib, 256 * mib
	maxDisk            = 64 << 40
)

var (
	itemFileParameters = known("caa16737-fa36-4d43-b3b6-33f0aa44e76b")
	itemDiskSize       = known("2fa54224-cd1b-4876-b211-5dbed83bf4b8")
	itemDiskID         = known("beca12ab-b2e6-4523-93ef-c309e000c746")
	itemLogicalSector  = known("8141bf1d-a96f-4709-ba47-f233a8faab5f")
	itemPhysicalSector = known("cda348c7-445d-4471-9cc9-e9885251c556")
	itemParent         = known("a8d35f2d-b30b-454d-abf7-d3d84834ab0c")

	vhdxLocator = known("b04aefb7-d19e-4a81-b789-25b8e9445913")
)

// Bits of the file parameters.
const (
	leaveAllocated = 1
	hasParent      = 2
)

// metadata is what the metadata region says.
type metadata struct {
	block  int64 // bytes
	size   int64 // of the disk
	sector int64 // logical, bytes
	parent *locator
}

// locator says where the parent is, and which it must be.
type locator struct {
	linkage []GUID
	names   []string
}

// readMetadata reads the table and the items that it names.
//
// Source: [MS-VHDX] 2.6.
func readMetadata(f *file, region extent) (*metadata, error) {
	if region.len < metadataTable {
		return nil, fmt.Errorf("%w: a VHDX metadata region of %d bytes", fault.ErrDamaged, region.len)
	}
	table := make([]byte, metadataTable)
	if err := layer.ReadFull(f, table, region.off); err != nil {
		return nil, fmt.Errorf("VHDX metadata: %w", err)
	}
	le := binary.LittleEndian
	n := le.Uint16(table[10:])
	if string(table[:8]) != metadataMagic || n > maxItems {
		return nil, fmt.Errorf("%w: no VHDX metadata at %d", fault.ErrDamaged, region.off)
	}
	items := make(map[GUID]extent)
	for i := range int(n) {
		e := table[itemEntryBytes*(i+1):]
		id, flags := GUID(e[:16]), le.Uint32(e[24:])
		item := extent{int64(le.Uint32(e[16:])), int64(le.Uint32(e[20:]))}
		if flags&itemIsUser != 0 {
			if flags&itemIsRequired != 0 {
				return nil, fmt.Errorf("VHDX with the required metadata %v is %w", id, fault.ErrUnsupported)
			}
			continue
		}
		switch id {
		case itemFileParameters, itemDiskSize, itemDiskID, itemLogicalSector, itemPhysicalSector, itemParent:
		default:
			if flags&itemIsRequired != 0 {
				return nil, fmt.Errorf("VHDX with the required metadata %v is %w", id, fault.ErrUnsupported)
			}
			continue
		}
		if _, twice := items[id]; twice {
			return nil, fmt.Errorf("%w: VHDX metadata %v is there twice", fault.ErrDamaged, id)
		}
		if item.off < metadataTable || item.len > maxItemBytes || item.end() > region.len {
			return nil, fmt.Errorf("%w: VHDX metadata %v of %d bytes at %d", fault.ErrDamaged, id, item.len, item.off)
		}
		items[id] = extent{region.off + item.off, item.len}
	}
	return readItems(f, items)
}

func readItems(f *file, items map[GUID]extent) (*metadata, error) {
	var bad error
	number := func(id GUID, n int64) (v uint64) {
		b := make([]byte, 16)
		item, ok := items[id]
		switch {
		case bad != nil:
		case !ok || item.len < n:
			bad = fmt.Errorf("%w: VHDX metadata %v is missing or too short", fault.ErrDamaged, id)
		default:
			if err := layer.ReadFull(f, b[:n], item.off); err != nil {
				bad = fmt.Errorf("VHDX metadata %v: %w", id, err)
			}
		}
		return binary.LittleEndian.Uint64(b)
	}
	parameters := number(itemFileParameters, 8)
	m := &metadata{
		block:  int64(uint32(parameters)),
		size:   int64(number(itemDiskSize, 8)),
		sector: int64(number(itemLogicalSector, 4)),
	}
	physical := number(itemPhysicalSector, 4)
	number(itemDiskID, 16)
	if bad != nil {
		return nil, bad
	}
	wrong := func(what string, got int64) error {
		return fmt.Errorf("%w: VHDX metadata: %s is %d", fault.ErrDamaged, what, got)
	}
	flags := parameters >> 32
	switch {
	case m.block < minBlock || m.block > maxBlock || m.block&(m.block-1) != 0:
		return nil, wrong("block size", m.block)
	case flags&^(leaveAllocated|hasParent) != 0:
		return nil, fmt.Errorf("VHDX with file parameters %#x is %w", flags, fault.ErrUnsupported)
	case m.sector != 512 && m.sector != 4096:
		return nil, wrong("logical sector", m.sector)
	case physical != 512 && physical != 4096:
		return nil, wrong("physical sector", int64(physical))
	case m.size < 0 || m.size > maxDisk || m.size%m.sector != 0:
		return nil, wrong("disk size", m.size)
	case flags&hasParent == 0:
		return m, nil
	}
	item, ok := items[itemParent]
	if !ok {
		return nil, fmt.Errorf("%w: a differencing VHDX without a parent locator", fault.ErrDamaged)
	}
	b := make([]byte, item.len)
	err := layer.ReadFull(f, b, item.off)
	if err == nil {
		m.parent, err = parseLocator(b)
	}
	if err != nil {
		return nil, fmt.Errorf("parent locator: %w", err)
	}
	return m, nil
}

// Keys of a parent locator. The longest has 38 bytes.
const (
	keyLinkage  = "parent_linkage"
	keyLinkage2 = "parent_linkage2"
	keyRelative = "relative_path"
	keyVolume   = "volume_path"
	keyAbsolute = "absolute_win32_path"

	maxKeyBytes = 64
)

// parseLocator reads a parent locator of kind VHDX.
//
// Source: [MS-VHDX] 2.6.2.6.
func parseLocator(b []byte) (*locator, error) {
	const headBytes, entryBytes = 20, 12
	le := binary.LittleEndian
	if len(b) < headBytes {
		return nil, fmt.Errorf("%w: %d bytes", fault.ErrDamaged, len(b))
	}
	if kind := GUID(b[:16]); kind != vhdxLocator {
		return nil, fmt.Errorf("kind %v is %w", kind, fault.ErrUnsupported)
	}
	n := int(le.Uint16(b[18:]))
	if headBytes+n*entryBytes > len(b) {
		return nil, fmt.Errorf("%w: %d entries in %d bytes", fault.ErrDamaged, n, len(b))
	}
	// Only what we use is decoded, or entries that share their text could each
	// make as much of it as they like.
	pairs := make(map[string]string)
	for i := range n {
		e := b[headBytes+entryBytes*i:]
		key, ok1 := within(b, le.Uint32(e[0:]), le.Uint16(e[8:]))
		value, ok2 := within(b, le.Uint32(e[4:]), le.Uint16(e[10:]))
		if !ok1 || !ok2 {
			return nil, fmt.Errorf("%w: entry %d lies outside", fault.ErrDamaged, i)
		}
		if len(key) > maxKeyBytes {
			continue
		}
		name := layer.UTF16(key, le)
		switch name {
		case keyLinkage, keyLinkage2, keyRelative, keyVolume, keyAbsolute:
		default:
			continue
		}
		if _, twice := pairs[name]; twice {
			return nil, fmt.Errorf("%w: %q is there twice", fault.ErrDamaged, name)
		}
		pairs[name] = layer.UTF16(value, le)
	}
	l := &locator{names: layer.Names(pairs[keyRelative], pairs[keyVolume], pairs[keyAbsolute])}
	for _, key := range []string{keyLinkage, keyLinkage2} {
		if text, ok := pairs[key]; ok {
			g, err := parseGUID(text)
			if err != nil {
				return nil, fmt.Errorf("%w: %s: %w", fault.ErrDamaged, key, err)
			}
			l.linkage = append(l.linkage, g)
		}
	}
	if len(l.linkage) == 0 {
		return nil, fmt.Errorf("%w: no parent_linkage", fault.ErrDamaged)
	}
	return l, nil
}

// within returns the n bytes at off of b.
func within(b []byte, off uint32, n uint16) ([]byte, bool) {
	if int64(off)+int64(n) > int64(len(b)) || n == 0 {
		return nil, false
	}
	return b[off:][:n], true
}
