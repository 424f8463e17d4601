// Package extract takes files out of an fs.Tree: into a directory of this
// machine (Copy), or into a tar or zip stream (Archive).
//
// # Whoever made the tree is not trusted
//
// It says what things are called, never where they go. Every name is one
// element of a path, checked, and made in a directory that is held open; no
// symbolic link is followed on the target, whoever put it there. So nothing is
// written outside the directory that the caller gave, and nothing that exists is
// replaced unless the caller says so. Set-user and set-group bits, and the
// capabilities that do the same, are left out unless asked for, and so are
// device nodes.
//
// An archive is unpacked by others, who may be less careful: no two objects in it
// have one name of which the first is a symbolic link, and in a zip no name has a
// backslash or begins like a drive of Windows (zipName).
//
// # What can't be had
//
// An object that can't be read or written is told of and left out, whole; the
// rest goes on. A file gets its name when it is complete.
package extract

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"holdfast/fs"
)

// Options say what is taken out and how.
type Options struct {
	// Attributes keeps modes, owners as far as the caller may, times, extended
	// attributes and hard links. In an archive they are kept always.
	Attributes bool

	Replace bool // what exists; directories are never replaced, but filled
	Devices bool // make device nodes
	SetID   bool // keep set-user and set-group bits, and capabilities

	// Failed is told of each object that is left out because of an error, by
	// its path as given and found. What it returns, unless nil, ends the work.
	// nil: the first such error ends it.
	Failed func(path string, err error) error

	// Progress is called now and then from the calling goroutine.
	Progress func(Totals)
}

// Totals say what was taken out.
type Totals struct {
	Files, Dirs, Links int   // Links are symbolic ones
	HardLinks          int   // further names of files, made as such
	Others             int   // device nodes, FIFOs
	Bytes              int64 // of files, holes left out
	Failed             int   // told to Options.Failed
	Unmade             int   // device nodes, FIFOs and sockets that were not asked for
	Stripped           int   // objects without their set-user or set-group bit or capabilities
	Attributes         int   // extended attributes and owners that the target did not take
	Streams            int   // alternate streams that were left out, being too long for an attribute
}

func (o *Options) failed(n *Totals, path string, err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	n.Failed++
	if o.Failed == nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return o.Failed(path, err)
}

func (o *Options) progress(n *Totals) {
	if o.Progress != nil {
		o.Progress(*n)
	}
}

// perm returns the mode bits that an object gets, and counts those it doesn't.
func (o *Options) perm(n *Totals, a *fs.Attr) uint32 {
	const setID = 0o6000
	if a.Perm&setID != 0 && !o.SetID {
		n.Stripped++
		return uint32(a.Perm &^ setID)
	}
	return uint32(a.Perm & 0o7777)
}

// ErrName says that something is called what no file can be.
var ErrName = errors.New("not a name for a file")

// checkName refuses what is not one element of a path. A tree has no such
// names; one that lies does.
func checkName(name string) error {
	if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
		return fmt.Errorf("%w: %q", ErrName, name)
	}
	return nil
}

// join is path.Join without cleaning.
func join(dir, name string) string {
	if dir == "" || strings.HasSuffix(dir, "/") {
		return dir + name
	}
	return dir + "/" + name
}

// batch is how many extents, or entries, are asked for at a time.
const batch = 512

// stretches calls fn for what a file consists of, from beginning to end: data
// and holes in turn.
func stretches(ctx context.Context, t fs.Tree, a *fs.Attr, fn func(off, n int64, hole bool) error) error {
	var off, n int64 // told of next
	hole := false
	for off+n < a.Size {
		list, err := t.Extents(ctx, a.ID, off+n, batch)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if len(list) == 0 {
			return fmt.Errorf("ends at %d of %d bytes: %w", off+n, a.Size, fs.ErrDamaged)
		}
		for _, e := range list {
			if e.Len <= 0 {
				return fmt.Errorf("extent of %d bytes: %w", e.Len, fs.ErrDamaged)
			}
			if isHole := e.Kind == fs.Hole; n > 0 && isHole != hole {
				if err := fn(off, n, hole); err != nil {
					return err
				}
				off, n = off+n, 0
			}
			hole = e.Kind == fs.Hole
			n += e.Len
		}
	}
	if n == 0 {
		return nil
	}
	return fn(off, n, hole)
}

// readFull reads len(p) bytes of a file that are known to be there.
func readFull(ctx context.Context, t fs.Tree, id fs.ID, p []byte, off int64) error {
	n, err := t.ReadAt(ctx, id, p, off)
	if n == len(p) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = fmt.Errorf("ends at byte %d: %w", off+int64(n), fs.ErrDamaged)
	}
	return err
}

// bufferBytes is how much is read at a time.
const bufferBytes = 1 << 20
