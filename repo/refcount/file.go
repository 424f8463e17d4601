package refcount

import (
	"errors"
	"io"
	"path"
	"slices"
	"sort"
	"sync/atomic"

	"holdfast/repo/blockfile"
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
	name   string       // in the repository
	drop   func() error // once nobody needs it: close, and remove if a spill
	spill  bool         // not of a list, and may have rows that change nothing
	head   header
	mark   uint32   // checksum of block 0, which the list repeats
	fences []uint64 // first 8 bytes of each block of rows
	tail   []uint32 // checksums of the blocks of fences
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
func newFile(r sized, name string, c *blockfile.Cache) (*file, error) {
	size, err := r.Size()
	if err != nil {
		return nil, err
	}
	f := &file{name: name, drop: r.Close}
	f.blocks = blockfile.NewFile(r, c, f.damage)
	f.refs.Store(1)
	var b block
	if err := f.blocks.Header(&b); err != nil {
		return nil, err
	}
	if f.head, err = parseHeader(&b, size); err != nil {
		return nil, f.damage(0, err)
	}
	f.mark = b.Sum()
	return f, f.loadFences()
}

func (f *file) loadFences() (err error) {
	f.fences, f.tail, err = f.blocks.Fences(f.head.firstFence(), f.head.blocks(), int(f.head.rowBlocks()))
	if err == nil && !slices.IsSorted(f.fences) {
		err = f.damage(f.head.firstFence(), errFences)
	}
	return err
}

func (f *file) member() member {
	return member{Number: f.head.number, Bytes: f.head.bytes(), Mark: f.mark}
}

func (f *file) damage(number int64, err error) error {
	return &DamageError{File: f.name, Block: number, Err: err}
}

// find returns what the file says of a key, 0 if nothing.
func (f *file) find(k key) (int32, error) {
	b := blockfile.Borrow()
	defer blockfile.GiveBack(b)
	v := k.fence()
	for i := blockfile.FirstBlock(f.fences, v); i < len(f.fences) && f.fences[i] <= v; i++ {
		if err := f.blocks.Read(1+int64(i), b); err != nil {
			return 0, err
		}
		n := f.rowsIn(int64(i))
		at := sort.Search(n, func(j int) bool { return keyAt(b, j).compare(k) >= 0 })
		if at < n && keyAt(b, at) == k {
			return rowAt(b, at).change, nil
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
