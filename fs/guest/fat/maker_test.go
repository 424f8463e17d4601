package fat_test

import (
	"encoding/binary"
	"fmt"
	"strings"
	"unicode/utf16"
)

var le = binary.LittleEndian

// maker writes FAT images: for what no mkfs and no copying tool would make, and
// for large directories, which take mtools hours.
type maker struct {
	bits     int
	clusters int // 0: the least of its kind, or for 12 bits 512
	perClus  int // sectors; 0: 1
	stride   int // between clusters of a file; 0: 1, in one piece
	sector   int // bytes; 0: 512

	img      []byte
	fatOff   int
	fatBytes int
	rootOff  int
	dataOff  int
	next     int // free cluster
}

// entry is a file or, with kids, a directory.
type entry struct {
	name  string // the long name; "" for a short one alone
	short string // eleven bytes; made up if ""
	attr  byte
	nt    byte // lower-case flags
	data  []byte
	kids  []*entry
	slots []byte // as they are, instead of all that
	first int    // cluster to claim, instead of where the data is
	size  int    // to claim
}

func dir(name string, kids ...*entry) *entry { return &entry{name: name, attr: 0x10, kids: kids} }

func file(name, data string) *entry { return &entry{name: name, data: []byte(data)} }

const rootSlots = 512

// make returns an image with root in it.
func (m *maker) make(root ...*entry) []byte {
	m.defaults()
	const reserved, fats = 32, 2
	s := m.sector
	m.fatBytes = ((m.clusters+2)*m.bits/8 + s) / s * s
	m.fatOff = reserved * s
	m.rootOff = m.fatOff + fats*m.fatBytes
	m.dataOff = m.rootOff
	if m.bits != 32 {
		m.dataOff += rootSlots * 32
	}
	m.img = make([]byte, m.dataOff+m.clusters*m.clusterBytes())
	m.next = 2
	m.boot(reserved, fats)
	m.link(0, 0x0ffffff8)
	m.link(1, 0x0fffffff)
	if m.bits == 32 {
		m.dir(root, m.alloc(m.need(root, 0)), 0, false)
	} else {
		copy(m.img[m.rootOff:m.dataOff], m.slotsOf(root, 0))
	}
	if m.bits == 32 {
		m.info()
	}
	return m.img
}

func (m *maker) defaults() {
	if m.perClus == 0 {
		m.perClus = 1
	}
	if m.stride == 0 {
		m.stride = 1
	}
	if m.sector == 0 {
		m.sector = 512
	}
	if m.clusters == 0 {
		m.clusters = map[int]int{12: 512, 16: 4085, 32: 65525}[m.bits]
	}
}

func (m *maker) clusterBytes() int { return m.sector * m.perClus }

func (m *maker) boot(reserved, fats int) {
	b := m.img
	copy(b, "\xeb\x58\x90MAKER   ")
	le.PutUint16(b[11:], uint16(m.sector))
	b[13] = byte(m.perClus)
	le.PutUint16(b[14:], uint16(reserved))
	b[16] = byte(fats)
	b[21] = 0xf8
	le.PutUint32(b[32:], uint32(len(m.img)/m.sector))
	ext := b[36:]
	if m.bits == 32 {
		le.PutUint32(b[36:], uint32(m.fatBytes/m.sector))
		le.PutUint32(b[44:], 2)
		le.PutUint16(b[48:], 1)
		ext = b[64:]
		le.PutUint16(b[50:], 6)
	} else {
		le.PutUint16(b[17:], rootSlots)
		le.PutUint16(b[22:], uint16(m.fatBytes/m.sector))
	}
	ext[0], ext[2] = 0x80, 0x29
	le.PutUint32(ext[3:], 0x1234abcd)
	copy(ext[7:], fmt.Sprintf("%-11s%-8s", "A LABEL", fmt.Sprintf("FAT%d", m.bits)))
	copy(b[510:], "\x55\xaa")
}

// info writes FSInfo and the copy of both sectors.
func (m *maker) info() {
	info := m.img[m.sector:]
	copy(info, "RRaA")
	copy(info[484:], "rrAa\x00\x00\x00\x00\xff\xff\xff\xff")
	copy(info[508:], "\x00\x00\x55\xaa")
	free := uint32(0)
	for c := 2; c < m.clusters+2; c++ {
		if le.Uint32(m.img[m.fatOff+4*c:]) == 0 {
			free++
		}
	}
	le.PutUint32(info[488:], free)
	copy(m.img[6*m.sector:8*m.sector], m.img)
}

// link sets an entry in both FATs.
func (m *maker) link(c int, to uint32) {
	for i := range 2 {
		fat := m.img[m.fatOff+i*m.fatBytes:]
		switch at := c * m.bits / 8; m.bits {
		case 12:
			v := le.Uint16(fat[at:])
			if c%2 == 0 {
				v = v&0xf000 | uint16(to&0xfff)
			} else {
				v = v&0x000f | uint16(to<<4)
			}
			le.PutUint16(fat[at:], v)
		case 16:
			le.PutUint16(fat[at:], uint16(to))
		case 32:
			le.PutUint32(fat[at:], to)
		}
	}
}

