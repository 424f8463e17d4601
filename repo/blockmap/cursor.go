package blockmap

import (
	"context"
	"fmt"

	"holdfast/repo/chunk"
)

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
	leaf      *Leaf // resolved, for Entry
	leafFirst int64
}

// NewCursor returns a cursor over t.
func NewCursor(s Loader, t Tree) *Cursor { return &Cursor{s: s, t: t} }

// At returns the id of chunk n. Beyond the disk's end it is Null.
func (c *Cursor) At(ctx context.Context, n int64) (chunk.ID, error) {
	id, _, err := c.find(ctx, n)
	return id, err
}

// Entry returns the id of chunk n and reads its frame table entry into e. It
// reports whether there is one: a hole has none, and a chunk may lack it.
func (c *Cursor) Entry(ctx context.Context, n int64, e *Entry) (chunk.ID, bool, error) {
	id, _, err := c.find(ctx, n)
	if err != nil || id.IsNull() {
		return id, false, err
	}
	first := start(n, 0)
	if c.leaf == nil || c.leafFirst != first {
		leafID := c.t.Root
		if c.t.Levels() > 1 {
			leafID = c.path[1].node.Children[slot(n, 1)]
		}
		l, err := c.t.loadLeaf(ctx, c.s, leafID, first)
		if err == nil {
			if l, err = Resolve(ctx, c.s, l); err != nil {
				err = nodeError("read", leafID, 0, first, err)
			}
		}
		if err != nil {
			return id, false, err
		}
		c.leaf, c.leafFirst = l, first
	}
	return id, c.leaf.Entry(slot(n, 0), e), nil
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
		}
		id = at.node.Children[slot(n, level)]
	}
	return id, level, nil
}
