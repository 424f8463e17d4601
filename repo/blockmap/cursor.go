package blockmap

import (
	"context"
	"fmt"
	"io"

	"holdfast/repo/chunk"
)

// Find returns the id of chunk n of a tree and its frame table entry, as
// Cursor.At does. It keeps nothing: each node on the way is asked of s. Safe for
// concurrent use if s is.
func Find(ctx context.Context, s Loader, t Tree, n int64) (chunk.ID, *Entry, error) {
	return NewCursor(s, t).At(ctx, n)
}

// NextData returns the first chunk from n on that is not a hole, io.EOF if there
// is none. Null subtrees cost nothing.
func NextData(ctx context.Context, s Loader, t Tree, n int64) (int64, error) {
	n, err := NewCursor(s, t).NextNonNull(ctx, n)
	if err == nil && n >= t.Chunks {
		err = io.EOF
	}
	return n, err
}

// NextHole returns the first chunk from n on that is a hole, or the disk's
// number of chunks if there is none. It loads every leaf on the way.
func NextHole(ctx context.Context, s Loader, t Tree, n int64) (int64, error) {
	c := NewCursor(s, t)
	for ; n < t.Chunks; n++ {
		if id, _, err := c.find(ctx, n); err != nil || id.IsNull() {
			return n, err
		}
	}
	return t.Chunks, nil
}

// A Cursor looks up chunks of a tree. It keeps the nodes on the way to the last
// one, so going over a disk loads each node once, and null subtrees cost
// nothing. Not safe for concurrent use.
type Cursor struct {
	s Loader
	t Tree

	// path has the node of each level on the way to the last chunk; first is
	// the node's first chunk.
	path [MaxLevels]struct {
		node  *Node
		first int64
	}
	leaf *Leaf // of path[0], nil until an entry of it is wanted
}

// NewCursor returns a cursor over t.
func NewCursor(s Loader, t Tree) *Cursor { return &Cursor{s: s, t: t} }

// At returns the id of chunk n, Null beyond the disk's end, and its frame table
// entry. A hole has no entry, and a chunk may lack it: then it is nil, and the
// chunk is read through its record's header.
func (c *Cursor) At(ctx context.Context, n int64) (chunk.ID, *Entry, error) {
	id, _, err := c.find(ctx, n)
	if err != nil || id.IsNull() {
		return id, nil, err
	}
	if c.leaf == nil {
		if err := c.loadLeaf(ctx, n); err != nil {
			return id, nil, err
		}
	}
	e := new(Entry)
	if !c.leaf.Entry(slot(n, 0), e) {
		e = nil
	}
	return id, e, nil
}

// loadLeaf loads the leaf whose node is path[0], and its base.
func (c *Cursor) loadLeaf(ctx context.Context, n int64) error {
	id := c.t.Root
	if c.t.Levels() > 1 {
		id = c.path[1].node.Children[slot(n, 1)]
	}
	l, err := c.t.loadLeaf(ctx, c.s, id, start(n, 0))
	if err == nil {
		c.leaf, err = Resolve(ctx, c.s, l)
	}
	return err
}

// ID returns the id of chunk n as At does, without its entry: frame tables are
// not loaded for it.
func (c *Cursor) ID(ctx context.Context, n int64) (chunk.ID, error) {
	id, _, err := c.find(ctx, n)
	return id, err
}

// NextNonNull returns the first chunk from n on that is not a hole, or the
// disk's number of chunks if there is none.
func (c *Cursor) NextNonNull(ctx context.Context, n int64) (int64, error) {
	for n < c.t.Chunks {
		id, level, err := c.find(ctx, n)
		if err != nil {
			return 0, err
		}
		if !id.IsNull() {
			return n, nil
		}
		// The child of the node at level that n lies in is null: go on to the
		// next that is not.
		if level == c.t.Levels() {
			break
		}
		child := slot(n, level) + 1
		for child < Fanout && c.path[level].node.Children[child].IsNull() {
			child++
		}
		n = start(n, level) + int64(child)*span(level)
	}
	return c.t.Chunks, nil
}

// find returns the id of chunk n. If it is Null, level is that of the node
// whose null child n lies below; the number of levels if the root is null.
func (c *Cursor) find(ctx context.Context, n int64) (id chunk.ID, level int, err error) {
	if n < 0 || n >= span(MaxLevels) {
		return chunk.Null, 0, fmt.Errorf("%w: chunk %d", ErrRange, n)
	}
	level, id = c.t.Levels(), c.t.Root
	if n >= c.t.Chunks {
		return chunk.Null, level, nil
	}
	for level > 0 && !id.IsNull() {
		level--
		at, first := &c.path[level], start(n, level)
		if at.node == nil || at.first != first {
			node, err := c.t.loadNode(ctx, c.s, id, level, first)
			if err != nil {
				return chunk.Null, level, err
			}
			at.node, at.first = node, first
			if level == 0 {
				c.leaf = nil
			}
		}
		id = at.node.Children[slot(n, level)]
	}
	return id, level, nil
}
