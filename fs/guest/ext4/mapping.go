package ext4

import "fmt"

// extent is a stretch of a file's blocks that lie side by side on the disk.
type extent struct {
	first, n  uint64 // in the file, in blocks
	at        uint64 // first block on the disk; 0 for a hole
	unwritten bool   // allocated, but reads as zeros
}

func (e extent) end() uint64 { return e.first + e.n }
func (e extent) hole() bool  { return e.at == 0 || e.unwritten }
func (e extent) from(first uint64) extent {
	skip := first - e.first
	e.first, e.n = first, e.n-skip
	if e.at != 0 {
		e.at += skip
	}
	return e
}

// maxFileBlocks is how many blocks a map can name.
const maxFileBlocks = 1 << 32

// mapBlocks calls fn with where the blocks of an inode from first up to end are,
// in order and without gaps, until fn returns false. An extent may begin before
// first or go on behind end, and holes as well as neighbours on the disk may
// come in several.
func (f *FS) mapBlocks(in *inode, first, end uint64, fn func(extent) bool) error {
	end = min(end, maxFileBlocks)
	checked := func(e extent) (bool, error) {
		if e.at != 0 && (e.at <= f.sb.firstData || e.at > f.sb.blocks || f.sb.blocks-e.at < e.n) {
			return false, damaged("inode %d: %d blocks at block %d", in.ino, e.n, e.at)
		}
		return fn(e), nil
	}
	for first < end {
		var err error
		var more bool
		switch {
		case in.mapped:
			first, more, err = mapList(in.extents, first, end, checked)
		case in.has(flagExtents):
			first, more, err = f.mapLeaf(in, first, end, checked)
		default:
			first, more, err = f.mapPointers(in, first, end, checked)
		}
		if err != nil || !more {
			return err
		}
	}
	return nil
}

// fileBlock returns a block of what an inode holds, through the cache; for
// directories and the like, in which a hole is damage.
func (f *FS) fileBlock(in *inode, n uint64) (b []byte, at uint64, err error) {
	err = f.mapBlocks(in, n, n+1, func(e extent) bool {
		if !e.hole() && e.first <= n && n < e.end() {
			at = e.from(n).at
		}
		return e.end() <= n
	})
	if err != nil {
		return nil, 0, err
	}
	if at == 0 {
		return nil, 0, damaged("inode %d: no block %d", in.ino, n)
	}
	b, err = f.block(at)
	if err != nil {
		err = fmt.Errorf("inode %d: %w", in.ino, err)
	}
	return b, at, err
}
