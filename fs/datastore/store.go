package datastore

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	iofs "io/fs"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"holdfast/fs"
	"holdfast/repo/vfs"
)

// Store is a datastore that is open. Its methods may be called by several
// goroutines at once, but none after Close.
//
// Beside what package fs says of a WriteTree this holds:
//   - A link or a rename from one session into another, or between one and the
//     root, gives fs.ErrCrossing.
//   - The directory of a session can't be removed or renamed: fs.ErrPermission.
//   - A disk can be renamed, linked and removed like a file. Removing its last
//     name, as a hypervisor does that deletes a machine, does not touch the
//     Disk: until RemoveSession what was written can still be kept.
//   - The size of a disk is fixed: setting another gives fs.ErrPermission,
//     writing beyond it fs.ErrTooLarge.
//   - A disk that is not attached has a name, attributes and handles; its bytes
//     are fs.ErrRetry, or what Offline said.
//   - A file whose own sync failed can be read and removed, and not be written.
type Store struct {
	fs   vfs.FS
	opt  Options
	lock vfs.Unlocker
	id   [16]byte

	root     *tree
	clock    clock
	epoch    atomic.Uint64 // the verifier
	recorded []noteRec     // of before the store was opened, oldest first

	changing sync.Mutex // sessions are added and removed one after another; comes before all other locks

	mu    sync.RWMutex // guards trees
	trees map[uint32]*tree
}

var (
	_ fs.WriteTree  = (*Store)(nil)
	_ fs.RecordTree = (*Store)(nil)
	_ fs.BorrowTree = (*Store)(nil)
	_ fs.CachedTree = (*Store)(nil)
)

// Names in the store's directory.
const (
	lockName = "lock"
	rootDir  = "root"
	newDir   = "root.new"
)

func sessionDir(number uint32) string { return fmt.Sprintf("s%06x", number) }

// Create makes an empty store in fsys. io/fs.ErrExist when there is one, or
// sessions without one. What a Create that did not finish left is in nobody's
// way.
func Create(fsys vfs.FS, opt Options) error {
	if err := create(fsys, opt.withDefaults()); err != nil {
		return fmt.Errorf("create datastore: %w", spaceError(err))
	}
	return nil
}

func create(fsys vfs.FS, opt Options) error {
	switch _, err := fsys.Stat(rootDir); {
	case err == nil:
		return &iofs.PathError{Op: "create", Path: rootDir, Err: iofs.ErrExist}
	case !errors.Is(err, iofs.ErrNotExist):
		return err
	}
	switch numbers, err := sessionDirs(fsys); {
	case err != nil:
		return err
	case len(numbers) > 0:
		return &iofs.PathError{Op: "create beside", Path: sessionDir(numbers[0]), Err: iofs.ErrExist}
	}
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails
	if err := makeRoot(fsys, id, newRoot(opt)); err != nil {
		return err
	}
	return placeRoot(fsys)
}

// Open opens the store in fsys. io/fs.ErrNotExist when there is none, ErrBusy
// when it is open elsewhere, fs.ErrDamaged when the root is, for which there is
// Rebuild. It reads journals and nothing else: names, attributes
// and handles of all sessions work when it returns, their disks once attached.
// A session whose journal is damaged is offline, alone; Sessions tells why.
func Open(fsys vfs.FS, opt Options) (*Store, error) {
	s := &Store{fs: fsys, opt: opt.withDefaults(), trees: make(map[uint32]*tree)}
	if err := s.open(); err != nil {
		return nil, fmt.Errorf("open datastore: %w", errors.Join(err, s.closeAll()))
	}
	return s, nil
}

func (s *Store) open() (err error) {
	if _, err := s.fs.Stat(rootDir); err != nil {
		if numbers, _ := sessionDirs(s.fs); len(numbers) > 0 && errors.Is(err, iofs.ErrNotExist) {
			return fmt.Errorf("%w: sessions without a root; Rebuild makes one", fs.ErrDamaged)
		}
		return err
	}
	if s.lock, err = s.fs.Lock(lockName, vfs.Exclusive); err != nil {
		if errors.Is(err, vfs.ErrLocked) {
			err = fmt.Errorf("%w: %w", ErrBusy, err)
		}
		return err
	}
	s.newEpoch()
	s.root = newTree(s, 0, rootDir)
	s.trees[0] = s.root
	if err := s.root.load(); err != nil {
		return fmt.Errorf("the root, without which sessions have no names; Rebuild makes one of them: %w", err)
	}
	s.id = s.root.j.id
	if err := s.openSessions(); err != nil {
		return err
	}
	if err := s.root.settle(); err != nil {
		return err
	}
	for _, t := range s.trees {
		if t.gone == nil {
			s.recorded = append(s.recorded, t.st.notes...)
		}
	}
	slices.SortStableFunc(s.recorded, func(a, b noteRec) int { return compareTimes(a.at, b.at) })
	return s.tidy()
}

