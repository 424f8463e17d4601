package treetest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"

	"holdfast/fs"
)

func (c *conform) xattrs() {
	xt, ok := c.t.(fs.XattrTree)
	if !ok {
		return
	}
	for _, a := range c.pick(func(fs.Attr) bool { return true }) {
		if c.errors >= maxErrors {
			return
		}
		what := " of " + c.where(a.ID)
		names, err := xt.Xattrs(c.ctx, a.ID)
		if c.passedOver(err) {
			continue
		}
		if err != nil {
			c.errorf("Xattrs%s: %v", what, err)
			continue
		}
		for i, name := range names {
			if strings.IndexByte(name, '.') < 1 || strings.ContainsRune(name, 0) || slices.Contains(names[:i], name) {
				c.errorf("Xattrs%s: name %q, without a namespace or twice", what, name)
			}
			value, err := xt.Xattr(c.ctx, a.ID, name)
			if err != nil && !c.passedOver(err) {
				c.errorf("Xattr %q%s: %v", name, what, err)
			}
			if again, err := xt.Xattr(c.ctx, a.ID, name); err == nil && !bytes.Equal(value, again) {
				c.errorf("Xattr %q%s: %q, then %q", name, what, value, again)
			}
		}
		for _, name := range []string{"user.no such attribute", "nonsense", ""} {
			_, err := xt.Xattr(c.ctx, a.ID, name)
			c.wants(err, "absent Xattr"+what, fs.ErrNoXattr)
		}
	}
}

func (c *conform) streams() {
	st, ok := c.t.(fs.StreamTree)
	if !ok {
		return
	}
	for _, a := range c.pick(func(fs.Attr) bool { return true }) {
		if c.errors >= maxErrors {
			return
		}
		list, err := st.Streams(c.ctx, a.ID)
		if c.passedOver(err) {
			continue
		}
		if err != nil {
			c.errorf("Streams of %s: %v", c.where(a.ID), err)
			continue
		}
		seen := map[fs.ID]bool{}
		names := map[string]bool{}
		for _, s := range list {
			if _, isInode := c.attrs[s.ID]; isInode || seen[s.ID] {
				c.errorf("stream %q of %s has the ID of another", s.Name, c.where(a.ID))
			}
			if s.Name == "" || names[s.Name] {
				c.errorf("Streams of %s: %q, no name or twice", c.where(a.ID), s.Name)
			}
			seen[s.ID], names[s.Name] = true, true
			c.places[s.ID] = place{a.ID, ":" + s.Name}
			sa, err := c.t.Attr(c.ctx, s.ID)
			if err != nil || sa.Type != fs.TypeFile || sa.Size != s.Size {
				c.errorf("Attr of stream %q of %s: %+v, %v; want a file of %d bytes", s.Name, c.where(a.ID), sa, err, s.Size)
				continue
			}
			c.attr(s.ID, sa)
			c.file(s.ID, s.Size)
		}
	}
}

func (c *conform) statfs() {
	seen := map[uint64]bool{}
	for _, id := range c.order {
		if seen[id.FS] {
			continue
		}
		seen[id.FS] = true
		s, err := c.t.StatFS(c.ctx, id)
		if err != nil {
			c.errorf("StatFS of %s: %v", c.where(id), err)
			continue
		}
		if s.Type == "" || s.BlockBytes <= 0 || s.Bytes < 0 || s.FreeBytes < 0 || s.FreeBytes > s.Bytes || s.FreeFiles > s.Files || s.NameBytes < 0 {
			c.errorf("StatFS of %s: %+v", c.where(id), s)
		}
	}
}

// stale asks everything of IDs that the tree does not have.
func (c *conform) stale() {
	root := c.t.Root()
	for _, id := range []fs.ID{{}, {FS: root.FS}, {FS: root.FS, Ino: 1<<64 - 1}, {FS: root.FS, Ino: 1 << 62}, {FS: root.FS + 1<<60, Ino: root.Ino}} {
		if _, there := c.attrs[id]; there {
			continue
		}
		_, err := c.t.Attr(c.ctx, id)
		c.wants(err, "Attr", fs.ErrStale)
		_, err = c.t.Lookup(c.ctx, id, "name")
		c.wants(err, "Lookup", fs.ErrStale)
		_, err = c.t.Lookup(c.ctx, id, "..")
		c.wants(err, `Lookup("..")`, fs.ErrStale)
		c.wants(c.t.ReadDir(c.ctx, id, 0, func(fs.Entry) bool { return true }), "ReadDir", fs.ErrStale)
		_, err = c.t.ReadLink(c.ctx, id)
		c.wants(err, "ReadLink", fs.ErrStale)
		_, err = c.t.ReadAt(c.ctx, id, make([]byte, 1), 0)
		c.wants(err, "ReadAt", fs.ErrStale)
		_, err = c.t.Extents(c.ctx, id, 0, 1)
		c.wants(err, "Extents", fs.ErrStale)
		if xt, ok := c.t.(fs.XattrTree); ok {
			_, err = xt.Xattrs(c.ctx, id)
			c.wants(err, "Xattrs", fs.ErrStale)
			_, err = xt.Xattr(c.ctx, id, "user.x")
			c.wants(err, "Xattr", fs.ErrStale)
		}
		if st, ok := c.t.(fs.StreamTree); ok {
			_, err = st.Streams(c.ctx, id)
			c.wants(err, "Streams", fs.ErrStale)
		}
	}
}

