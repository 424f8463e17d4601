package blockmap

import (
	"context"
	"fmt"

	"holdfast/repo/chunk"
)

// An Editor makes a new tree out of an old one: of another size or not, with
// some chunks changed. It goes over the disk once, in ascending order, and
// holds one node of each level. Subtrees without changes are shared, and not
// loaded. Nodes are put as soon as no more changes to them can come.
//
// After an error an editor only repeats it. Not safe for concurrent use.
type Editor struct {
	store  Store
	lay    Layout
	old    Tree
	chunks int64 // of the new tree
	levels int   // of the new tree

	root    chunk.ID    // of the tree, when no node is open
	open    []*openNode // from the root down, each a child of the one before
	next    int64       // chunks below are settled
	started bool
	err     error
}

// An openNode is a node that may still change.
type openNode struct {
	first int64    // first chunk below the node
	oldID chunk.ID // in the old tree; Null if it had none here
	old   *Node    // nil if the old tree had none here
	node  *Node    // as it will be; old itself until something changes

	// Of leaves only:
	oldLeaf *Leaf  // nil if the old tree had none here
	entries *Table // given to Set
}

// NewEditor returns an editor that turns old into the tree of a disk of the
// given number of chunks. Chunks that it is not told about stay as they are;
// what lies beyond the new end is dropped, and what is new there is null. The
// zero Tree as old builds a tree from nothing.
func NewEditor(s Store, lay Layout, old Tree, chunks int64) *Editor {
	t := Tree{Chunks: chunks}
	e := &Editor{store: s, lay: lay, old: old, chunks: chunks, levels: t.Levels(), root: old.Root}
	if e.err = old.check(); e.err == nil {
		e.err = t.check()
	}
	return e
}

// Set gives chunk n the id, Null for a hole, and says where it is stored, if
// that is known. The entry is copied. Chunks must come in ascending order,
// those of Clear included, else ErrRange.
//
// A leaf whose chunks stay the same is not stored again for a new entry.
func (e *Editor) Set(ctx context.Context, n int64, id chunk.ID, entry *Entry) error {
	if e.err == nil {
		e.err = e.set(ctx, n, id, entry)
	}
	return e.err
}

func (e *Editor) set(ctx context.Context, n int64, id chunk.ID, entry *Entry) error {
	if id.IsNull() {
		if entry != nil {
			return fmt.Errorf("%w: entry for chunk %d, a hole", ErrFormat, n)
		}
		return e.clear(ctx, n, n+1, e.chunks)
	}
	if n < e.next || n >= e.chunks {
		return fmt.Errorf("%w: chunk %d set, want %d to %d", ErrRange, n, e.next, e.chunks-1)
	}
	if err := e.start(ctx); err != nil {
		return err
	}
	leaf, err := e.reach(ctx, n, 0)
	if err != nil {
		return err
	}
	e.next = n + 1
	leaf.set(slot(n, 0), id)
	if entry == nil {
		return nil
	}
	if leaf.entries == nil {
		leaf.entries = NewTable(e.lay)
	}
	return leaf.entries.Append(slot(n, 0), entry)
}

// Clear makes chunks from to to-1 holes. Subtrees that become null are dropped
// without being loaded.
func (e *Editor) Clear(ctx context.Context, from, to int64) error {
	if e.err == nil {
		e.err = e.clear(ctx, from, to, e.chunks)
	}
	return e.err
}

// clear is Clear for chunks up to end.
func (e *Editor) clear(ctx context.Context, from, to, end int64) error {
	if from < e.next || to < from || to > end {
		return fmt.Errorf("%w: chunks %d to %d cleared, want %d to %d", ErrRange, from, to-1, e.next, end-1)
	}
	if err := e.start(ctx); err != nil {
		return err
	}
	for n := from; n < to; {
		level := 0 // the child of a node at this level is dropped
		for level < e.levels-1 && n%span(level+1) == 0 && n+span(level+1) <= to {
			level++
		}
		// Nodes above an old root that was too low are open from the start. One
		// that lies in what is dropped must not be stored first.
		for i := len(e.open) - 1; i >= 0 && int(e.open[i].node.Level) < level && e.open[i].first >= n; i-- {
			e.open = e.open[:i]
		}
		node, err := e.reach(ctx, n, level)
		if err != nil {
			return err
		}
		node.set(slot(n, level), chunk.Null)
		n += span(level)
	}
	e.next = to
	return nil
}

