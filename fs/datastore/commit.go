package datastore

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"holdfast/fs"
)

// ErrLost says that a sync failed and took a change with it.
var ErrLost = errors.New("a sync of the journal failed")

// queue holds the records on their way to the journal. They are numbered by
// change: the lsn. All who wait for one share a sync: the first of them writes
// what is queued, and who comes meanwhile is served by the next.
type queue struct {
	mu      sync.Mutex // guards what follows; comes after tree.mu
	done    sync.Cond  // durable or busy has changed
	buf     []byte
	queued  uint64 // the last lsn given
	durable uint64 // all up to this one are
	lost    []lsnRange
	busy    bool

	floor atomic.Uint64 // all up to this one are durable, for who need not wait
}

// lsnRange are changes from the one after from, up to to.
type lsnRange struct{ from, to uint64 }

// push queues the records of a change, and returns its number. tree.mu is held.
func (q *queue) push(records []byte) uint64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.buf = append(q.buf, records...)
	q.queued++
	return q.queued
}

// last returns the number of the last change.
func (q *queue) last() uint64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.queued
}

// isDurable says whether wait would return at once. After a failure it says so of
// nothing newer.
func (q *queue) isDurable(lsn uint64) bool { return lsn <= q.floor.Load() }

// reached notes that all changes up to lsn are durable. mu is held.
func (q *queue) reached(lsn uint64) {
	q.durable = lsn
	if len(q.lost) == 0 {
		q.floor.Store(lsn)
	}
}

// wait returns when a change is durable. ErrLost if it will never be.
func (t *tree) wait(lsn uint64) error {
	q := &t.queue
	if q.isDurable(lsn) {
		return nil
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for lsn > q.durable {
		if q.busy {
			q.done.Wait()
			continue
		}
		q.busy = true
		q.mu.Unlock()
		t.flush()
		q.mu.Lock()
		q.busy = false
		q.done.Broadcast()
	}
	for _, r := range q.lost {
		if lsn > r.from && lsn <= r.to {
			return fmt.Errorf("session %d: %w", t.number, ErrLost)
		}
	}
	return nil
}

// flush makes what is queued durable, or lost. One at a time.
func (t *tree) flush() {
	t.ioMu.Lock()
	defer t.ioMu.Unlock()
	q := &t.queue
	q.mu.Lock()
	records, upTo := q.buf, q.queued
	fits := t.j.fits(len(records))
	if fits {
		q.buf = nil
	}
	q.mu.Unlock()
	var err error
	if fits {
		err = t.j.append(records)
	} else {
		upTo, err = t.turn()
	}
	if err != nil {
		t.failed(err)
		return
	}
	q.mu.Lock()
	q.reached(upTo)
	q.mu.Unlock()
}

// turn begins the other file of the journal, which makes all that is queued
// durable. ioMu is held.
func (t *tree) turn() (upTo uint64, err error) {
	q := &t.queue
	t.mu.RLock() // nobody pushes
	q.mu.Lock()
	upTo, q.buf = q.queued, nil
	q.mu.Unlock()
	snap := t.st.snapshot(nil)
	t.mu.RUnlock()
	trouble, err := t.j.turn(snap)
	if trouble != nil {
		t.s.opt.Log.Error("a journal file of a session failed after its time", "session", t.number, "err", trouble)
	}
	return upTo, err
}

// failed goes back to what is durable, in new files. The second time the tree
// is read-only. ioMu is held.
func (t *tree) failed(cause error) {
	t.s.opt.Log.Error("the journal of a session failed", "session", t.number, "err", cause)
	t.s.newEpoch()
	t.mu.Lock()
	defer t.mu.Unlock()
	q := &t.queue
	q.mu.Lock()
	q.buf = nil
	q.lost = append(q.lost, lsnRange{q.durable, q.queued})
	q.durable = q.queued
	q.mu.Unlock()
	first := t.readOnly == nil && !t.hasFailed
	t.hasFailed = true
	st, err := t.j.load()
	if err != nil {
		t.readOnly = fmt.Errorf("%w: its journal can't be read back: %w", fs.ErrReadOnly, err)
		t.broken = t.readOnly // what is in memory is not durable
		return
	}
	st.settle()
	t.adopt(st)
	t.leaseLSN, t.forgotLSN = 0, 0 // they may be among those lost
	if !first {
		t.readOnly = fmt.Errorf("%w: its journal failed twice: %w", fs.ErrReadOnly, cause)
		return
	}
	if err := t.j.renew(st.snapshot(nil)); err != nil {
		t.readOnly = fmt.Errorf("%w: its journal failed: %w", fs.ErrReadOnly, errors.Join(cause, err))
	}
}

// adopt makes another state the tree's. What the journal does not say yet stays.
// mu is held.
func (t *tree) adopt(st *state) {
	for ino, old := range t.st.nodes {
		if n := st.nodes[ino]; n != nil && n.keep == old.keep {
			n.soft = old.soft
		} else if old.soft != nil {
			t.dropSoft(old)
		}
	}
	t.st = st
}
