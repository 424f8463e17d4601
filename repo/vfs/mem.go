package vfs

import (
	"cmp"
	"io/fs"
	"math"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"
)

// Mem is a file system in memory that knows what was made durable. It serves
// tests: CrashClone shows it after a power cut, SetCapacity fills the disk,
// SetReadOnly protects the medium, SetLocked a file, Corrupt damages one.
//
// What is durable is what the strictest reading of POSIX promises, see the
// package comment. A directory of which more than a thousand operations wait
// to be synced may settle the older ones, as kernels do in time.
type Mem struct {
	mu       sync.RWMutex // guards all below, and all nodes
	root     *node
	nextID   uint64
	used     int64 // in pages, one for each node counted
	capacity int64 // in pages
	readOnly bool
	unsynced map[*node]struct{} // directories with changes
}

// node is a file or a directory.
type node struct {
	id    uint64 // in order of creation
	dir   bool
	links int // names it has
	opens int // handles and locks on it

	// Of a directory:
	entries map[string]*node
	changes []change // those of entries not synced, oldest first

	// Of a file:
	live    *blob
	durable *blob    // frozen
	writes  []record // what leads from durable to live, oldest first
	dropped bool     // a sync failed: live holds more than durable and writes
	locked  bool
	shared  int // locks
	owned   bool
}

// change is one operation on the entries of one directory.
type change struct {
	cleared     string // the name that went, if any
	clearedNode *node
	set         string // the name that came, if any
	node, old   *node  // what it stands for, and stood for before
	move        *move  // set when the other half is in another directory
}

// move is a renaming from one directory to another.
type move struct {
	from, to             *node
	fromSynced, toSynced bool
}

// record is one unsynced operation on the bytes of a file.
type record struct {
	off  int64
	data []byte // nil: the length was set to off
}

// NewMem returns an empty file system without a limit.
func NewMem() *Mem {
	m := &Mem{capacity: math.MaxInt64 / pageSize, unsynced: make(map[*node]struct{})}
	m.root = m.newNode(true)
	m.root.links = 1
	return m
}

func (m *Mem) newNode(dir bool) *node {
	m.nextID++
	m.used++
	n := &node{id: m.nextID, dir: dir}
	if !dir {
		n.live, n.durable = &emptyBlob, &emptyBlob
	}
	return n
}

// put makes an entry. Most directories of a repository stay empty and have no
// map, which makes clones cheap.
func (n *node) put(name string, e *node) {
	if n.entries == nil {
		n.entries = make(map[string]*node)
	}
	n.entries[name] = e
}

// SetCapacity sets how many bytes fit, in whole pages of 4 KiB; every file and
// directory takes one page besides its data. What is there stays even if it is
// more.
func (m *Mem) SetCapacity(bytes int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.capacity = bytes / pageSize
}

// Used returns how many bytes are taken, as SetCapacity counts them.
func (m *Mem) Used() int64 {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.used * pageSize
}

// SetReadOnly makes every change give syscall.EROFS, or allows them again.
func (m *Mem) SetReadOnly(on bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.readOnly = on
}

// SetLocked makes a file immutable, or takes that back, as the flag of a real
// file system does: it can then be neither removed, renamed, replaced nor opened
// for writing, also after a crash. Whoever has it open for writing still writes.
func (m *Mem) SetLocked(name string, on bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.findFile(name)
	if err != nil {
		return wrapMem("set locked", name, err)
	}
	n.locked = on
	return nil
}

