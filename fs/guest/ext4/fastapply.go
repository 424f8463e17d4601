package ext4

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"holdfast/fs"
)

// fastCommits is what fast commits changed. It takes the place of the blocks
// that Linux writes when it replays them.
type fastCommits struct {
	inodes map[uint32]*fastInodeState
	dirs   map[uint32]*dirChanges
}

// fastInodeState is an inode as fast commits left it.
type fastInodeState struct {
	raw     []byte
	extents []extent // of all its blocks, if mapped
	mapped  bool
	err     error // it could not be told; then nothing else counts
}

func (c *fastCommits) inode(ino uint32) *fastInodeState { return c.inodes[ino] }

// maxFastExtents bounds the extents of one inode that fast commits changed.
const maxFastExtents = 1 << 20

// applyFast applies one tag. As on Linux a tag about an inode that is not in use
// is passed over. What can't be replayed makes its inode unreadable.
func (f *FS) applyFast(t fastTag) error {
	v := t.value
	var err error
	ino := uint32(0) // to blame
	switch t.kind {
	case fastAddRange:
		ino = le.Uint32(v)
		n := extentNode{b: v[4:], n: 1}
		err = f.fastRange(ino, n.extent(0))
	case fastDelRange:
		ino = le.Uint32(v)
		err = f.fastRange(ino, extent{first: uint64(le.Uint32(v[4:])), n: uint64(le.Uint32(v[8:]))})
	case fastCreate:
		ino = le.Uint32(v)
		err = f.fastMake(ino, le.Uint32(v[4:]), string(v[8:]))
	case fastLink:
		ino = le.Uint32(v)
		err = f.fastName(ino, le.Uint32(v[4:]), string(v[8:]))
	case fastUnlink:
		ino = le.Uint32(v)
		err = f.fastUnname(ino, le.Uint32(v[4:]), string(v[8:]))
	case fastInode:
		ino = le.Uint32(v)
		err = f.fastSet(ino, v[4:])
	}
	switch {
	case err == nil || errors.Is(err, fs.ErrStale):
		return nil
	case isDamaged(err) || errors.Is(err, fs.ErrUnsupported) || errors.Is(err, fs.ErrNotDir):
		if errors.Is(err, fs.ErrNotDir) {
			err = damaged("%v", err)
		}
		f.fastState(ino).err = fmt.Errorf("inode %d, changed by a fast commit: %w", ino, err)
		return nil
	}
	return err
}

// fastState returns the state of an inode, made on first use.
func (f *FS) fastState(ino uint32) *fastInodeState {
	c := f.fast.inodes[ino]
	if c == nil {
		c = new(fastInodeState)
		f.fast.inodes[ino] = c
	}
	return c
}

// fastOwn returns the state of an inode in use, with bytes of its own.
func (f *FS) fastOwn(ino uint32) (*fastInodeState, inode, error) {
	if f.fast.inodes[ino] == nil {
		// One that was made and removed again may never have been written.
		if raw, err := f.rawInode(ino); err == nil && le.Uint16(raw[26:]) == 0 {
			return nil, inode{}, fmt.Errorf("inode %d: %w", ino, fs.ErrStale)
		}
	}
	in, err := f.inode(uint64(ino))
	if err != nil {
		return nil, in, err
	}
	c := f.fastState(ino)
	if c.raw == nil {
		c.raw = slices.Clone(in.raw)
		in.raw = c.raw
	}
	return c, in, nil
}

// fastSet replaces all of an inode but its map of blocks.
func (f *FS) fastSet(ino uint32, raw []byte) error {
	if ino != rootIno && (ino < f.sb.firstIno || ino > f.sb.inodes) {
		return fmt.Errorf("inode %d: %w", ino, fs.ErrStale)
	}
	c := f.fastState(ino)
	if c.raw == nil {
		old, err := f.rawInode(ino)
		if err != nil {
			return err
		}
		c.raw = slices.Clone(old)
		if f.sb.csum() && f.checkInode(ino, old) != nil {
			if le.Uint16(old[26:]) != 0 {
				return f.checkInode(ino, old)
			}
			clear(c.raw) // never used
		}
	}
	copy(c.raw[:inodeBlockAt], raw)
	behind := inodeBlockAt + inodeBlockLen
	copy(c.raw[behind:], raw[behind:])
	kept := c.raw[inodeBlockAt:behind]
	switch flags := le.Uint32(raw[32:]); {
	case flags&flagExtents == 0:
		copy(kept, raw[inodeBlockAt:])
	case le.Uint16(kept) != extentMagic:
		clear(kept)
		le.PutUint16(kept, extentMagic)
		le.PutUint16(kept[4:], (inodeBlockLen-12)/12)
	}
	return nil
}