// parallel is how many journals are read at once.
const parallel = 8

// openSessions opens the sessions that the root names.
func (s *Store) openSessions() error {
	var wait sync.WaitGroup
	slots := make(chan struct{}, parallel)
	for _, e := range s.root.st.nodes[rootIno].entries {
		if !e.session {
			continue
		}
		t := newTree(s, uint32(e.child), sessionDir(uint32(e.child)))
		if s.trees[t.number] != nil {
			return fmt.Errorf("%w: session %d has two names", fs.ErrDamaged, t.number)
		}
		s.trees[t.number] = t
		slots <- struct{}{}
		wait.Go(func() {
			defer func() { <-slots }()
			err := t.load()
			if err == nil {
				err = t.settle()
			}
			if err != nil {
				t.offline(err)
			}
		})
	}
	wait.Wait()
	return nil
}

// load reads the tree's journal.
func (t *tree) load() error {
	j, st, err := openJournal(t.s.fs, t.dir, t.number)
	if err != nil {
		if errors.Is(err, errJournal) {
			err = fmt.Errorf("%w: %w", fs.ErrDamaged, err)
		}
		return err
	}
	if t.number != 0 && j.id != t.s.id {
		return errors.Join(fmt.Errorf("%w: the journal in %s is of another datastore", fs.ErrDamaged, t.dir), j.close())
	}
	t.start(j, st)
	return nil
}

// offline takes a session out of service whose journal is of no use.
func (t *tree) offline(err error) {
	t.s.opt.Log.Error("a session of the datastore is offline", "session", t.number, "err", err)
	t.gate.Lock()
	defer t.gate.Unlock()
	t.gone = fmt.Errorf("session %d is offline: %w", t.number, err)
}

