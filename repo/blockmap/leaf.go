package blockmap

import (
	"fmt"

	"holdfast/repo/chunk"
)

// A Leaf is a node of level 0 with the frame table of its chunks. It may name
// a base, an older leaf without a base, and then leaves out of its own table
// what the base's table says too. A leaf never changes and is safe for
// concurrent use.
type Leaf struct {
	Node   *Node
	Table  *Table   // own entries only
	BaseID chunk.ID // Null when there is none

	base *Leaf // once resolved
}

// NewLeaf returns a leaf. ErrFormat: the node is not of level 0 or has the
// wrong children for the table, which has entries of chunks only, not of holes.
func NewLeaf(n *Node, t *Table, baseID chunk.ID) (*Leaf, error) {
	if n.Level != 0 {
		return nil, fmt.Errorf("%w: a leaf of level %d", ErrFormat, n.Level)
	}
	for i := range n.Children {
		if n.Children[i].IsNull() && t.Has(i) {
			return nil, fmt.Errorf("%w: child %d of a leaf is null and has a frame table entry", ErrFormat, i)
		}
	}
	return &Leaf{Node: n, Table: t, BaseID: baseID}, nil
}

// ParseLeaf reads the two frames of a leaf's record: the node's payload and the
// frame table, nil if the record has none. It keeps table.
func ParseLeaf(payload, table []byte, baseID chunk.ID, lay Layout) (*Leaf, error) {
	n, err := ParseNode(payload)
	if err != nil {
		return nil, err
	}
	t := NewTable(lay)
	if table != nil {
		if t, err = ParseTable(table, lay); err != nil {
			return nil, err
		}
	}
	return NewLeaf(n, t, baseID)
}

// WithBase returns the leaf with its base resolved, sharing all else with l.
// That base is the leaf that BaseID names is the caller's to know.
//
// No leaf is written whose base has a base, but an ID does not say which of its
// records is met: the base may have been stored again, as a delta, since. Then
// what its own table lacks is read through record headers; no chain is followed.
func (l *Leaf) WithBase(base *Leaf) *Leaf {
	r := *l
	r.base = base
	return &r
}

// Entry reads the entry of a child into e, as Table.Entry does: from the leaf's
// own table, else from the base's, if the base has the same chunk there. It
// reports whether there is one; if not, the chunk is read through the header of
// its record. Without WithBase, only the own table is asked.
func (l *Leaf) Entry(child int, e *Entry) bool {
	return l.Table.Entry(child, e) || l.inherits(child) && l.base.Table.Entry(child, e)
}

// entry is Entry in bytes, nil if there is none.
func (l *Leaf) entry(child int) []byte {
	if p := l.Table.entry(child); p != nil {
		return p
	}
	if l.inherits(child) {
		return l.base.Table.entry(child)
	}
	return nil
}

// inherits reports whether the base's entry holds for a child that has none of
// its own.
func (l *Leaf) inherits(child int) bool {
	id := l.Node.Children[child]
	return l.base != nil && !id.IsNull() && l.base.Node.Children[child] == id
}

// MemoryBytes is about what the leaf takes in memory, without its base, for
// caches that keep a budget.
func (l *Leaf) MemoryBytes() int {
	const node, table, leaf = 1 + Fanout*chunk.IDBytes, 128, 64
	return node + table + leaf + cap(l.Table.raw)
}
