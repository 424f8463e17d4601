package refcount

import (
	"fmt"
	"io"
	"math"
	"slices"

	"holdfast/repo/blockfile"
)

// source yields rows in the order of keys; io.EOF at the end.
type source interface{ next() (row, error) }

// rowSource is the sorted rows of a delta.
type rowSource []row

func (s *rowSource) next() (row, error) {
	if len(*s) == 0 {
		return row{}, io.EOF
	}
	r := (*s)[0]
	*s = (*s)[1:]
	return r, nil
}

// sorted returns a delta as a source.
func sorted(delta map[key]int32) *rowSource {
	rows := make(rowSource, 0, len(delta))
	for k, change := range delta {
		rows = append(rows, row{k, change})
	}
	slices.SortFunc(rows, func(a, b row) int { return a.compare(b.key) })
	return &rows
}

// fileSource is a whole file. Its end comes only if every block was that of
// the file which the header speaks of.
type fileSource struct {
	*file
	scan *blockfile.Scanner
	b    *block
	at   int    // of the next row in b
	nth  uint64 // of all rows
	last key
	sums blockfile.SumOfSums
}

func newFileSource(f *file) *fileSource {
	return &fileSource{file: f, scan: f.blocks.Scan(1, f.head.firstFence()), at: rowsPerBlock}
}

func (s *fileSource) next() (row, error) {
	if s.nth == s.head.rows {
		for _, sum := range s.tail {
			s.sums.Add(sum)
		}
		if uint32(s.sums) != s.head.sum {
			return row{}, s.damage(-1, blockfile.ErrSum)
		}
		return row{}, io.EOF
	}
	if s.at == rowsPerBlock {
		b, err := s.scan.Next()
		if err != nil {
			return row{}, err
		}
		s.b, s.at = b, 0
		s.sums.Add(b.Sum())
	}
	r := rowAt(s.b, s.at)
	if s.nth > 0 && s.last.compare(r.key) >= 0 {
		return row{}, s.damage(s.scan.At()-1, errOrder)
	}
	if r.change == 0 && !s.spill {
		return row{}, s.damage(s.scan.At()-1, errZero)
	}
	s.last = r.key
	s.at++
	s.nth++
	return r, nil
}

// merger adds up what several sources say of each key.
type merger struct {
	srcs  []source
	heads []row // the next row of each source
}

// newMerger takes a delta and files.
func newMerger(delta *rowSource, files ...[]*file) (*merger, error) {
	srcs := []source{delta}
	for _, f := range slices.Concat(files...) {
		srcs = append(srcs, newFileSource(f))
	}
	m := &merger{}
	for _, s := range srcs {
		r, err := s.next()
		if err == io.EOF {
			continue
		}
		if err != nil {
			return nil, err
		}
		m.srcs, m.heads = append(m.srcs, s), append(m.heads, r)
	}
	return m, nil
}

// next returns the next key and its sum, which may be 0; io.EOF at the end.
func (m *merger) next() (k key, sum int64, err error) {
	if len(m.srcs) == 0 {
		return k, 0, io.EOF
	}
	k = m.heads[0].key
	for _, r := range m.heads[1:] {
		if r.compare(k) < 0 {
			k = r.key
		}
	}
	for i := 0; i < len(m.srcs); {
		if m.heads[i].key != k {
			i++
			continue
		}
		sum += int64(m.heads[i].change)
		r, err := m.srcs[i].next()
		switch err {
		case nil:
			m.heads[i] = r
			i++
		case io.EOF:
			m.srcs, m.heads = slices.Delete(m.srcs, i, i+1), slices.Delete(m.heads, i, i+1)
		default:
			return k, 0, err
		}
	}
	return k, sum, nil
}

// each calls fn with every key and its sum.
func (m *merger) each(fn func(k key, sum int64) error) error {
	for {
		k, sum, err := m.next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if err := fn(k, sum); err != nil {
			return err
		}
	}
}

// newRow returns the row that says a sum.
func newRow(k key, sum int64) (row, error) {
	if sum < math.MinInt32 || sum > math.MaxInt32 {
		return row{}, fmt.Errorf("%w: %x changes by %d", ErrRange, k, sum)
	}
	return row{k, int32(sum)}, nil
}

const (
	tierRatio = 3
	floorRows = 16 << 10 // 320 KiB: not worth another file
)

// pick returns how many of the newest files are merged with fresh rows, so that
// each file that stays is at least tierRatio times as large as all newer ones
// together. Sizes are in rows, oldest first; one below floor counts as floor.
func pick(sizes []uint64, fresh, floor uint64) int {
	sum := max(fresh, floor)
	for n := range sizes {
		size := max(sizes[len(sizes)-1-n], floor)
		if size >= tierRatio*sum {
			return n
		}
		sum += size
	}
	return len(sizes)
}

// rowsOf returns the files' sizes in rows.
func rowsOf(files []*file) []uint64 {
	sizes := make([]uint64, len(files))
	for i, f := range files {
		sizes[i] = f.head.rows
	}
	return sizes
}