// tidy removes what crashes have left: directories of sessions that are none,
// files of inodes that are no more.
func (s *Store) tidy() error {
	list, err := s.fs.ReadDir(".")
	if err != nil {
		return err
	}
	for _, e := range list {
		var number uint32
		switch n, _ := fmt.Sscanf(e.Name, "s%06x", &number); {
		case !e.Dir:
		case e.Name == newDir:
			err = removeDir(s.fs, newDir)
		case e.Name == rootDir:
			err = s.root.tidy()
		case n == 1 && e.Name == sessionDir(number):
			if t := s.trees[number]; t == nil {
				err = removeDir(s.fs, e.Name)
			} else if t.gone == nil {
				err = t.tidy()
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// tidy removes files of inodes that are no more.
func (t *tree) tidy() error {
	list, err := t.s.fs.ReadDir(t.dir)
	if err != nil {
		return err
	}
	for _, e := range list {
		var ino uint64
		if n, _ := fmt.Sscanf(e.Name, "f%010x", &ino); n != 1 || e.Dir || t.dir+"/"+e.Name != largeName(t.dir, ino) {
			continue
		}
		if n := t.st.nodes[ino]; n != nil && n.keep == keepLarge {
			continue
		}
		if err := t.s.fs.Remove(t.dir + "/" + e.Name); err != nil {
			return err
		}
	}
	return nil
}

// removeDir removes our files in a directory, and the directory unless it has
// others.
func removeDir(fsys vfs.FS, dir string) error {
	list, err := fsys.ReadDir(dir)
	if errors.Is(err, iofs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	others := false
	for _, e := range list {
		if e.Dir || !strings.HasPrefix(e.Name, "journal.") && !strings.HasPrefix(e.Name, "f0") {
			others = true
			continue
		}
		if err := fsys.Remove(dir + "/" + e.Name); err != nil {
			return err
		}
	}
	if others {
		return nil
	}
	return fsys.Remove(dir)
}

// Close makes everything durable and closes the store. Disks are left to who
// attached them.
func (s *Store) Close() error {
	s.changing.Lock()
	defer s.changing.Unlock()
	if err := s.closeAll(); err != nil {
		return fmt.Errorf("close datastore: %w", err)
	}
	return nil
}

func (s *Store) closeAll() (err error) {
	s.mu.RLock()
	trees := make([]*tree, 0, len(s.trees))
	for _, t := range s.trees {
		trees = append(trees, t)
	}
	s.mu.RUnlock()
	slices.SortFunc(trees, func(a, b *tree) int { return cmp.Compare(b.number, a.number) })
	for _, t := range trees {
		err = errors.Join(err, t.finish(), t.end(ErrClosed))
	}
	if s.lock != nil {
		err = errors.Join(err, s.lock.Unlock())
		s.lock = nil
	}
	return err
}

// finish makes everything durable, exact times too.
func (t *tree) finish() (err error) {
	t.gate.Lock()
	defer t.gate.Unlock()
	if t.gone != nil || t.j == nil {
		return nil
	}
	var pending []fs.ID
	t.mu.RLock()
	for ino, n := range t.st.nodes {
		if n.pending() {
			pending = append(pending, t.id(ino))
		}
	}
	readOnly := t.readOnly
	t.mu.RUnlock()
	if readOnly != nil {
		return nil // nothing was accepted
	}
	for _, id := range pending {
		f := t.file(id)
		f.io.RLock()
		err = errors.Join(err, f.commit())
		f.io.RUnlock()
		f.done()
	}
	return errors.Join(err, t.unmark())
}

// end closes a tree; calls get err from now on.
func (t *tree) end(err error) error {
	for _, slot := range t.slots {
		slot.set(nil, err, nil)
	}
	t.gate.Lock()
	defer t.gate.Unlock()
	t.gone = err
	for _, f := range t.large.open {
		f.mu.Lock()
		f.close()
		f.mu.Unlock()
	}
	if t.j == nil {
		return nil
	}
	t.ioMu.Lock()
	defer t.ioMu.Unlock()
	return t.j.close()
}

// treeOf returns the tree that an inode is in.
func (s *Store) treeOf(id fs.ID) (*tree, error) {
	s.mu.RLock()
	t := s.trees[uint32(id.Ino>>inoBits)]
	s.mu.RUnlock()
	if t == nil || id.FS != 0 {
		return nil, fmt.Errorf("inode %d/%#x: %w", id.FS, id.Ino, fs.ErrStale)
	}
	return t, nil
}

// enter returns the tree that an inode is in, for a call to be made, which ends
// with leave.
func (s *Store) enter(ctx context.Context, id fs.ID) (*tree, error) {
	t, err := s.treeOf(id)
	if err == nil {
		err = t.enter(ctx)
	}
	return t, err
}

// enterBoth is enter for two inodes, which have to be in one tree.
func (s *Store) enterBoth(ctx context.Context, a, b fs.ID) (*tree, error) {
	ta, err := s.enter(ctx, a)
	if err != nil {
		return nil, err
	}
	tb, err := s.treeOf(b)
	if err == nil && ta != tb {
		err = fmt.Errorf("from session %d to session %d: %w", ta.number, tb.number, fs.ErrCrossing)
	}
	if err != nil {
		ta.leave()
		return nil, err
	}
	return ta, nil
}

const (
	inoBits = 40
	rootIno = 1
)

// SessionRoot is the ID of a session's directory, for whoever wants to read its
// files through the tree.
func SessionRoot(number uint32) fs.ID { return fs.ID{Ino: uint64(number)<<inoBits | rootIno} }

// Root is the directory with all sessions.
func (s *Store) Root() fs.ID { return SessionRoot(0) }

// newEpoch makes the verifier another one.
func (s *Store) newEpoch() {
	var p [8]byte
	_, _ = rand.Read(p[:]) // never fails
	s.epoch.Store(binary.LittleEndian.Uint64(p[:]))
}

// Verifier also changes when that of a disk does.
func (s *Store) Verifier() uint64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, t := range s.trees {
		if !t.unstable.Load() {
			continue
		}
		for _, slot := range t.slots {
			slot.lostWrites(s.newEpoch)
		}
	}
	return s.epoch.Load()
}
