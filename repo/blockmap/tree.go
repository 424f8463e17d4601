// Package blockmap maps the chunk numbers of one disk to chunk ids, as a Merkle
// radix tree of fan-out 256:
//
//	root (level L-1) ──► … ──► nodes (level 1) ──► leaves (level 0) ──► chunks
//
// A null child reads as zeros, at every level. The tree is canonical: what the
// chunks are decides the root, not how the tree came about. So two trees that
// share content share nodes, and are compared in time proportional to what
// differs. The bytes of nodes and frame tables are in repo/FORMAT.md, "Nodes".
//
// The package decides and does no I/O but through Loader and Store.
package blockmap

import (
	"context"
	"errors"
	"fmt"

	"holdfast/repo/chunk"
)

// Fanout is the number of children of a node.
const Fanout = 256

// fanoutBits is the binary logarithm of Fanout.
const fanoutBits = 8

// MaxLevels is the height of the highest tree: 2⁶³ bytes in the smallest
// chunks, of 256 KiB, are 2⁴⁵ chunks.
const MaxLevels = 6

var (
	// ErrFormat says that bytes are not a node or a frame table, or that a tree
	// is not made as it must be.
	ErrFormat = errors.New("bad block map")

	// ErrRange says that a chunk is outside the disk, or that an editor was given
	// chunks out of order.
	ErrRange = errors.New("chunk out of range")
)

// A Loader gives nodes by id. What it returns is shared and must not be changed.
type Loader interface {
	// Node returns the node id, of any level. Of a leaf, the frame table need
	// not be read.
	Node(ctx context.Context, id chunk.ID) (*Node, error)

	// Leaf returns the leaf id as stored: its base is not resolved.
	Leaf(ctx context.Context, id chunk.ID) (*Leaf, error)
}

// A Store also takes nodes in. It computes their ids and may keep what it is
// given, which is not changed afterwards. A child is put before its parent.
type Store interface {
	Loader
	PutNode(ctx context.Context, n *Node) (chunk.ID, error)
	PutLeaf(ctx context.Context, l *Leaf) (chunk.ID, error)
}

// A Tree is one disk's block map. The zero Tree is that of an empty disk.
type Tree struct {
	Root   chunk.ID // Null when the whole disk reads as zeros
	Chunks int64    // chunks of the disk; none is the same as one
}

// NewTree returns the tree with the given root for a disk of sizeBytes.
func NewTree(root chunk.ID, sizeBytes int64, g chunk.Geometry) Tree {
	return Tree{Root: root, Chunks: g.Chunks(sizeBytes)}
}

// Levels is the number of levels of the tree, 1 to MaxLevels.
func (t Tree) Levels() int {
	levels := 1
	for levels < MaxLevels && span(levels) < t.Chunks {
		levels++
	}
	return levels
}

// Levels is the number of levels in the tree of a disk of sizeBytes.
func Levels(sizeBytes int64, g chunk.Geometry) int {
	return NewTree(chunk.Null, sizeBytes, g).Levels()
}

// check returns ErrRange for a number of chunks that no tree can have.
func (t Tree) check() error {
	if t.Chunks < 0 || t.Chunks > span(MaxLevels) {
		return fmt.Errorf("%w: a disk of %d chunks", ErrRange, t.Chunks)
	}
	return nil
}

// span is the number of chunks below a child of a node at the given level, and
// so below a node at the level under it: span(0) is one chunk.
func span(level int) int64 { return 1 << (fanoutBits * level) }

// slot is the number of the child that chunk n lies in, of its node at level.
func slot(n int64, level int) int { return int(n>>(fanoutBits*level)) % Fanout }

// start is the first chunk of the node at level that chunk n lies in.
func start(n int64, level int) int64 { return n &^ (span(level+1) - 1) }

// A NodeError says which node of a disk's tree could not be loaded or stored,
// and so which chunks are affected.
type NodeError struct {
	Op     string   // "read" or "write"
	ID     chunk.ID // Null when writing
	Level  int      // 0 is a leaf
	First  int64    // first chunk below the node
	Chunks int64    // number of chunks below it, those beyond the disk's end included
	Err    error
}

func (e *NodeError) Error() string {
	name := ""
	if !e.ID.IsNull() {
		name = " " + e.ID.Short()
	}
	return fmt.Sprintf("%s node%s of level %d, chunks %d to %d: %v", e.Op, name, e.Level, e.First, e.First+e.Chunks-1, e.Err)
}

// Unwrap returns the reason.
func (e *NodeError) Unwrap() error { return e.Err }

func nodeError(op string, id chunk.ID, level int, first int64, err error) error {
	return &NodeError{Op: op, ID: id, Level: level, First: first, Chunks: span(level + 1), Err: err}
}

// loadNode loads the node of t at level whose first chunk is first, and checks
// that it may stand there. A Null id gives nil.
func (t Tree) loadNode(ctx context.Context, s Loader, id chunk.ID, level int, first int64) (*Node, error) {
	if id.IsNull() {
		return nil, nil
	}
	err := ctx.Err()
	var n *Node
	if err == nil {
		n, err = s.Node(ctx, id)
	}
	if err == nil {
		err = t.place(n, level, first)
	}
	if err != nil {
		return nil, nodeError("read", id, level, first, err)
	}
	return n, nil
}

// loadLeaf does the same for a leaf and its frame table, without its base.
func (t Tree) loadLeaf(ctx context.Context, s Loader, id chunk.ID, first int64) (*Leaf, error) {
	if id.IsNull() {
		return nil, nil
	}
	err := ctx.Err()
	var l *Leaf
	if err == nil {
		l, err = s.Leaf(ctx, id)
	}
	if err == nil {
		err = t.place(l.Node, 0, first)
	}
	if err != nil {
		return nil, nodeError("read", id, 0, first, err)
	}
	return l, nil
}

// place checks that n may stand at level, with first as its first chunk. Levels
// that fall by one at each step also bound the depth of a hostile tree, and a
// child beyond the disk's end would make another root for the same content.
func (t Tree) place(n *Node, level int, first int64) error {
	if int(n.Level) != level {
		return fmt.Errorf("%w: a node of level %d where level %d belongs", ErrFormat, n.Level, level)
	}
	inside := (t.Chunks - first + span(level) - 1) / span(level)
	for i := max(inside, 0); i < Fanout; i++ {
		if !n.Children[i].IsNull() {
			return fmt.Errorf("%w: child %d lies beyond the disk's %d chunks", ErrFormat, i, t.Chunks)
		}
	}
	return nil
}

// Resolve returns the leaf with its base loaded, or l itself if it has none or
// it is resolved already. A base that cannot be loaded costs its entries, which
// are hints, and no more: l is returned as it is. Only the end of ctx is an error.
func Resolve(ctx context.Context, s Loader, l *Leaf) (*Leaf, error) {
	if l.BaseID.IsNull() || l.base != nil {
		return l, nil
	}
	base, err := s.Leaf(ctx, l.BaseID)
	if err != nil {
		return l, ctx.Err()
	}
	return l.WithBase(base), nil
}
