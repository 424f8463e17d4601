package pack

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"io"
	"slices"

	"github.com/klauspost/reedsolomon"
)

// maxHealBytes is the longest range that one Heal returns. Every record is
// shorter.
const maxHealBytes = 8 << 20

// Heal returns n bytes from off as they were written, from the data range: what
// does not match its CRC is computed anew from the parity, and must then match.
// It reads the blocks asked for and, for each bad one, its stripe; memory is n
// and at most 4 MiB. A *CorruptError that wraps ErrDamaged says that a stripe
// has lost too much, or that both CRC tables are lost; no bytes come with it.
func (f *File) Heal(off int64, n int) ([]byte, error) {
	if n > maxHealBytes {
		return nil, f.corrupt(off, fmt.Errorf("%w: heal %d bytes at once", ErrFormat, n))
	}
	return f.heal(off, n)
}

func (f *File) heal(off int64, n int) ([]byte, error) {
	if err := f.loadSums(); err != nil {
		return nil, f.corrupt(off, err)
	}
	if off < 0 || n < 0 || off > int64(f.tail.Data)*BlockBytes-int64(n) {
		return nil, f.corrupt(off, fmt.Errorf("%w: %d bytes of %d blocks", ErrFormat, n, f.tail.Data))
	}
	first, end := int(off/BlockBytes), blocks(off+int64(n))
	p := make([]byte, (end-first)*BlockBytes)
	if err := f.mend(p, first); err != nil {
		return nil, err
	}
	return p[off-int64(first)*BlockBytes:][:n], nil
}

// mend reads the data blocks from first on into p and heals those that are
// bad. Those that stay bad are as read; the error names the first of them.
func (f *File) mend(p []byte, first int) error {
	readFull(f.r, p, int64(first)*BlockBytes)
	var bad []int
	for i := range len(p) / BlockBytes {
		if !f.good(first+i, p[i*BlockBytes:][:BlockBytes]) {
			bad = append(bad, first+i)
		}
	}
	return f.reconstruct(bad, func(shard int, b []byte) { copy(p[(shard-first)*BlockBytes:], b) })
}

// mended returns the pack's data range with what can be healed healed, or the
// whole file as it is when nothing can be.
func (f *File) mended() (r io.ReaderAt, size int64) {
	if f.loadSums() != nil {
		return f.r, f.size
	}
	return mendedReader{f}, int64(f.tail.Data) * BlockBytes
}

type mendedReader struct{ f *File }

func (m mendedReader) ReadAt(p []byte, off int64) (int, error) {
	end := min(off+int64(len(p)), int64(m.f.tail.Data)*BlockBytes)
	if off >= end {
		return 0, io.EOF
	}
	first := int(off / BlockBytes)
	b := make([]byte, (blocks(end)-first)*BlockBytes)
	m.f.mend(b, first) // what stays bad is for the scan to step over
	n := copy(p, b[off-int64(first)*BlockBytes:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// loadSums reads the CRC table from either tail. ErrDamaged when neither is
// right.
func (f *File) loadSums() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.sums != nil {
		return nil
	}
	if f.tail == nil {
		return fmt.Errorf("both trailers: %w", ErrDamaged)
	}
	sums := make([]byte, f.tail.sumBytes())
	for _, start := range []int{f.tail.tailB(), f.tail.tailA()} {
		readFull(f.r, sums, int64(start)*BlockBytes)
		if crc(sums) == f.tail.SumCRC {
			f.sums = sums
			return nil
		}
	}
	return fmt.Errorf("both CRC tables: %w", ErrDamaged)
}

// good reports whether p is what was written as the given shard.
func (f *File) good(shard int, p []byte) bool {
	return crc(p) == binary.LittleEndian.Uint32(f.sums[4*shard:])
}

func (f *File) encoder() reedsolomon.Encoder {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.coder.encoder(f.tail.rows())
}

// reconstruct computes the given shards from the others of their stripes and
// calls put with each that then matches its CRC; p is valid during the call.
// The error names the first in shards that could not be healed.
func (f *File) reconstruct(shards []int, put func(shard int, p []byte)) error {
	if len(shards) == 0 {
		return nil
	}
	l := f.tail.Layout
	byStripe := func(a, b int) int {
		return cmp.Or(cmp.Compare(a%l.Stripes, b%l.Stripes), cmp.Compare(a, b))
	}
	shards = slices.SortedFunc(slices.Values(shards), byStripe)
	lost := l.shards()
	s := newStripes(f)
	for len(shards) > 0 {
		// Stripes beside each other that all have something to heal are read
		// together.
		first := shards[0] % l.Stripes
		n, col := 0, first
		for ; n < len(shards) && shards[n]%l.Stripes <= col+1; n++ {
			col = shards[n] % l.Stripes
		}
		for _, g := range l.groups(first, col+1, encodeColumns) {
			k := 0
			for k < len(shards) && shards[k]%l.Stripes < g.col+g.n {
				k++
			}
			lost = min(lost, s.heal(g, shards[:k], put))
			shards = shards[k:]
		}
	}
	if lost < l.shards() {
		return f.corrupt(int64(l.fileBlock(lost))*BlockBytes, ErrDamaged)
	}
	return nil
}

// stripes holds what healing a group of stripes needs in memory.
type stripes struct {
	f      *File
	l      Layout
	enc    reedsolomon.Encoder
	mem    []byte   // rows of encodeColumns blocks each
	shards [][]byte // of one stripe
	want   []bool
}

func newStripes(f *File) *stripes {
	l := f.tail.Layout
	rows := l.rows() + l.Parity
	return &stripes{
		f:      f,
		l:      l,
		enc:    f.encoder(),
		mem:    make([]byte, rows*min(encodeColumns, l.Stripes)*BlockBytes),
		shards: make([][]byte, rows),
		want:   make([]bool, rows),
	}
}

// heal reads the stripes of g and puts the shards asked for, which are sorted by
// stripe. It returns the lowest that stays lost, or the number of all shards.
func (s *stripes) heal(g group, shards []int, put func(shard int, p []byte)) (lost int) {
	width := g.n * BlockBytes
	for r := range s.shards {
		if at := s.l.at(r, g.col); at >= 0 {
			readFull(s.f.r, s.mem[r*width:][:width], int64(s.l.fileBlock(at))*BlockBytes)
		} else {
			clear(s.mem[r*width:][:width])
		}
	}
	lost = s.l.shards()
	for col := g.col; col < g.col+g.n; col++ {
		k := 0
		for k < len(shards) && shards[k]%s.l.Stripes == col {
			k++
		}
		whole := s.stripe(col, (col-g.col)*BlockBytes, width, shards[:k])
		for r, p := range s.shards {
			if !s.want[r] {
				continue
			}
			if at := s.l.at(r, col); whole && s.f.good(at, p) {
				put(at, p)
			} else {
				lost = min(lost, at)
			}
		}
		shards = shards[k:]
	}
	return lost
}

// stripe puts one stripe, which lies at off of each row of mem, into s.shards
// and computes those asked for. It reports whether enough of it was good.
func (s *stripes) stripe(col, off, width int, shards []int) bool {
	bad := 0
	for r := range s.shards {
		p := s.mem[r*width+off:][:BlockBytes:BlockBytes]
		at := s.l.at(r, col)
		s.want[r] = slices.Contains(shards, at)
		if at >= 0 && !s.f.good(at, p) {
			bad++
			p = p[:0]
		}
		s.shards[r] = p
	}
	return bad == 0 || bad <= s.l.Parity && s.enc.ReconstructSome(s.shards, s.want) == nil
}