// fastRange maps the blocks of an extent to where it is, or to nothing.
func (f *FS) fastRange(ino uint32, x extent) error {
	c, in, err := f.fastOwn(ino)
	if err != nil {
		return err
	}
	if !in.has(flagExtents) {
		return unsupported("a range in a file without extents")
	}
	if x.at != 0 && (x.n == 0 || x.at+x.n > f.sb.blocks) {
		return damaged("a range of %d blocks at block %d", x.n, x.at)
	}
	if !c.mapped {
		err := f.mapBlocks(&in, 0, maxFileBlocks, func(e extent) bool {
			if e.at != 0 {
				c.extents = append(c.extents, e)
			}
			return len(c.extents) < maxFastExtents
		})
		if err != nil {
			return err
		}
		c.mapped = true
	}
	if len(c.extents) >= maxFastExtents {
		return unsupported("a file in %d pieces", len(c.extents))
	}
	c.extents = replaceRange(c.extents, x)
	return nil
}

// replaceRange puts x into a sorted list in place of what it covers.
func replaceRange(list []extent, x extent) []extent {
	from, _ := slices.BinarySearchFunc(list, x.first, func(e extent, first uint64) int {
		if e.end() > first {
			return 1
		}
		return -1
	})
	var put []extent
	to := from
	for ; to < len(list) && list[to].first < x.end(); to++ {
		if e := list[to]; e.first < x.first {
			e.n = x.first - e.first
			put = append(put, e)
		}
		if to == from && x.at != 0 {
			put = append(put, x)
		}
		if e := list[to]; e.end() > x.end() {
			put = append(put, e.from(x.end()))
		}
	}
	if to == from && x.at != 0 {
		put = append(put, x)
	}
	return slices.Replace(list, from, to, put...)
}

// fastMake gives a new inode, which has been set before, its first name.
func (f *FS) fastMake(dir, ino uint32, name string) error {
	c, in, err := f.fastOwn(ino)
	if err != nil {
		return err
	}
	if typeOf(in.mode) == fs.TypeDir {
		f.fast.dirs[ino] = &dirChanges{made: true, parent: dir}
		le.PutUint32(c.raw[4:], uint32(f.sb.blockBytes())) // i_size
	}
	if err := f.fastName(dir, ino, name); err != nil {
		return err
	}
	le.PutUint16(c.raw[26:], 1) // i_links_count
	return nil
}

// fastName adds a name to a directory, unless it has it.
func (f *FS) fastName(dir, ino uint32, name string) error {
	c, in, err := f.fastOwn(ino)
	if err != nil {
		return err
	}
	changes, old, err := f.fastDir(dir, name)
	if err != nil || old != 0 {
		return err
	}
	le.PutUint16(c.raw[26:], le.Uint16(c.raw[26:])+1)
	changes.add(name, ino, fileTypeOf(in.mode))
	return nil
}

// fastUnname removes a name from a directory, if it has it for that inode.
func (f *FS) fastUnname(dir, ino uint32, name string) error {
	c, _, err := f.fastOwn(ino)
	if err != nil {
		return err
	}
	changes, old, err := f.fastDir(dir, name)
	if err != nil || old == 0 {
		return err
	}
	if old == ino {
		changes.remove(name)
	}
	if links := le.Uint16(c.raw[26:]); links > 0 {
		le.PutUint16(c.raw[26:], links-1)
	}
	return nil
}

// fastDir returns the changes of a directory, and what it has under a name.
func (f *FS) fastDir(dir uint32, name string) (*dirChanges, uint32, error) {
	in, err := f.dir(context.Background(), fs.ID{Ino: uint64(dir)})
	if err != nil {
		return nil, 0, err
	}
	old, err := f.find(context.Background(), &in, name)
	if err != nil {
		return nil, 0, err
	}
	changes := f.fast.dirs[dir]
	if changes == nil {
		changes = new(dirChanges)
		f.fast.dirs[dir] = changes
	}
	return changes, old, nil
}

// fileTypeOf is the type of an inode as an entry has it.
func fileTypeOf(mode uint16) byte {
	return byte(max(0, slices.Index(fileTypes[:], typeOf(mode))))
}
