package blockmap

import (
	"context"

	"holdfast/repo/chunk"
)

// A Place is where a node stands in a tree.
type Place struct {
	ID    chunk.ID
	Level int   // 0 is a leaf
	First int64 // first chunk below the node
}

// A Visitor says what Walk does. Each function may be nil, and an error from
// one ends the walk.
type Visitor struct {
	// Enter is asked before a node or leaf is loaded; false leaves out all that
	// is below it. It is where a walk over many trees drops what it has seen.
	Enter func(at Place) (bool, error)

	// Node is given each node above the leaves, before its children.
	Node func(at Place, n *Node) error

	// Leaf is given each leaf, as stored. If it is nil, leaves are not loaded.
	Leaf func(at Place, l *Leaf) error
}

// Walk goes over the nodes and leaves of a tree, in order of the disk.
func Walk(ctx context.Context, s Loader, t Tree, v Visitor) error {
	if err := t.check(); err != nil {
		return err
	}
	return t.walk(ctx, s, &v, Place{ID: t.Root, Level: t.Levels() - 1})
}

func (t Tree) walk(ctx context.Context, s Loader, v *Visitor, at Place) error {
	if at.ID.IsNull() {
		return nil
	}
	if v.Enter != nil {
		if enter, err := v.Enter(at); err != nil || !enter {
			return err
		}
	}
	if at.Level == 0 {
		if v.Leaf == nil {
			return nil
		}
		l, err := t.loadLeaf(ctx, s, at.ID, at.First)
		if err != nil {
			return err
		}
		return v.Leaf(at, l)
	}
	n, err := t.loadNode(ctx, s, at.ID, at.Level, at.First)
	if err != nil {
		return err
	}
	if v.Node != nil {
		if err := v.Node(at, n); err != nil {
			return err
		}
	}
	for i := range n.Children {
		child := Place{ID: n.Children[i], Level: at.Level - 1, First: at.First + int64(i)*span(at.Level)}
		if err := t.walk(ctx, s, v, child); err != nil {
			return err
		}
	}
	return nil
}
