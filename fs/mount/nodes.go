package mount

import (
	"maps"
	"math"
	"sync"

	"github.com/hanwen/go-fuse/v2/fuse"

	"holdfast/fs"
)

// A node is an inode that the kernel knows.
type node struct {
	id      fs.ID
	lookups uint32 // how often the kernel was told of it, less what it forgot
	fixed   bool
}

// nodes are the inodes that the kernel knows, by the numbers it has for them. A
// number is the inode's st_ino, or the next one that is free. The zero value
// needs init.
type nodes struct {
	mu    sync.RWMutex // guards the rest; nothing else is locked while it is held
	known map[uint64]node
	peak  int // of len(known) since known was made
}

// init makes the table with the root, which is never forgotten.
func (t *nodes) init(root node) {
	root.lookups = 1
	t.known = map[uint64]node{fuse.FUSE_ROOT_ID: root}
}

func (t *nodes) get(number uint64) (node, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	n, ok := t.known[number]
	return n, ok
}

// add notes that the kernel is told of an inode once more, and returns the
// inode's number.
//
// The kernel keeps the target of a symbolic link as long as it knows the link.
// One that may change, as "latest" may, is therefore another one each time.
func (t *nodes) add(a fs.Attr) uint64 {
	alone := a.Type == fs.TypeSymlink && !a.Fixed
	t.mu.Lock()
	defer t.mu.Unlock()
	if root := t.known[fuse.FUSE_ROOT_ID]; a.ID == root.id {
		return fuse.FUSE_ROOT_ID // the kernel doesn't count those
	}
	for number := inode(a.ID); ; number++ {
		if reserved(number) {
			continue
		}
		n, ok := t.known[number]
		switch {
		case !ok:
			n = node{id: a.ID}
		case n.id != a.ID || alone || n.lookups == math.MaxUint32:
			continue
		}
		n.lookups++
		n.fixed = a.Fixed
		t.known[number] = n
		t.peak = max(t.peak, len(t.known))
		return number
	}
}

// reserved numbers mean something else to the kernel or to go-fuse.
func reserved(number uint64) bool {
	return number <= fuse.FUSE_ROOT_ID || number == math.MaxUint64
}

// shrinkAbove is how many nodes there must have been for it to be worth while to
// give memory back.
const shrinkAbove = 1 << 16

// forget notes that the kernel doesn't know of some of the times that it was
// told.
func (t *nodes) forget(number, lookups uint64) {
	if number == fuse.FUSE_ROOT_ID {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	n, ok := t.known[number]
	switch {
	case !ok:
	case uint64(n.lookups) > lookups:
		n.lookups -= uint32(lookups)
		t.known[number] = n
	default:
		delete(t.known, number)
	}
	// A map never shrinks by itself.
	if t.peak > shrinkAbove && len(t.known) < t.peak/8 {
		t.known = maps.Collect(maps.All(t.known))
		t.peak = len(t.known)
	}
}
