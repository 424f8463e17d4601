package child

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"holdfast/fs"
)

// Each question costs two processes a wake-up, which is many times what there is
// to do for a small file. Who copies or searches a tree lists a directory and then
// reads the files in it, in order: ahead notices, and asks about many at once.

const (
	// maxStreak bounds how sure it gets, and so how long it goes on in vain.
	maxStreak = 64

	// enough files read in order are why extents come with their directory.
	enough = 4

	// maxBatch is how many files are asked about at once.
	maxBatch = 512
)

// ahead is what is known of the order in which files are read.
type ahead struct {
	off atomic.Bool // it has done harm

	mu     sync.Mutex // guards the rest
	streak int        // files read in order, less what was asked for in vain
	dir    fs.ID      // of the last file that was asked about,
	inPage uint64     // the page that it was in,
	at     int        // and its place there
}

// withDirectory says whether the next directory is to bring the extents of its
// files. used is how many spans that came ahead were used since it was last asked.
func (a *ahead) withDirectory(used int) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.streak = min(a.streak+used, maxStreak)
	if a.streak < enough || a.off.Load() {
		return false
	}
	a.streak-- // until one of them is used
	return true
}

// batch notes that the file at place at of a page is wanted, and says how many to
// ask for with it. first: no file lies before it there.
func (a *ahead) batch(g *page, at int, first bool, used int) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.streak = min(a.streak+used, maxStreak)
	switch {
	case a.dir == g.dir && a.inPage == g.after && at > a.at && at <= a.at+8, first:
		a.streak = min(a.streak+1, maxStreak)
	default:
		a.streak /= 2
	}
	a.dir, a.inPage, a.at = g.dir, g.after, at
	if a.streak < 2 || a.off.Load() {
		return 1
	}
	return min(8*a.streak, maxBatch)
}

// harmful says whether err may come of something that was asked for in passing,
// which ended the process or was not to be believed. It ends that for the tree: one
// file must not be another's ruin.
func harmful(err error) bool {
	var l *lostError
	return errors.As(err, &l) || errors.Is(err, fs.ErrDamaged)
}

// asked notes how far a batch went.
func (a *ahead) asked(g *page, last int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.dir == g.dir && a.inPage == g.after {
		a.at = max(a.at, last)
	}
}

// fetch asks for the extents of a file that is begun to be read, and of some that
// follow in its directory, if that is worth it. It says whether any came; why not
// is told to whoever asks about the file alone.
func (t *tree) fetch(ctx context.Context, id fs.ID) bool {
	g, at := t.pages.place(id)
	if g == nil {
		return false
	}
	first := true
	for i := range g.entries[:at] {
		first = first && !hasBytes(&g.entries[i])
	}
	n := t.ahead.batch(g, at, first, t.extents.uses())
	list, last := []fs.ID{}, at
	for i := at; i < len(g.entries) && len(list) < n; i++ {
		if e := &g.entries[i]; hasBytes(e) && !t.extents.known(e.ID) {
			list, last = append(list, e.ID), i
		}
	}
	if len(list) < 2 || list[0] != id {
		return false
	}
	f, err := t.about(id)
	if err != nil {
		return false
	}
	f = f.u32(uint32(len(list) - 1))
	for _, other := range list[1:] {
		f = f.u64(other.Ino)
	}
	came := 0
	err = t.ask(ctx, kindAhead, f, func(c *cursor) (err error) {
		came, err = t.takeAhead(c, list)
		return err
	})
	switch {
	case err == nil:
		t.ahead.asked(g, last)
	case harmful(err):
		t.ahead.off.Store(true)
	}
	return came > 0
}

// hasBytes says whether an entry is a file with something to ask about.
func hasBytes(e *fs.Entry) bool {
	return e.Attr != nil && e.Attr.Type == fs.TypeFile && e.Attr.Size > 0
}

// place finds the page with an inode, and where in it that is.
func (p *pages) place(id fs.ID) (*page, int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, g := range p.list {
		for i := range g.entries {
			if g.entries[i].ID == id {
				return g, i
			}
		}
	}
	return nil, 0
}

func ids(entries []fs.Entry) []fs.ID {
	list := make([]fs.ID, len(entries))
	for i := range entries {
		list[i] = entries[i].ID
	}
	return list
}

// inodes takes a list of them that begins with first.
func (c *cursor) inodes(first fs.ID) ([]fs.ID, error) {
	list := []fs.ID{first}
	for range min(c.count(8), maxBatch) {
		list = append(list, fs.ID{Ino: c.u64()})
	}
	return list, c.end()
}

// takeAhead takes the extents of some of the files in list, which were not asked
// for one by one, and says of how many.
func (t *tree) takeAhead(c *cursor, list []fs.ID) (came int, err error) {
	spans := []*span{}
	for range c.count(4 + 1 + 4) {
		i := int(c.u32())
		if i >= len(list) || c.bad {
			return 0, errProtocol
		}
		s, err := c.ahead(list[i], t.vol.Size)
		if err != nil {
			return 0, err
		}
		if s != nil {
			spans = append(spans, s)
		}
	}
	if err := c.end(); err != nil {
		return 0, err
	}
	for _, s := range spans {
		if !t.extents.known(s.id) {
			t.extents.add(s)
		}
	}
	return len(spans), nil
}
