// Package refcount keeps how often each id is referenced, by the id's first 16
// bytes, for millions of ids and with little memory.
//
// A table is a few immutable files of sorted rows, each the change of one id's
// count, and one list that names them (repo/FORMAT.md, "References", has every
// byte). An id's count is the sum of its changes. What was added since the last
// Commit is in memory, and in temporary files of the same kind when it is much:
//
//	Add ──► delta ──► spills ──Commit──► NNNNNNNN.ref + refs-NNNNNNNN
//	          │          │                    │ read in 4 KiB blocks, through
//	          └──────────┴──────► Count ◄─────┘ a cache with a budget
//
// The list also carries a payload, which says what the counts are valid for and
// is the caller's. Files and payload change together: whatever happens, a table
// that is opened is as one Commit left it.
//
// Nothing is lost with a table: it is counted again from the restore points.
//
// In memory there are 8 bytes for each block of 204 rows, the blocks in the
// cache, the payload, and about 50 bytes for each row of the delta, and 20 more
// while it is sorted.
//
// The files have names of their own, and files with other names in the same
// directory are left alone.
package refcount

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path"
	"slices"
	"sync"

	"holdfast/repo/blockfile"
	"holdfast/repo/chunk"
	"holdfast/repo/vfs"
)

var (
	// ErrDamaged says that a file is not what was written, or that a count is
	// below zero. Always inside a *DamageError. The owner counts anew after
	// Reset; a reader goes without.
	ErrDamaged = errors.New("reference counts are damaged")

	// ErrReadOnly says that only the owner's table can do this.
	ErrReadOnly = errors.New("reference counts are open for reading only")

	// ErrTooMany says that a reader's table has no room for another id.
	ErrTooMany = errors.New("too many ids for a reader's memory")

	// ErrRange says that the count of an id changed by more than 2³¹.
	ErrRange = errors.New("reference count out of range")

	// ErrPayload says that a payload is longer than MaxPayloadBytes.
	ErrPayload = errors.New("payload of reference counts is too long")
)

// DamageError names the bytes that are not what was written.
type DamageError struct {
	File  string // within the repository; the directory for a count below zero
	Block int64  // number of the 4 KiB block in the file; -1 for the whole file
	Err   error  // what is wrong with it
}

func (e *DamageError) Error() string {
	if e.Block < 0 {
		return fmt.Sprintf("reference counts %s: %v", e.File, e.Err)
	}
	return fmt.Sprintf("reference counts %s, block %d: %v", e.File, e.Block, e.Err)
}

// Unwrap answers to ErrDamaged and to the cause.
func (e *DamageError) Unwrap() []error { return []error{ErrDamaged, e.Err} }

// Limits and defaults.
const (
	// PrefixBytes is how much of an id is counted by.
	PrefixBytes = 16

	// MaxPayloadBytes is the longest payload.
	MaxPayloadBytes = 256 << 20

	defaultCacheBytes = 8 << 20
	defaultMaxDelta   = 1 << 20
)

// Options of a table. The zero value is good.
type Options struct {
	// CacheBytes is the memory for blocks read, in bytes; 0 means 8 MiB. At
	// least one block is kept.
	CacheBytes int64

	// MaxDelta is how many ids the memory holds that were added to since the
	// last Commit; 0 means 1048576, which take up to 50 MB. The owner's table
	// writes more of them to temporary files; a reader's gives ErrTooMany.
	MaxDelta int

	floorRows uint64 // see pick; 0 means its default
}

// Table is an open table of reference counts. All methods are safe for
// concurrent use. Counts run at once; they wait for an Add that writes a
// temporary file, and for Commit, which may merge all files.
//
// One table per directory is the owner's, made by Own; any number, in any
// process, are readers', made by Open.
type Table struct {
	fsys  vfs.FS
	dir   string
	opt   Options
	owner bool
	cache *blockfile.Cache

	// mu guards all below. Readers hold it during I/O, and no callback is
	// called with it.
	mu       sync.RWMutex
	closed   bool
	saved    list    // as it is on disk; of number 0 if nothing is
	files    []*file // of saved
	reset    bool    // saved and files count no more
	spills   []*file // of uncommitted changes, oldest first
	delta    map[key]int32
	untidy   bool // there may be files that are not of saved
	nextFile uint64
	nextList uint64
	skipped  error
}

