package treetest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"holdfast/fs"
)

// Options say what Conform may count on.
type Options struct {
	// Device is what fs.Stored extents lie on; without one their places are
	// not checked.
	Device io.ReaderAt

	// MaxInodes is how many inodes are looked at closely, chosen by Seed where
	// the tree has more; 0: 2,000. All are walked over.
	MaxInodes int

	// Seed for all that is chosen at random.
	Seed uint64

	// Unreadable says that contents which give fs.ErrDamaged or
	// fs.ErrUnsupported are in order, and passed over.
	Unreadable bool

	// Reopen opens the same tree once more; IDs and cookies must be the same
	// there. Without it that is not checked. The tree is closed in the end.
	Reopen func() (fs.Tree, error)
}

// maxErrors ends a check that would say the same about every inode.
const maxErrors = 30

// Conform checks that t keeps the contract of package fs, for every inode and
// from several goroutines at once. The tree must not change meanwhile.
func Conform(tb testing.TB, t fs.Tree, opt Options) {
	tb.Helper()
	opt.MaxInodes = cmp.Or(opt.MaxInodes, 2000)
	c := &conform{
		tb: tb, t: t, opt: opt, ctx: tb.Context(),
		r:      rand.New(rand.NewPCG(opt.Seed, 2)),
		attrs:  map[fs.ID]fs.Attr{},
		names:  map[fs.ID]int{},
		places: map[fs.ID]place{},
	}
	steps := []struct {
		name string
		do   func()
	}{
		{"root", c.root}, {"walk", c.walk}, {"directories", c.directories}, {"files", c.files},
		{"links and special files", c.others}, {"attributes", c.xattrs}, {"streams", c.streams},
		{"file systems", c.statfs}, {"unknown IDs", c.stale}, {"cancelled", c.cancelled},
		{"opened again", c.reopened}, {"at once", c.atOnce},
	}
	for _, s := range steps {
		if c.errors >= maxErrors || c.stop {
			break
		}
		c.step = s.name
		s.do()
	}
	if c.errors > 0 {
		tb.Logf("Conform ran with seed %d", opt.Seed)
	}
}

// conform is one run.
type conform struct {
	tb     testing.TB
	t      fs.Tree
	opt    Options
	ctx    context.Context
	r      *rand.Rand
	step   string
	errors int
	stop   bool

	order  []fs.ID           // of all inodes, as met
	attrs  map[fs.ID]fs.Attr // of each
	names  map[fs.ID]int     // how often each has a name
	places map[fs.ID]place   // where each was first met
}

// place is a directory and a name in it.
type place struct {
	dir  fs.ID
	name string
}

// errorf counts, so that a tree that is wrong everywhere gives a short report.
func (c *conform) errorf(format string, args ...any) {
	c.tb.Helper()
	if c.errors++; c.errors <= maxErrors {
		c.tb.Errorf(c.step+": "+format, args...)
	}
}

// where names an inode for people.
func (c *conform) where(id fs.ID) string {
	var names []string
	for at := id; len(names) < 300; {
		p, ok := c.places[at]
		if !ok {
			break
		}
		names = append(names, p.name)
		at = p.dir
	}
	slices.Reverse(names)
	return fmt.Sprintf("%q (%d/%d)", "/"+strings.Join(names, "/"), id.FS, id.Ino)
}

// wants checks that an error is the one there should be.
func (c *conform) wants(err error, what string, sentinels ...error) {
	c.tb.Helper()
	for _, s := range sentinels {
		if errors.Is(err, s) {
			return
		}
	}
	c.errorf("%s: error %v, want %v", what, err, sentinels)
}

func (c *conform) root() {
	id := c.t.Root()
	a, err := c.t.Attr(c.ctx, id)
	if err != nil || !a.IsDir() {
		c.errorf("Attr of the root: %v, %v; want a directory", a.Type, err)
		c.stop = true
		return
	}
	c.attr(id, a)
	if up, err := c.t.Lookup(c.ctx, id, ".."); err != nil || up.ID != id {
		c.errorf(`Lookup("..") in the root: %v, %v; want itself, %v`, up.ID, err, id)
	}
	if nt, ok := c.t.(fs.NotedTree); ok {
		for _, n := range nt.Notes() {
			if n == "" {
				c.errorf("an empty note")
			}
		}
	}
}

