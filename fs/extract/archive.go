package extract

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"holdfast/fs"
)

// Archive is a tar or zip stream being written. Modes, owners, times and, in a
// tar, extended attributes and hard links are kept. Not for concurrent use.
type Archive struct {
	form form
	opt  Options
	made map[inode]string // first names of files that have more
	link map[string]bool  // names of symbolic links
	buf  []byte
	n    Totals
}

// inode tells files of several trees apart.
type inode struct {
	t  fs.Tree
	id fs.ID
}

// form is a kind of archive.
type form interface {
	// begin writes what stands before the content of an object; what follows
	// are exactly size bytes to the writer returned, if size > 0. link is the
	// target of a symbolic link, or with hard the name of an earlier file.
	begin(name string, a *fs.Attr, perm uint32, link string, hard bool, xattrs map[string]string) (w io.Writer, err error)

	hardLinks() bool // whether there are any
	xattrs() bool
	Close() error
}

// NewTar begins a tar in the PAX form, which can say everything but sparseness.
func NewTar(w io.Writer, opt Options) *Archive { return newArchive(newTar(w), opt) }

// NewZip begins a zip, which has neither hard links nor attributes beyond mode
// and time of change, and grows to zip64 where it must. Files are compressed.
func NewZip(w io.Writer, opt Options) *Archive { return newArchive(newZip(w), opt) }

func newArchive(f form, opt Options) *Archive {
	return &Archive{form: f, opt: opt, made: make(map[inode]string), link: make(map[string]bool), buf: make([]byte, bufferBytes)}
}

// Totals says what is in the archive so far.
func (w *Archive) Totals() Totals { return w.n }

// Close writes the end of the archive.
func (w *Archive) Close() error { return w.form.Close() }

// Add appends what src describes, and if it is a directory all below it, under
// name, a path without a slash in front. path is what it is called to
// Options.Failed. An empty name stands for the archive's top, into which the
// entries of the directory src go.
//
// What can't be read is left out, and the rest goes on, unless a file breaks off
// in the middle of its content, which ends the archive: an archive can take
// nothing back, and bytes are not made up.
func (w *Archive) Add(ctx context.Context, t fs.Tree, src fs.Attr, path, name string) error {
	return fs.Walk(ctx, t, src.ID, func(below string, a fs.Attr, err error) error {
		at, called := name, path
		if below != "." {
			at, called = join(name, below), join(path, below)
		}
		if below != "." || a.ID != src.ID {
			if err := checkName(below[strings.LastIndexByte(below, '/')+1:]); err != nil {
				if err := w.opt.failed(&w.n, called, err); err != nil {
					return err
				}
				return fs.SkipDir // what is below it has no place either
			}
		}
		if err != nil {
			return w.opt.failed(&w.n, called, err)
		}
		if at == "" {
			return nil
		}
		if w.link[at] {
			// Whoever unpacks it would write through the link.
			if err := w.opt.failed(&w.n, called, fmt.Errorf("a symbolic link before it has the same name: %w", fs.ErrDamaged)); err != nil {
				return err
			}
			return fs.SkipDir
		}
		if a.Type == fs.TypeSymlink {
			w.link[at] = true
		}
		err = w.object(ctx, t, at, &a)
		w.opt.progress(&w.n)
		if broken, ok := err.(*brokenError); ok {
			return fmt.Errorf("%s: %w: the archive ends here", called, broken.err)
		}
		if err != nil {
			return w.opt.failed(&w.n, called, err)
		}
		return nil
	})
}

// errUnsayable says that the form can't say this of an object; nothing of it was
// written.
var errUnsayable = errors.New("can't be in such an archive")

// brokenError is one after which nothing can follow.
type brokenError struct{ err error }

func (e *brokenError) Error() string { return e.err.Error() }

func (w *Archive) object(ctx context.Context, t fs.Tree, name string, a *fs.Attr) (err error) {
	link, hard := "", false
	var size int64
	switch a.Type {
	case fs.TypeDir:
		name += "/"
		w.n.Dirs++
	case fs.TypeFile:
		if first, ok := w.made[inode{t, a.ID}]; ok && w.form.hardLinks() {
			link, hard = first, true
			w.n.HardLinks++
		} else {
			size = a.Size
		}
	case fs.TypeSymlink:
		if link, err = t.ReadLink(ctx, a.ID); err != nil {
			return err
		}
		w.n.Links++
	case fs.TypeFIFO:
		w.n.Others++
	case fs.TypeCharDevice, fs.TypeBlockDevice:
		if !w.opt.Devices {
			w.n.Unmade++
			return nil
		}
		w.n.Others++
	default:
		w.n.Unmade++
		return nil
	}
	var xattrs map[string]string
	if w.form.xattrs() && !hard {
		if xattrs, err = w.xattrs(ctx, t, a); err != nil {
			return err
		}
	}
	// A file whose beginning can't be read is left out before it is begun. Most
	// are no longer than that.
	first := w.buf[:min(size, bufferBytes)]
	if size > 0 {
		if err := readFull(ctx, t, a.ID, first, 0); err != nil {
			return err
		}
	}
	to, err := w.form.begin(name, a, w.opt.perm(&w.n, a), link, hard, xattrs)
	if errors.Is(err, errUnsayable) {
		return err
	}
	if err != nil {
		return &brokenError{err}
	}
	if a.Type != fs.TypeFile || hard {
		return nil
	}
	w.n.Files++
	if a.Nlink > 1 && w.form.hardLinks() {
		w.made[inode{t, a.ID}] = name
	}
	if size == 0 {
		return nil
	}
	if _, err := to.Write(first); err != nil {
		return &brokenError{err}
	}
	w.n.Bytes += int64(len(first))
	if err := w.rest(ctx, t, a, to, int64(len(first))); err != nil {
		return &brokenError{err}
	}
	return nil
}

// rest writes a file from byte from on.
func (w *Archive) rest(ctx context.Context, t fs.Tree, a *fs.Attr, to io.Writer, from int64) error {
	if from == a.Size {
		return nil
	}
	return stretches(ctx, t, a, func(off, n int64, hole bool) error {
		end := off + n
		off = max(off, from)
		if hole && off < end {
			clear(w.buf)
		}
		for off < end {
			p := w.buf[:min(end-off, bufferBytes)]
			if !hole {
				if err := readFull(ctx, t, a.ID, p, off); err != nil {
					return err
				}
				w.n.Bytes += int64(len(p))
			}
			if err := ctx.Err(); err != nil {
				return err
			}
			if _, err := to.Write(p); err != nil {
				return err
			}
			off += int64(len(p))
			w.opt.progress(&w.n)
		}
		return nil
	})
}

// xattrs reads all extended attributes that go into an archive, and alternate
// streams as such.
func (w *Archive) xattrs(ctx context.Context, t fs.Tree, a *fs.Attr) (map[string]string, error) {
	names, tooLong, err := fs.XattrNames(ctx, t, a.ID)
	w.n.Streams += tooLong
	if err != nil || len(names) == 0 {
		return nil, err
	}
	all := make(map[string]string, len(names))
	for _, name := range names {
		if name == capability && !w.opt.SetID {
			w.n.Stripped++
			continue
		}
		value, err := fs.XattrValue(ctx, t, a.ID, name)
		if err != nil {
			return nil, fmt.Errorf("read attribute %q: %w", name, err)
		}
		all[name] = string(value)
	}
	return all, nil
}
