package ext4

// The index of a directory maps the hash of a name to the block with its entry.
// The root stands in the first block behind "..": eight bytes that say which
// hash and how many levels, then entries of hash and block, the first of which
// has in place of a hash the room for entries and their number. Inner nodes are
// the same behind a free entry of eight bytes. An entry's lowest bit says that
// names of that same hash began in the block before.
const (
	indexRootAt = 32
	indexNodeAt = 8

	indexMaxLevels  = 1 // of inner nodes; one more with large_dir
	indexEntryBytes = 8
)

// indexed says whether a directory has an index.
func (f *FS) indexed(in *inode) bool {
	return in.has(flagIndex) && f.sb.compat&compatDirIndex != 0 && !in.has(flagInlineData)
}

// indexNode says whether a block of an indexed directory is free as a whole, as
// inner nodes look.
func (f *FS) indexNode(b []byte) bool {
	return le.Uint32(b) == 0 && f.recordLength(le.Uint16(b[4:])) == len(b)
}

// indexEntries returns the entries of an index block, the first without hash.
func indexEntries(b []byte, root bool) ([]byte, error) {
	at := indexNodeAt
	if root {
		at = indexRootAt
	}
	room, n := int(le.Uint16(b[at:])), int(le.Uint16(b[at+2:]))
	if n == 0 || n > room || at+room*indexEntryBytes > len(b) {
		return nil, damaged("index of %d entries in room for %d", n, room)
	}
	return b[at : at+n*indexEntryBytes], nil
}

// checkIndexBlock verifies the checksum of a block with a part of the index,
// which is behind the room for entries.
func (f *FS) checkIndexBlock(in *inode, b []byte, n, at uint64) error {
	entries, err := indexEntries(b, n == 0)
	if err != nil {
		return damaged("directory %d: block %d: %v", in.ino, at, err)
	}
	start := indexNodeAt
	if n == 0 {
		start = indexRootAt
	}
	tailAt := start + int(le.Uint16(b[start:]))*indexEntryBytes
	if tailAt+8 > len(b) {
		return damaged("directory %d: block %d has no checksum", in.ino, at)
	}
	c := crc32c(in.seed, b[:start+len(entries)])
	c = crc32c(c, b[tailAt:tailAt+4])
	c = crc32c(c, zeroes[:4])
	if want := le.Uint32(b[tailAt+4:]); c != want {
		return damaged("directory %d: block %d: checksum %08x, want %08x", in.ino, at, c, want)
	}
	return nil
}

// findHashed looks a name up by the index. ok is false if the index, or what it
// leads to, is of no use; then all blocks have to be looked at.
func (f *FS) findHashed(in *inode, name string) (ino uint32, ok bool) {
	h, ok := f.indexHash(in, name)
	if !ok {
		return 0, false
	}
	path, ok := f.descend(in, h)
	for range f.dirBlocks(in) {
		if !ok {
			return 0, false
		}
		_, err := f.blockEntries(in, path[len(path)-1].block(), match(name, &ino))
		if ino != 0 || err != nil {
			return ino, err == nil
		}
		var same bool
		if path, same, ok = f.nextLeaf(in, path, h); ok && !same {
			return 0, true
		}
	}
	return 0, false // it goes in circles
}

// indexAt is a place in a node of the index.
type indexAt struct {
	entries []byte
	i       int
}

func (a *indexAt) hash(i int) uint32 { return le.Uint32(a.entries[i*indexEntryBytes:]) }
func (a *indexAt) block() uint64 {
	return uint64(le.Uint32(a.entries[a.i*indexEntryBytes+4:]) & 0x0fffffff)
}

// descend goes from the root to the entry for a hash at the lowest level.
func (f *FS) descend(in *inode, h uint32) (path []indexAt, ok bool) {
	levels, block := 0, uint64(0)
	for {
		b, at, err := f.fileBlock(in, block)
		if err != nil {
			return nil, false
		}
		root := len(path) == 0
		if root {
			if levels = int(b[30]); levels > f.indexLevels() {
				return nil, false
			}
		} else if !f.indexNode(b) {
			return nil, false
		}
		if f.sb.csum() && f.checkIndexBlock(in, b, block, at) != nil {
			return nil, false
		}
		a := indexAt{}
		if a.entries, err = indexEntries(b, root); err != nil {
			return nil, false
		}
		lo, hi := 1, len(a.entries)/indexEntryBytes
		for lo < hi {
			if mid := (lo + hi) / 2; a.hash(mid) > h {
				hi = mid
			} else {
				lo = mid + 1
			}
		}
		a.i = lo - 1
		path = append(path, a)
		if block = a.block(); block == 0 || block >= f.dirBlocks(in) {
			return nil, false
		}
		if len(path) > levels {
			return path, true
		}
	}
}

func (f *FS) indexLevels() int {
	if f.sb.has(incompatLargedir) {
		return indexMaxLevels + 1
	}
	return indexMaxLevels
}

// nextLeaf goes to the next block of entries. same says that names of the hash
// may go on there.
func (f *FS) nextLeaf(in *inode, path []indexAt, h uint32) (next []indexAt, same, ok bool) {
	level := len(path) - 1
	for ; level >= 0; level-- {
		a := &path[level]
		if a.i+1 < len(a.entries)/indexEntryBytes {
			a.i++
			break
		}
	}
	if level < 0 {
		return nil, false, true
	}
	if path[level].hash(path[level].i)&^1 != h {
		return nil, false, true
	}
	for level++; level < len(path); level++ {
		b, at, err := f.fileBlock(in, path[level-1].block())
		if err != nil || !f.indexNode(b) || (f.sb.csum() && f.checkIndexBlock(in, b, 1, at) != nil) {
			return nil, false, false
		}
		entries, err := indexEntries(b, false)
		if err != nil {
			return nil, false, false
		}
		path[level] = indexAt{entries: entries}
	}
	if block := path[len(path)-1].block(); block == 0 || block >= f.dirBlocks(in) {
		return nil, false, false
	}
	return path, true, true
}
