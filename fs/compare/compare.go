// Package compare tells in what two trees differ, as two restore points of a
// volume do.
//
// Directories are read, and what is in both is held side by side. Of a file's
// content only that is read which may differ: where both have the same stretch
// of the same device, and the caller knows that nothing was written there, the
// bytes are the same, and where both have holes they are too.
package compare

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"holdfast/fs"
)

// Kind is in what way a path differs.
type Kind uint8

const (
	Added   Kind = iota + 1 // only in the second tree
	Removed                 // only in the first
	Changed                 // another type, content, alternate streams or target
	Touched                 // the same content; something else differs
)

var kindNames = [...]string{Added: "added", Removed: "removed", Changed: "changed", Touched: "touched"}

func (k Kind) String() string { return kindNames[k] }

// A Change is a path that differs.
type Change struct {
	Path string // from the directories compared; no slash in front
	Kind Kind
	A, B *fs.Attr // nil in which the path is not
	What []string // of Changed and Touched: type, content, target, device, streams, mode, owner, mtime, xattrs
}

// Side is one of the directories that are compared.
type Side struct {
	Tree fs.Tree
	Top  fs.ID
}

// Options say what is known beforehand.
type Options struct {
	// Same says how many of the n bytes from off of the device, on which both
	// trees lie, are known to be the same in both before the first that may not
	// be. It is asked of fs.Stored extents. nil: nothing is known.
	Same func(off, n int64) int64

	// Failed is told of what can't be compared, by its path. What it returns,
	// unless nil, ends the work. nil: the first such error does.
	Failed func(path string, err error) error

	// Progress is called now and then from the calling goroutine.
	Progress func(Totals)
}

// Totals say what was compared.
type Totals struct {
	Entries   int   // in either tree
	ReadBytes int64 // of files, of each side
	Failed    int
}

// Compare calls fn for each path in which b differs from a, in order of the
// names of each directory. Times of reading, and of changes to the inode, are no
// difference, nor are times of directories, which follow from what is in them.
// Of a directory that is in one tree only, all that is below is told too.
func Compare(ctx context.Context, a, b Side, opt Options, fn func(Change) error) (Totals, error) {
	c := &comparer{
		sides: [2]Side{a, b}, opt: opt, fn: fn, pairs: make(map[[2]fs.ID]pair),
	}
	attrs := [2]*fs.Attr{}
	for i, s := range c.sides {
		at, err := s.Tree.Attr(ctx, s.Top)
		if err != nil {
			return c.n, err
		}
		attrs[i] = &at
	}
	return c.n, c.both(ctx, "", attrs, 0)
}

type comparer struct {
	sides [2]Side
	opt   Options
	fn    func(Change) error
	pairs map[[2]fs.ID]pair // files with several names that were compared already
	dirs  [2]fs.Dirs
	bufs  [2][]byte
	n     Totals
}

// pair is what came of two files.
type pair struct {
	differ bool
	left   uint32 // names to come
}

// both compares what both trees have at path.
func (c *comparer) both(ctx context.Context, path string, at [2]*fs.Attr, depth int) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	change := Change{Path: path, A: at[0], B: at[1]}
	if at[0].Type != at[1].Type {
		change.Kind, change.What = Changed, []string{"type"}
		if err := c.fn(change); err != nil {
			return err
		}
		return errors.Join(c.below(ctx, 0, path, at[0], depth), c.below(ctx, 1, path, at[1], depth))
	}
	content, err := c.content(ctx, at)
	if err != nil {
		if err := c.failed(path, err); err != nil {
			return err
		}
	}
	if content != "" {
		change.What = append(change.What, content)
	}
	streams, err := c.streams(ctx, at)
	if err != nil {
		if err := c.failed(path, err); err != nil {
			return err
		}
	}
	if streams {
		change.What = append(change.What, "streams")
	}
	about, err := c.about(ctx, at)
	if err != nil {
		if err := c.failed(path, err); err != nil {
			return err
		}
	}
	change.What = append(change.What, about...)
	if len(change.What) > 0 {
		change.Kind = Touched
		if content != "" || streams {
			change.Kind = Changed
		}
		if err := c.fn(change); err != nil {
			return err
		}
	}
	if at[0].IsDir() {
		return c.directories(ctx, path, at, depth)
	}
	return nil
}

func (c *comparer) failed(path string, err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	c.n.Failed++
	if c.opt.Failed == nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return c.opt.Failed(path, err)
}

