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
	order list.List // front: used last
}

type entry[K comparable, V any] struct {
	key   K
	value V
}

// New returns a cache of at most max values, max > 0.
func New[K comparable, V any](max int) *Cache[K, V] {
	return &Cache[K, V]{max: max, items: make(map[K]*list.Element)}
}

// Get returns the value of key, and makes it with load when it is absent. Two
// callers who miss at once both load; errors are not remembered.
func (c *Cache[K, V]) Get(key K, load func() (V, error)) (V, error) {
	if v, ok := c.lookup(key); ok {
		return v, nil
	}
	v, err := load()
	if err != nil {
		return v, err
	}
	c.add(key, v)
	return v, nil
}

func (c *Cache[K, V]) lookup(key K) (v V, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.items[key]
	if !ok {
		return v, false
	}
	c.order.MoveToFront(e)
	return e.Value.(entry[K, V]).value, true
}

func (c *Cache[K, V]) add(key K, v V) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.items[key]; ok {
		return
	}
	c.items[key] = c.order.PushFront(entry[K, V]{key, v})
	if len(c.items) > c.max {
		last := c.order.Back()
		delete(c.items, last.Value.(entry[K, V]).key)
		c.order.Remove(last)
	}
}
