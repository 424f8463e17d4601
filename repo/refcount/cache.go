package refcount

import "sync"

// cache keeps blocks that were read, up to a number. It drops what was not
// used since the clock's hand passed last. Blocks are shared and not changed.
//
// Safe for concurrent use.
type cache struct {
	mu    sync.Mutex
	files uint32
	where map[cacheKey]int // place in slots
	slots []cacheSlot
	limit int
	hand  int
}

type cacheSlot struct {
	key  cacheKey
	used bool
	data *block
}

// cacheKey is the number of an open file and that of a block in it.
type cacheKey struct{ file, block uint32 }

func newCache(bytes int64) *cache {
	return &cache{where: make(map[cacheKey]int), limit: int(max(1, bytes/blockBytes))}
}

// newFile returns a number for a file that was opened. It is not used again.
func (c *cache) newFile() uint32 {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.files++
	return c.files
}

// get returns a block, nil if it is not there.
func (c *cache) get(k cacheKey) *block {
	c.mu.Lock()
	defer c.mu.Unlock()
	i, ok := c.where[k]
	if !ok {
		return nil
	}
	c.slots[i].used = true
	return c.slots[i].data
}

// put keeps a block, which is not changed from now on.
func (c *cache) put(k cacheKey, b *block) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.where[k]; ok {
		return
	}
	if len(c.slots) < c.limit {
		c.where[k] = len(c.slots)
		c.slots = append(c.slots, cacheSlot{key: k, data: b})
		return
	}
	for c.slots[c.hand].used {
		c.slots[c.hand].used = false
		c.hand = (c.hand + 1) % c.limit
	}
	delete(c.where, c.slots[c.hand].key)
	c.where[k] = c.hand
	c.slots[c.hand] = cacheSlot{key: k, data: b}
	c.hand = (c.hand + 1) % c.limit
}
