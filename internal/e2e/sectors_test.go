//go:build linux

package e2e

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
)

const (
	sector = 512
	grain  = 4096
)

// sectors is a disk whose every sector carries its address and a generation,
// and what is known of each sector. As a base it is that disk at generation 0.
//
// In the first, shared part of it each worker owns one sector of every grain.
// Behind that each has a part of its own, where it writes whole grains.
type sectors struct {
	size, shared int64

	mu    sync.Mutex
	gen   uint64
	known []sectorRange
}

// sectorRange is what a sector may hold after a power cut: a generation from
// the one promised to the one written last.
type sectorRange struct{ promised, last uint64 }

// piece is some bytes written at once.
type piece struct {
	off, n int64
	gen    uint64
}

func newSectors(size, shared int64) *sectors {
	return &sectors{size: size, shared: shared, known: make([]sectorRange, size/sector)}
}

func (m *sectors) Size() int64 { return m.size }

func (m *sectors) ReadAt(p []byte, off int64) (int, error) {
	n := int(min(int64(len(p)), max(0, m.size-off)))
	var buf [sector]byte
	for at := off / sector * sector; at < off+int64(n); at += sector {
		stampSector(buf[:], at, 0)
		copy(p[max(0, at-off):n], buf[max(0, off-at):])
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (m *sectors) NextData(off int64) (start, end int64, err error) {
	if off >= m.size {
		return 0, 0, io.EOF
	}
	return off, m.size, nil
}

// stampSector makes the bytes of the sector at off.
func stampSector(p []byte, off int64, gen uint64) {
	for i := 0; i < len(p); i += 32 {
		binary.LittleEndian.PutUint64(p[i:], uint64(off))
		binary.LittleEndian.PutUint64(p[i+8:], gen)
		binary.LittleEndian.PutUint64(p[i+16:], gen*0x9e3779b97f4a7c15+uint64(i))
		binary.LittleEndian.PutUint64(p[i+24:], ^uint64(off))
	}
}

// owners is how many workers a disk has at most: as many as a grain has sectors.
const owners = grain / sector

// choose picks what a worker of the disk writes next, and notes that it does.
func (m *sectors) choose(owner int, rng *rand.Rand) piece {
	pc := piece{off: rng.Int64N(m.shared/grain)*grain + int64(owner)*sector, n: sector}
	if rng.IntN(3) > 0 {
		own := (m.size - m.shared) / owners
		most := own / grain
		if rng.IntN(3) > 0 {
			most = min(most, 16) // but for a few large ones
		}
		grains := 1 + rng.Int64N(min(most, 128))
		pc.off = m.shared + own*int64(owner) + rng.Int64N(own/grain-grains+1)*grain
		pc.n = grains * grain
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.gen++
	pc.gen = m.gen
	for i := pc.off / sector; i < (pc.off+pc.n)/sector; i++ {
		m.known[i].last = pc.gen
	}
	return pc
}

// bytes returns what is written for a piece.
func (pc piece) bytes() []byte {
	p := make([]byte, pc.n)
	for at := int64(0); at < pc.n; at += sector {
		stampSector(p[at:at+sector], pc.off+at, pc.gen)
	}
	return p
}

// promise notes that a piece is durable.
func (m *sectors) promise(pc piece) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := pc.off / sector; i < (pc.off+pc.n)/sector; i++ {
		m.known[i].promised = max(m.known[i].promised, pc.gen)
	}
}

// ranges returns what is known now.
func (m *sectors) ranges() []sectorRange {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.known)
}

// between returns the ranges from what was promised in one state to what was
// written in a later one.
func between(was, now []sectorRange) []sectorRange {
	out := slices.Clone(was)
	for i := range out {
		out[i].last = now[i].last
	}
	return out
}

// compare reads a whole disk and returns what is known of it then: each sector
// is one that may be there. A grain behind the shared part holds one generation,
// unless it may be torn.
func (m *sectors) compare(d io.ReaderAt, want []sectorRange, torn bool) (found []sectorRange, err error) {
	p := make([]byte, m.size)
	if n, err := d.ReadAt(p, 0); n < len(p) {
		return nil, err
	}
	found = make([]sectorRange, len(want))
	var whole [sector]byte
	for i, w := range want {
		off := int64(i) * sector
		got := p[off : off+sector]
		gen := binary.LittleEndian.Uint64(got[8:])
		stampSector(whole[:], off, gen)
		switch {
		case !bytes.Equal(got, whole[:]):
			return nil, fmt.Errorf("the sector at %d holds no bytes of one write to it: %x", off, got[:32])
		case gen < w.promised || gen > w.last:
			return nil, fmt.Errorf("the sector at %d has generation %d, promised is %d, written up to %d", off, gen, w.promised, w.last)
		case !torn && off >= m.shared && off%grain > 0 && gen != found[i-1].last:
			return nil, fmt.Errorf("the grain at %d is mixed of generations %d and %d", off/grain*grain, found[i-1].last, gen)
		}
		found[i] = sectorRange{gen, gen}
	}
	return found, nil
}
