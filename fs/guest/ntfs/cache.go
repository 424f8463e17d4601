package ntfs

import (
	"container/list"
	"sync"
)

// cache holds values up to a budget and forgets those used longest ago. Values
// are shared: nobody changes them. Safe for concurrent use.
type cache[K comparable, V any] struct {
	budget int64

	mu    sync.Mutex // guards what follows; nothing else is locked under it
	used  int64
	items map[K]*list.Element
	order list.List // of *cached; front: used last
}

type cached[K comparable, V any] struct {
	key   K
	value V
	cost  int64
}

func newCache[K comparable, V any](budget int64) *cache[K, V] {
	return &cache[K, V]{budget: budget, items: map[K]*list.Element{}}
}

func (c *cache[K, V]) get(key K) (V, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if el, ok := c.items[key]; ok {
		c.order.MoveToFront(el)
		return el.Value.(*cached[K, V]).value, true
	}
	var none V
	return none, false
}

// put adds a value, unless another was quicker or it is too large to keep.
func (c *cache[K, V]) put(key K, value V, cost int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.items[key]; ok || cost > c.budget/2 {
		return
	}
	c.items[key] = c.order.PushFront(&cached[K, V]{key, value, cost})
	for c.used += cost; c.used > c.budget; {
		last := c.order.Remove(c.order.Back()).(*cached[K, V])
		delete(c.items, last.key)
		c.used -= last.cost
	}
}
