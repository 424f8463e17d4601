package datastore

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"holdfast/fs"
)

// tree is the root, or a session: a journal and the state that it says.
type tree struct {
	s      *Store
	number uint32
	dir    string

	// gate is held shared by every call, and alone by what ends the tree. It
	// comes before all other locks.
	gate sync.RWMutex
	gone error // the tree is no more, or damaged; guarded by gate

	ioMu sync.Mutex // one at a time uses the journal; comes before mu
	j    *journal

	mu        sync.RWMutex // guards what follows
	st        *state
	readOnly  error // why nothing can be changed
	broken    error // why nothing can be read
	hasFailed bool  // a sync did
	soft      softTotal
	leaseLSN  uint64 // of state.until
	forgotLSN uint64 // of the last inode that ended

	// unstable says that a disk was written to without a sync: only then its
	// verifier counts.
	unstable atomic.Bool

	queue queue
	size  atomic.Int64 // of a journal file
	slots []*diskSlot  // by index; does not change
	large largeFiles
}

func newTree(s *Store, number uint32, dir string) *tree {
	t := &tree{s: s, number: number, dir: dir}
	t.queue.done.L = &t.queue.mu
	t.large.open = make(map[uint64]*largeFile)
	return t
}

// start gives a tree its journal and state.
func (t *tree) start(j *journal, st *state) {
	t.j, t.st = j, st
	t.size.Store(j.size)
	for range st.disks {
		t.slots = append(t.slots, &diskSlot{})
	}
	t.s.clock.advance(st.clock)
}

// id is the ID of an inode.
func (t *tree) id(ino uint64) fs.ID { return fs.ID{Ino: uint64(t.number)<<inoBits | ino} }

// local is the inode of an ID in its tree.
func local(id fs.ID) uint64 { return id.Ino & maxIno }

// get returns an inode. mu is held.
func (t *tree) get(id fs.ID) (*node, error) {
	n := t.st.nodes[local(id)]
	if n == nil || id.FS != 0 {
		return nil, fmt.Errorf("inode %#x: %w", id.Ino, fs.ErrStale)
	}
	return n, nil
}

// getDir returns a directory. mu is held.
func (t *tree) getDir(id fs.ID) (*node, error) {
	n, err := t.get(id)
	if err == nil && n.typ != fs.TypeDir {
		err = fmt.Errorf("inode %#x: %w", id.Ino, fs.ErrNotDir)
	}
	return n, err
}

// getFile returns a regular file. mu is held.
func (t *tree) getFile(id fs.ID) (*node, error) {
	n, err := t.get(id)
	switch {
	case err != nil:
	case n.typ == fs.TypeDir:
		err = fmt.Errorf("inode %#x: %w", id.Ino, fs.ErrIsDir)
	case n.typ != fs.TypeFile:
		err = fmt.Errorf("inode %#x is a %v: %w", id.Ino, n.typ, fs.ErrInvalid)
	}
	return n, err
}

// enter says that a call is under way; leave that it is over.
func (t *tree) enter(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	t.gate.RLock()
	if t.gone != nil {
		defer t.gate.RUnlock()
		return t.gone
	}
	return nil
}

func (t *tree) leave() { t.gate.RUnlock() }

// view calls fn, which looks at the state and returns the last change that it
// has seen, and returns fn's error once that is durable. Where a sync fails
// meanwhile it looks again. mu is held in fn.
func (t *tree) view(fn func() (lsn uint64, err error)) error {
	for {
		t.mu.RLock()
		if t.broken != nil {
			defer t.mu.RUnlock()
			return t.broken
		}
		lsn, err := fn()
		if errors.Is(err, fs.ErrStale) {
			lsn = t.forgotLSN
		}
		t.mu.RUnlock()
		if t.wait(lsn) == nil {
			return err
		}
	}
}

// tx is a change of a tree under way. mu is held.
type tx struct {
	t       *tree
	st      *state
	now     fs.Time
	records []byte
	touched []*node
	forgot  bool
}

// put makes a record so, and queues it.
func (x *tx) put(r record) {
	if err := x.st.apply(r); err != nil {
		panic(fmt.Sprintf("datastore: session %d: %v", x.t.number, err)) // every change is checked before
	}
	x.records = r.encode(x.records)
}

// edit changes an inode. Its Ctime is now.
func (x *tx) edit(n *node, fn func(i *inode)) {
	i := n.inode
	if n.soft != nil {
		i.mtime = n.soft.mtime
	}
	i.ctime = x.now
	fn(&i)
	if n.soft != nil {
		n.soft.mtime, n.soft.ctime = i.mtime, i.ctime
		if i.size != n.size {
			n.soft.size = i.size
		}
	}
	x.put(&i)
	x.touched = append(x.touched, n)
}

// growth says what a change adds to the state at most.
type growth struct {
	live  int64 // bytes in a snapshot
	used  int64 // bytes of the quota
	nodes int
	small bool // for which the journal's reserve is there
}

