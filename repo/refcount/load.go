package refcount

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
	list    list    // of number 0 if there is none
	files   []*file // in the order of list.members
	skipped error
	blockfile.Present
}

// maxLoads is how often load looks again because the owner was faster.
const maxLoads = 100

// load opens the highest complete list. The owner may write lists and remove
// files meanwhile, so whenever the highest list that was seen is not taken, the
// directory has to look the same twice.
func load(fsys vfs.FS, dir string, c *blockfile.Cache) (loaded, error) {
	there, err := naming.ReadDir(fsys, dir)
	for range maxLoads {
		if err != nil {
			return loaded{}, err
		}
		l := loaded{Present: there}
		if err := l.firstComplete(fsys, dir, c); err != nil {
			return loaded{}, err
		}
		if len(l.Lists) > 0 && l.skipped == nil {
			return l, nil
		}
		again, err := naming.ReadDir(fsys, dir)
		if err == nil && slices.Equal(there.Lists, again.Lists) {
			return l, nil
		}
		if err := errors.Join(err, release(l.files)); err != nil {
			return loaded{}, err
		}
		there = again
	}
	return loaded{}, fmt.Errorf("read reference counts %s: they changed %d times meanwhile", dir, maxLoads)
}

// firstComplete opens the first of the lists that is complete, if there is one,
// and notes what is wrong with those before.
func (l *loaded) firstComplete(fsys vfs.FS, dir string, c *blockfile.Cache) error {
	for _, n := range l.Lists {
		var err error
		l.list, l.files, err = openList(fsys, dir, n, c)
		if err == nil {
			return nil
		}
		if !incomplete(err) {
			return err
		}
		l.skipped = errors.Join(l.skipped, err)
	}
	return nil
}

// incomplete tells whether an error means that a list or its files are not what
// was written, rather than that they could not be looked at.
func incomplete(err error) bool {
	return errors.Is(err, ErrDamaged) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.EIO) ||
		errors.Is(err, vfs.ErrTooLarge)
}

// openList opens a list and its files.
func openList(fsys vfs.FS, dir string, number uint64, c *blockfile.Cache) (list, []*file, error) {
	name := path.Join(dir, naming.List(number))
	p, err := vfs.ReadFile(fsys, name, maxListBytes)
	if err != nil {
		return list{}, nil, err
	}
	l, err := parseList(p)
	if err == nil && l.number != number {
		err = errOther
	}
	if err != nil {
		return list{}, nil, &DamageError{File: name, Block: -1, Err: err}
	}
	var files []*file
	for _, m := range l.members {
		f, err := openFile(fsys, dir, m, c)
		if err != nil {
			return list{}, nil, errors.Join(fmt.Errorf("open list %s: %w", name, err), release(files))
		}
		files = append(files, f)
	}
	return l, files, nil
}