// Own opens the table in the directory dir as its owner, who alone may change
// it and keeps others from owning it at once. It makes the directory if there is
// none, whose parent must exist, as must vfs.TempDir, which the owner of the
// repository has emptied. It removes every file of the kinds of this package
// from the directory that does not belong to the list it took.
func Own(fsys vfs.FS, dir string, opt Options) (*Table, error) {
	err := fsys.Mkdir(dir)
	if err == nil {
		err = fsys.SyncDir(path.Dir(dir))
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	t, err := open(fsys, dir, opt, true)
	if err != nil {
		return nil, err
	}
	if err := t.tidy(); err != nil {
		return nil, errors.Join(err, t.Close())
	}
	return t, nil
}

// Open opens the table in the directory dir for reading. It changes no file:
// what is added stays in memory, within Options.MaxDelta. The table stays that
// of this moment while the owner goes on.
//
// Both Own and Open take the highest list that is complete. If there is none,
// because there never was or because all are damaged, the table is empty, and
// Payload is nil: then nothing has been counted, which is not the same as
// counts of 0. Skipped says what was damaged.
func Open(fsys vfs.FS, dir string, opt Options) (*Table, error) {
	return open(fsys, dir, opt, false)
}

func open(fsys vfs.FS, dir string, opt Options, owner bool) (*Table, error) {
	if opt.CacheBytes == 0 {
		opt.CacheBytes = defaultCacheBytes
	}
	if opt.MaxDelta == 0 {
		opt.MaxDelta = defaultMaxDelta
	}
	if opt.floorRows == 0 {
		opt.floorRows = floorRows
	}
	t := &Table{fsys: fsys, dir: dir, opt: opt, owner: owner, cache: blockfile.NewCache(opt.CacheBytes), delta: make(map[key]int32)}
	l, err := load(fsys, dir, t.cache)
	if err != nil {
		return nil, err
	}
	t.saved, t.files, t.skipped = l.list, l.files, l.skipped
	t.nextFile, t.nextList = l.NextFile, l.NextList
	return t, nil
}

// Close closes the files and forgets what is not committed. Walks under way end
// as they would have.
func (t *Table) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil
	}
	t.closed = true
	return errors.Join(t.forget(), release(t.files))
}

// forget drops the uncommitted changes.
func (t *Table) forget() error {
	err := release(t.spills)
	t.spills, t.delta = nil, make(map[key]int32)
	return err
}

// check returns the error of a table that is closed.
func (t *Table) check() error {
	if t.closed {
		return fmt.Errorf("reference counts %s: %w", t.dir, fs.ErrClosed)
	}
	return nil
}

// Payload returns what was given to the Commit that left the table as it was
// opened, or to a later one. It is nil when there was none, and after Reset,
// and never nil otherwise. The caller must not change it.
func (t *Table) Payload() []byte {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if t.reset {
		return nil
	}
	return t.saved.payload
}

// Skipped returns what was passed over when the table was opened: lists that
// are damaged or name files that are missing or damaged. Nil when nothing was.
func (t *Table) Skipped() error { return t.skipped }

// Bytes is the size of the files that count, list and all, in bytes.
func (t *Table) Bytes() int64 {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if t.saved.number == 0 {
		return 0
	}
	n := int64(len(t.saved.encodeHead()) + len(t.saved.payload))
	for _, m := range t.saved.members {
		n += m.Bytes
	}
	return n
}

// base returns the files whose rows count, oldest first.
func (t *Table) base() []*file {
	if t.reset {
		return nil
	}
	return t.files
}

