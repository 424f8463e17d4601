package index

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"syscall"

	"holdfast/repo/blockfile"
	"holdfast/repo/vfs"
)

// loaded is what load found.
type loaded struct {
	view    *view
	skipped error
	blockfile.Present
}

// maxLoads is how often load looks again because the owner was faster.
const maxLoads = 100

// load opens the highest complete list. Those of another version might not be
// there: the files of an older one lack what this one needs. Files that are open in prev are not
// opened again.
//
// The owner may write lists and remove files meanwhile, and a directory read at
// that time may show neither the old list nor the new one. So whenever the
// highest list that was seen is not taken, the directory has to look the same
// twice.
func load(fsys vfs.FS, dir string, c *blockfile.Cache, prev *view) (loaded, error) {
	there, err := naming.ReadDir(fsys, dir)
	for range maxLoads {
		l := loaded{Present: there}
		if err != nil {
			return l, err
		}
		l.view, l.skipped, err = firstComplete(fsys, dir, there.Lists, c, prev)
		if err != nil {
			return l, err
		}
		if len(there.Lists) > 0 && l.view.list.number == there.Lists[0] {
			return l, nil
		}
		again, err := naming.ReadDir(fsys, dir)
		if err == nil && slices.Equal(there.Lists, again.Lists) {
			return l, nil
		}
		if err := errors.Join(err, l.view.release()); err != nil {
			return l, err
		}
		there = again
	}
	return loaded{}, fmt.Errorf("read index %s: it changed %d times meanwhile", dir, maxLoads)
}

// firstComplete opens the first of the lists that is complete, or else an empty
// view. It returns what is wrong with those before.
func firstComplete(fsys vfs.FS, dir string, lists []uint64, c *blockfile.Cache, prev *view) (v *view, skipped, err error) {
	for _, n := range lists {
		v, err := openList(fsys, dir, n, c, prev)
		if err == nil {
			return v, skipped, nil
		}
		if !incomplete(err) {
			return nil, nil, err
		}
		if !errors.Is(err, errListVersion) {
			skipped = errors.Join(skipped, err)
		}
	}
	return newView(list{}, nil), skipped, nil
}

// incomplete tells whether an error means that a list or its files are not what
// was written, rather than that they could not be looked at.
func incomplete(err error) bool {
	return errors.Is(err, ErrDamaged) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.EIO) ||
		errors.Is(err, vfs.ErrTooLarge)
}

// openList opens a list and its files.
func openList(fsys vfs.FS, dir string, number uint64, c *blockfile.Cache, prev *view) (*view, error) {
	name := path.Join(dir, naming.List(number))
	p, err := vfs.ReadFile(fsys, name, maxListBytes)
	if err != nil {
		return nil, err
	}
	l, err := parseList(p)
	if err == nil && l.number != number {
		err = errOther
	}
	if err != nil {
		return nil, &DamageError{File: name, Block: -1, Err: err}
	}
	var files []*file
	for _, m := range l.members {
		f, err := reopen(fsys, dir, m, c, prev)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("open index list %d: %w", number, err), newView(l, files).release())
		}
		files = append(files, f)
	}
	return newView(l, files), nil
}

// reopen returns a reference to a file, which may be open in prev.
func reopen(fsys vfs.FS, dir string, m member, c *blockfile.Cache, prev *view) (*file, error) {
	if prev != nil {
		if i := slices.Index(prev.list.members, m); i >= 0 {
			return prev.files[i].acquire(), nil
		}
	}
	return openFile(fsys, dir, m, c)
}

// Refresh makes a reader's index that of the newest list. What was added to
// its memory stays, but for the packs that the files have now. The owner's
// index is always the newest.
func (x *Index) Refresh() error {
	x.work.Lock()
	defer x.work.Unlock()
	if x.owner {
		return nil
	}
	prev, err := x.snapshot()
	if err != nil {
		return err
	}
	l, err := load(x.fsys, x.dir, x.cache, prev)
	if err := errors.Join(err, prev.release()); err != nil {
		return err
	}
	return x.adopt(l)
}

// adopt makes a loaded view the reader's. It reads blocks before it takes mu.
func (x *Index) adopt(l loaded) error {
	x.mu.RLock()
	names := slices.Clone(x.delta.names)
	x.mu.RUnlock()
	known, err := l.view.known(names)
	if err != nil {
		return errors.Join(err, l.view.release())
	}
	x.mu.Lock()
	old := x.view
	x.view = l.view
	if len(known) > 0 {
		x.delta = x.delta.without(known)
	}
	x.mu.Unlock()
	x.skipped = l.skipped
	return old.release()
}
