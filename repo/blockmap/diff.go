package blockmap

import (
	"context"

	"holdfast/repo/chunk"
)

// Diff calls fn, in ascending order, for each chunk that differs between the
// trees a and b, which may have different sizes; beyond a disk's end its
// chunks are Null. It loads only nodes that differ, and stops at fn's error.
func Diff(ctx context.Context, s Loader, a, b Tree, fn func(n int64, idA, idB chunk.ID) error) error {
	for _, t := range []Tree{a, b} {
		if err := t.check(); err != nil {
			return err
		}
	}
	d := differ{s: s, a: a, b: b, fn: fn}
	return d.diff(ctx, a.Root, b.Root, max(a.Levels(), b.Levels())-1, 0)
}

type differ struct {
	s    Loader
	a, b Tree
	fn   func(n int64, idA, idB chunk.ID) error
}

// diff compares the nodes idA and idB at level. At levels above its tree's
// root, the root's id stands for what would be there: a node whose first child
// leads to the root. It differs from every node that is really there.
func (d *differ) diff(ctx context.Context, idA, idB chunk.ID, level int, first int64) error {
	bothReal := level < d.a.Levels() && level < d.b.Levels()
	if idA == idB && (bothReal || idA.IsNull()) {
		return nil
	}
	nodeA, err := d.a.nodeUp(ctx, d.s, idA, level, first)
	if err != nil {
		return err
	}
	nodeB, err := d.b.nodeUp(ctx, d.s, idB, level, first)
	if err != nil {
		return err
	}
	for i := range Fanout {
		idA, idB, n := nodeA.child(i), nodeB.child(i), first+int64(i)*span(level)
		if level > 0 {
			err = d.diff(ctx, idA, idB, level-1, n)
		} else if idA != idB {
			err = d.fn(n, idA, idB)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// nodeUp is loadNode for levels above the root, too.
func (t Tree) nodeUp(ctx context.Context, s Loader, id chunk.ID, level int, first int64) (*Node, error) {
	if level < t.Levels() {
		return t.loadNode(ctx, s, id, level, first)
	}
	return &Node{Level: uint8(level), Children: [Fanout]chunk.ID{id}}, nil
}

// child returns the id of a child; a nil node has only Null ones.
func (n *Node) child(i int) chunk.ID {
	if n == nil {
		return chunk.Null
	}
	return n.Children[i]
}
