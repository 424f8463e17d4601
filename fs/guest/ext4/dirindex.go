package ext4

import (
	"cmp"
	"hash/maphash"
	"slices"
	"sort"
	"sync"
)

const (
	// smallDir is up to how many blocks a directory is looked through.
	smallDir = 2

	// indexBytes bounds what the indexes made in memory take together. A
	// directory of more names than fit, two million, is looked through.
	indexBytes      = 16 << 20
	indexEntrySized = 8
	maxIndexes      = 256

	// maxDamagedBlocks is how many blocks of a directory may be damaged before
	// the rest is not looked at any more.
	maxDamagedBlocks = 64
)

// dirIndexes are indexes of directories that bring none: which blocks have
// names of a hash. Those used longest ago go first.
type dirIndexes struct {
	budget int

	mu    sync.Mutex // guards list and what its members take, not their making
	list  []*dirIndex
	bytes int
}

type dirIndex struct {
	ino uint32

	once    sync.Once
	seed    maphash.Seed
	entries []dirIndexEntry // by hash
	tooMany bool
	err     error // the damage met

	size int // in bytes, once made; guarded by dirIndexes.mu
}

type dirIndexEntry struct{ hash, block uint32 }

// lookup returns the blocks that may have a name, and, if some can't be read,
// why. ok is false for a directory too large to be indexed.
func (x *dirIndexes) lookup(f *FS, in *inode, name string) (blocks []uint32, ok bool, err error) {
	d := x.get(in.ino)
	d.once.Do(func() {
		d.make(f, in, x.budget/indexEntrySized) // for all who come, whoever gives up
		x.made(d)
	})
	if d.tooMany {
		return nil, false, nil
	}
	if d.err != nil && !isDamaged(d.err) {
		x.drop(d)
		return nil, false, d.err
	}
	h := uint32(maphash.String(d.seed, name))
	i := sort.Search(len(d.entries), func(i int) bool { return d.entries[i].hash >= h })
	for ; i < len(d.entries) && d.entries[i].hash == h; i++ {
		blocks = append(blocks, d.entries[i].block)
	}
	return blocks, true, d.err
}

// get returns the index of a directory, which may have yet to be made.
func (x *dirIndexes) get(ino uint32) *dirIndex {
	x.mu.Lock()
	defer x.mu.Unlock()
	i := slices.IndexFunc(x.list, func(d *dirIndex) bool { return d.ino == ino })
	var d *dirIndex
	if i >= 0 {
		d = x.list[i]
		x.list = slices.Delete(x.list, i, i+1)
	} else {
		d = &dirIndex{ino: ino, seed: maphash.MakeSeed()}
	}
	x.list = append(x.list, d)
	return d
}

// made counts a new index and forgets old ones.
func (x *dirIndexes) made(d *dirIndex) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if !slices.Contains(x.list, d) {
		return
	}
	d.size = len(d.entries) * indexEntrySized
	x.bytes += d.size
	for len(x.list) > 1 && (x.bytes > x.budget || len(x.list) > maxIndexes) && x.list[0] != d {
		x.bytes -= x.list[0].size
		x.list = slices.Delete(x.list, 0, 1)
	}
}

func (x *dirIndexes) drop(d *dirIndex) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if i := slices.Index(x.list, d); i >= 0 {
		x.bytes -= d.size
		x.list = slices.Delete(x.list, i, i+1)
	}
}

// make reads a directory. Blocks that are damaged are left out.
func (d *dirIndex) make(f *FS, in *inode, maxEntries int) {
	bad := 0
	for block := uint64(0); block < f.dirBlocks(in) && bad < maxDamagedBlocks; block++ {
		_, err := f.blockEntries(in, block, func(e dirent) bool {
			d.entries = append(d.entries, dirIndexEntry{uint32(maphash.Bytes(d.seed, e.name)), uint32(block)})
			return true
		})
		if err != nil {
			d.err = firstOf(d.err, err)
			if bad++; !isDamaged(err) {
				d.err = err
				return
			}
		}
		if len(d.entries) > maxEntries {
			d.tooMany, d.entries = true, nil
			return
		}
	}
	d.entries = slices.Clone(d.entries)
	slices.SortFunc(d.entries, func(a, b dirIndexEntry) int { return cmp.Compare(a.hash, b.hash) })
}