// change makes a change: fn looks whether it can be, and makes it by records;
// with an error it has made none. change returns when that is durable, or what
// was in the way is. growth is asked for before, and so is space.
func (t *tree) change(g growth, fn func(x *tx) error) error {
	if err := t.lockFor(g); err != nil {
		return err
	}
	x := &tx{t: t, st: t.st, now: t.s.clock.tick(t.s.opt.Now)}
	lsn, err := t.run(x, fn)
	if lost := t.wait(lsn); lost != nil {
		return lost
	}
	return err
}

// run has mu held, and gives it back.
func (t *tree) run(x *tx, fn func(x *tx) error) (lsn uint64, err error) {
	defer t.mu.Unlock()
	if err = fn(x); err != nil || len(x.records) == 0 {
		return t.queue.last(), err
	}
	return t.push(x), nil
}

// push queues the records of a change. mu is held.
func (t *tree) push(x *tx) uint64 {
	lsn := t.queue.push(x.records)
	for _, n := range x.touched {
		n.lsn = lsn
	}
	if x.forgot {
		t.forgotLSN = lsn
	}
	return lsn
}

// lockFor takes mu when a change of that growth can be made.
func (t *tree) lockFor(g growth) error {
	for {
		t.mu.Lock()
		err := t.mayGrow(g)
		if err == nil && t.fits(g.live, false) {
			return nil
		}
		size := t.size.Load()
		t.mu.Unlock()
		if err != nil {
			return err
		}
		if err := t.grow(size); err != nil {
			t.mu.Lock()
			if g.small && t.mayGrow(g) == nil && t.fits(g.live, true) {
				return nil
			}
			t.mu.Unlock()
			return err
		}
	}
}

// mayGrow checks what is granted to the tree. mu is held.
func (t *tree) mayGrow(g growth) error {
	quota := t.st.tree.quota
	if t.number == 0 {
		quota = t.s.opt.QuotaBytes
	}
	switch {
	case t.readOnly != nil:
		return t.readOnly
	case g.used > 0 && quota > 0 && t.st.used+t.soft.units*unitBytes+g.used > quota:
		return fmt.Errorf("session %d: more than its %d bytes: %w", t.number, quota, fs.ErrQuota)
	case len(t.st.nodes)+g.nodes > t.s.opt.MaxFiles && g.nodes > 0:
		return fmt.Errorf("session %d: more than %d files: %w", t.number, t.s.opt.MaxFiles, fs.ErrNoSpace)
	}
	return nil
}

// reserveBytes is the part of a journal that only small changes may take when it
// can't be made longer: those that lock files need.
const reserveBytes = 64 << 10

// fits says whether the state may grow: then it takes no more than half of a
// journal file, and the journal can always be turned. mu is held.
func (t *tree) fits(live int64, small bool) bool {
	limit := t.size.Load()/2 - maxNotesLive
	if !small {
		limit -= reserveBytes
	}
	return t.st.live+t.soft.live+live <= limit
}

// grow makes the journal longer than size.
func (t *tree) grow(size int64) error {
	t.ioMu.Lock()
	defer t.ioMu.Unlock()
	if t.j.size > size {
		return nil // by somebody else
	}
	if size >= maxJournal {
		return fmt.Errorf("session %d: its journal is as long as can be: %w", t.number, fs.ErrNoSpace)
	}
	if err := t.j.grow(2 * size); err != nil {
		return fmt.Errorf("session %d: make its journal longer: %w", t.number, spaceError(err))
	}
	t.size.Store(t.j.size)
	return nil
}

// settle makes what was found in the journal durable, and gives marked inodes
// their times.
func (t *tree) settle() error {
	if err := t.j.settle(); err != nil {
		return err
	}
	t.st.settle()
	t.s.clock.advance(t.st.clock)
	return t.unmark()
}

// unmark tells the journal the times of all marked inodes.
func (t *tree) unmark() error {
	return t.change(growth{small: true}, func(x *tx) error {
		for _, n := range x.st.nodes {
			i := n.inode
			if slot := t.slotOf(n); slot != nil {
				i.used = slot.usedBytes(i.used)
			}
			if !n.marked && i.used == n.used || n.pending() {
				continue
			}
			if n.soft != nil {
				i.mtime, i.ctime = n.soft.mtime, n.soft.ctime
			}
			i.marked = false
			x.put(&i)
			t.dropSoft(n)
		}
		return nil
	})
}

// clock gives times, each later than those before.
type clock struct {
	mu   sync.Mutex
	last fs.Time
}

// tick gives the next time.
func (c *clock) tick(now func() time.Time) fs.Time {
	t := fs.TimeOf(now())
	c.mu.Lock()
	defer c.mu.Unlock()
	if compareTimes(t, c.last) <= 0 {
		t = fs.TimeOf(c.last.Time().Add(1))
	}
	c.last = t
	return t
}

// advance sees to it that times are later than t.
func (c *clock) advance(t fs.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last = later(c.last, t)
}
