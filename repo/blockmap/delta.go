package blockmap

import (
	"bytes"
	"context"
	"fmt"

	"holdfast/repo/chunk"
)

// deltaShare decides how a changed leaf stores its frame table: as a delta to a
// base when at most one in deltaShare of its entries differ from the base's,
// else in full. A small share writes full tables often, a large one writes the
// same growing delta again and again. Bytes per run and leaf of 256 chunks of 8
// frames, by the chunks that a run changes (TestDeltaShare):
//
//	share      1      2      4      8     16     32   mean
//	1/2    30752  31086  32291  34261  37305  42693  34731
//	1/4    19321  20630  22856  26822  33960  45011  28100
//	1/8    15430  17901  22070  29782  40556  54548  30047
//	1/16   15347  19945  27353  38146  52220  91172  40697
const deltaShare = 4

// putLeaf stores a changed leaf. Its entries are those given to Set, and for
// chunks that stayed, those of the old leaf.
func (e *Editor) putLeaf(ctx context.Context, o *openNode) (chunk.ID, error) {
	l := &Leaf{Node: o.node, Table: NewTable(e.lay)}
	old := o.oldLeaf
	if old != nil {
		var err error
		if old, err = Resolve(ctx, e.store, old); err != nil {
			return chunk.Null, err
		}
		if old.Table.lay != e.lay || old.base != nil && old.base.Table.lay != e.lay {
			return chunk.Null, fmt.Errorf("%w: frame tables of two layouts in one tree", ErrFormat)
		}
		l.BaseID, l.base = baseFor(o.oldID, old, o.node)
	}

	var want, own [Fanout][]byte // entries: all, and those that the base lacks
	wants, owns := 0, 0
	for i := range want {
		if want[i] = e.wanted(o, old, l, i); want[i] == nil {
			continue
		}
		wants++
		if !l.inherits(i) || !bytes.Equal(want[i], l.base.Table.entry(i)) {
			own[i] = want[i]
			owns++
		}
	}
	if wants == 0 || owns*deltaShare > wants {
		l.BaseID, l.base, own = chunk.Null, nil, want
	}
	l.Table = tableOf(e.lay, own[:])
	return e.store.PutLeaf(ctx, l)
}

// baseFor returns what could be the base of a leaf that was old and becomes n:
// old, or old's base, since bases do not chain. A leaf that has become its
// base again has none.
func baseFor(oldID chunk.ID, old *Leaf, n *Node) (chunk.ID, *Leaf) {
	id, base := oldID, old
	if old.base != nil {
		id, base = old.BaseID, old.base
	}
	if !base.BaseID.IsNull() || base.Node.Children == n.Children {
		return chunk.Null, nil
	}
	return id, base
}

// wanted returns the best entry there is for a child of the changed leaf l, nil
// if there is none.
func (e *Editor) wanted(o *openNode, old, l *Leaf, child int) []byte {
	id := l.Node.Children[child]
	if id.IsNull() {
		return nil
	}
	if o.entries != nil {
		if p := o.entries.entry(child); p != nil {
			return p
		}
	}
	if old != nil && old.Node.Children[child] == id {
		if p := old.entry(child); p != nil {
			return p
		}
	}
	if l.inherits(child) {
		return l.base.Table.entry(child)
	}
	return nil
}

// tableOf makes a table of entries by child number, in the memory they take.
func tableOf(lay Layout, entries [][]byte) *Table {
	n := tableHead
	for _, p := range entries {
		n += len(p)
	}
	t := NewTable(lay)
	t.raw = append(make([]byte, 0, n), t.raw...)
	for _, p := range entries {
		if p != nil {
			t.appendRaw(p)
		}
	}
	return t
}
