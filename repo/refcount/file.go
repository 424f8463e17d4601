package refcount

import (
	"errors"
	"io"
	"path"
	"sort"
	"sync/atomic"

	"holdfast/repo/vfs"
)

var (
	errOther  = errors.New("is not the file the list names")
	errFences = errors.New("fences are not in order")
	errOrder  = errors.New("rows are not in order")
	errZero   = errors.New("a row changes nothing")
)

// file is an open file of sorted rows. It is immutable; look-ups in it may run
// at once.
type file struct {
	name   string // in the repository
	r      io.ReaderAt
	drop   func() error // once nobody needs it: close, and remove if a spill
	spill  bool         // not of a list, and may have rows that change nothing
	head   header
	mark   uint32   // checksum of block 0, which the list repeats
	fences []uint64 // first 8 bytes of each block of rows
	tail   []uint32 // checksums of the blocks of fences
	cache  *cache
	serial uint32
	refs   atomic.Int32
}

// openFile opens the file that a list names. A file that is not that one gives
// a *DamageError.
func openFile(fsys vfs.FS, dir string, m member, c *cache) (*file, error) {
	name := path.Join(dir, fileName(m.number))
	r, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	f, err := newFile(r, name, c)
	if err == nil && f.member() != m {
		err = &DamageError{File: name, Block: -1, Err: errOther}
	}
	if err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return f, nil
}

// sized is what a file is read from.
type sized interface {
	io.ReaderAt
	io.Closer
	Size() (int64, error)
}

// newFile reads header and fences. The file has one reference, the caller's.
func newFile(r sized, name string, c *cache) (*file, error) {
	size, err := r.Size()
	if err != nil {
		return nil, err
	}
	f := &file{name: name, r: r, drop: r.Close, cache: c, serial: c.newFile()}
	f.refs.Store(1)
	var b block
	if _, err := readFull(r, b[:], 0); err != nil {
		return nil, f.damage(0, err)
	}
	if f.head, err = parseHeader(&b, size); err != nil {
		return nil, f.damage(0, err)
	}
	f.mark = b.sum()
	return f, f.loadFences()
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

func (f *file) loadFences() error {
	count := int(f.head.rowBlocks())
	f.fences = make([]uint64, 0, count)
	in := f.scan(f.head.firstFence(), f.head.blocks())
	for len(f.fences) < count {
		b, err := in.next()
		if err != nil {
			return err
		}
		f.tail = append(f.tail, b.sum())
		for i := range min(fencesPerBlock, count-len(f.fences)) {
			v := b.fence(i)
			if n := len(f.fences); n > 0 && v < f.fences[n-1] {
				return f.damage(in.at-1, errFences)
			}
			f.fences = append(f.fences, v)
		}
	}
	return nil
}

func (f *file) member() member { return member{f.head.number, f.head.bytes(), f.mark} }

func (f *file) damage(number int64, err error) error {
	return &DamageError{File: f.name, Block: number, Err: err}
}

// find returns what the file says of a key, 0 if nothing.
func (f *file) find(k key) (int32, error) {
	// The search begins in the last block whose fence is below the key. Keys
	// with the same first 8 bytes may begin there and go on through every block
	// whose fence is these bytes.
	v := k.fence()
	from := sort.Search(len(f.fences), func(i int) bool { return f.fences[i] >= v })
	for i := max(0, from-1); i < len(f.fences) && f.fences[i] <= v; i++ {
		b, err := f.read(1 + int64(i))
		if err != nil {
			return 0, err
		}
		n := f.rowsIn(int64(i))
		at := sort.Search(n, func(j int) bool { return b.key(j).compare(k) >= 0 })
		if at < n && b.key(at) == k {
			return b.row(at).change, nil
		}
		if at < n {
			break // past k
		}
	}
	return 0, nil
}

// rowsIn returns how many rows there are in the i-th block of rows.
func (f *file) rowsIn(i int64) int {
	return int(min(rowsPerBlock, int64(f.head.rows)-i*rowsPerBlock))
}

// read returns a block, from the cache or from the file.
func (f *file) read(number int64) (*block, error) {
	k := cacheKey{f.serial, uint32(number)}
	if b := f.cache.get(k); b != nil {
		return b, nil
	}
	b := new(block)
	if _, err := readFull(f.r, b[:], number*blockBytes); err != nil {
		return nil, f.damage(number, err)
	}
	if err := b.check(uint32(number)); err != nil {
		return nil, f.damage(number, err)
	}
	f.cache.put(k, b)
	return b, nil
}

// acquire adds a reference.
func (f *file) acquire() *file {
	f.refs.Add(1)
	return f
}

// release takes a reference away and drops the file with the last one.
func (f *file) release() error {
	if f.refs.Add(-1) == 0 {
		return f.drop()
	}
	return nil
}

// release takes a reference from each file.
func release(files []*file) error {
	var err error
	for _, f := range files {
		err = errors.Join(err, f.release())
	}
	return err
}

// scanner reads blocks in a row, past the cache.
type scanner struct {
	f      *file
	at, to int64
	buf    []byte // what was read and not yet returned
	room   []byte
}

const scanBytes = 64 * blockBytes

// scan reads the blocks from number from up to number to.
func (f *file) scan(from, to int64) *scanner { return &scanner{f: f, at: from, to: to} }

// next returns the next block, which is good until the next call; io.EOF after
// the last.
func (s *scanner) next() (*block, error) {
	if s.at == s.to {
		return nil, io.EOF
	}
	if len(s.buf) == 0 {
		if s.room == nil {
			s.room = make([]byte, min(scanBytes, (s.to-s.at)*blockBytes))
		}
		s.buf = s.room[:min(int64(len(s.room)), (s.to-s.at)*blockBytes)]
		if n, err := readFull(s.f.r, s.buf, s.at*blockBytes); err != nil {
			return nil, s.f.damage(s.at+int64(n)/blockBytes, err)
		}
	}
	b := (*block)(s.buf)
	if err := b.check(uint32(s.at)); err != nil {
		return nil, s.f.damage(s.at, err)
	}
	s.buf = s.buf[blockBytes:]
	s.at++
	return b, nil
}