// Finish stores what is left and returns the new root, Null if no chunk is left
// that is not a hole. The same chunks give the same root, whatever the old tree
// was.
func (e *Editor) Finish(ctx context.Context) (chunk.ID, error) {
	if e.err == nil {
		e.err = e.finish(ctx)
	}
	if e.err != nil {
		return chunk.Null, e.err
	}
	e.err = fmt.Errorf("%w: the editor is finished", ErrRange)
	return e.root, nil
}

func (e *Editor) finish(ctx context.Context) error {
	if err := e.start(ctx); err != nil {
		return err
	}
	if e.old.Chunks > e.chunks {
		if err := e.clear(ctx, e.chunks, span(e.levels), span(e.levels)); err != nil {
			return err
		}
	}
	for len(e.open) > 0 {
		if err := e.close(ctx); err != nil {
			return err
		}
	}
	return nil
}

// start makes the old tree as high as the new one. If it is too high, what it
// has in the place of the new root takes its place; if too low, nodes are
// opened above it.
func (e *Editor) start(ctx context.Context) error {
	if e.started {
		return nil
	}
	oldLevels := e.old.Levels()
	for level := oldLevels - 1; level >= e.levels; level-- {
		n, err := e.old.loadNode(ctx, e.store, e.root, level, 0)
		if err != nil {
			return err
		}
		if n == nil {
			break
		}
		e.root = n.Children[0]
	}
	for level := e.levels - 1; level >= oldLevels; level-- {
		e.open = append(e.open, &openNode{node: &Node{Level: uint8(level)}})
	}
	if len(e.open) > 0 {
		e.open[len(e.open)-1].set(0, e.root)
	}
	e.started = true
	return nil
}

// reach closes nodes that chunk n is not below, and those under level, and
// opens nodes down to the one at level that n is below, which it returns.
func (e *Editor) reach(ctx context.Context, n int64, level int) (*openNode, error) {
	for len(e.open) > 0 {
		top := e.open[len(e.open)-1]
		if at := int(top.node.Level); at >= level && start(n, at) == top.first {
			break
		}
		if err := e.close(ctx); err != nil {
			return nil, err
		}
	}
	for {
		id, at := e.root, e.levels-1
		if len(e.open) > 0 {
			top := e.open[len(e.open)-1]
			if int(top.node.Level) == level {
				return top, nil
			}
			at = int(top.node.Level) - 1
			id = top.node.Children[slot(n, at+1)]
		}
		node, err := e.load(ctx, id, at, start(n, at))
		if err != nil {
			return nil, err
		}
		e.open = append(e.open, node)
	}
}

// load opens the node of the old tree with the given id and place.
func (e *Editor) load(ctx context.Context, id chunk.ID, level int, first int64) (*openNode, error) {
	o := &openNode{first: first, oldID: id}
	var err error
	if level > 0 {
		o.old, err = e.old.loadNode(ctx, e.store, id, level, first)
	} else if o.oldLeaf, err = e.old.loadLeaf(ctx, e.store, id, first); o.oldLeaf != nil {
		o.old = o.oldLeaf.Node
	}
	if o.node = o.old; o.node == nil {
		o.node = &Node{Level: uint8(level)}
	}
	return o, err
}

// set changes a child, in a copy of the old node.
func (o *openNode) set(child int, id chunk.ID) {
	if o.node.Children[child] == id {
		return
	}
	if o.node == o.old {
		c := *o.old
		o.node = &c
	}
	o.node.Children[child] = id
}

// close settles the lowest open node and tells its parent.
func (e *Editor) close(ctx context.Context) error {
	last := len(e.open) - 1
	o := e.open[last]
	id, err := e.settle(ctx, o)
	if err != nil {
		return err
	}
	e.open = e.open[:last]
	if last == 0 {
		e.root = id
		return nil
	}
	parent := e.open[last-1]
	parent.set(slot(o.first, int(parent.node.Level)), id)
	return nil
}

// settle returns the id of a node that changes no more, having stored it if it
// is neither null nor as it was.
func (e *Editor) settle(ctx context.Context, o *openNode) (id chunk.ID, err error) {
	switch {
	case o.old != nil && o.node.Children == o.old.Children:
		return o.oldID, nil
	case o.node.Empty():
		return chunk.Null, nil
	}
	if err = ctx.Err(); err == nil {
		if o.node.Level > 0 {
			id, err = e.store.PutNode(ctx, o.node)
		} else {
			id, err = e.putLeaf(ctx, o)
		}
	}
	if err != nil {
		return id, nodeError("write", chunk.Null, int(o.node.Level), o.first, err)
	}
	return id, nil
}
