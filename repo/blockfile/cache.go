package blockfile

import (
	"sync"
	"sync/atomic"
)

// Cache keeps blocks that were read, up to a number. It drops what was not
// used since the clock's hand passed last. Blocks are copied in and out, so
// that nobody holds one that is being replaced; memory once taken is reused
// and never freed, so the budget is what the cache costs.
//
// Safe for concurrent use.
type Cache struct {
	serial atomic.Uint32
	shards []cacheShard
}

type cacheShard struct {
	mu    sync.Mutex
	where map[cacheKey]int32 // place in slots
	slots []cacheSlot
	limit int
	hand  int
}

type cacheSlot struct {
	key  cacheKey
	used bool
	data *Block
}

// cacheKey is the number of an open file and that of a block in it.
type cacheKey struct{ file, block uint32 }

// maxShards is how many locks there are in a cache of some size.
const maxShards = 16

// NewCache returns a cache of at most so many bytes, at least one block.
func NewCache(bytes int64) *Cache {
	blocks := int(max(1, bytes/BlockBytes))
	shards := 1
	if blocks >= 8*maxShards {
		shards = maxShards
	}
	c := &Cache{shards: make([]cacheShard, shards)}
	for i := range c.shards {
		c.shards[i].where = make(map[cacheKey]int32)
		c.shards[i].limit = blocks / shards
	}
	return c
}

// newFile returns a number for a file that was opened. It is not used again.
func (c *Cache) newFile() uint32 { return c.serial.Add(1) }

func (c *Cache) shard(k cacheKey) *cacheShard {
	h := (k.block ^ k.file*0x9E3779B1) * 0x85EBCA6B
	return &c.shards[int(h>>16)%len(c.shards)]
}

// get copies a block to dst and reports whether it was there.
func (c *Cache) get(k cacheKey, dst *Block) bool {
	s := c.shard(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	i, ok := s.where[k]
	if ok {
		s.slots[i].used = true
		*dst = *s.slots[i].data
	}
	return ok
}

// put keeps a copy of a block.
func (c *Cache) put(k cacheKey, src *Block) {
	s := c.shard(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.where[k]; ok {
		return
	}
	i := s.room()
	s.slots[i].key = k
	*s.slots[i].data = *src
	s.where[k] = i
}

// room returns the place of a slot that is free to be overwritten.
func (s *cacheShard) room() int32 {
	if len(s.slots) < s.limit {
		s.slots = append(s.slots, cacheSlot{data: new(Block)})
		return int32(len(s.slots) - 1)
	}
	for s.slots[s.hand].used {
		s.slots[s.hand].used = false
		s.hand = (s.hand + 1) % len(s.slots)
	}
	i := s.hand
	s.hand = (s.hand + 1) % len(s.slots)
	delete(s.where, s.slots[i].key)
	return int32(i)
}
