package child

import (
	"container/list"
	"context"
	"fmt"
	"io"
	"sort"
	"sync"

	"holdfast/fs"
)

const (
	// firstExtents and nextExtents are how many extents are asked for at once,
	// of a file met for the first time and of one that had more than that.
	firstExtents = 32
	nextExtents  = 1024

	// maxKept is how many extents a tree keeps, of all files together.
	maxKept = 64 << 10
)

// span is a stretch of a file whose extents are known.
type span struct {
	id       fs.ID
	off, end int64
	extents  []fs.Extent // without a gap, from off to end
	last     bool        // end is the file's
	ahead    bool        // nobody asked for it, or used it yet
}

func endOf(list []fs.Extent) int64 {
	e := list[len(list)-1]
	return e.Off + e.Len
}

// extentCache keeps a span of each file that was read last.
type extentCache struct {
	mu    sync.Mutex
	spans map[fs.ID]*list.Element // of *span
	order list.List               // the newest first
	kept  int
	used  int // spans that came ahead and were used since uses was called
}

// find returns the span that has the byte at off, or the end if that is at or
// before off.
func (c *extentCache) find(id fs.ID, off int64) *span {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.spans[id]
	if e == nil {
		return nil
	}
	s := e.Value.(*span)
	if s.ahead {
		s.ahead = false
		c.used++
	}
	if off < s.off || off >= s.end && !s.last {
		return nil
	}
	c.order.MoveToFront(e)
	return s
}

// uses returns how many spans that came ahead were used since it was last called.
func (c *extentCache) uses() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.used
	c.used = 0
	return n
}

// known says whether a span of the file is there at all.
func (c *extentCache) known(id fs.ID) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.spans[id] != nil
}

func (c *extentCache) add(s *span) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.spans == nil {
		c.spans = map[fs.ID]*list.Element{}
	}
	if e := c.spans[s.id]; e != nil {
		c.drop(e)
	}
	c.spans[s.id] = c.order.PushFront(s)
	c.kept += len(s.extents) + 4 // an empty one takes room too
	for c.kept > maxKept && c.order.Len() > 1 {
		c.drop(c.order.Back())
	}
}

func (c *extentCache) drop(e *list.Element) {
	s := c.order.Remove(e).(*span)
	delete(c.spans, s.id)
	c.kept -= len(s.extents) + 4
}

// from returns the extents of the span from off on, cut to begin there.
func (s *span) from(off int64) []fs.Extent {
	if off >= s.end {
		return nil
	}
	i := sort.Search(len(s.extents), func(i int) bool { return s.extents[i].Off+s.extents[i].Len > off })
	return s.extents[i:]
}

// cut returns e without what is before off.
func cut(e fs.Extent, off int64) fs.Extent {
	skip := off - e.Off
	e.Off += skip
	e.Len -= skip
	if e.Kind == fs.Stored {
		e.At += skip
	}
	return e
}

// span returns a span that has the byte at off, or the end at or before it.
func (t *tree) span(ctx context.Context, id fs.ID, off int64) (*span, error) {
	if s := t.extents.find(id, off); s != nil {
		return s, nil
	}
	if off == 0 && t.fetch(ctx, id) {
		if s := t.extents.find(id, 0); s != nil {
			return s, nil
		}
	}
	f, err := t.about(id)
	if err != nil {
		return nil, err
	}
	n := uint32(firstExtents)
	if t.extents.known(id) {
		n = nextExtents
	}
	s := &span{id: id, off: off, end: off}
	err = t.ask(ctx, kindExtents, f.i64(off).u32(n), func(c *cursor) (err error) {
		s.last = c.flag()
		if s.extents, err = c.extents(off, t.vol.Size); err != nil {
			return err
		}
		if len(s.extents) > 0 {
			s.end = endOf(s.extents)
		} else if !s.last {
			return damaged("inode %d: neither extents at %d nor the end", id.Ino, off)
		}
		return c.end()
	})
	if err != nil {
		return nil, err
	}
	if len(s.extents) == 0 {
		return s, nil // not kept: where the end lies is not known
	}
	t.extents.add(s)
	return s, nil
}

func (t *tree) Extents(ctx context.Context, id fs.ID, off int64, n int) ([]fs.Extent, error) {
	if off < 0 || n < 1 {
		return nil, fmt.Errorf("inode %d: extents at %d: %w", id.Ino, off, fs.ErrInvalid)
	}
	s, err := t.span(ctx, id, off)
	if err != nil {
		return nil, err
	}
	rest := s.from(off)
	if len(rest) == 0 {
		return nil, io.EOF
	}
	list := append([]fs.Extent{}, rest[:min(n, len(rest))]...)
	list[0] = cut(list[0], off)
	return list, nil
}

// ReadAt reads a file: from the disk what is stored there, from the process
// what only that can make.
func (t *tree) ReadAt(ctx context.Context, id fs.ID, p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("inode %d: read at %d: %w", id.Ino, off, fs.ErrInvalid)
	}
	done := 0
	for {
		s, err := t.span(ctx, id, off+int64(done))
		if err != nil {
			return done, err
		}
		for _, e := range s.from(off + int64(done)) {
			if done == len(p) {
				return done, nil
			}
			e = cut(e, off+int64(done))
			n, err := t.readExtent(ctx, id, e, p[done:done+int(min(int64(len(p)-done), e.Len))])
			done += n
			if err != nil {
				return done, err
			}
		}
		if done == len(p) {
			return done, nil
		}
		if s.last {
			return done, io.EOF
		}
	}
}

// readExtent reads the first bytes of an extent: len(p) of them or an error.
func (t *tree) readExtent(ctx context.Context, id fs.ID, e fs.Extent, p []byte) (int, error) {
	switch e.Kind {
	case fs.Hole:
		clear(p)
		return len(p), nil
	case fs.Stored:
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		n, err := t.disk.ReadAt(p, t.vol.Off+e.At)
		if n == len(p) {
			return n, nil
		}
		return n, fmt.Errorf("volume %s: inode %d: %w", t.vol.Name, id.Ino, shortOf(err, t.vol.Off+e.At+int64(n)))
	}
	done := 0
	for done < len(p) {
		n, err := t.readMade(ctx, id, p[done:min(len(p), done+maxRead)], e.Off+int64(done))
		done += n
		if err != nil {
			return done, err
		}
	}
	return done, nil
}

// readMade asks the process for bytes.
func (t *tree) readMade(ctx context.Context, id fs.ID, p []byte, off int64) (n int, err error) {
	f, err := t.about(id)
	if err != nil {
		return 0, err
	}
	err = t.ask(ctx, kindReadAt, f.i64(off).u32(uint32(len(p))), func(c *cursor) error {
		got := c.take(len(p))
		if err := c.end(); err != nil {
			return err
		}
		n = copy(p, got)
		return nil
	})
	return n, err
}
