package child

import (
	"context"
	"sync"

	"holdfast/fs"
)

const (
	// firstPage and nextPage are how many entries are asked for at once, from
	// the beginning of a directory and further on.
	firstPage = 64
	nextPage  = 1024

	// maxPages is how many parts of directories a tree keeps.
	maxPages = 32
)

// page is a part of a directory, as it was asked for.
type page struct {
	dir     fs.ID
	after   uint64 // the cookie behind which it begins
	entries []fs.Entry
	last    bool // nothing follows
}

// pages are the parts of directories that were read last: who reads a directory
// in small parts, or looks at each entry, asks the process once for many.
type pages struct {
	mu   sync.Mutex
	list []*page // the newest first
}

// find returns the entries of dir behind a cookie, as far as they are at hand.
// No entries and last mean that there are none.
func (p *pages) find(dir fs.ID, after uint64) (entries []fs.Entry, last, found bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, g := range p.list {
		if g.dir != dir {
			continue
		}
		at := g.index(after)
		if at < 0 || at == len(g.entries) && !g.last {
			continue
		}
		copy(p.list[1:i+1], p.list[:i])
		p.list[0] = g
		return g.entries[at:], g.last, true
	}
	return nil, false, false
}

// index is where the entries behind a cookie begin, or -1.
func (g *page) index(after uint64) int {
	if g.after == after {
		return 0
	}
	for i := range g.entries {
		if g.entries[i].Cookie == after {
			return i + 1
		}
	}
	return -1
}

func (p *pages) add(g *page) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.list) < maxPages {
		p.list = append(p.list, nil)
	}
	copy(p.list[1:], p.list)
	p.list[0] = g
}

func (t *tree) ReadDir(ctx context.Context, dir fs.ID, cookie uint64, fn func(fs.Entry) bool) error {
	f, err := t.about(dir)
	if err != nil {
		return err
	}
	// More entries than its volume has room for no directory has.
	for left := t.vol.Size / 8; ; {
		entries, last, found := t.pages.find(dir, cookie)
		if !found {
			g, err := t.page(ctx, f, dir, cookie)
			if err != nil {
				return err
			}
			t.pages.add(g)
			entries, last = g.entries, g.last
		}
		for _, e := range entries {
			if !fn(e) {
				return nil
			}
			cookie = e.Cookie
		}
		if last {
			return nil
		}
		if left -= int64(len(entries)); left < 0 {
			return damaged("inode %d: the directory has no end", dir.Ino)
		}
	}
}

// page asks for a part of a directory, with the extents of its files if those are
// being read too. If it can't be had with them, they may be the reason.
func (t *tree) page(ctx context.Context, f frame, dir fs.ID, cookie uint64) (*page, error) {
	ahead := t.ahead.withDirectory(t.extents.uses())
	g, err := t.askPage(ctx, f, dir, cookie, ahead)
	if !ahead || !harmful(err) {
		return g, err
	}
	if g, err = t.askPage(ctx, f, dir, cookie, false); err == nil {
		t.ahead.off.Store(true)
	}
	return g, err
}

func (t *tree) askPage(ctx context.Context, f frame, dir fs.ID, cookie uint64, ahead bool) (*page, error) {
	n := uint32(nextPage)
	if cookie == 0 {
		n = firstPage
	}
	g := &page{dir: dir, after: cookie}
	f = append(frame{}, f...).u64(cookie).u32(n).flag(ahead)
	err := t.ask(ctx, kindReadDir, f, func(c *cursor) (err error) {
		g.last = c.flag()
		if g.entries, err = c.entries(cookie); err != nil {
			return err
		}
		if len(g.entries) == 0 && !g.last {
			return damaged("inode %d: the directory does not go on", dir.Ino)
		}
		_, err = t.takeAhead(c, ids(g.entries))
		return err
	})
	if err != nil {
		return nil, err
	}
	return g, nil
}
