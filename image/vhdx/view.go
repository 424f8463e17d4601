package vhdx

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"io/fs"
	"unicode/utf16"

	"holdfast/image/internal/layer"
)

// Source is a row of bytes that knows its holes; image.Disk has the meaning of
// its methods. It must not change while a View of it is in use.
type Source interface {
	io.ReaderAt
	Size() int64
	NextData(off int64) (start, end int64, err error)
}

// ViewOptions say what a View is beside the bytes of the disk.
type ViewOptions struct {
	// Identity names the content of the disk, in any words: the GUIDs of the
	// file are made from it, so the same identity gives the same file. A
	// differencing disk knows its parent by such a GUID; two contents must not
	// have one identity.
	Identity string
}

// View shows a disk as a dynamic VHDX that is stored nowhere, with logical
// sectors of 512 bytes and physical ones of 4096. Its methods have the meaning
// of image.Disk's, for the bytes of the file, and may be called by several
// goroutines at once.
//
// The place of everything follows from the size of the disk alone:
//
//	0        identifier, headers, region tables
//	1 MiB    log, empty
//	2 MiB    metadata
//	3 MiB    BAT, rounded up to 1 MiB
//	…        data: byte n of the disk is at DataOffset + n, to the end of its
//	         last block
//
// What the BAT says is asked of the source whenever it is read: a block is
// present where the source may have data, and zero where not. So a View costs
// nothing to make and keeps nothing in memory, whatever the size of the disk,
// and the same source gives the same bytes every time. What is not present reads
// as zeros and is a hole of the file. Blocks have 1 MiB, and more only where
// there would be more than maxViewBlocks of them.
type View struct {
	src Source
	layout
	plain []piece // what is not BAT or data, and not zeros
	bat   extent
	data  int64
}

// piece is some bytes of the file.
type piece struct {
	off int64
	b   []byte
}

func (p piece) extent() extent { return extent{p.off, int64(len(p.b))} }

const (
	viewLog      = 1 * mib
	viewMetadata = 2 * mib
	viewBAT      = 3 * mib

	maxViewBlocks = 1 << 18

	viewLogicalSector, viewPhysicalSector = 512, 4096
)

// NewView shows src as a VHDX, without reading anything of it. A size that is no
// multiple of 512 is rounded up with zeros. More than 64 TiB is refused.
func NewView(src Source, opt ViewOptions) (*View, error) {
	size := src.Size()
	if size < 0 || size > maxDisk {
		return nil, fmt.Errorf("a VHDX of %d bytes: at most %d are possible", size, int64(maxDisk))
	}
	v := &View{src: src, layout: layout{block: minBlock, size: ceil(size, viewLogicalSector), sector: viewLogicalSector}}
	for v.blocks() > maxViewBlocks {
		v.block *= 2
	}
	v.bat = extent{viewBAT, max(mib, ceil(v.entries(false)*batEntryBytes, mib))}
	v.data = v.bat.end()
	v.plain = v.head(opt.Identity)
	return v, nil
}

// ceil is n rounded up to a multiple of unit.
func ceil(n, unit int64) int64 { return (n + unit - 1) / unit * unit }

// Size is the length of the file in bytes. As much of it is holes as of the
// disk.
func (v *View) Size() int64 { return v.data + v.blocks()*v.block }

// DataOffset is where the disk begins in the file. It lies there from its first
// byte to its last, holes included.
func (v *View) DataOffset() int64 { return v.data }

