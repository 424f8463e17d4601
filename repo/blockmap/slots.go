package blockmap

import (
	"context"

	"holdfast/repo/chunk"
)

// ChunkLevel is the level of a slot that holds a chunk: the one under the
// leaves.
const ChunkLevel = -1

// Slots calls fn for every slot in which the trees hold different ids. A slot
// is a place in the tree of a disk: the level of the node that stands there, or
// ChunkLevel for a chunk, and the first chunk below it. The root has a slot like
// any other node. A slot where a tree has nothing is Null: where it reads as
// zeros, beyond the disk's end, and at levels above its root, which stands at
// its own level as the first of the nodes there could be.
//
// A slot comes before those below it, and else they come in order of the disk.
// Slots loads, of each tree, only the nodes in slots that differ, and stops at
// fn's error. It reads no frame tables.
func Slots(ctx context.Context, s Loader, old, new Tree, fn func(level int, first int64, oldID, newID chunk.ID) error) error {
	for _, t := range []Tree{old, new} {
		if err := t.check(); err != nil {
			return err
		}
	}
	w := slotWalk{s: s, old: old, new: new, fn: fn}
	return w.slot(ctx, old.Root, new.Root, max(old.Levels(), new.Levels())-1, 0)
}

type slotWalk struct {
	s        Loader
	old, new Tree
	fn       func(level int, first int64, oldID, newID chunk.ID) error
}

// slot compares one slot of a node and what is below. As in differ, the root's
// id is passed down through the levels above its tree.
func (w *slotWalk) slot(ctx context.Context, oldID, newID chunk.ID, level int, first int64) error {
	oldThere, newThere := w.old.standing(oldID, level), w.new.standing(newID, level)
	if oldThere != newThere {
		if err := w.fn(level, first, oldThere, newThere); err != nil {
			return err
		}
	}
	bothReal := level < w.old.Levels() && level < w.new.Levels()
	if oldID == newID && (bothReal || oldID.IsNull()) {
		return nil
	}
	oldNode, err := w.old.nodeUp(ctx, w.s, oldID, level, first)
	if err != nil {
		return err
	}
	newNode, err := w.new.nodeUp(ctx, w.s, newID, level, first)
	if err != nil {
		return err
	}
	for i := range Fanout {
		oldID, newID, n := oldNode.child(i), newNode.child(i), first+int64(i)*span(level)
		if level > 0 {
			err = w.slot(ctx, oldID, newID, level-1, n)
		} else if oldID != newID {
			err = w.fn(ChunkLevel, n, oldID, newID)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// standing returns the id in a slot at level, when id is passed down to it.
func (t Tree) standing(id chunk.ID, level int) chunk.ID {
	if level >= t.Levels() {
		return chunk.Null
	}
	return id
}