// cancelled asks with a context that is over: the answer is right, or says so.
func (c *conform) cancelled() {
	ctx, cancel := context.WithCancel(c.ctx)
	cancel()
	list := c.pick(func(fs.Attr) bool { return true })
	for _, a := range list[:min(20, len(list))] {
		if got, err := c.t.Attr(ctx, a.ID); err == nil && got != a || err != nil && !errors.Is(err, context.Canceled) {
			c.errorf("Attr of %s, cancelled: %+v, %v", c.where(a.ID), got, err)
		}
		if !isFile(a) {
			continue
		}
		n, err := c.t.ReadAt(ctx, a.ID, make([]byte, 100), 0)
		whole := n == int(min(100, a.Size)) && (err == nil || err == io.EOF)
		if !whole && !errors.Is(err, context.Canceled) && !c.passedOver(err) {
			c.errorf("ReadAt of %s, cancelled: %d, %v", c.where(a.ID), n, err)
		}
	}
}

// reopened looks for the same IDs and cookies in the tree opened once more.
func (c *conform) reopened() {
	if c.opt.Reopen == nil {
		return
	}
	again, err := c.opt.Reopen()
	if err != nil {
		c.errorf("open again: %v", err)
		return
	}
	defer func() {
		if err := again.Close(); err != nil {
			c.errorf("close: %v", err)
		}
	}()
	if again.Root() != c.t.Root() {
		c.errorf("the root is %v, was %v", again.Root(), c.t.Root())
	}
	second := &conform{tb: c.tb, t: again, ctx: c.ctx, step: c.step, places: c.places}
	for _, a := range c.pick(func(fs.Attr) bool { return true }) { // in no order, as after a restart
		if got, err := again.Attr(c.ctx, a.ID); err != nil || got != a {
			c.errorf("Attr of %s: %+v, %v; was %+v", c.where(a.ID), got, err, a)
			return
		}
		if a.IsDir() && !sameEntries(second.list(a.ID), c.list(a.ID)) {
			c.errorf("ReadDir of %s is not as it was", c.where(a.ID))
			return
		}
	}
	c.errors += second.errors
}

// atOnce asks from several goroutines, and compares with what was said before.
func (c *conform) atOnce() {
	list := c.pick(func(fs.Attr) bool { return true })
	list = list[:min(len(list), 300)]
	want := make([]string, len(list))
	for i, a := range list {
		want[i] = c.whole(a)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex // guards errorf
	for g := range 8 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			r := rand.New(rand.NewPCG(c.opt.Seed, uint64(g)))
			for _, i := range r.Perm(len(list)) {
				if got := c.whole(list[i]); got != want[i] {
					mu.Lock()
					c.errorf("%s: got %s, want %s", c.where(list[i].ID), got, want[i])
					mu.Unlock()
				}
			}
		}()
	}
	wg.Wait()
}

// whole is all that a tree says about an inode, up to its first bytes, in words.
func (c *conform) whole(a fs.Attr) string {
	s := &strings.Builder{}
	got, err := c.t.Attr(c.ctx, a.ID)
	if err != nil || got != a {
		return "another Attr than before"
	}
	switch a.Type {
	case fs.TypeDir:
		n := 0
		err = c.t.ReadDir(c.ctx, a.ID, 0, func(e fs.Entry) bool {
			s.WriteString(e.Name + "\n")
			if n++; n%16 == 0 {
				_, err := c.t.Lookup(c.ctx, a.ID, e.Name)
				writeError(s, err)
			}
			return n < 500
		})
	case fs.TypeSymlink:
		var target string
		target, err = c.t.ReadLink(c.ctx, a.ID)
		s.WriteString(target)
	case fs.TypeFile:
		size := min(a.Size, 200_000)
		read := func(p []byte, off int64) (int, error) {
			n, err := c.t.ReadAt(c.ctx, a.ID, p[:min(int64(len(p)), max(0, size-off))], off)
			if err == nil && n < len(p) {
				err = io.EOF
			}
			return n, err
		}
		var sum string
		sum, err = sumReader(read, size)
		s.WriteString(sum)
	}
	writeError(s, err)
	return s.String()
}

func writeError(s *strings.Builder, err error) {
	if err != nil {
		s.WriteString(" error " + err.Error())
	}
}
