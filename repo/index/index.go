// Package index finds the records of a repository: by the first 16 bytes of a
// chunk's or node's id it tells the packs that hold it, where in them, and how
// long the record is.
//
// An index is a few immutable files of sorted entries and one list that names
// them (repo/FORMAT.md, "Index", has every byte). The newest entries are in
// memory, in the delta, until the owner flushes them:
//
//	Add ──► delta ──Flush──► NNNNNNNN.idx + list-NNNNNNNN
//	          │                   │ read in 4 KiB blocks, through a cache
//	          └──────► Lookup ◄───┘ with a budget; no mmap
//
// A record that needs another one, its base, is also found by that: Dependents
// tells what keeps a base from being freed.
//
// What an index says is a hint. It holds 16 of an id's 32 bytes, and packs may
// have gone since it was written, so the caller checks the whole id on the
// record itself. Nothing is lost with an index: it is rebuilt from the packs.
//
// In memory there are 8 bytes for each block of 146 entries, the blocks in the
// cache, and about 36 bytes for each entry of the delta. A record with a base
// has two entries.
package index

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"

	"holdfast/repo/blockfile"
	"holdfast/repo/chunk"
	"holdfast/repo/pack"
	"holdfast/repo/vfs"
)

var (
	// ErrDamaged says that an index file is not what was written. Always
	// inside a *DamageError. The owner rebuilds after Reset; a reader goes
	// without, or adds the packs to its own memory.
	ErrDamaged = errors.New("index is damaged")

	// ErrReadOnly says that only the owner's index can do this.
	ErrReadOnly = errors.New("index is open for reading only")

	// ErrEntry says that an entry cannot be indexed.
	ErrEntry = errors.New("entry does not fit the index")
)

// DamageError names the bytes that are not what was written.
type DamageError struct {
	File  string // within the repository
	Block int64  // number of the 4 KiB block in the file; -1 for the whole file
	Err   error  // what is wrong with it
}

func (e *DamageError) Error() string {
	if e.Block < 0 {
		return fmt.Sprintf("index file %s: %v", e.File, e.Err)
	}
	return fmt.Sprintf("index file %s, block %d: %v", e.File, e.Block, e.Err)
}

// Unwrap answers to ErrDamaged and to the cause.
func (e *DamageError) Unwrap() []error { return []error{ErrDamaged, e.Err} }

// Limits and defaults.
const (
	// PrefixBytes is how much of an id the index keeps.
	PrefixBytes = 16

	// MaxRecordBytes is the longest record that can be indexed.
	MaxRecordBytes = 1<<24 - 1

	// maxCandidates limits what one Lookup returns: more copies of one
	// record are of no use, and a forged file must not fill the memory.
	maxCandidates = 256

	defaultCacheBytes   = 16 << 20
	defaultFlushEntries = 128 << 10
)

// Options of an index. The zero value is good.
type Options struct {
	// CacheBytes is the memory for blocks read, in bytes; 0 means 16 MiB.
	// At least one block is kept.
	CacheBytes int64

	flushEntries int // Add flushes when the delta has as many; 0 means 131072
	floorEntries int // see tier.floor; 0 means its default
}

// Location is where one record lies.
type Location struct {
	Pack pack.Name
	Off  uint32 // of the record's first byte in the pack
	Len  uint32 // of the whole record, in bytes
	Kind pack.RecordKind
}

// Index is an open index. All methods are safe for concurrent use.
//
// One index per repository is the owner's, made by Own; any number, in any
// process, are readers', made by Open.
type Index struct {
	fsys  vfs.FS
	dir   string
	opt   Options
	owner bool
	cache *blockfile.Cache

	// work is held by whoever changes the set of files: Flush, Remove, Reset,
	// Refresh. It comes before mu.
	work     sync.Mutex
	nextFile uint64 // guarded by work, as the three below
	nextList uint64
	dirty    bool // the list on disk says less than the view
	skipped  error

	// mu guards the pointers below and what the delta holds. It is never held
	// during I/O.
	mu     sync.RWMutex
	view   *view    // nil after Close
	delta  *delta   // takes what is added
	frozen []*delta // being flushed, oldest first; not changed any more
}

