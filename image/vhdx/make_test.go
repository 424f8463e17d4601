package vhdx

import (
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"os"
	"strings"
	"testing"
)

// paged is a file in memory of which most is holes.
type paged struct {
	pages map[int64][]byte // of 4 KiB, never changed once there
	size  int64
}

const pageSize = 4096

func newPaged() *paged { return &paged{pages: make(map[int64][]byte)} }

func pagedFrom(b []byte) *paged {
	f := newPaged()
	f.write(b, 0)
	return f
}

// clone shares the pages.
func (f *paged) clone() *paged { return &paged{maps.Clone(f.pages), f.size} }

func (f *paged) ReadAt(p []byte, off int64) (n int, err error) {
	for n < len(p) && off+int64(n) < f.size {
		at := off + int64(n)
		part := p[n:min(int64(len(p)), int64(n)+pageSize-at%pageSize, f.size-off)]
		if page := f.pages[at/pageSize]; page != nil {
			copy(part, page[at%pageSize:])
		} else {
			clear(part)
		}
		n += len(part)
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *paged) write(b []byte, off int64) {
	for len(b) > 0 {
		page := make([]byte, pageSize)
		copy(page, f.pages[off/pageSize])
		n := copy(page[off%pageSize:], b)
		f.pages[off/pageSize] = page
		b, off = b[n:], off+int64(n)
		f.size = max(f.size, off)
	}
}

func (f *paged) read(off int64, n int) []byte {
	b := make([]byte, n)
	_, _ = f.ReadAt(b, off)
	return b
}

// store writes f to a sparse file.
func (f *paged) store(t testing.TB, path string) {
	t.Helper()
	out, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if err := out.Truncate(f.size); err != nil {
		t.Fatal(err)
	}
	for i, page := range f.pages {
		if _, err := out.WriteAt(page[:min(pageSize, f.size-i*pageSize)], i*pageSize); err != nil {
			t.Fatal(err)
		}
	}
}

func (f *paged) open(t testing.TB, open func(string) (Parent, error)) *Disk {
	t.Helper()
	d, err := Open(f, f.size, open)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// made says what makeDisk writes.
type made struct {
	size     int64
	block    int64
	sector   int64
	physical int64
	dataID   GUID
	parent   []pair // of its locator; nil: no parent
	log      int64  // bytes, 1 MiB if 0

	// held says how a block is held, and sectorHeld a sector, by its number, of
	// one that is held in part. content gives what is held.
	held       func(block int64) state
	sectorHeld func(sector int64) bool
	content    func(p []byte, off int64)
}

type pair struct{ key, value string }

// places is where things lie in a made file.
type places struct {
	log, metadata, items, bat extent
	block                     map[int64]int64
	bitmap                    map[int64]int64 // by chunk
}

var le = binary.LittleEndian

// makeDisk writes a VHDX: BAT before metadata, blocks in the reverse order of
// the disk, bitmaps among them.
func makeDisk(m made) (*paged, places) {
	m = m.withDefaults()
	l := layout{m.block, m.size, m.sector}
	p := places{block: map[int64]int64{}, bitmap: map[int64]int64{}}
	p.log = extent{mib, m.log}
	p.bat = extent{p.log.end(), max(mib, ceil(l.entries(m.parent != nil)*8, mib))}
	p.metadata = extent{p.bat.end(), mib}
	p.items = extent{p.metadata.off + metadataTable, mib - metadataTable}
	f := newPaged()
	f.write([]byte(fileMagic), 0)
	f.writeHeader(0, 7, m.dataID, GUID{}, p.log)
	f.writeHeader(1, 8, m.dataID, GUID{}, p.log)
	f.writeRegions(
		region{known("11111111-2222-3333-4444-555555555555"), extent{p.metadata.end(), mib}, 0},
		region{batRegion, p.bat, 1}, region{metadataRegion, p.metadata, 1})
	f.writeMetadata(p.metadata.off, m.items())
	at := p.metadata.end() + mib
	entry := func(i, place int64, st state) {
		f.write(le.AppendUint64(nil, uint64(place)|uint64(st)), p.bat.off+8*i)
	}
	for b := l.blocks() - 1; b >= 0; b-- {
		st := m.held(b)
		if st == partiallyPresent && p.bitmap[b/l.ratio()] == 0 {
			p.bitmap[b/l.ratio()] = at
			entry(l.bitmapEntry(b), at, bitmapPresent)
			at += mib
		}
		if st != fullyPresent && st != partiallyPresent {
			if st != notPresent {
				entry(l.entry(b), 0, st)
			}
			continue
		}
		p.block[b] = at
		entry(l.entry(b), at, st)
		f.writeBlock(m, b, at, p.bitmap[b/l.ratio()])
		at += m.block
	}
	f.size = max(f.size, at, p.metadata.end()+mib)
	return f, p
}

func (m made) withDefaults() made {
	if m.block == 0 {
		m.block = mib
	}
	if m.sector == 0 {
		m.sector = 512
	}
	if m.physical == 0 {
		m.physical = 4096
	}
	if m.log == 0 {
		m.log = mib
	}
	return m
}

// writeBlock writes block b to at and its bits to the bitmap. Sectors that are
// not held are filled with what must not be read.
func (f *paged) writeBlock(m made, b, at, bitmap int64) {
	partly := m.held(b) == partiallyPresent
	perChunk := int64(chunkSectors)
	buf := make([]byte, m.sector)
	for off := b * m.block; off < min((b+1)*m.block, m.size); off += m.sector {
		s := off / m.sector
		if m.content != nil {
			m.content(buf, off)
		}
		if partly {
			in := bitmap + s%perChunk/8
			bits := f.read(in, 1)
			if m.sectorHeld(s) {
				bits[0] |= 1 << (s % 8)
			} else {
				for i := range buf {
					buf[i] = 0xee
				}
			}
			f.write(bits, in)
		}
		if !isZero(buf) {
			f.write(buf, at+off-b*m.block)
		}
	}
}

func (f *paged) writeHeader(n int, sequence uint64, dataID, logID GUID, log extent) {
	b := make([]byte, headerBytes)
	copy(b, headerMagic)
	le.PutUint64(b[8:], sequence)
	copy(b[32:], dataID[:])
	copy(b[48:], logID[:])
	le.PutUint16(b[66:], 1)
	le.PutUint32(b[68:], uint32(log.len))
	le.PutUint64(b[72:], uint64(log.off))
	f.write(sealed(b), int64(64*kib*(n+1)))
}

type region struct {
	id GUID
	extent
	flags uint32
}

func (f *paged) writeRegions(list ...region) {
	b := make([]byte, regionsBytes)
	copy(b, regionsMagic)
	le.PutUint32(b[8:], uint32(len(list)))
	for i, r := range list {
		e := b[16+32*i:]
		copy(e, r.id[:])
		le.PutUint64(e[16:], uint64(r.off))
		le.PutUint32(e[24:], uint32(r.len))
		le.PutUint32(e[28:], r.flags)
	}
	f.write(sealed(b), regions1At)
	f.write(b, regions2At)
}

type item struct {
	id    GUID
	flags uint32
	value []byte
}

func (m made) items() []item {
	parameters := uint64(m.block)
	if m.parent != nil {
		parameters |= hasParent << 32
	}
	list := []item{
		{itemPhysicalSector, itemIsRequired | itemIsVirtualDisk, le.AppendUint32(nil, uint32(m.physical))},
		{itemLogicalSector, itemIsRequired | itemIsVirtualDisk, le.AppendUint32(nil, uint32(m.sector))},
		{known("99999999-2222-3333-4444-555555555555"), itemIsUser, []byte("somebody's own")},
		{itemDiskID, itemIsRequired | itemIsVirtualDisk, make([]byte, 16)},
		{itemDiskSize, itemIsRequired | itemIsVirtualDisk, le.AppendUint64(nil, uint64(m.size))},
		{itemFileParameters, itemIsRequired, le.AppendUint64(nil, parameters)},
	}
	if m.parent != nil {
		list = append(list, item{itemParent, itemIsRequired, encodeLocator(m.parent)})
	}
	return list
}

func encodeLocator(pairs []pair) []byte {
	b := append([]byte(nil), vhdxLocator[:]...)
	b = le.AppendUint16(b, 0)
	b = le.AppendUint16(b, uint16(len(pairs)))
	at := len(b) + 12*len(pairs)
	var text []byte
	put := func(s string) (off, n int) {
		off = at + len(text)
		text = append(text, utf16Bytes(s)...)
		return off, at + len(text) - off
	}
	for _, p := range pairs {
		k, kn := put(p.key)
		v, vn := put(p.value)
		b = le.AppendUint32(b, uint32(k))
		b = le.AppendUint32(b, uint32(v))
		b = le.AppendUint16(b, uint16(kn))
		b = le.AppendUint16(b, uint16(vn))
	}
	return append(b, text...)
}

// writeMetadata writes table and items, each 8 bytes behind the one before.
func (f *paged) writeMetadata(off int64, list []item) {
	table := make([]byte, metadataTable)
	copy(table, metadataMagic)
	le.PutUint16(table[10:], uint16(len(list)))
	at := int64(metadataTable)
	for i, it := range list {
		e := table[32*(i+1):]
		copy(e, it.id[:])
		le.PutUint32(e[16:], uint32(at))
		le.PutUint32(e[20:], uint32(len(it.value)))
		le.PutUint32(e[24:], it.flags)
		f.write(it.value, off+at)
		at += int64(len(it.value)) + 8
	}
	f.write(table, off)
}

// logged is one log entry to be written.
type logged struct {
	at       int64 // in the ring
	tail     int64
	sequence uint64
	guid     GUID
	writes   []change
	flushed  int64
	last     int64
}

// change is what a descriptor writes: n zeros, or 4 KiB of data.
type change struct {
	off  int64
	n    int64 // of zeros
	data []byte
}

func (l logged) encode() []byte {
	head := make([]byte, (64+32*len(l.writes)+logSector-1)/logSector*logSector)
	var sectors []byte
	for i, w := range l.writes {
		d := head[64+32*i:]
		le.PutUint64(d[16:], uint64(w.off))
		le.PutUint64(d[24:], l.sequence)
		if w.data == nil {
			copy(d, zeroMagic)
			le.PutUint64(d[8:], uint64(w.n))
			continue
		}
		copy(d, descMagic)
		copy(d[4:8], w.data[logSector-4:])
		copy(d[8:16], w.data[:8])
		s := append([]byte(nil), w.data...)
		copy(s, dataMagic)
		le.PutUint32(s[4:], uint32(l.sequence>>32))
		le.PutUint32(s[logSector-4:], uint32(l.sequence))
		sectors = append(sectors, s...)
	}
	b := append(head, sectors...)
	copy(b, entryMagic)
	le.PutUint32(b[8:], uint32(len(b)))
	le.PutUint32(b[12:], uint32(l.tail))
	le.PutUint64(b[16:], l.sequence)
	le.PutUint32(b[24:], uint32(len(l.writes)))
	copy(b[32:], l.guid[:])
	le.PutUint64(b[48:], uint64(l.flushed))
	le.PutUint64(b[56:], uint64(l.last))
	return sealed(b)
}

// writeLog puts an entry into the ring, around its end if need be, and returns
// where the next one goes.
func (f *paged) writeLog(ring extent, l logged) int64 {
	b := l.encode()
	for i := 0; i < len(b); i += logSector {
		f.write(b[i:i+logSector], ring.off+(l.at+int64(i))%ring.len)
	}
	return (l.at + int64(len(b))) % ring.len
}

func isZero(b []byte) bool {
	return strings.Trim(string(b), "\x00") == ""
}

// guid is a GUID for tests.
func guid(n int) GUID { return known(fmt.Sprintf("%08x-aaaa-bbbb-cccc-dddddddddddd", n)) }
