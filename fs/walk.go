package fs

import (
	"context"
	"errors"
)

// SkipDir, returned by the function given to Walk for a directory, leaves out
// what is below it.
//
//lint:ignore ST1012 named as in io/fs, since it does the same
var SkipDir = errors.New("skip this directory")

// WalkFunc is called for each inode of a walk. path is relative to where the
// walk began, with "." for that itself. err is what kept the walk from
// describing the inode, or a directory from being read to its end; in the
// latter case a second call is made for the directory. Returning an error ends
// the walk.
type WalkFunc func(path string, a Attr, err error) error

// Walk goes over the directory top and everything below it in the tree's own
// order, each directory before what it holds. Symbolic links are not followed.
// A directory that a second name leads to, as only damage makes one, is not
// entered again and gets ErrDamaged there: so the walk is linear in the tree.
func Walk(ctx context.Context, t Tree, top ID, fn WalkFunc) error {
	a, err := t.Attr(ctx, top)
	w := walker{t: t, fn: fn}
	if err := w.visit(ctx, ".", a, err, 0); err != nil && err != SkipDir {
		return err
	}
	return nil
}

type walker struct {
	t    Tree
	fn   WalkFunc
	dirs Dirs
}

func (w *walker) visit(ctx context.Context, path string, a Attr, err error, depth int) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err == nil && a.IsDir() {
		err = w.dirs.Enter(a.ID, depth)
	}
	if ferr := w.fn(path, a, err); ferr != nil || err != nil || !a.IsDir() {
		return ferr
	}
	// A part of the directory at a time, so that no directory, however large,
	// has to be held in memory, and fn may itself ask the tree.
	const part = 1024
	var cookie uint64
	for {
		entries := make([]Entry, 0, part)
		err := w.t.ReadDir(ctx, a.ID, cookie, func(e Entry) bool {
			entries = append(entries, e)
			return len(entries) < part
		})
		for _, e := range entries {
			if verr := w.entry(ctx, path, e, depth); verr != nil {
				return verr
			}
		}
		if cerr := ctx.Err(); cerr != nil { // err may be no more than that
			return cerr
		}
		if err != nil {
			return w.fn(path, a, err)
		}
		if len(entries) < part {
			return nil
		}
		cookie = entries[part-1].Cookie
	}
}

func (w *walker) entry(ctx context.Context, dir string, e Entry, depth int) error {
	path := e.Name
	if dir != "." {
		path = dir + "/" + e.Name
	}
	a, err := Attr{ID: e.ID, Type: e.Type}, error(nil)
	if e.Attr != nil {
		a = *e.Attr
	} else if full, aerr := w.t.Attr(ctx, e.ID); aerr != nil {
		err = aerr
	} else {
		a = full
	}
	if err := w.visit(ctx, path, a, err, depth+1); err != nil && err != SkipDir {
		return err
	}
	return nil
}
