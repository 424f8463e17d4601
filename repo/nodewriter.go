package repo

import (
	"context"
	"errors"
	"fmt"
	"io"

	"holdfast/repo/blockmap"
	"holdfast/repo/chunk"
	"holdfast/repo/pack"
	"holdfast/repo/seal"
)

// A nodeWriter is the blockmap.Store of one run: it reads through the store and
// writes nodes into the run's metadata packs. Not safe for concurrent use.
type nodeWriter struct {
	*store
	known     func(chunk.ID) (bool, error) // pins what it finds, for the run
	knownBase func(chunk.ID) (bool, error) // the same for bases of patches, the run's own too
	data      *packWriter                  // where the run's chunks go
	out       *packWriter                  // where the nodes go
	rand      io.Reader
	enc       *seal.Encoder
	nodes     int64
	buf       []byte
	frame     []byte
	asm       pack.Assembler
}

// PutNode implements blockmap.Store.
func (w *nodeWriter) PutNode(ctx context.Context, n *blockmap.Node) (chunk.ID, error) {
	payload := n.AppendPayload(nil)
	id := w.hasher.Node(payload)
	if stored, err := w.stored(id); stored || err != nil {
		return id, err
	}
	for _, child := range n.Children {
		if err := w.mustKnow(w.stored, child); err != nil {
			return id, err
		}
	}
	w.leaves.put(&cachedNode{id: id, node: n})
	return id, w.put(id, payload, nil, chunk.Null)
}

// PutLeaf implements blockmap.Store. A leaf that is stored already is not
// stored again for another frame table; entries that the leaf lacks are taken
// from the chunks' records.
func (w *nodeWriter) PutLeaf(ctx context.Context, l *blockmap.Leaf) (chunk.ID, error) {
	payload := l.Node.AppendPayload(nil)
	id := w.hasher.Node(payload)
	if stored, err := w.stored(id); stored || err != nil {
		return id, err
	}
	if w.damage.Load() != nil {
		var err error
		if l, err = w.withoutLost(l); err != nil {
			return id, err
		}
	}
	done, err := w.finished(ctx, l)
	if errors.Is(err, ErrClosure) {
		// What it took over from the parent's leaf may be of records that were
		// freed since, when others stood in for them.
		if l, err = w.withoutLost(l); err == nil {
			done, err = w.finished(ctx, l)
		}
	}
	if err != nil {
		return id, err
	}
	w.leaves.put(&cachedNode{id: id, node: l.Node, leaf: done})
	return id, w.put(id, payload, done.Table.Bytes(), done.BaseID)
}

// finished returns the leaf as it is to be stored.
func (w *nodeWriter) finished(ctx context.Context, l *blockmap.Leaf) (*blockmap.Leaf, error) {
	table, err := w.complete(ctx, l)
	if err != nil {
		return nil, err
	}
	if l, err = blockmap.NewLeaf(l.Node, table, l.BaseID); err != nil {
		return nil, err
	}
	return l, w.closed(l)
}

func (w *nodeWriter) stored(id chunk.ID) (bool, error) {
	if _, ok := w.out.has(id); ok {
		return true, nil
	}
	return w.known(id)
}

// closed makes sure that everything a new leaf names is stored: chunks, bases
// of patches, the leaf's own base. So a point never names what isn't there,
// whatever went wrong on the way.
func (w *nodeWriter) closed(l *blockmap.Leaf) error {
	chunkStored := func(id chunk.ID) (bool, error) {
		if _, ok := w.data.has(id); ok {
			return true, nil
		}
		return w.known(id)
	}
	var e blockmap.Entry
	for i, id := range l.Node.Children {
		if err := w.mustKnow(chunkStored, id); err != nil {
			return err
		}
		if l.Table.Entry(i, &e) && e.Patch {
			if err := w.mustKnow(w.knownBase, e.Base); err != nil {
				return err
			}
		}
	}
	return w.mustKnow(w.stored, l.BaseID)
}

