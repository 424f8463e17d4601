package fs

import (
	"context"
	"errors"
	"io"
	iofs "io/fs"
	"slices"
	"strings"
	"time"
)

// Std returns t as the library's io/fs.FS, for tools that take one. Names that
// are not UTF-8 can't be reached through it; symbolic links are followed within
// the tree, except by ReadLink and Lstat. ctx bounds everything done with it.
func Std(ctx context.Context, t Tree) iofs.ReadLinkFS { return std{ctx, t} }

type std struct {
	ctx context.Context // of the value's whole life
	t   Tree
}

func (s std) resolve(op, name string, follow bool) (Attr, error) {
	if !iofs.ValidPath(name) {
		return Attr{}, &iofs.PathError{Op: op, Path: name, Err: iofs.ErrInvalid}
	}
	a, err := Resolve(s.ctx, s.t, s.t.Root(), name, follow)
	if err != nil {
		return Attr{}, &iofs.PathError{Op: op, Path: name, Err: stdError(err)}
	}
	return a, nil
}

// stdError lets errors.Is find the library's own sentinel beside ours.
func stdError(err error) error {
	switch {
	case errors.Is(err, ErrNotFound):
		return errors.Join(err, iofs.ErrNotExist)
	case errors.Is(err, ErrExist):
		return errors.Join(err, iofs.ErrExist)
	case errors.Is(err, ErrPermission):
		return errors.Join(err, iofs.ErrPermission)
	case errors.Is(err, ErrInvalid), errors.Is(err, ErrNotDir), errors.Is(err, ErrIsDir):
		return errors.Join(err, iofs.ErrInvalid)
	}
	return err
}

func (s std) Open(name string) (iofs.File, error) {
	a, err := s.resolve("open", name, true)
	if err != nil {
		return nil, err
	}
	base := name[strings.LastIndexByte(name, '/')+1:]
	return &stdFile{SectionReader: File(s.ctx, s.t, a), s: s, info: info{base, a}}, nil
}

func (s std) Stat(name string) (iofs.FileInfo, error)  { return s.stat("stat", name, true) }
func (s std) Lstat(name string) (iofs.FileInfo, error) { return s.stat("lstat", name, false) }

func (s std) stat(op, name string, follow bool) (iofs.FileInfo, error) {
	a, err := s.resolve(op, name, follow)
	if err != nil {
		return nil, err
	}
	return info{name[strings.LastIndexByte(name, '/')+1:], a}, nil
}

func (s std) ReadLink(name string) (string, error) {
	a, err := s.resolve("readlink", name, false)
	if err != nil {
		return "", err
	}
	if a.Type != TypeSymlink {
		return "", &iofs.PathError{Op: "readlink", Path: name, Err: iofs.ErrInvalid}
	}
	target, err := s.t.ReadLink(s.ctx, a.ID)
	if err != nil {
		return "", &iofs.PathError{Op: "readlink", Path: name, Err: stdError(err)}
	}
	return target, nil
}

// stdFile is an open file or directory.
type stdFile struct {
	*io.SectionReader
	s      std
	info   info
	cookie uint64 // of a directory: where to go on
	end    bool
}

func (f *stdFile) Stat() (iofs.FileInfo, error) { return f.info, nil }
func (f *stdFile) Close() error                 { return nil }

func (f *stdFile) Read(p []byte) (int, error) {
	if f.info.a.Type != TypeFile {
		return 0, &iofs.PathError{Op: "read", Path: f.info.name, Err: iofs.ErrInvalid}
	}
	return f.SectionReader.Read(p)
}

func (f *stdFile) ReadDir(n int) ([]iofs.DirEntry, error) {
	if !f.info.a.IsDir() {
		return nil, &iofs.PathError{Op: "readdir", Path: f.info.name, Err: iofs.ErrInvalid}
	}
	var list []iofs.DirEntry
	var inner error
	for !f.end && inner == nil && (n <= 0 || len(list) < n) {
		var part []Entry
		err := f.s.t.ReadDir(f.s.ctx, f.info.a.ID, f.cookie, func(e Entry) bool {
			part = append(part, e)
			return n <= 0 || len(list)+len(part) < n
		})
		for _, e := range part {
			a, aerr := f.s.t.Attr(f.s.ctx, e.ID)
			if aerr != nil {
				inner = &iofs.PathError{Op: "readdir", Path: e.Name, Err: stdError(aerr)}
				break
			}
			list = append(list, iofs.FileInfoToDirEntry(info{e.Name, a}))
			f.cookie = e.Cookie
		}
		if err != nil {
			inner = errors.Join(inner, &iofs.PathError{Op: "readdir", Path: f.info.name, Err: stdError(err)})
		}
		f.end = f.end || n <= 0 || len(list) < n
	}
	slices.SortFunc(list, func(a, b iofs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	if inner == nil && n > 0 && len(list) == 0 {
		inner = io.EOF
	}
	return list, inner
}

// info is an Attr under a name.
type info struct {
	name string
	a    Attr
}

func (i info) Name() string        { return i.name }
func (i info) Size() int64         { return i.a.Size }
func (i info) Mode() iofs.FileMode { return stdMode(i.a) }
func (i info) ModTime() time.Time  { return i.a.Mtime.Time() }
func (i info) IsDir() bool         { return i.a.IsDir() }
func (i info) Sys() any            { return &i.a }

func stdMode(a Attr) iofs.FileMode {
	m := iofs.FileMode(a.Perm & 0o777)
	for _, bit := range []struct {
		perm uint16
		mode iofs.FileMode
	}{{0o4000, iofs.ModeSetuid}, {0o2000, iofs.ModeSetgid}, {0o1000, iofs.ModeSticky}} {
		if a.Perm&bit.perm != 0 {
			m |= bit.mode
		}
	}
	switch a.Type {
	case TypeDir:
		m |= iofs.ModeDir
	case TypeSymlink:
		m |= iofs.ModeSymlink
	case TypeCharDevice:
		m |= iofs.ModeDevice | iofs.ModeCharDevice
	case TypeBlockDevice:
		m |= iofs.ModeDevice
	case TypeFIFO:
		m |= iofs.ModeNamedPipe
	case TypeSocket:
		m |= iofs.ModeSocket
	case TypeUnknown:
		m |= iofs.ModeIrregular
	}
	return m
}