// Count returns how often an id is referenced, uncommitted changes included.
// Ids that agree in 16 bytes are counted as one, which does not happen by
// chance. A count below zero is ErrDamaged.
func (t *Table) Count(id chunk.ID) (int64, error) {
	return t.CountPrefix([PrefixBytes]byte(id[:]))
}

// CountPrefix is Count for the first bytes of an id.
func (t *Table) CountPrefix(prefix [PrefixBytes]byte) (int64, error) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if err := t.check(); err != nil {
		return 0, err
	}
	k := key(prefix)
	sum := int64(t.delta[k])
	for _, files := range [][]*file{t.spills, t.base()} {
		for _, f := range files {
			change, err := f.find(k)
			if err != nil {
				return 0, err
			}
			sum += int64(change)
		}
	}
	return sum, t.checkCount(k, sum)
}

var errNegative = errors.New("count is below zero")

func (t *Table) checkCount(k key, sum int64) error {
	if sum < 0 {
		return &DamageError{File: t.dir, Block: -1, Err: fmt.Errorf("%w: %d of %x", errNegative, sum, k)}
	}
	return nil
}

// Add changes the count of an id. On error it has changed nothing.
func (t *Table) Add(id chunk.ID, change int32) error {
	if change == 0 {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.check(); err != nil {
		return err
	}
	k := key(id[:PrefixBytes])
	old, ok := t.delta[k]
	if !ok && len(t.delta) >= t.opt.MaxDelta {
		if !t.owner {
			return fmt.Errorf("%w: more than %d", ErrTooMany, t.opt.MaxDelta)
		}
		if err := t.spill(); err != nil {
			return fmt.Errorf("spill reference counts %s: %w", t.dir, err)
		}
	}
	sum := int64(old) + int64(change)
	if sum < math.MinInt32 || sum > math.MaxInt32 {
		return fmt.Errorf("%w: %x changes by %d", ErrRange, k, sum)
	}
	t.delta[k] = int32(sum)
	return nil
}

// Touched calls fn for every id that was added to since the last Commit,
// Rollback or Reset, once, in the order of keys, with what all its changes add
// up to, which may be 0. What is added during the walk is not seen by it. It
// stops at fn's first error and returns it. fn may use the table.
func (t *Table) Touched(fn func(prefix [PrefixBytes]byte, change int64) error) error {
	return t.walk(false, func(k key, sum int64) error { return fn(k, sum) })
}

// Walk calls fn for every id whose count is not 0, uncommitted changes
// included, in the order of keys. What is added during the walk is not seen by
// it. It stops at fn's first error and returns it. fn may use the table.
//
// It reads every byte, past the cache: damage that Count would meet, it meets.
func (t *Table) Walk(fn func(prefix [PrefixBytes]byte, count int64) error) error {
	return t.walk(true, func(k key, sum int64) error {
		if sum == 0 {
			return nil
		}
		if err := t.checkCount(k, sum); err != nil {
			return err
		}
		return fn(k, sum)
	})
}

// walk goes over the uncommitted changes, or over everything.
func (t *Table) walk(everything bool, fn func(key, int64) error) error {
	t.mu.RLock()
	err := t.check()
	files := slices.Clone(t.spills)
	if everything {
		files = append(files, t.base()...)
	}
	if err != nil {
		files = nil
	}
	for _, f := range files {
		f.acquire()
	}
	delta := sorted(t.delta)
	t.mu.RUnlock()

	if err == nil {
		var m *merger
		if m, err = newMerger(delta, files); err == nil {
			err = m.each(fn)
		}
	}
	return errors.Join(err, release(files))
}

// Rollback makes the table what it was after the last Commit, or as it was
// opened.
func (t *Table) Rollback() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.check(); err != nil {
		return err
	}
	t.reset = false
	err := t.forget()
	if t.untidy {
		err = errors.Join(err, t.tidy())
	}
	return err
}

// Reset empties the table, so that everything can be counted again. The owner's
// next Commit makes that durable; Rollback takes it back.
func (t *Table) Reset() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.check(); err != nil {
		return err
	}
	t.reset = true
	return t.forget()
}
