package ntfs

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"holdfast/fs"
)

// directory returns a directory and its index.
func (f *FS) directory(ctx context.Context, id fs.ID) (*node, *index, error) {
	n, stream, err := f.at(ctx, id)
	if err != nil {
		return nil, nil, err
	}
	if stream != nil || n.attr.Type != fs.TypeDir {
		return nil, nil, fmt.Errorf("inode %#x: %w", id.Ino, fs.ErrNotDir)
	}
	if what := layered[n.tag]; what != "" {
		return nil, nil, fmt.Errorf("directory in file record %d is a part of %s, the rest of which is elsewhere: %w", n.num, what, fs.ErrUnsupported)
	}
	x, err := f.openIndex(n, nameI30)
	if err != nil {
		return nil, nil, fmt.Errorf("directory in file record %d: %w", n.num, err)
	}
	return n, x, nil
}

// Lookup finds a name as it is written. Time grows with the depth of the tree
// in which a directory keeps its names.
func (f *FS) Lookup(ctx context.Context, dir fs.ID, name string) (fs.Attr, error) {
	n, x, err := f.directory(ctx, dir)
	if err != nil {
		return fs.Attr{}, err
	}
	switch name {
	case ".":
		return n.attr, nil
	case "..":
		up, err := f.parent(n)
		if err != nil {
			return fs.Attr{}, err
		}
		return up.attr, nil
	}
	want, ok := encodeName(name)
	if !ok || checkName(name) != nil {
		return fs.Attr{}, fmt.Errorf("%q: %w", name, fs.ErrNotFound)
	}
	exact, _, err := f.searchName(x, want)
	if err != nil {
		return fs.Attr{}, fmt.Errorf("look up %q in file record %d: %w", name, n.num, err)
	}
	if exact.ref.num() < firstPublic {
		return fs.Attr{}, fmt.Errorf("%q: %w", name, fs.ErrNotFound)
	}
	child, err := f.follow(exact.ref)
	if err != nil {
		return fs.Attr{}, fmt.Errorf("%q: %w", name, err)
	}
	return f.fullAttr(child)
}

// found is a name and the file that a directory has under it; 0: none.
type found struct {
	ref  ref
	name string
}

// searchName finds the file that a directory has under exactly that name, and
// one under it in other case.
func (f *FS) searchName(x *index, want []uint16) (exact, folded found, err error) {
	up, err := f.capitals()
	if err != nil && !errors.Is(err, fs.ErrDamaged) {
		return found{}, found{}, err
	}
	cmp := func(key []byte) (int, error) {
		name, err := parseFileName(key)
		if err != nil || up == nil { // the order is lost: look at all
			return 0, err
		}
		return up.compare(want, name.utf16), nil
	}
	err = x.search(cmp, func(e indexEntry) bool {
		name, err := parseFileName(e.key)
		if err != nil || name.space == spaceDOS {
			return true
		}
		this := found{e.ref, decodeName(name.utf16)}
		if slices.Equal(utf16Of(name.utf16), want) {
			exact = this
			return false
		}
		if folded.ref == 0 && up != nil {
			folded = this
		}
		return true
	})
	return exact, folded, err
}

// follow returns the file that an entry leads to, if it is still that.
func (f *FS) follow(r ref) (*node, error) {
	n, err := f.node(r.num())
	if errors.Is(err, fs.ErrStale) {
		return nil, &goneError{r}
	}
	if err == nil && r.seq() != 0 && n.seq != r.seq() {
		return nil, &goneError{r}
	}
	return n, err
}

// goneError tells of an entry whose file is gone.
type goneError struct{ ref ref }

func (e *goneError) Error() string {
	return fmt.Sprintf("leads to file record %d, which is no longer of this file: %v", e.ref.num(), fs.ErrDamaged)
}

func (e *goneError) Unwrap() error { return fs.ErrDamaged }

// parent returns the directory that n is in.
func (f *FS) parent(n *node) (*node, error) {
	if n.num == fileRoot {
		return n, nil
	}
	up, err := f.follow(n.parent)
	if err == nil && up.attr.Type != fs.TypeDir {
		err = fmt.Errorf("file record %d is no directory: %w", up.num, fs.ErrDamaged)
	}
	if err != nil {
		return nil, fmt.Errorf("parent of file record %d: %w", n.num, err)
	}
	return up, nil
}

// A cookie is a place in a directory: the block, 0 for the root of the tree, and
// the offset behind an entry. Blocks are read in the order in which they lie, those
// in use, which takes every one once and no tree to climb. bad says that some of
// what was before could not be read, so that whoever reads to the end hears of it.
type cookie uint64

const (
	cookieOffBits = 22 // maxClusterBytes is 1 << 21
	cookieBad     = 1 << 62
)

func makeCookie(block int64, off int, bad bool) uint64 {
	c := uint64(block)<<cookieOffBits | uint64(off)
	if bad {
		c |= cookieBad
	}
	return c
}

func (c cookie) split() (block int64, off int, bad bool) {
	return int64(uint64(c) &^ cookieBad >> cookieOffBits), int(c & (1<<cookieOffBits - 1)), c&cookieBad != 0
}

// maxBadBlocks is how many blocks of one directory may be unreadable in one call
// before it ends.
const maxBadBlocks = 64

// ReadDir lists a directory. What is damaged in it is passed over, and the error
// comes at the end.
func (f *FS) ReadDir(ctx context.Context, dir fs.ID, from uint64, fn func(fs.Entry) bool) error {
	n, x, err := f.directory(ctx, dir)
	if err != nil {
		return err
	}
	l := listing{f: f, n: n, fn: fn}
	block, off, bad := cookie(from).split()
	if l.bad = bad; l.bad {
		l.why = fmt.Errorf("a part of it that was passed over: %w", fs.ErrDamaged)
	}
	if block == 0 {
		if !l.entries(x.root, 0, off) {
			return nil
		}
		block, off = 1, 0
	}
	used := bitmap{f: f, a: x.bitmap}
	for count := 0; block <= x.blocks(); block, off = block+1, 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		next, err := used.next(block-1, x.blocks())
		if err != nil {
			return fmt.Errorf("directory in file record %d: blocks in use: %w", n.num, err)
		}
		if next != block-1 {
			off = 0
		}
		if block = next + 1; block > x.blocks() {
			break
		}
		entries, err := x.block(block - 1)
		if err != nil {
			if !errors.Is(err, fs.ErrDamaged) {
				return fmt.Errorf("directory in file record %d: %w", n.num, err)
			}
			l.damage(err)
			if count++; count == maxBadBlocks {
				break
			}
			continue
		}
		if !l.entries(entries, block, off) {
			return nil
		}
	}
	if l.bad {
		return fmt.Errorf("directory in file record %d is not whole: %w", n.num, l.why)
	}
	return nil
}