// Open opens the index in the directory dir for reading: the highest list that
// is complete. An index that does not exist is an empty one.
func Open(fsys vfs.FS, dir string, opt Options) (*Index, error) {
	return open(fsys, dir, opt, false)
}

func open(fsys vfs.FS, dir string, opt Options, owner bool) (*Index, error) {
	if opt.CacheBytes == 0 {
		opt.CacheBytes = defaultCacheBytes
	}
	if opt.flushEntries == 0 {
		opt.flushEntries = defaultFlushEntries
	}
	x := &Index{fsys: fsys, dir: dir, opt: opt, owner: owner, cache: blockfile.NewCache(opt.CacheBytes), delta: newDelta()}
	found, err := load(fsys, dir, x.cache, nil)
	if err != nil {
		return nil, err
	}
	x.view, x.skipped = found.view, found.skipped
	x.nextFile, x.nextList = found.NextFile, found.NextList
	return x, nil
}

// Close closes the files. Look-ups under way end as they would have.
func (x *Index) Close() error {
	x.work.Lock()
	defer x.work.Unlock()
	x.mu.Lock()
	v := x.view
	x.view, x.delta, x.frozen = nil, newDelta(), nil
	x.mu.Unlock()
	if v == nil {
		return nil
	}
	return v.release()
}

func (x *Index) closed() error { return fmt.Errorf("index %s: %w", x.dir, fs.ErrClosed) }

// snapshot returns the view with a reference for the caller.
func (x *Index) snapshot() (*view, error) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if x.view == nil {
		return nil, x.closed()
	}
	return x.view.acquire(), nil
}

// Lookup returns every place where a record of that id lies, newest first: the
// pack whose name is higher, so the later epoch, then the later in the pack;
// none when there is none, at most 256. It compares 16 bytes of the id: that a
// place holds another id is as good as impossible, but the caller finds it out
// by the record and goes on to the next. Who knows but these 16 bytes looks up
// any id that begins with them. A place may also be in a pack that is gone: then
// Refresh, and look again.
//
// When a file is damaged it returns ErrDamaged together with what the others
// have.
func (x *Index) Lookup(id chunk.ID) ([]Location, error) {
	return x.find(query{key: keyOf(id[:]), limit: maxCandidates})
}

func (x *Index) find(q query) ([]Location, error) {
	var buf [4]found
	v, hits, age, err := x.begin(q, buf[:0])
	if err != nil {
		return nil, err
	}
	hits, err = v.find(q, hits, age)
	err = errors.Join(err, v.release())
	return newestFirst(hits, q.limit), err
}

// begin appends the places that the deltas have. It returns a reference to the
// view that they go with, whose newest file is of that age.
func (x *Index) begin(q query, hits []found) (v *view, _ []found, age int, err error) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if x.view == nil {
		return nil, nil, 0, x.closed()
	}
	hits = x.delta.find(q, hits, 0)
	for i, d := range slices.Backward(x.frozen) {
		hits = d.find(q, hits, len(x.frozen)-i)
	}
	return x.view.acquire(), hits, len(x.frozen) + 1, nil
}

// found is a candidate of a look-up.
type found struct {
	Location
	age int // of where it was found, 0 the newest
}

// newestFirst orders candidates and drops exact doubles.
func newestFirst(hits []found, limit int) []Location {
	if len(hits) == 0 {
		return nil
	}
	if len(hits) > 1 {
		slices.SortStableFunc(hits, func(a, b found) int {
			if a.Pack != b.Pack {
				return slices.Compare(b.Pack[:], a.Pack[:])
			}
			return cmp.Or(cmp.Compare(b.Off, a.Off), cmp.Compare(a.age, b.age))
		})
		hits = slices.CompactFunc(hits, func(a, b found) bool { return a.Pack == b.Pack && a.Off == b.Off })
	}
	list := make([]Location, min(len(hits), limit))
	for i := range list {
		list[i] = hits[i].Location
	}
	return list
}