func (m *Mem) Locked(name string) (bool, error) {
	if err := checkName("locked", name); err != nil {
		return false, err
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	n, err := m.findFile(name)
	if err != nil {
		return false, wrapMem("locked", name, err)
	}
	return n.locked, nil
}

// Free returns what is left of the capacity.
func (m *Mem) Free() (uint64, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return uint64(max(0, m.capacity-m.used)) * pageSize, nil
}

// find returns what a name stands for.
func (m *Mem) find(name string) (*node, error) {
	n := m.root
	if name == "." {
		return n, nil
	}
	for elem := range strings.SplitSeq(name, "/") {
		if !n.dir {
			return nil, syscall.ENOTDIR
		}
		if n = n.entries[elem]; n == nil {
			return nil, syscall.ENOENT
		}
	}
	return n, nil
}

// findFile returns the file that a name stands for.
func (m *Mem) findFile(name string) (*node, error) {
	n, err := m.find(name)
	if err == nil && n.dir {
		err = syscall.EISDIR
	}
	return n, err
}

// parent returns the directory of a name, and the name in it.
func (m *Mem) parent(name string) (dir *node, base string, err error) {
	dir, err = m.find(path.Dir(name))
	if err == nil && !dir.dir {
		err = syscall.ENOTDIR
	}
	return dir, path.Base(name), err
}

// changed notes a change that was made to dir.
func (m *Mem) changed(dir *node, c change) {
	dir.changes = append(dir.changes, c)
	m.unsynced[dir] = struct{}{}
}

// release gives the space of a node back when nothing leads to it any more.
func (m *Mem) release(n *node) {
	if n.links == 0 && n.opens == 0 {
		m.used--
		if !n.dir {
			m.used -= n.live.pages
		}
	}
}

// wrapMem names the operation and the file in an error.
func wrapMem(op, name string, err error) error {
	if err == nil {
		return nil
	}
	return &fs.PathError{Op: op, Path: name, Err: err}
}

// add makes a new entry.
func (m *Mem) add(name string, dir bool) (*node, error) {
	parent, base, err := m.parent(name)
	switch {
	case err != nil:
		return nil, err
	case parent.entries[base] != nil:
		return nil, syscall.EEXIST
	case m.readOnly:
		return nil, syscall.EROFS
	case m.used >= m.capacity:
		return nil, syscall.ENOSPC
	}
	n := m.newNode(dir)
	n.links = 1
	parent.put(base, n)
	m.changed(parent, change{set: base, node: n})
	return n, nil
}

func (m *Mem) Create(name string) (File, error) {
	if err := checkEntry("create", name); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.add(name, false)
	if err != nil {
		return nil, wrapMem("create", name, err)
	}
	return m.open(n, name, true), nil
}

func (m *Mem) Mkdir(name string) error {
	if err := checkEntry("mkdir", name); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	_, err := m.add(name, true)
	return wrapMem("mkdir", name, err)
}

func (m *Mem) Open(name string) (File, error)      { return m.openFile(name, false) }
func (m *Mem) OpenWrite(name string) (File, error) { return m.openFile(name, true) }

func (m *Mem) openFile(name string, write bool) (File, error) {
	if err := checkName("open", name); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.findFile(name)
	switch {
	case err != nil:
	case write && m.readOnly:
		err = syscall.EROFS
	case write && n.locked:
		err = syscall.EPERM
	}
	if err != nil {
		return nil, wrapMem("open", name, err)
	}
	return m.open(n, name, write), nil
}

func (m *Mem) open(n *node, name string, write bool) File {
	n.opens++
	return &memFile{fs: m, n: n, name: name, write: write}
}

func (m *Mem) Remove(name string) error {
	if err := checkEntry("remove", name); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return wrapMem("remove", name, m.remove(name))
}

func (m *Mem) remove(name string) error {
	dir, base, err := m.parent(name)
	if err != nil {
		return err
	}
	n := dir.entries[base]
	switch {
	case n == nil:
		return syscall.ENOENT
	case m.readOnly:
		return syscall.EROFS
	case n.locked:
		return syscall.EPERM
	case len(n.entries) > 0:
		return syscall.ENOTEMPTY
	}
	delete(dir.entries, base)
	m.changed(dir, change{cleared: base, clearedNode: n})
	m.unlink(n)
	return nil
}

func (m *Mem) unlink(n *node) {
	n.links--
	m.release(n)
}

func (m *Mem) Rename(oldName, newName string) error {
	if err := cmp.Or(checkEntry("rename", oldName), checkEntry("rename", newName)); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.rename(oldName, newName); err != nil {
		return &os.LinkError{Op: "rename", Old: oldName, New: newName, Err: err}
	}
	return nil
}

func (m *Mem) rename(oldName, newName string) error {
	from, oldBase, err := m.parent(oldName)
	if err != nil {
		return err
	}
	to, newBase, err := m.parent(newName)
	if err != nil {
		return err
	}
	n, old := from.entries[oldBase], to.entries[newBase]
	switch {
	case n == nil:
		return syscall.ENOENT
	case m.readOnly:
		return syscall.EROFS
	case n == old:
		return nil // two names of one file: POSIX does nothing
	case n.locked, old != nil && old.locked:
		return syscall.EPERM
	case old != nil && old.dir:
		return syscall.EEXIST
	case old != nil && n.dir:
		return syscall.ENOTDIR
	case strings.HasPrefix(newName, oldName+"/"):
		return syscall.EINVAL
	}
	delete(from.entries, oldBase)
	to.put(newBase, n)
	gone := change{cleared: oldBase, clearedNode: n}
	come := change{set: newBase, node: n, old: old}
	if from == to {
		come.cleared, come.clearedNode = gone.cleared, n
	} else {
		mv := &move{from: from, to: to}
		gone.move, come.move = mv, mv
		m.changed(from, gone)
	}
	m.changed(to, come)
	if old != nil {
		m.unlink(old)
	}
	return nil
}

func (m *Mem) ReadDir(name string) ([]Info, error) {
	if err := checkName("readdir", name); err != nil {
		return nil, err
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	n, err := m.find(name)
	if err == nil && !n.dir {
		err = syscall.ENOTDIR
	}
	if err != nil {
		return nil, wrapMem("readdir", name, err)
	}
	list := make([]Info, 0, len(n.entries))
	for base, e := range n.entries {
		list = append(list, e.info(base))
	}
	slices.SortFunc(list, func(a, b Info) int { return cmp.Compare(a.Name, b.Name) })
	return list, nil
}

func (n *node) info(base string) Info {
	if n.dir {
		return Info{Name: base, Dir: true}
	}
	return Info{Name: base, Size: n.live.size}
}

func (m *Mem) Stat(name string) (Info, error) {
	if err := checkName("stat", name); err != nil {
		return Info{}, err
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	n, err := m.find(name)
	if err != nil {
		return Info{}, wrapMem("stat", name, err)
	}
	return n.info(path.Base(name)), nil
}

func (m *Mem) SyncDir(name string) error {
	if err := checkName("syncdir", name); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.find(name)
	if err == nil && !n.dir {
		err = syscall.ENOTDIR
	}
	if err != nil {
		return wrapMem("syncdir", name, err)
	}
	m.settle(n, len(n.changes))
	return nil
}

// settle makes the first count changes of a directory durable.
func (m *Mem) settle(dir *node, count int) {
	others := make(map[*node]bool)
	for _, c := range dir.changes[:count] {
		switch mv := c.move; {
		case mv == nil:
		case mv.from == dir && c.cleared != "":
			mv.fromSynced = true
			others[mv.to] = true
		default:
			mv.toSynced = true
			others[mv.from] = true
		}
	}
	if count == len(dir.changes) {
		dir.changes = nil
		delete(m.unsynced, dir)
	} else {
		dir.changes = slices.Clone(dir.changes[count:])
	}
	for other := range others {
		m.settleOld(other)
	}
}

// settleOld keeps the changes of a directory that nobody ever syncs, as tmp
// may be, from piling up: once there are very many, those that are certain in
// any journal, because a later renaming out of the directory is, are settled.
func (m *Mem) settleOld(dir *node) {
	const many = 1024
	if len(dir.changes) < many {
		return
	}
	for i, c := range slices.Backward(dir.changes) {
		if c.move != nil && c.move.synced() {
			m.settle(dir, i+1)
			return
		}
	}
}

// synced tells whether either half is durable.
func (mv *move) synced() bool { return mv.fromSynced || mv.toSynced }

func (m *Mem) Lock(name string, mode LockMode) (Unlocker, error) {
	if err := checkEntry("lock", name); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.find(name)
	switch {
	case err == syscall.ENOENT:
		n, err = m.add(name, false)
	case err != nil:
	case n.dir:
		err = syscall.EISDIR
	case mode == Exclusive && m.readOnly:
		err = syscall.EROFS
	case n.owned || mode == Exclusive && n.shared > 0:
		err = ErrLocked
	}
	if err != nil {
		return nil, wrapMem("lock", name, err)
	}
	if mode == Exclusive {
		n.owned = true
	} else {
		n.shared++
	}
	n.opens++
	return &memLock{fs: m, n: n, mode: mode}, nil
}

type memLock struct {
	fs   *Mem
	n    *node
	mode LockMode
	done bool
}

func (l *memLock) Unlock() error {
	l.fs.mu.Lock()
	defer l.fs.mu.Unlock()
	if l.done {
		return fs.ErrClosed
	}
	l.done = true
	if l.mode == Exclusive {
		l.n.owned = false
	} else {
		l.n.shared--
	}
	l.n.opens--
	l.fs.release(l.n)
	return nil
}
