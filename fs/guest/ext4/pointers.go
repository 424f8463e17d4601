package ext4

import "fmt"

// directPointers is how many blocks the inode itself names; then come a block
// of pointers, one of pointers to such blocks, and one of pointers to those.
const directPointers = 12

// mapPointers is mapLeaf for the block map of ext2 and ext3: 32-bit numbers,
// 0 for a hole.
func (f *FS) mapPointers(in *inode, first, end uint64, fn func(extent) (bool, error)) (next uint64, more bool, err error) {
	table, start, hole, err := f.pointers(in, first)
	if err != nil {
		return 0, false, err
	}
	if table == nil {
		more, err = fn(extent{first: first, n: hole - first})
		return hole, more, err
	}
	stop := min(end, start+uint64(len(table)/4))
	for first < stop {
		e := extent{first: first, n: 1, at: uint64(le.Uint32(table[4*(first-start):]))}
		for e.end() < stop {
			at := uint64(le.Uint32(table[4*(e.end()-start):]))
			if (e.at == 0) != (at == 0) || (at != 0 && at != e.at+e.n) {
				break
			}
			e.n++
		}
		if more, err = fn(e); err != nil || !more {
			return 0, false, err
		}
		first = e.end()
	}
	return first, true, nil
}

// pointers finds the table with the pointer to a block of a file, and the block
// that its first pointer is for. If there is none, hole is the end of the hole.
func (f *FS) pointers(in *inode, block uint64) (table []byte, start, hole uint64, err error) {
	root := in.iblock()
	if block < directPointers {
		return root[:4*directPointers], 0, 0, nil
	}
	perLog := f.sb.blockLog - 2
	start = directPointers
	for level := uint(1); level <= 3; level++ {
		if block < start+1<<(level*perLog) {
			at := le.Uint32(root[4*(directPointers+level-1):])
			return f.pointersBelow(in, at, level, start, block)
		}
		start += 1 << (level * perLog)
	}
	return nil, 0, maxFileBlocks, nil
}

// pointersBelow goes down from a block of pointers of a level, the first of
// which are for block start of the file.
func (f *FS) pointersBelow(in *inode, at uint32, level uint, start, block uint64) (table []byte, _, hole uint64, err error) {
	perLog := f.sb.blockLog - 2
	for {
		if at == 0 {
			return nil, 0, start + 1<<(level*perLog), nil
		}
		if uint64(at) <= f.sb.firstData || uint64(at) >= f.sb.blocks {
			return nil, 0, 0, damaged("inode %d: pointers in block %d", in.ino, at)
		}
		table, err = f.block(uint64(at))
		if err != nil {
			return nil, 0, 0, fmt.Errorf("inode %d: pointers: %w", in.ino, err)
		}
		if level--; level == 0 {
			return table, start, 0, nil
		}
		i := (block - start) >> (level * perLog)
		start += i << (level * perLog)
		at = le.Uint32(table[4*i:])
	}
}