// HasPack reports whether the records of a pack are in the index.
func (x *Index) HasPack(name pack.Name) (bool, error) {
	x.mu.RLock()
	if x.view == nil {
		x.mu.RUnlock()
		return false, x.closed()
	}
	has := x.delta.hasPack(name)
	for _, d := range x.frozen {
		has = has || d.hasPack(name)
	}
	v := x.view.acquire()
	x.mu.RUnlock()
	if has {
		return true, v.release()
	}
	has, err := v.hasPack(name)
	return has, errors.Join(err, v.release())
}

// Add puts the records of a pack into the delta, where Lookup finds them at
// once. The owner's Add flushes a delta that has grown to 131072 entries; the
// error then is the flush's, and the entries stay visible. A reader's delta
// lasts until Close, and the memory it takes is the reader's to bound.
//
// A record over MaxRecordBytes gives ErrEntry, and nothing of the pack is added.
func (x *Index) Add(name pack.Name, entries []pack.Entry) error {
	for i := range entries {
		if entries[i].Len > MaxRecordBytes {
			return fmt.Errorf("%w: record of %d bytes at %d of pack %s", ErrEntry, entries[i].Len, entries[i].Off, name)
		}
	}
	x.mu.Lock()
	if x.view == nil {
		x.mu.Unlock()
		return x.closed()
	}
	ord := x.delta.pack(name)
	for i := range entries {
		e := &entries[i]
		rows(e, func(k key, size uint32) { x.delta.add(k, ord, e.Off, size) })
	}
	full := x.delta.n >= x.opt.flushEntries
	x.mu.Unlock()
	if full && x.owner {
		return x.flushFull()
	}
	return nil
}

// Covers returns the number of the ledger segment up to which the index has
// every pack: what was given to the last Flush. 0 means none.
func (x *Index) Covers() uint64 {
	v, err := x.snapshot()
	if err != nil {
		return 0
	}
	defer v.release()
	return v.list.head
}

// Skipped returns what was passed over when the index was opened or refreshed:
// lists that are damaged or name files that are missing or damaged. An owner
// then covers less, and adds the packs it lacks again. Nil when nothing was; a
// list of another version counts as nothing, and covers nothing.
func (x *Index) Skipped() error {
	x.work.Lock()
	defer x.work.Unlock()
	return x.skipped
}

// Count returns the number of entries, of which a record with a base has two.
// Those that a merge is going to drop, doubles and entries of removed packs,
// still count.
func (x *Index) Count() uint64 {
	x.mu.RLock()
	defer x.mu.RUnlock()
	n := uint64(x.delta.n)
	for _, d := range x.frozen {
		n += uint64(d.n)
	}
	if x.view != nil {
		for _, f := range x.view.files {
			n += f.head.entries
		}
	}
	return n
}

// FileInfo describes one live index file.
type FileInfo struct {
	Name    string
	Bytes   int64
	Entries uint64
	Packs   uint32
}

// Files lists the live files, oldest first.
func (x *Index) Files() []FileInfo {
	v, err := x.snapshot()
	if err != nil {
		return nil
	}
	defer v.release()
	list := make([]FileInfo, len(v.files))
	for i, f := range v.files {
		list[i] = FileInfo{Name: f.name, Bytes: f.head.bytes(), Entries: f.head.entries, Packs: f.head.packs}
	}
	return list
}

// key is the part of an id that the index keeps, as two numbers that sort as
// its bytes do.
type key struct{ hi, lo uint64 }

func keyOf(p []byte) key {
	return key{binary.BigEndian.Uint64(p), binary.BigEndian.Uint64(p[8:])}
}

func (k key) compare(o key) int { return cmp.Or(cmp.Compare(k.hi, o.hi), cmp.Compare(k.lo, o.lo)) }

func (k key) prefix() (p [PrefixBytes]byte) {
	binary.BigEndian.PutUint64(p[:], k.hi)
	binary.BigEndian.PutUint64(p[8:], k.lo)
	return p
}
