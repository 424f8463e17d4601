package blockmap

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"testing"

	"holdfast/repo/chunk"
	"holdfast/repo/pack"
	"holdfast/repo/seal"
)

// memStore keeps records as bytes, as a repository does, and counts.
type memStore struct {
	lay     Layout
	records map[chunk.ID]record

	loads      map[chunk.ID]int
	leafLoads  int // with frame table
	puts       int
	tableBytes int      // of leaves put
	fail       chunk.ID // loading it gives errBroken
	failPut    bool
}

type record struct {
	payload, table []byte
	base           chunk.ID
}

var errBroken = fmt.Errorf("broken store")

func newMemStore(lay Layout) *memStore {
	return &memStore{lay: lay, records: map[chunk.ID]record{}, loads: map[chunk.ID]int{}}
}

func (s *memStore) get(id chunk.ID) (record, error) {
	s.loads[id]++
	r, ok := s.records[id]
	if !ok {
		return r, fmt.Errorf("no record %s", id.Short())
	}
	if id == s.fail {
		return r, errBroken
	}
	return r, nil
}

func (s *memStore) Node(_ context.Context, id chunk.ID) (*Node, error) {
	r, err := s.get(id)
	if err != nil {
		return nil, err
	}
	return ParseNode(r.payload)
}

func (s *memStore) Leaf(_ context.Context, id chunk.ID) (*Leaf, error) {
	s.leafLoads++
	r, err := s.get(id)
	if err != nil {
		return nil, err
	}
	return ParseLeaf(r.payload, r.table, r.base, s.lay)
}

func (s *memStore) put(r record) (chunk.ID, error) {
	if s.failPut {
		return chunk.Null, errBroken
	}
	s.puts++
	s.tableBytes += len(r.table)
	n, err := ParseNode(r.payload)
	if err != nil {
		return chunk.Null, err
	}
	id := chunk.ID(sha256.Sum256(r.payload))
	if id == r.base {
		return id, fmt.Errorf("leaf %s is its own base", id.Short())
	}
	if _, ok := s.records[id]; ok {
		return id, nil // as a repository, which knows its ids
	}
	for i := range n.Children {
		if c := n.Children[i]; n.Level > 0 && !c.IsNull() {
			if _, ok := s.records[c]; !ok {
				return id, fmt.Errorf("put before its child %d", i)
			}
		}
	}
	if !r.base.IsNull() {
		b, ok := s.records[r.base]
		if !ok || !b.base.IsNull() {
			return id, fmt.Errorf("base %s is not there or has a base", r.base.Short())
		}
	}
	s.records[id] = r
	return id, nil
}

func (s *memStore) PutNode(_ context.Context, n *Node) (chunk.ID, error) {
	return s.put(record{payload: n.AppendPayload(nil)})
}

func (s *memStore) PutLeaf(_ context.Context, l *Leaf) (chunk.ID, error) {
	return s.put(record{payload: l.Node.AppendPayload(nil), table: l.Table.Bytes(), base: l.BaseID})
}

func (s *memStore) resetCounts() {
	s.loads, s.leafLoads, s.puts, s.tableBytes = map[chunk.ID]int{}, 0, 0, 0
}

// nodesLoaded is the number of loads, each load of a node counted.
func (s *memStore) nodesLoaded() int {
	n := 0
	for _, k := range s.loads {
		n += k
	}
	return n
}

// testID is the id of the v-th content a chunk can have.
func testID(v uint64) chunk.ID {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], v)
	return sha256.Sum256(b[:])
}

// testEntry is the entry of the chunk id: which record it describes follows from
// the id and the variant.
func testEntry(lay Layout, id chunk.ID, variant byte) *Entry {
	e := &Entry{Patch: lay.Frames > 1 && id[0]%4 == 0}
	if lay.Sealed {
		e.Salt[0], e.Salt[23] = id[1], variant
	}
	if e.Patch {
		e.Base = testID(uint64(id[2]))
		if lay.Sealed {
			e.BaseSalt[5] = id[3] | 1
		}
	}
	off := uint32(pack.HeaderBytes(lay.Frames))
	for i := range lay.Frames {
		f := pack.Frame{Digest: chunk.Digest(id), Codec: seal.Codec(i % 4), Off: off, InBase: e.Patch && i == 0}
		f.Digest[31], f.Digest[30] = byte(i), variant
		if f.Codec != seal.Zero {
			f.Stored = 1000 + uint32(id[4])
		}
		off += f.Stored
		e.Frames = append(e.Frames, f)
	}
	return e
}

// build makes a tree of the non-null chunks in content from nothing.
func build(tb testing.TB, s Store, lay Layout, chunks int64, content map[int64]chunk.ID) Tree {
	tb.Helper()
	e := NewEditor(s, lay, Tree{}, chunks)
	for _, n := range sortedKeys(content) {
		id := content[n]
		if id.IsNull() {
			continue
		}
		if err := e.Set(tb.Context(), n, id, testEntry(lay, id, 0)); err != nil {
			tb.Fatal(err)
		}
	}
	root, err := e.Finish(tb.Context())
	if err != nil {
		tb.Fatal(err)
	}
	return Tree{Root: root, Chunks: chunks}
}
