package blockmap

import (
	"fmt"
	"math/bits"

	"holdfast/repo/chunk"
)

// A Node is one node of the tree. Children that are all Null make no node:
// their parent has Null in its place.
type Node struct {
	Level    uint8 // 0 is a leaf, whose children are chunks
	Children [Fanout]chunk.ID
}

// nodeHead is the length of a payload before the ids: level, three zero bytes
// and the bitmap.
const nodeHead = 4 + Fanout/8

// MaxNodeBytes is the length of the payload of a node with all its children.
const MaxNodeBytes = nodeHead + Fanout*chunk.IDBytes

// Empty reports whether all children are Null.
func (n *Node) Empty() bool { return n.Children == [Fanout]chunk.ID{} }

// AppendPayload appends the node's payload, the bytes that its id is over, to
// dst. An empty node has none; ParseNode would refuse it.
func (n *Node) AppendPayload(dst []byte) []byte {
	var head [nodeHead]byte
	head[0] = n.Level
	for i := range n.Children {
		if !n.Children[i].IsNull() {
			head[4+i/8] |= 1 << (i % 8)
		}
	}
	dst = append(dst, head[:]...)
	for i := range n.Children {
		if !n.Children[i].IsNull() {
			dst = append(dst, n.Children[i][:]...)
		}
	}
	return dst
}

// ParseNode reads a node's payload. Every payload it accepts is the one that
// AppendPayload writes; all others give ErrFormat.
func ParseNode(p []byte) (*Node, error) {
	bad := func(format string, args ...any) (*Node, error) {
		return nil, fmt.Errorf("%w: node %s", ErrFormat, fmt.Sprintf(format, args...))
	}
	if len(p) < nodeHead {
		return bad("of %d bytes", len(p))
	}
	if p[0] >= MaxLevels {
		return bad("of level %d", p[0])
	}
	if p[1]|p[2]|p[3] != 0 {
		return bad("with reserved bytes set")
	}
	set := 0
	for _, b := range p[4:nodeHead] {
		set += bits.OnesCount8(b)
	}
	if set == 0 || len(p) != nodeHead+set*chunk.IDBytes {
		return bad("of %d bytes for %d children", len(p), set)
	}
	n := &Node{Level: p[0]}
	ids := p[nodeHead:]
	for i := range n.Children {
		if p[4+i/8]&(1<<(i%8)) == 0 {
			continue
		}
		n.Children[i] = chunk.ID(ids[:chunk.IDBytes])
		if n.Children[i].IsNull() {
			return bad("with a null id for child %d", i)
		}
		ids = ids[chunk.IDBytes:]
	}
	return n, nil
}