func (w *nodeWriter) mustKnow(stored func(chunk.ID) (bool, error), id chunk.ID) error {
	if id.IsNull() {
		return nil
	}
	ok, err := stored(id)
	if err == nil && !ok {
		err = fmt.Errorf("%w: %s", ErrClosure, id.Short())
	}
	return err
}

// withoutLost returns the leaf without what it says of records that are lost or
// were freed: its own base, and entries of patches whose base is. The chunks
// themselves are stored, in some other way.
func (w *nodeWriter) withoutLost(l *blockmap.Leaf) (*blockmap.Leaf, error) {
	base := l.BaseID
	known, err := w.stored(base)
	if err != nil {
		return nil, err
	}
	if !known {
		base = chunk.Null
	}
	t, dropped := blockmap.NewTable(w.layout()), base != l.BaseID
	var e blockmap.Entry
	for i, id := range l.Node.Children {
		own := l.Table.Entry(i, &e)
		if id.IsNull() || !own && (base == l.BaseID || !l.Entry(i, &e)) {
			continue
		}
		lost, err := w.lacksBase(&e)
		if err != nil {
			return nil, err
		}
		if lost {
			dropped = true
		} else if err := t.Append(i, &e); err != nil {
			return nil, err
		}
	}
	if !dropped {
		return l, nil
	}
	return blockmap.NewLeaf(l.Node, t, base)
}

// lacksBase reports whether an entry is that of a patch whose base is lost.
func (w *nodeWriter) lacksBase(e *blockmap.Entry) (bool, error) {
	if !e.Patch {
		return false, nil
	}
	known, err := w.knownBase(e.Base)
	return !known, err
}

// complete returns the leaf's own table with an entry for every chunk that has
// none there or in the base.
func (w *nodeWriter) complete(ctx context.Context, l *blockmap.Leaf) (*blockmap.Table, error) {
	var have blockmap.Entry
	lacks := false
	for i, id := range l.Node.Children {
		lacks = lacks || !id.IsNull() && !l.Entry(i, &have)
	}
	if !lacks {
		return l.Table, nil
	}
	t := blockmap.NewTable(w.layout())
	for i, id := range l.Node.Children {
		e := &have
		switch {
		case id.IsNull():
			continue
		case l.Table.Entry(i, e):
		case l.Entry(i, e):
			continue // the base has it
		default:
			var err error
			if e, err = w.entry(ctx, id); err != nil {
				return nil, fmt.Errorf("read where chunk %s is stored: %w", id.Short(), err)
			}
		}
		if err := t.Append(i, e); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// put stores a node's record. The frame table is nil above the leaves.
func (w *nodeWriter) put(id chunk.ID, payload, table []byte, base chunk.ID) error {
	frames := 1
	if table != nil {
		frames = 2
	}
	a := &w.asm
	a.Begin(w.buf, frames)
	a.Kind, a.ID, a.LogicalBytes = pack.Node, id, uint32(len(payload)+len(table))
	if !base.IsNull() {
		a.Flags, a.Base = pack.HasBase, base
	}
	a.Add(append(a.Bytes(), payload...), chunk.Digest(id), seal.Raw)
	switch {
	case table == nil:
	case w.keys == nil:
		out, codec := w.enc.Encode(a.Bytes(), table)
		a.Add(out, w.hasher.Frame(table), codec)
	default:
		a.Flags |= pack.Sealed
		if _, err := io.ReadFull(w.rand, a.Salt[:]); err != nil {
			return fmt.Errorf("make a salt: %w", err)
		}
		var codec seal.Codec
		w.frame, codec = w.enc.Encode(w.frame[:0], table)
		a.Add(w.keys.Record(a.Salt).Seal(a.Bytes(), w.frame, id, 1, len(table), codec), w.hasher.Frame(table), codec)
	}
	rec, err := a.Finish()
	if err != nil {
		return fmt.Errorf("make record of node %s: %w", id.Short(), err)
	}
	w.buf = rec
	w.nodes++
	return w.out.add(id, rec, nil)
}
