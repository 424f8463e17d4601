package repo

import (
	"container/list"
	"context"
	"errors"
	"sync"
	"time"

	"holdfast/repo/chunk"
)

// A FrameCache keeps decompressed, verified frames within a budget of bytes,
// for all readers of a repository together, or of several that were opened with
// it as Options.Frames. Two readers that want the same frame wait for one load.
// Frames are lent: a borrowed frame stays as it is until it is given back, and
// counts for the budget as a whole for as long. It also says how many frames
// are decoded at once. Safe for concurrent use.
type FrameCache struct {
	budget   int64
	decoding gate

	mu      sync.Mutex // guards all below
	held    int64      // bytes of frames in entries
	warm    int64      // of which, of those nobody has demanded yet
	byKey   map[frameKey]*frameEntry
	lru     *list.List    // of *frameEntry, least recently used at the back
	free    [][]byte      // buffers of forgotten frames that nobody borrows
	waiting int           // demands that wait for a frame
	changed chan struct{} // nil: nobody listens
	hits    int64
	misses  int64
	waited  time.Duration
}

// NewFrameCache returns a cache of so many bytes that lets at most decoders
// goroutines at once decrypt, decompress and verify frames; 0: any number.
// Bytes that are being healed are not held to that.
func NewFrameCache(budgetBytes int64, decoders int) *FrameCache {
	return &FrameCache{budget: budgetBytes, decoding: newGate(decoders), byKey: make(map[frameKey]*frameEntry), lru: list.New()}
}

// FrameStats are what a FrameCache holds and has done.
type FrameStats struct {
	BudgetBytes int64
	Bytes       int64 // of frames in the cache; more than the budget if too many are lent
	WarmBytes   int64 // of which, brought by Disk.Warm and not asked for since

	Hits    int64         // frames that were there when a reader asked
	Misses  int64         // frames that a reader had to wait for
	Waited  time.Duration // by all readers together, for their misses
	Waiting int           // readers that wait now
}

// Stats tells what the cache holds and has done since it was made.
func (c *FrameCache) Stats() FrameStats {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stats()
}

func (c *FrameCache) stats() FrameStats {
	return FrameStats{c.budget, c.held, c.warm, c.hits, c.misses, c.waited, c.waiting}
}

// Changed returns a channel that is closed when next no reader waits for a frame
// any more, or WarmBytes becomes less: whoever warms may then go on.
func (c *FrameCache) Changed() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.changed == nil {
		c.changed = make(chan struct{})
	}
	return c.changed
}

// change tells those who asked. mu is held.
func (c *FrameCache) change() {
	if c.changed != nil {
		close(c.changed)
		c.changed = nil
	}
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
	warm      bool // nobody has demanded it yet
	forgotten bool
	borrowers int
	elem      *list.Element
	done      chan struct{} // closed when data or err is set
}

// have lends a frame that is there. nil: it isn't, or is only being loaded.
func (c *FrameCache) have(key frameKey) *frameEntry {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.byKey[key]
	if e == nil || e.loading || e.err != nil {
		return nil
	}
	c.hits++
	c.demand(e)
	e.borrowers++
	return e
}

// has reports whether have would lend.
func (c *FrameCache) has(key frameKey) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.byKey[key]
	return e != nil && !e.loading && e.err == nil
}

// demand notes that a reader asks for a frame. mu is held.
func (c *FrameCache) demand(e *frameEntry) {
	c.lru.MoveToFront(e.elem)
	c.cool(e)
}

// cool ends a frame's being warm. mu is held.
func (c *FrameCache) cool(e *frameEntry) {
	if e.warm {
		e.warm = false
		c.warm -= int64(len(e.data))
		c.change()
	}
}

