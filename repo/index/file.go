package index

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"sort"
	"sync/atomic"

	"holdfast/repo/blockfile"
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
	close  func() error
	head   header
	mark   uint32   // checksum of block 0, which the list repeats
	fences []uint64 // first 8 bytes of each block of names, then of entries
	blocks *blockfile.File
	refs   atomic.Int32
}

// openFile opens the file that a list names. A file that is not that one gives
// a *DamageError.
func openFile(fsys vfs.FS, dir string, m member, c *blockfile.Cache) (*file, error) {
	name := path.Join(dir, naming.File(m.Number))
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

func openMember(r vfs.File, name string, m member, c *blockfile.Cache) (*file, error) {
	size, err := r.Size()
	if err != nil {
		return nil, err
	}
	f, err := newFile(r, size, name, c)
	if err != nil {
		return nil, err
	}
	if f.head.number != m.Number || size != m.Bytes || f.mark != m.Mark {
		return nil, &DamageError{File: name, Block: -1, Err: errOther}
	}
	return f, nil
}

// newFile reads header and fences. The file has one reference, the caller's.
func newFile(r io.ReaderAt, size int64, name string, c *blockfile.Cache) (*file, error) {
	f := &file{name: name, close: func() error { return nil }}
	f.blocks = blockfile.NewFile(r, c, f.damage)
	f.refs.Store(1)
	var b block
	if err := f.blocks.Header(&b); err != nil {
		return nil, err
	}
	head, err := parseHeader(&b, size)
	if err != nil {
		return nil, f.damage(0, err)
	}
	f.head, f.mark = head, b.Sum()
	return f, f.loadFences()
}

func (f *file) loadFences() (err error) {
	count := f.head.nameBlocks() + f.head.entryBlocks()
	if f.fences, _, err = f.blocks.Fences(f.head.firstFence(), f.head.blocks(), int(count)); err != nil {
		return err
	}
	if !slices.IsSorted(f.nameFences()) || !slices.IsSorted(f.entryFences()) {
		return f.damage(f.head.firstFence(), errFences)
	}
	return nil
}

func (f *file) nameFences() []uint64  { return f.fences[:f.head.nameBlocks()] }
func (f *file) entryFences() []uint64 { return f.fences[f.head.nameBlocks():] }

func (f *file) damage(number int64, err error) error {
	return &DamageError{File: f.name, Block: number, Err: err}
}

// find appends to hits the places sought that v shows, the higher pack name
// first.
func (f *file) find(q query, hits []found, age int, v *view) ([]found, error) {
	b := blockfile.Borrow()
	defer blockfile.GiveBack(b)
	fences := f.entryFences()
	limit := len(hits) + q.limit
	for i := blockfile.FirstBlock(fences, q.hi); i < len(fences) && fences[i] <= q.hi; i++ {
		if err := f.blocks.Read(f.head.firstEntry()+int64(i), b); err != nil {
			return hits, err
		}
		n := f.entriesIn(int64(i))
		at := firstEntry(b, n, q.key)
		for ; at < n && keyAt(b, at) == q.key; at++ {
			e := entryAt(b, at)
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
	b := blockfile.Borrow()
	defer blockfile.GiveBack(b)
	if err := f.blocks.Read(number, b); err != nil {
		return pack.Name{}, err
	}
	return nameAt(b, int(ord%namesPerBlock)), nil
}

// hasPack reports whether the file's table has a pack.
func (f *file) hasPack(name pack.Name) (bool, error) {
	k := keyOf(name[:])
	b := blockfile.Borrow()
	defer blockfile.GiveBack(b)
	fences := f.nameFences()
	for i := blockfile.FirstBlock(fences, k.hi); i < len(fences) && fences[i] <= k.hi; i++ {
		if err := f.blocks.Read(1+int64(i), b); err != nil {
			return false, err
		}
		n := int(min(namesPerBlock, int64(f.head.packs)-int64(i)*namesPerBlock))
		at := sort.Search(n, func(j int) bool { return keyOf(b[j*nameBytes:]).compare(k) >= 0 })
		if at < n {
			return nameAt(b, at) == name, nil
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

// verify reads every block and compares them with the header's checksum.
func (f *file) verify(ctx context.Context) error {
	in := f.blocks.Scan(1, f.head.blocks())
	var sums blockfile.SumOfSums
	for ctx.Err() == nil {
		b, err := in.Next()
		if err == io.EOF {
			if uint32(sums) != f.head.sum {
				return f.damage(-1, blockfile.ErrSum)
			}
			return nil
		}
		if err != nil {
			return err
		}
		sums.Add(b.Sum())
	}
	return ctx.Err()
}
