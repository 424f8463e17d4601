package ntfs

import (
	"fmt"

	"holdfast/fs"
)

const (
	nameI30 = "$\x00I\x003\x000\x00"
	nameSII = "$\x00S\x00I\x00I\x00"
	nameSDS = "$\x00S\x00D\x00S\x00"

	// maxDepth of a B+ tree. A million names are three levels.
	maxDepth = 32
)

// index is a B+ tree: a directory, or a table of the volume.
type index struct {
	f          *FS
	root       []byte     // the root's entries
	alloc      *attribute // the blocks; nil: there are none
	bitmap     *attribute // which of them are in use
	blockBytes int64
	vcnBytes   int64 // what the number of a block counts
}

// openIndex returns the index of a file that has the name. Source: Linux-NTFS
// documentation, "$INDEX_ROOT".
func (f *FS) openIndex(n *node, name string) (*index, error) {
	root := n.find(typeIndexRoot, name)
	if root == nil || !root.resident || len(root.value) < 32 {
		return nil, fmt.Errorf("no root of an index: %w", fs.ErrDamaged)
	}
	x := &index{f: f, blockBytes: int64(le.Uint32(root.value[8:]))}
	if b := x.blockBytes; b < stride || b > maxBlockBytes && b > f.clusterBytes || b&(b-1) != 0 {
		return nil, fmt.Errorf("index blocks of %d bytes: %w", b, fs.ErrDamaged)
	}
	x.vcnBytes = f.clusterBytes
	if x.blockBytes < f.clusterBytes {
		x.vcnBytes = stride
	}
	var err error
	if x.root, err = indexEntries(root.value[16:]); err != nil {
		return nil, fmt.Errorf("root of an index: %w", err)
	}
	x.alloc, x.bitmap = n.find(typeIndexAlloc, name), n.find(typeBitmap, name)
	if a := x.alloc; a != nil && (a.resident || a.size > f.dev.size || x.bitmap == nil || a.flags&flagCompressed != 0) {
		return nil, fmt.Errorf("blocks of an index, %d bytes: %w", a.bytes(), fs.ErrDamaged)
	}
	return x, nil
}

// indexEntries returns the entries behind an index header.
func indexEntries(b []byte) ([]byte, error) {
	if len(b) < 16 {
		return nil, fmt.Errorf("header of %d bytes: %w", len(b), fs.ErrDamaged)
	}
	at, end := le.Uint32(b), le.Uint32(b[4:])
	if at < 16 || at > end || end > uint32(len(b)) {
		return nil, fmt.Errorf("entries from %d to %d of %d: %w", at, end, len(b), fs.ErrDamaged)
	}
	return b[at:end], nil
}

// blocks is how many blocks there is room for.
func (x *index) blocks() int64 {
	if x.alloc == nil {
		return 0
	}
	return x.alloc.size / x.blockBytes
}

// block returns the entries of a block. Source: Linux-NTFS documentation,
// "$INDEX_ALLOCATION".
func (x *index) block(i int64) ([]byte, error) {
	if i < 0 || i >= x.blocks() {
		return nil, fmt.Errorf("index block %d of %d: %w", i, x.blocks(), fs.ErrDamaged)
	}
	b := make([]byte, x.blockBytes)
	if err := x.f.readPart(x.alloc, b, i*x.blockBytes); err != nil {
		return nil, fmt.Errorf("index block %d: %w", i, err)
	}
	if err := fixup(b, "INDX"); err != nil {
		return nil, fmt.Errorf("index block %d: %w", i, err)
	}
	if vcn := le.Uint64(b[16:]); vcn != uint64(i*x.blockBytes/x.vcnBytes) {
		return nil, fmt.Errorf("index block %d says that it is at %d: %w", i, vcn, fs.ErrDamaged)
	}
	entries, err := indexEntries(b[24:])
	if err != nil {
		return nil, fmt.Errorf("index block %d: %w", i, err)
	}
	return entries, nil
}

// child returns the number of the block that stands for its VCN.
func (x *index) child(vcn uint64) (int64, error) {
	if vcn > 1<<40 || int64(vcn)*x.vcnBytes%x.blockBytes != 0 {
		return 0, fmt.Errorf("index leads to block at %d: %w", vcn, fs.ErrDamaged)
	}
	return int64(vcn) * x.vcnBytes / x.blockBytes, nil
}

// indexEntry is an entry of an index.
type indexEntry struct {
	ref   ref    // of a directory: the file
	data  []byte // of another index: what it keeps under the key
	key   []byte // nil in the last
	last  bool
	child uint64 // the block with all that comes before
	deep  bool   // there is one
}

// nextEntry parses the entry that b begins with, and returns its length.
func nextEntry(b []byte) (indexEntry, int, error) {
	if len(b) < 16 {
		return indexEntry{}, 0, fmt.Errorf("index entries without an end: %w", fs.ErrDamaged)
	}
	n, keyBytes, flags := int(le.Uint16(b[8:])), int(le.Uint16(b[10:])), le.Uint16(b[12:])
	e := indexEntry{ref: ref(le.Uint64(b)), last: flags&2 != 0, deep: flags&1 != 0}
	end := n
	if e.deep {
		end -= 8
	}
	if end < 16 || n%8 != 0 || n > len(b) || !e.last && 16+keyBytes > end {
		return indexEntry{}, 0, fmt.Errorf("index entry of %d bytes with a key of %d: %w", n, keyBytes, fs.ErrDamaged)
	}
	if e.deep {
		e.child = le.Uint64(b[end:])
	}
	if e.last {
		return e, n, nil
	}
	e.key = b[16 : 16+keyBytes]
	if at, size := int(le.Uint16(b)), int(le.Uint16(b[2:])); at+size <= end {
		e.data = b[at : at+size]
	}
	return e, n, nil
}

// search calls fn for the entries that cmp finds equal to what is sought, until
// fn returns false. cmp says how what is sought compares to a key.
func (x *index) search(cmp func(key []byte) (int, error), fn func(indexEntry) bool) error {
	s := searcher{x: x, cmp: cmp, fn: fn, seen: map[int64]bool{}}
	_, err := s.visit(x.root, 0)
	return err
}

type searcher struct {
	x    *index
	cmp  func(key []byte) (int, error)
	fn   func(indexEntry) bool
	seen map[int64]bool // blocks, so that none is visited twice
}

// visit searches among entries and below; done says that nothing is left to do.
func (s *searcher) visit(entries []byte, depth int) (done bool, err error) {
	for {
		e, n, err := nextEntry(entries)
		if err != nil {
			return true, err
		}
		entries = entries[n:]
		c := -1
		if !e.last {
			if c, err = s.cmp(e.key); err != nil {
				return true, err
			}
		}
		if c > 0 {
			continue
		}
		if e.deep {
			if done, err := s.descend(e.child, depth+1); done || err != nil {
				return true, err
			}
		}
		if c < 0 {
			return !e.last, nil
		}
		if !s.fn(e) {
			return true, nil
		}
	}
}

func (s *searcher) descend(vcn uint64, depth int) (done bool, err error) {
	i, err := s.x.child(vcn)
	if err != nil {
		return true, err
	}
	if s.seen[i] || depth > maxDepth {
		return true, fmt.Errorf("index leads to block %d again: %w", i, fs.ErrDamaged)
	}
	s.seen[i] = true
	entries, err := s.x.block(i)
	if err != nil {
		return true, err
	}
	return s.visit(entries, depth)
}