// directories compares what two directories hold.
func (c *comparer) directories(ctx context.Context, path string, at [2]*fs.Attr, depth int) error {
	for i, a := range at {
		if err := c.dirs[i].Enter(a.ID, depth); err != nil {
			return c.failed(path, err)
		}
	}
	var lists [2][]fs.Entry
	for i := range lists {
		var err error
		if lists[i], err = c.list(ctx, i, at[i].ID); err != nil {
			// Half a directory would look like the removal of the other half.
			return c.failed(path, err)
		}
	}
	a, b := lists[0], lists[1]
	for len(a) > 0 || len(b) > 0 {
		order := 0
		switch {
		case len(a) == 0:
			order = 1
		case len(b) == 0:
			order = -1
		default:
			order = strings.Compare(a[0].Name, b[0].Name)
		}
		var err error
		switch {
		case order < 0:
			err = c.one(ctx, 0, path, &a[0], depth)
			a = a[1:]
		case order > 0:
			err = c.one(ctx, 1, path, &b[0], depth)
			b = b[1:]
		default:
			err = c.entries(ctx, path, &a[0], &b[0], depth)
			a, b = a[1:], b[1:]
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// list reads a directory, in order of the names.
func (c *comparer) list(ctx context.Context, side int, dir fs.ID) ([]fs.Entry, error) {
	var list []fs.Entry
	err := c.sides[side].Tree.ReadDir(ctx, dir, 0, func(e fs.Entry) bool {
		e.Attr = nil // a large directory is held without
		list = append(list, e)
		return true
	})
	slices.SortFunc(list, func(a, b fs.Entry) int { return strings.Compare(a.Name, b.Name) })
	return list, err
}

func (c *comparer) counted() {
	c.n.Entries++
	if c.opt.Progress != nil {
		c.opt.Progress(c.n)
	}
}

func (c *comparer) entries(ctx context.Context, dir string, a, b *fs.Entry, depth int) error {
	c.counted()
	path := join(dir, a.Name)
	var at [2]*fs.Attr
	for i, e := range []*fs.Entry{a, b} {
		full, err := c.sides[i].Tree.Attr(ctx, e.ID)
		if err != nil {
			return c.failed(path, err)
		}
		at[i] = &full
	}
	return c.both(ctx, path, at, depth+1)
}

// one tells of what only one side has.
func (c *comparer) one(ctx context.Context, side int, dir string, e *fs.Entry, depth int) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c.counted()
	path := join(dir, e.Name)
	a, err := c.sides[side].Tree.Attr(ctx, e.ID)
	if err != nil {
		return c.failed(path, err)
	}
	change := Change{Path: path, Kind: Removed, A: &a}
	if side == 1 {
		change = Change{Path: path, Kind: Added, B: &a}
	}
	if err := c.fn(change); err != nil {
		return err
	}
	return c.below(ctx, side, path, &a, depth+1)
}

// below tells of everything in a directory that only one side has.
func (c *comparer) below(ctx context.Context, side int, path string, a *fs.Attr, depth int) error {
	if !a.IsDir() {
		return nil
	}
	if err := c.dirs[side].Enter(a.ID, depth); err != nil {
		return c.failed(path, err)
	}
	list, err := c.list(ctx, side, a.ID)
	if err != nil {
		return c.failed(path, err)
	}
	for i := range list {
		if err := c.one(ctx, side, path, &list[i], depth); err != nil {
			return err
		}
	}
	return nil
}

func join(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}

// content says whether two objects of one type differ in what they hold: ""
// for no.
func (c *comparer) content(ctx context.Context, at [2]*fs.Attr) (string, error) {
	switch at[0].Type {
	case fs.TypeFile:
		differ, err := c.files(ctx, at)
		if differ {
			return "content", err
		}
		return "", err
	case fs.TypeSymlink:
		var targets [2]string
		for i, a := range at {
			var err error
			if targets[i], err = c.sides[i].Tree.ReadLink(ctx, a.ID); err != nil {
				return "", err
			}
		}
		if targets[0] != targets[1] {
			return "target", nil
		}
	case fs.TypeCharDevice, fs.TypeBlockDevice:
		if at[0].Major != at[1].Major || at[0].Minor != at[1].Minor {
			return "device", nil
		}
	}
	return "", nil
}

func (c *comparer) files(ctx context.Context, at [2]*fs.Attr) (bool, error) {
	if at[0].Size != at[1].Size {
		return true, nil
	}
	key := [2]fs.ID{at[0].ID, at[1].ID}
	p, known := c.pairs[key]
	if !known {
		var err error
		if p.differ, err = c.bytes(ctx, at); err != nil {
			return false, err
		}
		p.left = min(at[0].Nlink, at[1].Nlink)
	}
	if p.left--; int32(p.left) > 0 {
		c.pairs[key] = p
	} else {
		delete(c.pairs, key)
	}
	return p.differ, nil
}

// about compares what is known of two objects beside their content.
func (c *comparer) about(ctx context.Context, at [2]*fs.Attr) (what []string, err error) {
	a, b := at[0], at[1]
	if a.Perm != b.Perm && a.Type != fs.TypeSymlink {
		what = append(what, "mode")
	}
	if a.UID != b.UID || a.GID != b.GID {
		what = append(what, "owner")
	}
	if a.Mtime != b.Mtime && !a.IsDir() {
		what = append(what, "mtime")
	}
	// Whatever else is known of the inode has not been written, unless its times
	// are so coarse, or were all set to one, that the same says little.
	if a.Ctime == b.Ctime && a.ID == b.ID && a.Ctime.Nsec != 0 {
		return what, nil
	}
	var lists [2]map[string][]byte
	for i, s := range c.sides {
		if lists[i], err = xattrs(ctx, s.Tree, at[i].ID); err != nil {
			return what, err
		}
	}
	same := len(lists[0]) == len(lists[1])
	for name, value := range lists[0] {
		other, ok := lists[1][name]
		same = same && ok && bytes.Equal(value, other)
	}
	if !same {
		what = append(what, "xattrs")
	}
	return what, nil
}

func xattrs(ctx context.Context, t fs.Tree, id fs.ID) (map[string][]byte, error) {
	x, ok := t.(fs.XattrTree)
	if !ok {
		return nil, nil
	}
	names, err := x.Xattrs(ctx, id)
	if err != nil {
		return nil, err
	}
	all := make(map[string][]byte, len(names))
	for _, name := range names {
		if all[name], err = x.Xattr(ctx, id, name); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// isEnd tells the end of a file from what went wrong.
func isEnd(err error) bool { return errors.Is(err, io.EOF) }
