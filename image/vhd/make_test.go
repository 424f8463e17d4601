package vhd

import (
	"encoding/binary"
	"math/bits"
	"unicode/utf16"
)

// made says what makeDisk writes.
type made struct {
	kind       kind
	size       int
	block      int
	id         ID
	stamp      uint32
	parentID   ID
	parentTime uint32
	parentName string
	locators   []locator

	// held says which sectors are in the file, with sector i of content; a
	// block without any is absent. Nil: those that are not all zeros.
	held func(sector int) bool
}

type locator struct{ code, data string }

// places is where things lie in a made disk.
type places struct {
	header, table int
	blocks        []int // by number; 0 absent
}

var be, le = binary.BigEndian, binary.LittleEndian

// makeDisk writes a dynamic or differencing disk. Blocks lie in the reverse
// order of the disk.
func makeDisk(m made, content []byte) ([]byte, places) {
	if m.kind == 0 {
		m.kind = dynamic
	}
	if m.block == 0 {
		m.block = 64 << 10
	}
	m.size = len(content)
	n := (m.size + m.block - 1) / m.block
	p := places{header: footerBytes, table: footerBytes + headerBytes, blocks: make([]int, n)}

	head := make([]byte, headerBytes)
	copy(head, headerMagic)
	be.PutUint64(head[8:], 1<<64-1)
	be.PutUint64(head[16:], uint64(p.table))
	be.PutUint32(head[24:], 1<<16)
	be.PutUint32(head[28:], uint32(n))
	be.PutUint32(head[32:], uint32(m.block))
	copy(head[40:], m.parentID[:])
	be.PutUint32(head[56:], m.parentTime)
	copy(head[64:], utf16Text(m.parentName, be))

	table := make([]byte, (4*n+sectorSize-1)/sectorSize*sectorSize)
	for i := range table {
		table[i] = 0xff
	}
	at := p.table + len(table)
	var rest []byte
	for i, l := range m.locators {
		e := head[576+24*i:]
		copy(e, l.code)
		be.PutUint32(e[4:], sectorSize)
		be.PutUint32(e[8:], uint32(len(l.data)))
		be.PutUint64(e[16:], uint64(at+len(rest)))
		rest = append(rest, padded([]byte(l.data))...)
	}
	for b := n - 1; b >= 0; b-- {
		if block := m.blockBytes(content, b); block != nil {
			p.blocks[b] = at + len(rest)
			be.PutUint32(table[4*b:], uint32(p.blocks[b]/sectorSize))
			rest = append(rest, block...)
		}
	}
	be.PutUint32(head[36:], checksum(head, 36))
	foot := makeFooter(m, footerBytes)
	var file []byte
	for _, part := range [][]byte{foot, head, table, rest, foot} {
		file = append(file, part...)
	}
	return file, p
}

// blockBytes is the bitmap and the sectors of block b, nil when no sector of it
// is held. What is not held is filled with what must not be read.
func (m made) blockBytes(content []byte, b int) []byte {
	sectors := m.block / sectorSize
	bitmap := padded(make([]byte, (sectors+7)/8))
	data := make([]byte, m.block)
	any := false
	for s := range sectors {
		at := b*m.block + s*sectorSize
		piece := data[s*sectorSize:][:sectorSize]
		for i := range piece {
			piece[i] = 0xee
		}
		if at >= len(content) {
			continue
		}
		sector := content[at:min(at+sectorSize, len(content))]
		if m.held != nil && !m.held(at/sectorSize) || m.held == nil && isZero(sector) {
			continue
		}
		copy(piece, sector)
		bitmap[s/8] |= 0x80 >> (s % 8)
		any = true
	}
	if !any {
		return nil
	}
	return append(bitmap, data...)
}

func makeFooter(m made, header uint64) []byte {
	foot := make([]byte, footerBytes)
	copy(foot, footerMagic)
	be.PutUint32(foot[8:], 2)
	be.PutUint32(foot[12:], 1<<16)
	be.PutUint64(foot[16:], header)
	be.PutUint32(foot[24:], m.stamp)
	copy(foot[28:], "win ")
	be.PutUint64(foot[40:], uint64(m.size))
	be.PutUint64(foot[48:], uint64(m.size))
	be.PutUint32(foot[60:], uint32(m.kind))
	copy(foot[68:], m.id[:])
	be.PutUint32(foot[64:], checksum(foot, 64))
	return foot
}

func makeFixed(m made, content []byte) []byte {
	m.kind, m.size = fixed, len(content)
	return append(append([]byte(nil), content...), makeFooter(m, 1<<64-1)...)
}

// resum sets the checksums of header and both footers right again.
func resum(b []byte, p places) {
	for _, part := range []struct {
		b   []byte
		own int
	}{{b[:footerBytes], 64}, {b[len(b)-footerBytes:], 64}, {b[p.header:][:headerBytes], 36}} {
		be.PutUint32(part.b[part.own:], checksum(part.b, part.own))
	}
}

func utf16Text(s string, order binary.AppendByteOrder) []byte {
	var b []byte
	for _, u := range utf16.Encode([]rune(s)) {
		b = order.AppendUint16(b, u)
	}
	return b
}

func padded(b []byte) []byte {
	return append(b, make([]byte, -len(b)&(sectorSize-1))...)
}

func isZero(b []byte) bool {
	n := 0
	for _, c := range b {
		n += bits.OnesCount8(c)
	}
	return n == 0
}
