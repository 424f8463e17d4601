package index

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"path"
	"sort"
	"sync"
	"sync/atomic"

	"holdfast/repo/pack"
	"holdfast/repo/vfs"
)

var (
	errOther   = errors.New("is not the file the list names")
	errFences  = errors.New("fences are not in order")
	errOrdinal = errors.New("entry names a pack the file does not have")
	errOrder   = errors.New("entries are not in order")
	errNames   = errors.New("names of packs are not in order")
)

// file is an open index file. It is immutable; look-ups in it may run at once.
type file struct {
	name   string // in the repository
	r      io.ReaderAt
	close  func() error
	head   header
	mark   uint32   // checksum of block 0, which the list repeats
	fences []uint64 // first 8 bytes of each block of names, then of entries
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
	f, err := openMember(r, name, m, c)
	if err != nil {
		return nil, errors.Join(err, r.Close())
	}
	f.close = r.Close
	return f, nil
}

func openMember(r vfs.File, name string, m member, c *cache) (*file, error) {
	size, err := r.Size()
	if err != nil {
		return nil, err
	}
	f, err := newFile(r, size, name, c)
	if err != nil {
		return nil, err
	}
	if f.head.number != m.number || size != m.bytes || f.mark != m.mark {
		return nil, &DamageError{File: name, Block: -1, Err: errOther}
	}
	return f, nil
}

// newFile reads header and fences. The file has one reference, the caller's.
func newFile(r io.ReaderAt, size int64, name string, c *cache) (*file, error) {
	f := &file{name: name, r: r, close: func() error { return nil }, cache: c, serial: c.newFile()}
	f.refs.Store(1)
	var b block
	if _, err := readFull(r, b[:], 0); err != nil {
		return nil, f.damage(0, err)
	}
	head, err := parseHeader(&b, size)
	if err != nil {
		return nil, f.damage(0, err)
	}
	f.head, f.mark = head, b.sum()
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
	count := int(f.head.nameBlocks() + f.head.entryBlocks())
	f.fences = make([]uint64, 0, count)
	in := f.scan(f.head.firstFence(), f.head.blocks())
	for len(f.fences) < count {
		b, err := in.next()
		if err != nil {
			return err
		}
		for i := range min(fencesPerBlock, count-len(f.fences)) {
			f.fences = append(f.fences, binary.LittleEndian.Uint64(b[i*fenceBytes:]))
		}
	}
	if !ascending(f.nameFences()) || !ascending(f.entryFences()) {
		return f.damage(f.head.firstFence(), errFences)
	}
	return nil
}

func ascending(list []uint64) bool {
	for i := 1; i < len(list); i++ {
		if list[i] < list[i-1] {
			return false
		}
	}
	return true
}

func (f *file) nameFences() []uint64  { return f.fences[:f.head.nameBlocks()] }
func (f *file) entryFences() []uint64 { return f.fences[f.head.nameBlocks():] }

func (f *file) damage(number int64, err error) error {
	return &DamageError{File: f.name, Block: number, Err: err}
}

// read fills dst with a block, from the cache or from the file.
func (f *file) read(number int64, dst *block) error {
	k := cacheKey{f.serial, uint32(number)}
	if f.cache.get(k, dst) {
		return nil
	}
	if _, err := readFull(f.r, dst[:], number*blockBytes); err != nil {
		return f.damage(number, err)
	}
	if err := dst.check(uint32(number)); err != nil {
		return f.damage(number, err)
	}
	f.cache.put(k, dst)
	return nil
}

// blockPool holds what look-ups read into.
var blockPool = sync.Pool{New: func() any { return new(block) }}

// firstBlock returns the number of the block in which the search for a value
// begins: the last whose fence is below it. Equal values may begin there and
// go on through every block whose fence is the value.
func firstBlock(fences []uint64, v uint64) int {
	return max(0, sort.Search(len(fences), func(i int) bool { return fences[i] >= v })-1)
}

// find appends to hits the places sought that v shows, the higher pack name
// first.
func (f *file) find(q query, hits []found, age int, v *view) ([]found, error) {
	b := blockPool.Get().(*block)
	defer blockPool.Put(b)
	fences := f.entryFences()
	limit := len(hits) + q.limit
	for i := firstBlock(fences, q.hi); i < len(fences) && fences[i] <= q.hi; i++ {
		if err := f.read(f.head.firstEntry()+int64(i), b); err != nil {
			return hits, err
		}
		n := f.entriesIn(int64(i))
		at := b.firstEntry(n, q.key)
		for ; at < n && b.key(at) == q.key; at++ {
			e := b.entry(at)
			if !q.wants(e.size) {
				continue
			}
			name, err := f.packName(e.pack)
			if err != nil {
				return hits, err
			}
			if v.shows(f, name) && !q.skips(name) {
				hits = append(hits, found{location(name, e.off, e.size), age})
			}
			if len(hits) == limit {
				return hits, nil
			}
		}
		if at < n {
			break // past the key
		}
	}
	return hits, nil
}

// entriesIn returns how many entries there are in the i-th block of entries.
func (f *file) entriesIn(i int64) int {
	return int(min(entriesPerBlock, int64(f.head.entries)-i*entriesPerBlock))
}

// packName returns the name of the pack with an ordinal.
func (f *file) packName(ord uint32) (pack.Name, error) {
	number := 1 + int64(ord)/namesPerBlock
	if ord >= f.head.packs {
		return pack.Name{}, f.damage(-1, fmt.Errorf("%w: %d of %d", errOrdinal, ord, f.head.packs))
	}
	b := blockPool.Get().(*block)
	defer blockPool.Put(b)
	if err := f.read(number, b); err != nil {
		return pack.Name{}, err
	}
	return b.name(int(ord % namesPerBlock)), nil
}

// hasPack reports whether the file's table has a pack.
func (f *file) hasPack(name pack.Name) (bool, error) {
	k := keyOf(name[:])
	b := blockPool.Get().(*block)
	defer blockPool.Put(b)
	fences := f.nameFences()
	for i := firstBlock(fences, k.hi); i < len(fences) && fences[i] <= k.hi; i++ {
		if err := f.read(1+int64(i), b); err != nil {
			return false, err
		}
		n := int(min(namesPerBlock, int64(f.head.packs)-int64(i)*namesPerBlock))
		at := sort.Search(n, func(j int) bool { return keyOf(b[j*nameBytes:]).compare(k) >= 0 })
		if at < n {
			return b.name(at) == name, nil
		}
	}
	return false, nil
}

// acquire adds a reference.
func (f *file) acquire() *file {
	f.refs.Add(1)
	return f
}

// release takes a reference away and closes the file with the last one.
func (f *file) release() error {
	if f.refs.Add(-1) == 0 {
		return f.close()
	}
	return nil
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

// verify reads every block and compares them with the header's checksum.
func (f *file) verify(ctx context.Context) error {
	in := f.scan(1, f.head.blocks())
	var sums sumOfSums
	for ctx.Err() == nil {
		b, err := in.next()
		if err == io.EOF {
			if uint32(sums) != f.head.sum {
				return f.damage(-1, errBlockSum)
			}
			return nil
		}
		if err != nil {
			return err
		}
		sums.add(b.sum())
	}
	return ctx.Err()
}
