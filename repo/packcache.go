package repo

import (
	"container/list"
	"errors"
	"fmt"
	"sync"

	"holdfast/repo/pack"
	"holdfast/repo/vfs"
)

// maxOpenPacks bounds the descriptors a repository holds for reading: 16 GiB of
// packs of 32 MiB. Random reads over more open a pack each time.
const maxOpenPacks = 512

// A packCache keeps the packs read last open. Safe for concurrent use.
type packCache struct {
	fsys vfs.FS

	mu   sync.Mutex // guards all below
	open map[packKey]*openPack
	lru  *list.List // of *openPack, least recently used at the back
}

type packKey struct {
	kind pack.Kind
	name pack.Name
}

// openPack is a pack's file while somebody uses it or the cache keeps it.
type openPack struct {
	key   packKey
	path  string
	file  vfs.File
	users int // guarded by the cache's mutex, as is cached
	elem  *list.Element
}

func newPackCache(fsys vfs.FS) *packCache {
	return &packCache{fsys: fsys, open: make(map[packKey]*openPack), lru: list.New()}
}

// acquire returns the open file of a pack; release gives it back.
func (c *packCache) acquire(kind pack.Kind, name pack.Name) (*openPack, error) {
	key := packKey{kind, name}
	c.mu.Lock()
	defer c.mu.Unlock()
	if p := c.open[key]; p != nil {
		p.users++
		c.lru.MoveToFront(p.elem)
		return p, nil
	}
	p := &openPack{key: key, path: name.Path(kind), users: 1}
	f, err := c.fsys.Open(p.path)
	if err != nil {
		return nil, fmt.Errorf("open pack: %w", err)
	}
	p.file = f
	c.open[key] = p
	p.elem = c.lru.PushFront(p)
	c.evict(maxOpenPacks)
	return p, nil
}

func (c *packCache) release(p *openPack) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p.users--
	if p.users == 0 && p.elem == nil {
		_ = p.file.Close() // opened for reading: nothing can be lost
	}
}

func (c *packCache) evict(keep int) {
	for elem := c.lru.Back(); elem != nil && len(c.open) > keep; {
		p := elem.Value.(*openPack)
		elem = elem.Prev()
		if p.users == 0 {
			c.drop(p)
		}
	}
}

func (c *packCache) drop(p *openPack) {
	c.lru.Remove(p.elem)
	p.elem = nil
	delete(c.open, p.key)
	if p.users == 0 {
		_ = p.file.Close()
	}
}

// forget closes a pack that was removed, so that its bytes become free.
func (c *packCache) forget(key packKey) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p := c.open[key]; p != nil {
		c.drop(p)
	}
}

func (c *packCache) close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var errs []error
	for _, p := range c.open {
		errs = append(errs, p.file.Close())
	}
	clear(c.open)
	c.lru.Init()
	return errors.Join(errs...)
}
