package vfs

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"
)

// TempDir is the directory for files that have no name yet. What a crash left
// there belongs to nobody.
const TempDir = "tmp"

// WriteFile makes the file name with the given bytes, durably: when it returns
// nil, bytes and name are there after a power cut; before, name either does
// not exist or is whole. It gives fs.ErrExist when name exists, for a named
// file is never written again. TempDir and the directory of name must exist.
//
// When only the last step fails, the sync of the directory, name may exist but
// not be durable; every earlier failure leaves nothing behind.
func WriteFile(fsys FS, name string, data []byte) error {
	if err := absent(fsys, name); err != nil {
		return err
	}
	f, tmp, err := CreateTemp(fsys, name)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return errors.Join(err, fsys.Remove(tmp))
	}
	return Place(fsys, tmp, name)
}

// CreateTemp creates a file in TempDir for what is going to be called name,
// and returns its temporary name. The same calls give the same names.
func CreateTemp(fsys FS, name string) (File, string, error) {
	const room = 16 // for the counter
	base := strings.ReplaceAll(name, "/", "-")
	base = base[max(0, len(base)-(maxName-room)):]
	for i := 0; ; i++ {
		tmp := TempDir + "/" + base
		if i > 0 {
			tmp += "." + strconv.Itoa(i)
		}
		f, err := fsys.Create(tmp)
		if !errors.Is(err, fs.ErrExist) {
			return f, tmp, err
		}
	}
}

// Place gives the synced and closed file tmp its name and makes that durable.
// It gives fs.ErrExist when name exists. Two calls at once for the same name
// are not told apart: a repository has one owner, who does not do that. When it
// fails before the renaming, tmp is removed.
func Place(fsys FS, tmp, name string) error {
	err := absent(fsys, name)
	if err == nil {
		err = fsys.Rename(tmp, name)
	}
	if err != nil {
		return errors.Join(err, fsys.Remove(tmp))
	}
	return fsys.SyncDir(path.Dir(name))
}

// absent gives fs.ErrExist when name exists.
func absent(fsys FS, name string) error {
	_, err := fsys.Stat(name)
	switch {
	case err == nil:
		return &fs.PathError{Op: "write", Path: name, Err: fs.ErrExist}
	case errors.Is(err, fs.ErrNotExist):
		return nil
	}
	return err
}

// ReadFile returns the bytes of a file. It gives ErrTooLarge, and has then read
// nothing, when there are more than limit.
func ReadFile(fsys FS, name string, limit int64) ([]byte, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	data, err := readAll(f, name, limit)
	return data, errors.Join(err, f.Close())
}

func readAll(f File, name string, limit int64) ([]byte, error) {
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	if size > limit {
		return nil, fmt.Errorf("read %s: %d bytes where at most %d are expected: %w", name, size, limit, ErrTooLarge)
	}
	data := make([]byte, size)
	if n, err := f.ReadAt(data, 0); int64(n) < size {
		return nil, fmt.Errorf("read %s: %d of %d bytes: %w", name, n, size, err)
	}
	return data, nil
}

// Walk calls fn for everything below dir, a directory before what it holds, in
// order of names. It stops at the first error.
func Walk(fsys FS, dir string, fn func(name string, info Info) error) error {
	list, err := fsys.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, info := range list {
		name := path.Join(dir, info.Name)
		if err := fn(name, info); err != nil {
			return err
		}
		if info.Dir {
			if err := Walk(fsys, name, fn); err != nil {
				return err
			}
		}
	}
	return nil
}
