package image

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"holdfast/image/internal/fault"
)

// maxDepth bounds the ancestors of a disk, itself included.
const maxDepth = 64

// where is the place from which a file of a disk was named: it opens what that
// file names in turn.
type where struct {
	*tree
	dir    string  // of the file itself, below the top of the tree, with slashes
	chain  []*file // the files from the one given to Open down to this one
	sealed bool    // this file may name no other: see parent
}

// tree is the directory nothing may lead out of.
type tree struct {
	top  string // as the host names it
	drop bool   // Options.DropCache
	root *os.Root
}

func open(name string, opt Options) (Disk, error) {
	ft := format{}
	if opt.Format != "" {
		var err error
		if ft, err = named(opt.Format); err != nil {
			return nil, fmt.Errorf("%w; known are %s", err, strings.Join(Formats(), ", "))
		}
	}
	osf, err := os.OpenFile(name, openFlags, 0)
	if err != nil {
		return nil, bare(err)
	}
	f, err := newFile(osf, opt.DropCache)
	if err != nil {
		return nil, bare(err)
	}
	if opt.Format == "" {
		ft = detect(f)
	}
	w := &where{tree: &tree{top: filepath.Dir(name), drop: opt.DropCache}, dir: ".", chain: []*file{f}}
	defer w.close()
	d, err := ft.read(w, f)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &opened{d, name, ft.name}, nil
}

// close gives up the directory; files opened through it stay open.
func (t *tree) close() {
	if t.root != nil {
		t.root.Close()
	}
}

// extent opens a file that holds a part of the disk as it is.
func (w *where) extent(name string) (*file, error) {
	f, _, err := w.open(name)
	return f, err
}

// parent opens the disk that another is based on. Without a format, which
// images of old programs lack, the content decides as it does in QEMU; but a raw
// parent begins with bytes of the guest, who could put a header there that names
// another file of the directory. So a parent whose format nobody said may be
// raw, or a disk that names no further file.
func (w *where) parent(name, formatName string) (Disk, error) {
	f, below, err := w.open(name)
	if err != nil {
		return nil, err
	}
	ft, sealed := detect(f), true
	if formatName != "" {
		sealed = w.sealed
		if ft, err = named(formatName); err != nil {
			return nil, errors.Join(fmt.Errorf("%q: %w: %w", name, fault.ErrUnsupported, err), f.Close())
		}
	}
	d, err := ft.read(&where{tree: w.tree, dir: path.Dir(below), chain: append(slices.Clip(w.chain), f), sealed: sealed}, f)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%q: %w", name, err), f.Close())
	}
	return d, nil
}

// open opens the file that the last of w.chain calls name, and returns it with
// its path below the top.
func (w *where) open(name string) (*file, string, error) {
	if w.sealed {
		return nil, "", fmt.Errorf("%q: %w: it is named by a file whose own format nobody said", name, fault.ErrUntold)
	}
	below, err := w.below(name)
	if err != nil {
		return nil, "", err
	}
	if w.root == nil {
		if w.root, err = os.OpenRoot(w.top); err != nil {
			return nil, "", bare(err)
		}
	}
	osf, err := w.root.OpenFile(filepath.FromSlash(below), openFlags, 0)
	if err != nil {
		if escapes(err) {
			err = fmt.Errorf("a symbolic link leads %w", fault.ErrOutside)
		}
		return nil, "", fmt.Errorf("%q: %w", name, bare(err))
	}
	f, err := newFile(osf, w.drop)
	if err != nil {
		return nil, "", fmt.Errorf("%q: %w", name, bare(err))
	}
	if err := w.admit(f); err != nil {
		return nil, "", errors.Join(fmt.Errorf("%q: %w", name, err), f.Close())
	}
	return f, below, nil
}

// below turns a name in an image into one relative to the top.
func (w *where) below(name string) (string, error) {
	switch {
	case name == "" || strings.ContainsRune(name, 0):
		return "", fmt.Errorf("%q: %w: this is no file name", name, fault.ErrDamaged)
	case path.IsAbs(name):
		return "", fmt.Errorf("%q: an absolute name leads %w", name, fault.ErrOutside)
	}
	for part := range strings.SplitSeq(name, "/") {
		if part == ".." {
			return "", fmt.Errorf("%q: \"..\" leads %w", name, fault.ErrOutside)
		}
	}
	return path.Join(w.dir, name), nil
}

// admit refuses what an image may not name: a device, an ancestor of itself.
func (w *where) admit(f *file) error {
	if f.device {
		return fmt.Errorf("a block device is %w", fault.ErrOutside)
	}
	if len(w.chain) >= maxDepth {
		return fmt.Errorf("%w: more than %d deep", fault.ErrCycle, maxDepth)
	}
	for _, up := range w.chain {
		if os.SameFile(up.info, f.info) {
			return fmt.Errorf("%w: it is its own parent", fault.ErrCycle)
		}
	}
	return nil
}

// bare strips operation and path from an error of package os: the caller names
// the file in its own words.
func bare(err error) error {
	var pe *os.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

// escapes says whether os.Root refused to leave its directory. The package has
// no exported value for that.
func escapes(err error) bool { return strings.Contains(err.Error(), "escapes from parent") }