// borrow lends the frame. When the cache does not have it, fill is called with
// a buffer of n bytes to make it. An error is not kept: the next caller tries
// again. demanded: a reader waits for it, as nobody does who reads ahead.
func (c *FrameCache) borrow(ctx context.Context, key frameKey, n int, demanded bool, fill func([]byte) error) (*frameEntry, error) {
	if demanded {
		defer c.wait(time.Now())
	}
	c.mu.Lock()
	if demanded {
		c.waiting++
		c.misses++
	}
	for e := c.byKey[key]; e != nil; e = c.byKey[key] {
		e.borrowers++
		if demanded {
			c.demand(e)
		}
		c.mu.Unlock()
		select {
		case <-e.done:
		case <-ctx.Done():
			c.giveBack(e)
			return nil, ctx.Err()
		}
		if e.err == nil {
			return e, nil
		}
		err := e.err
		c.giveBack(e)
		// Whoever loaded it may have lost interest; we have not.
		if !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
			return nil, err
		}
		c.mu.Lock()
	}
	e := c.add(key, n, false)
	c.mu.Unlock()
	return e, c.load(e, fill)
}

// prepare makes a frame that is not there and that may lets in. nil: it is there
// or on its way, or may not be.
func (c *FrameCache) prepare(key frameKey, n int, may func(FrameStats, int64) bool) (e *frameEntry, there bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.byKey[key] != nil {
		return nil, true
	}
	if !may(c.stats(), int64(n)) {
		return nil, false
	}
	return c.add(key, n, true), false
}

// wait ends what a demand began.
func (c *FrameCache) wait(began time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waited += time.Since(began)
	c.waiting--
	if c.waiting == 0 {
		c.change()
	}
}

// add makes the entry of a frame that is about to be loaded, with one borrower.
// mu is held.
func (c *FrameCache) add(key frameKey, n int, warm bool) *frameEntry {
	e := &frameEntry{key: key, loading: true, warm: warm, borrowers: 1, done: make(chan struct{})}
	e.elem = c.lru.PushFront(e)
	c.byKey[key] = e
	c.held += int64(n)
	if warm {
		c.warm += int64(n)
	}
	c.evict()
	e.data = c.buffer(n)
	return e
}

// errUnfilled is what those who wait for a frame get if filling it panics.
var errUnfilled = errors.New("frame was not read")

// load fills a new entry. If it can't be filled it is given back.
func (c *FrameCache) load(e *frameEntry, fill func([]byte) error) (err error) {
	err = errUnfilled
	defer func() {
		c.mu.Lock()
		e.loading, e.err = false, err
		if err != nil {
			c.forget(e)
		}
		c.mu.Unlock()
		close(e.done)
		if err != nil {
			c.giveBack(e)
		}
	}()
	return fill(e.data)
}

func (c *FrameCache) giveBack(list ...*frameEntry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range list {
		e.borrowers--
		c.recycle(e)
	}
	c.evict() // what was lent may have kept it over the budget
}

// evict forgets least recently used frames that nobody holds until the budget
// is kept. What is borrowed or loading counts but stays.
func (c *FrameCache) evict() {
	for elem := c.lru.Back(); elem != nil && c.held > c.budget; {
		e := elem.Value.(*frameEntry)
		elem = elem.Prev()
		if !e.loading && e.borrowers == 0 {
			c.forget(e)
		}
	}
}

func (c *FrameCache) forget(e *frameEntry) {
	if e.forgotten {
		return
	}
	e.forgotten = true
	delete(c.byKey, e.key)
	c.lru.Remove(e.elem)
	c.held -= int64(len(e.data))
	c.cool(e)
	c.recycle(e)
}

// recycle keeps a few buffers of forgotten frames for the next ones.
func (c *FrameCache) recycle(e *frameEntry) {
	if e.forgotten && e.borrowers == 0 && len(c.free) < 16 {
		c.free = append(c.free, e.data)
	}
}

func (c *FrameCache) buffer(n int) []byte {
	if k := len(c.free); k > 0 {
		b := c.free[k-1]
		c.free[k-1], c.free = nil, c.free[:k-1]
		if cap(b) >= n {
			return b[:n]
		}
	}
	return make([]byte, n)
}

// A gate lets so many goroutines through at once, in the order they came. nil
// lets all through.
type gate chan struct{}

func newGate(n int) gate {
	if n <= 0 {
		return nil
	}
	return make(gate, n)
}

func (g gate) enter() {
	if g != nil {
		g <- struct{}{}
	}
}

func (g gate) leave() {
	if g != nil {
		<-g
	}
}