// attr checks what can be said of any Attr by itself.
func (c *conform) attr(id fs.ID, a fs.Attr) {
	c.tb.Helper()
	bad := func(format string, args ...any) {
		c.tb.Helper()
		c.errorf("Attr of %s: "+format, append([]any{c.where(id)}, args...)...)
	}
	if a.ID != id {
		bad("has the ID %v", a.ID)
	}
	if id.Ino == 0 {
		bad("inode 0")
	}
	if a.Type == fs.TypeUnknown || a.Type > fs.TypeSocket {
		bad("%v", a.Type)
	}
	if a.Perm > 0o7777 {
		bad("perm %#o", a.Perm)
	}
	if a.Nlink == 0 {
		bad("no links")
	}
	if a.Size < 0 || a.Used < 0 {
		bad("size %d, used %d", a.Size, a.Used)
	}
	for _, t := range []fs.Time{a.Atime, a.Mtime, a.Ctime, a.Btime} {
		if t.Nsec > 999_999_999 {
			bad("%d nanoseconds", t.Nsec)
		}
	}
}

// walk meets every inode, and checks each line of each directory.
func (c *conform) walk() {
	queue := []fs.ID{c.t.Root()}
	a, err := c.t.Attr(c.ctx, c.t.Root())
	if err != nil {
		return
	}
	c.attrs[a.ID] = a
	c.order = append(c.order, a.ID)
	for len(queue) > 0 && c.errors < maxErrors {
		dir := queue[0]
		queue = queue[1:]
		for _, e := range c.list(dir) {
			a, known := c.attrs[e.ID]
			if !known {
				c.places[e.ID] = place{dir, e.Name}
				if a, err = c.t.Attr(c.ctx, e.ID); err != nil {
					c.errorf("Attr of %s: %v", c.where(e.ID), err)
					continue
				}
				c.attr(e.ID, a)
				c.attrs[e.ID] = a
				c.order = append(c.order, e.ID)
				if a.IsDir() {
					queue = append(queue, e.ID)
				}
			} else if a.IsDir() {
				c.errorf("directory %s has a second name, %q in %s", c.where(e.ID), e.Name, c.where(dir))
			}
			c.names[e.ID]++
			c.entry(dir, e, a)
		}
	}
	for id, n := range c.names {
		if a := c.attrs[id]; !a.IsDir() && uint32(n) > a.Nlink {
			c.errorf("%s has %d names, but %d links", c.where(id), n, a.Nlink)
		}
	}
}

// list reads a directory in one go and checks names and cookies.
func (c *conform) list(dir fs.ID) []fs.Entry {
	var list []fs.Entry
	names := map[string]bool{}
	cookies := map[uint64]bool{0: true}
	err := c.t.ReadDir(c.ctx, dir, 0, func(e fs.Entry) bool {
		switch {
		case e.Name == "" || e.Name == "." || e.Name == ".." || strings.ContainsAny(e.Name, "/\x00"):
			c.errorf("ReadDir of %s: name %q", c.where(dir), e.Name)
		case names[e.Name]:
			c.errorf("ReadDir of %s: name %q twice", c.where(dir), e.Name)
		case cookies[e.Cookie]:
			c.errorf("ReadDir of %s: cookie %d of %q is another's, or 0", c.where(dir), e.Cookie, e.Name)
		}
		if e.Cookie > 1<<63-3 {
			c.errorf("ReadDir of %s: cookie %#x of %q, further than Linux can seek", c.where(dir), e.Cookie, e.Name)
		}
		names[e.Name], cookies[e.Cookie] = true, true
		list = append(list, e)
		return true
	})
	if err != nil {
		c.errorf("ReadDir of %s: %v", c.where(dir), err)
	}
	return list
}

// entry checks that a line of a directory, Lookup and Attr say the same.
func (c *conform) entry(dir fs.ID, e fs.Entry, a fs.Attr) {
	if e.Type != fs.TypeUnknown && e.Type != a.Type {
		c.errorf("ReadDir of %s: %q is a %v, Attr says %v", c.where(dir), e.Name, e.Type, a.Type)
	}
	if e.Attr != nil && *e.Attr != a {
		c.errorf("ReadDir of %s: %q has the Attr %+v, Attr says %+v", c.where(dir), e.Name, *e.Attr, a)
	}
	got, err := c.t.Lookup(c.ctx, dir, e.Name)
	if err != nil || got != a {
		c.errorf("Lookup of %q in %s: %+v, %v; Attr says %+v", e.Name, c.where(dir), got, err, a)
	}
}

// pick returns the inodes that pass, at most MaxInodes of them.
func (c *conform) pick(pass func(fs.Attr) bool) []fs.Attr {
	var list []fs.Attr
	for _, id := range c.order {
		if a := c.attrs[id]; pass(a) {
			list = append(list, a)
		}
	}
	c.r.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	return list[:min(len(list), c.opt.MaxInodes)]
}

func isFile(a fs.Attr) bool { return a.Type == fs.TypeFile }

// passedOver says whether an error is one that Options lets pass.
func (c *conform) passedOver(err error) bool { return c.opt.Unreadable && named(err) }
