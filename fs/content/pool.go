package content

import (
	"context"
	"errors"
	"sync"
	"time"

	"holdfast/fs"
)

// A pool keeps values open that take effort to open: while they are used, then
// for a while, and not more of them than max beside those in use. It is safe
// for concurrent use; open and close are called without its lock.
type pool[K comparable, V any] struct {
	open  func(context.Context, K) (V, error)
	close func(V)
	max   int

	mu   sync.Mutex // guards the rest and what is in the slots but v and err
	all  map[K]*held[V]
	shut bool
}

func newPool[K comparable, V any](max int, open func(context.Context, K) (V, error), close func(V)) *pool[K, V] {
	return &pool[K, V]{open: open, close: close, max: max, all: make(map[K]*held[V])}
}

// held is one value of a pool.
type held[V any] struct {
	ready chan struct{} // closed when v or err is there
	v     V
	err   error

	uses    int
	last    time.Time // when uses became 0
	dropped bool      // no longer in the pool
}

// acquire returns the value of k, which it opens if it is not, and what to call
// when it is no longer used.
func (p *pool[K, V]) acquire(ctx context.Context, k K) (v V, release func(), err error) {
	for {
		p.mu.Lock()
		if p.shut {
			p.mu.Unlock()
			return v, nil, fs.ErrStale
		}
		h := p.all[k]
		if h == nil {
			h = &held[V]{ready: make(chan struct{}), uses: 1}
			p.all[k] = h
			p.mu.Unlock()
			return p.opened(ctx, k, h)
		}
		h.uses++
		p.mu.Unlock()
		select {
		case <-h.ready:
		case <-ctx.Done():
			p.release(h)
			return v, nil, ctx.Err()
		}
		if h.err == nil {
			return h.v, func() { p.release(h) }, nil
		}
		p.release(h)
		if !cancelled(h.err) || ctx.Err() != nil {
			return v, nil, h.err
		}
		// Whoever was opening it has lost interest; we have not.
	}
}

func (p *pool[K, V]) opened(ctx context.Context, k K, h *held[V]) (V, func(), error) {
	h.v, h.err = p.open(ctx, k)
	if h.err != nil {
		p.mu.Lock()
		p.forget(k, h)
		p.mu.Unlock()
	}
	close(h.ready)
	if h.err != nil {
		p.release(h)
		return h.v, nil, h.err
	}
	p.trim(time.Time{})
	return h.v, func() { p.release(h) }, nil
}

func cancelled(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

func (p *pool[K, V]) release(h *held[V]) {
	p.mu.Lock()
	h.uses--
	h.last = time.Now()
	end := h.uses == 0 && h.dropped && h.err == nil
	over := len(p.all) > p.max
	p.mu.Unlock()
	if end {
		p.close(h.v)
	}
	if over {
		p.trim(time.Time{})
	}
}

// has says whether the value of k is open.
func (p *pool[K, V]) has(k K) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.all[k] != nil
}

// forget takes h out of the pool. The caller holds mu.
func (p *pool[K, V]) forget(k K, h *held[V]) {
	if p.all[k] == h {
		delete(p.all, k)
		h.dropped = true
	}
}

// trim closes what nobody has used since before, and the longest unused beyond
// max.
func (p *pool[K, V]) trim(before time.Time) {
	for {
		p.mu.Lock()
		var oldest K
		var h *held[V]
		for k, other := range p.all {
			if other.uses == 0 && (h == nil || other.last.Before(h.last)) {
				oldest, h = k, other
			}
		}
		if h == nil || (len(p.all) <= p.max && !h.last.Before(before)) {
			p.mu.Unlock()
			return
		}
		p.forget(oldest, h)
		p.mu.Unlock()
		p.close(h.v)
	}
}

// end closes everything. Nothing may be in use.
func (p *pool[K, V]) end() {
	p.mu.Lock()
	p.shut = true
	p.mu.Unlock()
	p.trim(time.Now().Add(time.Hour))
}
