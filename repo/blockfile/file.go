package blockfile

import (
	"io"
	"sort"
	"sync"
)

// File reads the blocks of one file, which does not change. Reads may run at
// once.
type File struct {
	r       io.ReaderAt
	cache   *Cache
	serial  uint32
	damaged func(number int64, err error) error
}

// NewFile returns the blocks of r, read through the cache. damaged wraps what is
// wrong with a block, or why it can't be read.
func NewFile(r io.ReaderAt, c *Cache, damaged func(number int64, err error) error) *File {
	return &File{r: r, cache: c, serial: c.newFile(), damaged: damaged}
}

// Header fills dst with block 0 and leaves the checking to the caller.
func (f *File) Header(dst *Block) error {
	if _, err := readFull(f.r, dst[:], 0); err != nil {
		return f.damaged(0, err)
	}
	return nil
}

// Read fills dst with a block, from the cache or from the file.
func (f *File) Read(number int64, dst *Block) error {
	k := cacheKey{f.serial, uint32(number)}
	if f.cache.get(k, dst) {
		return nil
	}
	if _, err := readFull(f.r, dst[:], number*BlockBytes); err != nil {
		return f.damaged(number, err)
	}
	if err := dst.Check(uint32(number)); err != nil {
		return f.damaged(number, err)
	}
	f.cache.put(k, dst)
	return nil
}

// readFull reads len(p) bytes at off; less is io.ErrUnexpectedEOF.
func readFull(r io.ReaderAt, p []byte, off int64) (int, error) {
	n, err := r.ReadAt(p, off)
	switch {
	case n == len(p):
		return n, nil
	case err == nil || err == io.EOF:
		return n, io.ErrUnexpectedEOF
	}
	return n, err
}

// Fences reads count fences from the blocks from number from up to number to,
// and returns with them the checksums of those blocks.
func (f *File) Fences(from, to int64, count int) (fences []uint64, sums []uint32, err error) {
	fences = make([]uint64, 0, count)
	in := f.Scan(from, to)
	for len(fences) < count {
		b, err := in.Next()
		if err != nil {
			return nil, nil, err
		}
		sums = append(sums, b.Sum())
		for i := range min(FencesPerBlock, count-len(fences)) {
			fences = append(fences, b.fence(i))
		}
	}
	return fences, sums, nil
}

// FirstBlock returns the place among fences of the block in which the search
// for a value begins: the last whose fence is below it. Equal values may begin
// there and go on through every block whose fence is the value.
func FirstBlock(fences []uint64, v uint64) int {
	return max(0, sort.Search(len(fences), func(i int) bool { return fences[i] >= v })-1)
}

// pool holds blocks that look-ups read into.
var pool = sync.Pool{New: func() any { return new(Block) }}

// Borrow returns a block to read into. It is to be given back.
func Borrow() *Block { return pool.Get().(*Block) }

// GiveBack takes a block that Borrow returned.
func GiveBack(b *Block) { pool.Put(b) }

// Scanner reads blocks in a row, past the cache.
type Scanner struct {
	f      *File
	at, to int64
	buf    []byte // what was read and not yet returned
	room   []byte
}

const scanBytes = 64 * BlockBytes

// Scan reads the blocks from number from up to number to.
func (f *File) Scan(from, to int64) *Scanner { return &Scanner{f: f, at: from, to: to} }

// At is the number of the block that Next would return.
func (s *Scanner) At() int64 { return s.at }

// Next returns the next block, which is good until the next call; io.EOF after
// the last.
func (s *Scanner) Next() (*Block, error) {
	if s.at == s.to {
		return nil, io.EOF
	}
	if len(s.buf) == 0 {
		if s.room == nil {
			s.room = make([]byte, min(scanBytes, (s.to-s.at)*BlockBytes))
		}
		s.buf = s.room[:min(int64(len(s.room)), (s.to-s.at)*BlockBytes)]
		if n, err := readFull(s.f.r, s.buf, s.at*BlockBytes); err != nil {
			return nil, s.f.damaged(s.at+int64(n)/BlockBytes, err)
		}
	}
	b := (*Block)(s.buf)
	if err := b.Check(uint32(s.at)); err != nil {
		return nil, s.f.damaged(s.at, err)
	}
	s.buf = s.buf[BlockBytes:]
	s.at++
	return b, nil
}
