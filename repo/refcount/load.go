package refcount

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"syscall"

	"holdfast/repo/vfs"
)

// loaded is what load found.
type loaded struct {
	list               list    // of number 0 if there is none
	files              []*file // in the order of list.members
	skipped            error
	nextFile, nextList uint64 // above every number seen
}

// maxLoads is how often load looks again because the owner was faster.
const maxLoads = 100

// load opens the highest complete list. The owner may write lists and remove
// files meanwhile, so whenever the highest list that was seen is not taken, the
// directory has to look the same twice.
func load(fsys vfs.FS, dir string, c *cache) (loaded, error) {
	lists, l, err := readDir(fsys, dir)
	for range maxLoads {
		if err != nil {
			return loaded{}, err
		}
		if err := l.firstComplete(fsys, dir, lists, c); err != nil {
			return loaded{}, err
		}
		if len(lists) > 0 && l.skipped == nil {
			return l, nil
		}
		again, m, err := readDir(fsys, dir)
		if err == nil && slices.Equal(lists, again) {
			return l, nil
		}
		if err := errors.Join(err, release(l.files)); err != nil {
			return loaded{}, err
		}
		lists, l = again, m
	}
	return loaded{}, fmt.Errorf("read reference counts %s: they changed %d times meanwhile", dir, maxLoads)
}

// readDir returns the numbers of the lists in the directory, the highest first.
func readDir(fsys vfs.FS, dir string) ([]uint64, loaded, error) {
	l := loaded{nextFile: 1, nextList: 1}
	infos, err := fsys.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, l, nil
	}
	if err != nil {
		return nil, l, err
	}
	var lists []uint64
	for _, info := range infos {
		if n, ok := parseNumber(info.Name, listName); ok {
			lists = append(lists, n)
			l.nextList = max(l.nextList, n+1)
		}
		if n, ok := parseNumber(info.Name, fileName); ok {
			l.nextFile = max(l.nextFile, n+1)
		}
	}
	slices.SortFunc(lists, func(a, b uint64) int { return cmp.Compare(b, a) })
	return lists, l, nil
}

// firstComplete opens the first of the lists that is complete, if there is one,
// and notes what is wrong with those before.
func (l *loaded) firstComplete(fsys vfs.FS, dir string, lists []uint64, c *cache) error {
	for _, n := range lists {
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
func openList(fsys vfs.FS, dir string, number uint64, c *cache) (list, []*file, error) {
	name := path.Join(dir, listName(number))
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
