package ext4

import "sync"

const (
	// pageBytes is how much is read at once of inode tables, directories and
	// the like, unless blocks are larger: neighbours are wanted together.
	pageBytes = 16 << 10

	// cacheBytes bounds what is kept of them.
	cacheBytes = 16 << 20
)

// cache keeps pages of the device, and forgets the one used longest ago. What
// it hands out is shared and must not be changed. Safe for concurrent use.
type cache struct {
	max int

	mu    sync.Mutex // guards what is below; never held while reading
	pages map[uint64]*page
	// head is the page used last; the list is a ring.
	head *page
}

type page struct {
	key        uint64
	data       []byte
	prev, next *page
}

func newCache(maxPages int) *cache {
	return &cache{max: maxPages, pages: make(map[uint64]*page)}
}

// get returns the page of a key, made by load if it is absent. Two that miss at
// once both load.
func (c *cache) get(key uint64, load func(key uint64) ([]byte, error)) ([]byte, error) {
	c.mu.Lock()
	if p := c.pages[key]; p != nil {
		c.toFront(p)
		c.mu.Unlock()
		return p.data, nil
	}
	c.mu.Unlock()
	data, err := load(key)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if p := c.pages[key]; p != nil {
		return p.data, nil
	}
	p := &page{key: key, data: data}
	if len(c.pages) >= c.max {
		old := c.head.prev
		delete(c.pages, old.key)
		c.unlink(old)
	}
	c.pages[key] = p
	c.link(p)
	return data, nil
}

func (c *cache) toFront(p *page) {
	if c.head == p {
		return
	}
	c.unlink(p)
	c.link(p)
}

func (c *cache) link(p *page) {
	if c.head == nil {
		p.prev, p.next = p, p
	} else {
		p.prev, p.next = c.head.prev, c.head
		p.prev.next, p.next.prev = p, p
	}
	c.head = p
}

func (c *cache) unlink(p *page) {
	if p.next == p {
		c.head = nil
		return
	}
	p.prev.next, p.next.prev = p.next, p.prev
	if c.head == p {
		c.head = p.next
	}
}
