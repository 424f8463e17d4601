package ext4

import (
	"context"
	"errors"
	"fmt"

	"holdfast/fs"
)

// Lookup has the meaning of fs.Tree. It goes by the directory's own index; one
// without gets an index in memory, if it has more than a few blocks.
func (f *FS) Lookup(ctx context.Context, dir fs.ID, name string) (fs.Attr, error) {
	in, err := f.dir(ctx, dir)
	if err != nil {
		return fs.Attr{}, err
	}
	ino := in.ino
	switch name {
	case ".":
	case "..":
		ino, err = f.parent(&in)
	default:
		ino, err = f.find(ctx, &in, name)
	}
	if err != nil {
		return fs.Attr{}, err
	}
	if ino == 0 {
		return fs.Attr{}, &absentError{in.ino, name}
	}
	found, err := f.inode(uint64(ino))
	if errors.Is(err, fs.ErrStale) {
		err = damaged("%q in directory %d: inode %d is not in use", name, in.ino, ino)
	}
	if err == nil && name == ".." && typeOf(found.mode) != fs.TypeDir {
		err = damaged("directory %d: its parent %d is a %s", in.ino, ino, typeOf(found.mode))
	}
	if err != nil {
		return fs.Attr{}, err
	}
	return f.attr(&found), nil
}

// absentError is the answer about a name that is not there: made often, by
// whoever tries paths, and seldom looked at.
type absentError struct {
	dir  uint32
	name string
}

func (e *absentError) Error() string {
	return fmt.Sprintf("%q in directory %d: %v", e.name, e.dir, fs.ErrNotFound)
}

func (e *absentError) Unwrap() error { return fs.ErrNotFound }

// find returns the inode that a directory has under a name, or 0.
func (f *FS) find(ctx context.Context, in *inode, name string) (uint32, error) {
	if len(name) == 0 || len(name) > maxName {
		return 0, nil
	}
	if c := f.fast.dirs[in.ino]; c != nil {
		if ino, known := c.find(name); known {
			return ino, nil
		}
	}
	if in.has(flagInlineData) {
		var ino uint32
		err := f.inlineEntries(in, match(name, &ino))
		return ino, err
	}
	if f.indexed(in) {
		if ino, ok := f.findHashed(in, name); ok {
			return ino, nil
		}
	}
	if f.dirBlocks(in) > smallDir {
		if blocks, ok, err := f.indexes.lookup(f, in, name); ok || err != nil {
			return f.findIn(in, blocks, name, err)
		}
	}
	return f.scan(ctx, in, name)
}

// match returns a function for parseEntries that looks for a name.
func match(name string, ino *uint32) func(dirent) bool {
	return func(d dirent) bool {
		if string(d.name) == name {
			*ino = d.ino
		}
		return *ino == 0
	}
}

// scan looks for a name in one block after the other. Damage in one does not
// keep it from finding the name in another, but from saying that it is nowhere.
func (f *FS) scan(ctx context.Context, in *inode, name string) (uint32, error) {
	var ino uint32
	var damage error
	visit := match(name, &ino)
	blocks := f.dirBlocks(in)
	for block, bad := uint64(0), 0; block < blocks && bad < maxDamagedBlocks; block++ {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		_, err := f.blockEntries(in, block, visit)
		if ino != 0 {
			return ino, nil
		}
		if err != nil && !isDamaged(err) {
			return 0, err
		}
		if err != nil {
			damage = firstOf(damage, err)
			bad++
		}
	}
	return 0, damage
}

func firstOf(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

// findIn looks for a name in some blocks. err is what kept the index from being
// complete.
func (f *FS) findIn(in *inode, blocks []uint32, name string, err error) (uint32, error) {
	var ino uint32
	for _, block := range blocks {
		_, berr := f.blockEntries(in, uint64(block), match(name, &ino))
		if ino != 0 {
			return ino, nil
		}
		err = firstOf(berr, err)
	}
	return 0, err
}