// alloc links n clusters, stride apart, and returns them.
func (m *maker) alloc(n int) []int {
	var list []int
	for i := range n {
		list = append(list, m.next+i*m.stride)
	}
	for i, c := range list {
		if to := uint32(0x0fffffff); i+1 < n {
			m.link(c, uint32(list[i+1]))
		} else {
			m.link(c, to)
		}
	}
	if n > 0 {
		m.next = list[n-1] + 1
	}
	if m.next > m.clusters+2 {
		panic(fmt.Sprintf("%d clusters are not enough", m.clusters))
	}
	return list
}

func (m *maker) at(c int) []byte { return m.img[m.dataOff+(c-2)*m.clusterBytes():][:m.clusterBytes()] }

func (m *maker) put(clusters []int, b []byte) {
	for _, c := range clusters {
		n := copy(m.at(c), b)
		b = b[n:]
	}
}

func (m *maker) need(kids []*entry, more int) int {
	slots := more
	for _, e := range kids {
		slots += len(e.slots)/32 + 1
		if e.name != "" {
			slots += (len(utf16.Encode([]rune(e.name))) + 12) / 13
		}
	}
	return max(1, (slots*32+m.clusterBytes()-1)/m.clusterBytes())
}

// dir writes a directory into clusters that it has.
func (m *maker) dir(kids []*entry, clusters []int, parent int, dots bool) {
	var b []byte
	if dots {
		b = append(b, slot(".          ", 0x10, 0, clusters[0], 0)...)
		b = append(b, slot("..         ", 0x10, 0, parent, 0)...)
	}
	self := clusters[0]
	if !dots {
		self = 0 // what ".." of the root's children says
	}
	m.put(clusters, append(b, m.slotsOf(kids, self)...))
}

func (m *maker) slotsOf(kids []*entry, self int) []byte {
	var b []byte
	for i, e := range kids {
		if e.slots != nil {
			b = append(b, e.slots...)
			continue
		}
		first, size := 0, len(e.data)
		if e.attr&0x10 != 0 {
			clusters := m.alloc(m.need(e.kids, 2))
			m.dir(e.kids, clusters, self, true)
			first = clusters[0]
		} else if size > 0 {
			clusters := m.alloc((size + m.clusterBytes() - 1) / m.clusterBytes())
			m.put(clusters, e.data)
			first = clusters[0]
		}
		if e.first != 0 {
			first = e.first
		}
		if e.size != 0 {
			size = e.size
		}
		short := e.short
		if short == "" {
			short = fmt.Sprintf("N%07dTXT", i)
		}
		if e.name != "" {
			b = append(b, longSlots(e.name, short)...)
		}
		b = append(b, slot(short, e.attr, e.nt, first, size)...)
	}
	return b
}

// slot is a short entry, written on 2021-03-04 at 05:06:08, made 10.24 s before
// that and read the day after.
func slot(short string, attr, nt byte, first, size int) []byte {
	b := make([]byte, 32)
	if copy(b, short) != 11 {
		panic(short)
	}
	b[11], b[12] = attr, nt
	const day, clock = (2021-1980)<<9 | 3<<5 | 4, 5<<11 | 6<<5 | 4
	b[13] = 176
	le.PutUint16(b[14:], 5<<11|5<<5|28)
	le.PutUint16(b[16:], day)
	le.PutUint16(b[18:], day+1)
	le.PutUint16(b[20:], uint16(first>>16))
	le.PutUint16(b[22:], clock)
	le.PutUint16(b[24:], day)
	le.PutUint16(b[26:], uint16(first))
	le.PutUint32(b[28:], uint32(size))
	return b
}

// longSlots are the slots of a long name before a short one.
func longSlots(name, short string) []byte { return unitSlots(utf16.Encode([]rune(name)), short) }

func unitSlots(units []uint16, short string) []byte {
	var sum byte
	for _, c := range []byte(short) {
		sum = sum<<7 | sum>>1
		sum += c
	}
	n := (len(units) + 12) / 13
	if len(units)%13 != 0 {
		units = append(units, 0)
	}
	for len(units) < n*13 {
		units = append(units, 0xffff)
	}
	var b []byte
	for k := n; k >= 1; k-- {
		s := make([]byte, 32)
		s[0], s[11], s[13] = byte(k), 0x0f, sum
		if k == n {
			s[0] |= 0x40
		}
		for i, u := range units[(k-1)*13:][:13] {
			at := 1 + 2*i
			if i >= 11 {
				at = 28 + 2*(i-11)
			} else if i >= 5 {
				at = 14 + 2*(i-5)
			}
			le.PutUint16(s[at:], u)
		}
		b = append(b, s...)
	}
	return b
}

// sample is a little of everything.
func sample(bits int) []byte {
	m := maker{bits: bits, stride: 2}
	if bits == 32 {
		m.clusters = 600 // as mkfs.vfat -F 32 makes of a small disk; only the FATs' field tells
	}
	return m.make(
		&entry{slots: slot("A LABEL    ", 0x08, 0, 0, 0)},
		file("hello world.txt", "hello, world\n"),
		file("empty", ""),
		&entry{short: "README  TXT", nt: 0x18, data: []byte("both in small letters")},
		&entry{short: "\x05LMOS      ", attr: 0x01, data: []byte("read-only")},
		file("päck 🦊.bin", strings.Repeat("0123456789", 200)),
		dir("sub dir", file("inner.txt", "inner"), dir("deeper", file("x", strings.Repeat("x", 5000)))),
		&entry{slots: append([]byte{0xe5}, slot("?ONE    TXT", 0, 0, 3, 10)[1:]...)},
	)
}