// ReadAt reads bytes of the file.
func (v *View) ReadAt(p []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, fs.ErrInvalid
	}
	for n < len(p) && off+int64(n) < v.Size() {
		at := off + int64(n)
		to := func(end int64) []byte { return p[n:min(int64(len(p)), int64(n)+end-at)] }
		var part []byte
		switch {
		case at < v.bat.off:
			part = to(v.bat.off)
			v.readPlain(part, at)
		case at < v.bat.end():
			part = to(v.bat.end())
			err = v.readBAT(part, at-v.bat.off)
		default:
			part = to(v.Size())
			err = v.readDisk(part, at-v.data)
		}
		if err != nil {
			return n, err
		}
		n += len(part)
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (v *View) readPlain(p []byte, off int64) {
	clear(p)
	for _, pc := range v.plain {
		switch {
		case pc.off >= off+int64(len(p)):
		case pc.off >= off:
			copy(p[pc.off-off:], pc.b)
		case off < pc.extent().end():
			copy(p, pc.b[off-pc.off:])
		}
	}
}

// readDisk reads bytes of the disk, with zeros up to the end of its last block.
func (v *View) readDisk(p []byte, off int64) error {
	n := max(0, min(int64(len(p)), v.src.Size()-off))
	clear(p[n:])
	if n == 0 {
		return nil
	}
	return layer.ReadFull(v.src, p[:n], off)
}

// readBAT fills p from byte in of the BAT, some entries at a time.
func (v *View) readBAT(p []byte, in int64) error {
	var b [1024 * batEntryBytes]byte
	for len(p) > 0 {
		first := in / batEntryBytes
		n := min(int64(len(b)), ceil(in+int64(len(p)), batEntryBytes)-first*batEntryBytes)
		if err := v.fillBAT(b[:n], first); err != nil {
			return err
		}
		k := copy(p, b[in-first*batEntryBytes:n])
		p, in = p[k:], in+int64(k)
	}
	return nil
}

// fillBAT makes the entries from first on. Those of sector bitmaps are 0.
func (v *View) fillBAT(b []byte, first int64) error {
	clear(b)
	last := min(first+int64(len(b))/batEntryBytes, v.entries(false)) // exclusive
	group := v.ratio() + 1
	var from, to int64 // where data lies, asked anew when it ends before a block
	known := false
	for i := first; i < last; i++ {
		if i%group == group-1 {
			continue
		}
		block := i - i/group
		start := block * v.block
		if !known || to <= start {
			var err error
			if from, to, err = v.nextData(start); err != nil {
				return err
			}
			known = true
		}
		e := uint64(zero)
		if from < start+v.block {
			e = uint64(v.data+start) | uint64(fullyPresent)
		}
		binary.LittleEndian.PutUint64(b[(i-first)*batEntryBytes:], e)
	}
	return nil
}

// nextData is NextData of the source; behind all data there is some that never
// comes.
func (v *View) nextData(off int64) (start, end int64, err error) {
	if off >= v.src.Size() {
		return maxFileSize, maxFileSize, nil
	}
	start, end, err = v.src.NextData(off)
	if err == io.EOF {
		return maxFileSize, maxFileSize, nil
	}
	return start, end, err
}

// NextData finds data in the file: what is fixed, the BAT, and the data of the
// disk.
func (v *View) NextData(off int64) (start, end int64, err error) {
	if off < 0 {
		return 0, 0, fs.ErrInvalid
	}
	for _, pc := range v.plain {
		if end := ceil(pc.extent().end(), logSector); off < end {
			return max(off, pc.off), end, nil
		}
	}
	if end := v.bat.off + ceil(v.entries(false)*batEntryBytes, logSector); off < end {
		return max(off, v.bat.off), end, nil
	}
	start, end, err = v.nextData(max(0, off-v.data))
	if err == nil && start == maxFileSize {
		err = io.EOF
	}
	if err != nil {
		return 0, 0, err
	}
	return start + v.data, end + v.data, nil
}

// head makes what comes before the BAT.
func (v *View) head(identity string) []piece {
	header := func(sequence uint64) []byte { return v.header(identity, sequence) }
	table := v.regionTable()
	metadata, items := v.metadata(identity)
	plain := []piece{
		{0, append([]byte(fileMagic), utf16Bytes("holdfast")...)},
		{header1At, header(1)},
		{header2At, header(2)},
		{regions1At, table},
		{regions2At, table},
		{viewMetadata, metadata},
		{viewMetadata + metadataTable, items},
	}
	for i := range plain {
		plain[i].b = bytes.TrimRight(plain[i].b, "\x00")
	}
	return plain
}

func (v *View) header(identity string, sequence uint64) []byte {
	le := binary.LittleEndian
	b := make([]byte, headerBytes)
	copy(b, headerMagic)
	le.PutUint64(b[8:], sequence)
	fileID, dataID := derive("file", identity), derive("data", identity)
	copy(b[16:], fileID[:])
	copy(b[32:], dataID[:])
	le.PutUint16(b[64:], logVersion)
	le.PutUint16(b[66:], formatVersion)
	le.PutUint32(b[68:], mib)
	le.PutUint64(b[72:], viewLog)
	return sealed(b)
}

func (v *View) regionTable() []byte {
	le := binary.LittleEndian
	b := make([]byte, regionsBytes)
	copy(b, regionsMagic)
	le.PutUint32(b[8:], 2)
	for i, r := range []struct {
		id GUID
		extent
	}{{batRegion, v.bat}, {metadataRegion, extent{viewMetadata, mib}}} {
		e := b[16+32*i:]
		copy(e, r.id[:])
		le.PutUint64(e[16:], uint64(r.off))
		le.PutUint32(e[24:], uint32(r.len))
		le.PutUint32(e[28:], 1) // required
	}
	return sealed(b)
}

// sealed sets the checksum.
func sealed(b []byte) []byte {
	binary.LittleEndian.PutUint32(b[4:], checksum(b, 4))
	return b
}

func (v *View) metadata(identity string) (table, items []byte) {
	le := binary.LittleEndian
	diskID := derive("disk", identity)
	list := []struct {
		id    GUID
		flags uint32
		value []byte
	}{
		{itemFileParameters, itemIsRequired, le.AppendUint64(nil, uint64(v.block))},
		{itemDiskSize, itemIsRequired | itemIsVirtualDisk, le.AppendUint64(nil, uint64(v.size))},
		{itemDiskID, itemIsRequired | itemIsVirtualDisk, diskID[:]},
		{itemLogicalSector, itemIsRequired | itemIsVirtualDisk, le.AppendUint32(nil, viewLogicalSector)},
		{itemPhysicalSector, itemIsRequired | itemIsVirtualDisk, le.AppendUint32(nil, viewPhysicalSector)},
	}
	table = append(table, metadataMagic...)
	table = le.AppendUint16(table, 0)
	table = le.AppendUint16(table, uint16(len(list)))
	table = append(table, make([]byte, itemEntryBytes-len(table))...)
	for _, it := range list {
		table = append(table, it.id[:]...)
		table = le.AppendUint32(table, uint32(metadataTable+len(items)))
		table = le.AppendUint32(table, uint32(len(it.value)))
		table = le.AppendUint32(table, it.flags)
		table = le.AppendUint32(table, 0)
		items = append(items, it.value...)
	}
	return table, items
}

// derive makes a GUID for a purpose from an identity: of version 8, which is
// whatever its maker says.
func derive(purpose, identity string) GUID {
	sum := sha256.Sum256([]byte("holdfast vhdx " + purpose + "\x00" + identity))
	g := GUID(sum[:16])
	g[7] = g[7]&0x0f | 0x80 // the third group is little-endian
	g[8] = g[8]&0x3f | 0x80
	return g
}

func utf16Bytes(s string) (b []byte) {
	for _, u := range utf16.Encode([]rune(s)) {
		b = binary.LittleEndian.AppendUint16(b, u)
	}
	return b
}
