package repo

import (
	"container/list"
	"context"
	"errors"
	"sync"

	"holdfast/repo/chunk"
)

// A frameCache keeps decompressed, verified frames, for all readers of a
// repository together, within a budget of bytes. Two readers that want the
// same frame wait for one load. Frames are lent: a borrowed frame stays as it
// is until it is given back, also when the cache has forgotten it meanwhile.
type frameCache struct {
	budget int64

	mu    sync.Mutex // guards all below
	held  int64      // bytes of frames in entries
	byKey map[frameKey]*frameEntry
	lru   *list.List // of *frameEntry, least recently used at the back
	free  [][]byte   // buffers of forgotten frames that nobody borrows
}

type frameKey struct {
	id    chunk.ID
	frame int
}

// frameEntry is one frame. Everything but done is guarded by the cache's mutex.
type frameEntry struct {
	key       frameKey
	data      []byte
	err       error
	loading   bool
	forgotten bool
	borrowers int
	elem      *list.Element
	done      chan struct{} // closed when data or err is set
}

func newFrameCache(budget int64) *frameCache {
	return &frameCache{budget: budget, byKey: make(map[frameKey]*frameEntry), lru: list.New()}
}

// borrow returns the frame and the function that gives it back. When the cache
// does not have it, fill is called with a buffer of n bytes to make it. An
// error is not kept: the next caller tries again.
func (c *frameCache) borrow(ctx context.Context, key frameKey, n int, fill func([]byte) error) ([]byte, func(), error) {
	c.mu.Lock()
	for e := c.byKey[key]; e != nil; e = c.byKey[key] {
		e.borrowers++
		c.lru.MoveToFront(e.elem)
		c.mu.Unlock()
		select {
		case <-e.done:
		case <-ctx.Done():
			c.giveBack(e)
			return nil, nil, ctx.Err()
		}
		if e.err == nil {
			return e.data, func() { c.giveBack(e) }, nil
		}
		err := e.err
		c.giveBack(e)
		// Whoever loaded it may have lost interest; we have not.
		if !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
			return nil, nil, err
		}
		c.mu.Lock()
	}
	e := &frameEntry{key: key, loading: true, borrowers: 1, done: make(chan struct{})}
	e.elem = c.lru.PushFront(e)
	c.byKey[key] = e
	c.held += int64(n)
	c.evict()
	e.data = c.buffer(n)
	c.mu.Unlock()

	err := fill(e.data)

	c.mu.Lock()
	e.loading, e.err = false, err
	if err != nil {
		c.forget(e)
	}
	c.mu.Unlock()
	close(e.done)
	if err != nil {
		c.giveBack(e)
		return nil, nil, err
	}
	return e.data, func() { c.giveBack(e) }, nil
}

func (c *frameCache) giveBack(e *frameEntry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e.borrowers--
	c.recycle(e)
}

// evict forgets least recently used frames that nobody holds until the budget
// is kept. What is borrowed or loading counts but stays.
func (c *frameCache) evict() {
	for elem := c.lru.Back(); elem != nil && c.held > c.budget; {
		e := elem.Value.(*frameEntry)
		elem = elem.Prev()
		if !e.loading && e.borrowers == 0 {
			c.forget(e)
		}
	}
}

func (c *frameCache) forget(e *frameEntry) {
	if e.forgotten {
		return
	}
	e.forgotten = true
	delete(c.byKey, e.key)
	c.lru.Remove(e.elem)
	c.held -= int64(len(e.data))
	c.recycle(e)
}

// recycle keeps a few buffers of forgotten frames for the next ones.
func (c *frameCache) recycle(e *frameEntry) {
	if e.forgotten && e.borrowers == 0 && len(c.free) < 16 {
		c.free = append(c.free, e.data)
	}
}

func (c *frameCache) buffer(n int) []byte {
	if k := len(c.free); k > 0 && cap(c.free[k-1]) >= n {
		b := c.free[k-1][:n]
		c.free = c.free[:k-1]
		return b
	}
	return make([]byte, n)
}
