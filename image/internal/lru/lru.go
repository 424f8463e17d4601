// Package lru is a small bounded cache for tables and blocks of a disk image.
package lru

import (
	"container/list"
	"sync"
)

// Cache holds at most a fixed number of values and forgets the one that was
// used longest ago. Values are shared between callers, who must not change
// them. Safe for concurrent use.
type Cache[K comparable, V any] struct {
	max int

	mu    sync.Mutex // guards what is below; never held while a value is made
	items map[K]*list.Element
	order list.List // of *entry; front: used last
}

// entry is a value, or the promise of one until made is closed.
type entry[K comparable, V any] struct {
	key   K
	made  chan struct{}
	value V
	err   error
}

// New returns a cache of at most max values, max > 0.
func New[K comparable, V any](max int) *Cache[K, V] {
	return &Cache[K, V]{max: max, items: make(map[K]*list.Element)}
}

// Get returns the value of key, and makes it with load when it is absent.
// Callers who miss at once share one load. Errors are not remembered.
func (c *Cache[K, V]) Get(key K, load func() (V, error)) (V, error) {
	e, mine := c.entry(key)
	if !mine {
		<-e.made
		return e.value, e.err
	}
	defer close(e.made)
	e.value, e.err = load()
	if e.err != nil {
		c.forget(e)
	}
	return e.value, e.err
}

// entry returns the entry of key; mine says that the caller has to make it.
func (c *Cache[K, V]) entry(key K) (e *entry[K, V], mine bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if el, ok := c.items[key]; ok {
		c.order.MoveToFront(el)
		return el.Value.(*entry[K, V]), false
	}
	e = &entry[K, V]{key: key, made: make(chan struct{})}
	c.items[key] = c.order.PushFront(e)
	if len(c.items) > c.max {
		last := c.order.Back()
		delete(c.items, last.Value.(*entry[K, V]).key)
		c.order.Remove(last)
	}
	return e, true
}

// forget removes e unless it has already made room for others.
func (c *Cache[K, V]) forget(e *entry[K, V]) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if el, ok := c.items[e.key]; ok && el.Value.(*entry[K, V]) == e {
		delete(c.items, e.key)
		c.order.Remove(el)
	}
}
