package repo

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"sync"

	"holdfast/repo/blockmap"
	"holdfast/repo/chunk"
	"holdfast/repo/pack"
	"holdfast/repo/seal"
)

// A leafCache keeps nodes and leaves read last, within a budget of bytes. It is
// safe for concurrent use.
type leafCache struct {
	budget int

	mu   sync.Mutex // guards all below
	held int
	byID map[chunk.ID]*list.Element
	lru  *list.List // of *cachedNode, least recently used at the back
}

// cachedNode is a node, and a leaf if its frame table was read as well.
type cachedNode struct {
	id    chunk.ID
	node  *blockmap.Node
	leaf  *blockmap.Leaf
	bytes int
}

func newLeafCache(budget int) *leafCache {
	return &leafCache{budget: budget, byID: make(map[chunk.ID]*list.Element), lru: list.New()}
}

func (c *leafCache) get(id chunk.ID) *cachedNode {
	c.mu.Lock()
	defer c.mu.Unlock()
	elem := c.byID[id]
	if elem == nil {
		return nil
	}
	c.lru.MoveToFront(elem)
	return elem.Value.(*cachedNode)
}

func (c *leafCache) put(n *cachedNode) {
	n.bytes = 1 + blockmap.Fanout*chunk.IDBytes
	if n.leaf != nil {
		n.bytes = n.leaf.MemoryBytes()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if old := c.byID[n.id]; old != nil {
		c.remove(old)
	}
	c.byID[n.id] = c.lru.PushFront(n)
	c.held += n.bytes
	for c.held > c.budget && c.lru.Len() > 1 {
		c.remove(c.lru.Back())
	}
}

func (c *leafCache) remove(elem *list.Element) {
	n := c.lru.Remove(elem).(*cachedNode)
	delete(c.byID, n.id)
	c.held -= n.bytes
}

// nodesInMemory loads nodes that the cache has, and no others.
type nodesInMemory struct{ leaves *leafCache }

var errNotCached = errors.New("not in memory")

func (m nodesInMemory) Node(_ context.Context, id chunk.ID) (*blockmap.Node, error) {
	if n := m.leaves.get(id); n != nil {
		return n.node, nil
	}
	return nil, errNotCached
}

func (m nodesInMemory) Leaf(_ context.Context, id chunk.ID) (*blockmap.Leaf, error) {
	if n := m.leaves.get(id); n != nil && n.leaf != nil {
		return n.leaf, nil
	}
	return nil, errNotCached
}

// layout is the shape of this repository's frame tables.
func (s *store) layout() blockmap.Layout {
	return blockmap.Layout{Frames: s.settings.Geometry.Frames(), Sealed: s.settings.Sealed}
}

// Node implements blockmap.Loader. Of a leaf it does not read the frame table,
// which is ten times as long as the rest.
func (s *store) Node(ctx context.Context, id chunk.ID) (*blockmap.Node, error) {
	if n := s.leaves.get(id); n != nil {
		return n.node, nil
	}
	if n := s.nodeAlone(id); n != nil {
		s.leaves.put(&cachedNode{id: id, node: n})
		return n, nil
	}
	n, err := s.loadNode(ctx, id)
	if err != nil {
		return nil, err
	}
	return n.node, nil
}

// Leaf implements blockmap.Loader.
func (s *store) Leaf(ctx context.Context, id chunk.ID) (*blockmap.Leaf, error) {
	n := s.leaves.get(id)
	if n == nil || n.leaf == nil {
		var err error
		if n, err = s.loadNode(ctx, id); err != nil {
			return nil, err
		}
	}
	if n.leaf == nil {
		return nil, fmt.Errorf("%w: node %s of level %d where a leaf belongs", ErrFormat, id.Short(), n.node.Level)
	}
	return n.leaf, nil
}

// nodeAlone reads what a node's id is over, and nothing else. nil when that
// fails, or can't be verified: then loadNode goes the long way.
func (s *store) nodeAlone(id chunk.ID) *blockmap.Node {
	if s.keyless() {
		return nil
	}
	locs, err := s.locations(id)
	if err != nil || locs[0].Kind != pack.Node {
		return nil
	}
	b := make([]byte, min(int(locs[0].Len), maxNodeAlone))
	if err := s.readAt(pack.Meta, locs[0].Pack, b, int64(locs[0].Off)); err != nil {
		return nil
	}
	h, _, err := pack.ParseHeader(b)
	if err != nil || h.Kind != pack.Node {
		return nil
	}
	f := &h.Frames[0]
	if int64(f.Off)+int64(f.Stored) > int64(len(b)) {
		return nil
	}
	payload := b[f.Off : f.Off+f.Stored]
	if s.hasher.Node(payload) != id {
		return nil
	}
	n, err := blockmap.ParseNode(payload)
	if err != nil {
		return nil
	}
	return n
}

// maxNodeAlone is the most that header and payload of a node take.
var maxNodeAlone = pack.HeaderBytes(2) + blockmap.MaxNodeBytes

// loadNode reads and verifies a node's record. A leaf whose frame table can't
// be had is a leaf without entries: its chunks are read by their headers. Without
// a key, what it names is taken at its word, and no frame table can be had.
func (s *store) loadNode(ctx context.Context, id chunk.ID) (*cachedNode, error) {
	n := &cachedNode{id: id}
	err := s.record(ctx, id, func(h *pack.Header, rec []byte) error {
		if h.Kind != pack.Node {
			return fmt.Errorf("%w: a %v where a node belongs", ErrFormat, h.Kind)
		}
		payload := rec[h.Frames[0].Off : h.Frames[0].Off+h.Frames[0].Stored]
		if !s.keyless() && s.hasher.Node(payload) != id {
			return fmt.Errorf("node %s: %w", id.Short(), errDigest)
		}
		node, err := blockmap.ParseNode(payload)
		if err != nil {
			return err
		}
		n.node, n.leaf = node, nil
		if node.Level != 0 || s.keyless() {
			return nil
		}
		table, err := s.frameTable(h, rec, id)
		if err != nil {
			return err
		}
		n.leaf, err = blockmap.NewLeaf(node, table, h.Base)
		return err
	})
	if err != nil && n.node == nil {
		return nil, fmt.Errorf("read node %s: %w", id.Short(), err)
	}
	if n.node.Level == 0 && n.leaf == nil {
		if !s.keyless() {
			s.log.Warn("frame table lost; reading by record headers", "node", id.Short(), "err", err)
		}
		if n.leaf, err = blockmap.NewLeaf(n.node, blockmap.NewTable(s.layout()), chunk.Null); err != nil {
			return nil, err
		}
	}
	s.leaves.put(n)
	return n, nil
}

// frameTable decodes frame 1 of a leaf's record.
func (s *store) frameTable(h *pack.Header, rec []byte, id chunk.ID) (*blockmap.Table, error) {
	if len(h.Frames) < 2 {
		return blockmap.NewTable(s.layout()), nil
	}
	f := &h.Frames[1]
	var key *seal.RecordKey
	if h.Flags&pack.Sealed != 0 {
		if s.keys == nil {
			return nil, ErrNeedKey
		}
		key = s.keys.Record(h.Salt)
	}
	raw := make([]byte, h.FrameBytes(1))
	stored := append([]byte(nil), rec[f.Off:f.Off+f.Stored]...)
	if err := s.decodeFrame(raw, stored, f, key, id, 1); err != nil {
		return nil, fmt.Errorf("frame table of %s: %w", id.Short(), err)
	}
	return blockmap.ParseTable(raw, s.layout())
}
