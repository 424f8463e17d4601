package nfstest

import (
	"context"
	"fmt"
	"io"
	"sync"

	"holdfast/fs"
)

// Tree is an export seen as an fs.Tree, so that what tests trees tests a server
// too. Holes can't be told over NFS: all bytes are fs.Made.
type Tree struct {
	c    *Client
	root fs.ID

	mu      sync.Mutex // guards handles
	handles map[fs.ID]Handle
}

// NewTree returns the tree below a directory.
func NewTree(c *Client, root Handle) (*Tree, error) {
	t := &Tree{c: c, handles: map[fs.ID]Handle{}}
	a, err := c.GetAttr(root)
	if err != nil {
		return nil, err
	}
	t.root = t.know(a.FileID, root)
	return t, nil
}

func (t *Tree) know(fileid uint64, h Handle) fs.ID {
	id := fs.ID{Ino: fileid}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.handles[id] = h
	return id
}

func (t *Tree) handle(ctx context.Context, id fs.ID) (Handle, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	h := t.handles[id]
	if h == nil {
		return nil, fmt.Errorf("fileid %d: %w", id.Ino, fs.ErrStale)
	}
	return h, nil
}

var errs = map[Status]error{
	NoEnt: fs.ErrNotFound, Stale: fs.ErrStale, NotDir: fs.ErrNotDir, IsDir: fs.ErrIsDir, Inval: fs.ErrInvalid, NameTooLong: fs.ErrNotFound,
	IO: fs.ErrDamaged, NotSupp: fs.ErrUnsupported, Jukebox: fs.ErrRetry, ROFS: fs.ErrReadOnly, Acces: fs.ErrInvalid, BadHandle: fs.ErrStale,
}

func treeError(err error) error {
	if s, ok := err.(Status); ok && errs[s] != nil {
		return fmt.Errorf("%w: %w", errs[s], err)
	}
	return err
}

var types = [...]fs.Type{0, fs.TypeFile, fs.TypeDir, fs.TypeBlockDevice, fs.TypeCharDevice, fs.TypeSymlink, fs.TypeSocket, fs.TypeFIFO}

func attrOf(a *Attr) fs.Attr {
	return fs.Attr{
		ID: fs.ID{Ino: a.FileID}, Type: types[a.Type&7], Perm: uint16(a.Mode), Nlink: a.Nlink, UID: a.UID, GID: a.GID,
		Size: int64(a.Size), Used: int64(a.Used), Major: a.Major, Minor: a.Minor,
		Atime: fs.Time{Sec: int64(a.Atime.Sec), Nsec: a.Atime.Nsec}, Mtime: fs.Time{Sec: int64(a.Mtime.Sec), Nsec: a.Mtime.Nsec},
		Ctime: fs.Time{Sec: int64(a.Ctime.Sec), Nsec: a.Ctime.Nsec},
	}
}

func (t *Tree) Root() fs.ID  { return t.root }
func (t *Tree) Close() error { return nil }

func (t *Tree) Attr(ctx context.Context, id fs.ID) (fs.Attr, error) {
	h, err := t.handle(ctx, id)
	if err != nil {
		return fs.Attr{}, err
	}
	a, err := t.c.GetAttr(h)
	return attrOf(&a), treeError(err)
}

func (t *Tree) Lookup(ctx context.Context, dir fs.ID, name string) (fs.Attr, error) {
	h, err := t.handle(ctx, dir)
	if err != nil {
		return fs.Attr{}, err
	}
	found, a, err := t.c.Lookup(h, name)
	if s, ok := err.(Status); ok && s == Acces {
		return fs.Attr{}, fmt.Errorf("%q: %w", name, fs.ErrNotFound) // a name that can't be
	}
	if err != nil {
		return fs.Attr{}, treeError(err)
	}
	t.know(a.FileID, found)
	return attrOf(a), nil
}

// partBytes is how much of a directory is asked for at once: not much, so that
// cookies are used.
const partBytes = 4096

func (t *Tree) ReadDir(ctx context.Context, dir fs.ID, cookie uint64, fn func(fs.Entry) bool) error {
	h, err := t.handle(ctx, dir)
	if err != nil {
		return err
	}
	for {
		list, eof, err := t.c.ReadDirPlus(h, cookie, partBytes, partBytes)
		if err != nil {
			return treeError(err)
		}
		for _, e := range list {
			cookie = e.Cookie
			if e.Name == "." || e.Name == ".." {
				continue
			}
			entry := fs.Entry{Name: e.Name, ID: t.know(e.FileID, e.Handle), Cookie: e.Cookie}
			if e.Attr != nil {
				a := attrOf(e.Attr)
				entry.Attr, entry.Type = &a, a.Type
			}
			if !fn(entry) {
				return nil
			}
		}
		if eof {
			return nil
		}
	}
}

func (t *Tree) ReadLink(ctx context.Context, id fs.ID) (string, error) {
	h, err := t.handle(ctx, id)
	if err != nil {
		return "", err
	}
	d, err := t.c.NFS(ReadLink, h)
	if err != nil {
		return "", treeError(err)
	}
	d.PostOp()
	target := string(d.Opaque())
	return target, d.Err()
}

func (t *Tree) ReadAt(ctx context.Context, id fs.ID, p []byte, off int64) (int, error) {
	h, err := t.handle(ctx, id)
	if err != nil {
		return 0, err
	}
	if off < 0 {
		return 0, fs.ErrInvalid
	}
	n := 0
	for {
		want := min(len(p)-n, 1<<20)
		r, err := t.c.Read(h, uint64(off)+uint64(n), uint32(want))
		if err == IsDir || err == Inval {
			if a, aerr := t.c.GetAttr(h); aerr == nil && a.Type == 2 {
				return n, fs.ErrIsDir
			}
		}
		if err != nil {
			return n, treeError(err)
		}
		n += copy(p[n:], r.Data)
		switch {
		case n == len(p):
			if n == 0 && r.EOF {
				return n, io.EOF
			}
			return n, nil
		case r.EOF:
			return n, io.EOF
		case len(r.Data) < want:
			return n, fmt.Errorf("nfstest: short read of %d of %d bytes at %d", len(r.Data), want, off)
		}
	}
}

func (t *Tree) Extents(ctx context.Context, id fs.ID, off int64, n int) ([]fs.Extent, error) {
	a, err := t.Attr(ctx, id)
	switch {
	case err != nil:
		return nil, err
	case a.IsDir():
		return nil, fs.ErrIsDir
	case a.Type != fs.TypeFile || off < 0 || n < 1:
		return nil, fs.ErrInvalid
	case off >= a.Size:
		return nil, io.EOF
	}
	return []fs.Extent{{Off: off, Len: a.Size - off, Kind: fs.Made}}, nil
}

func (t *Tree) StatFS(ctx context.Context, id fs.ID) (fs.StatFS, error) {
	h, err := t.handle(ctx, id)
	if err != nil {
		return fs.StatFS{}, err
	}
	d, err := t.c.NFS(FSStat, h)
	if err != nil {
		return fs.StatFS{}, treeError(err)
	}
	d.PostOp()
	st := fs.StatFS{Type: "nfs", BlockBytes: 4096, Bytes: int64(d.Uint64()), FreeBytes: int64(d.Uint64())}
	d.Uint64()
	st.Files, st.FreeFiles = d.Uint64(), d.Uint64()
	d.Uint64()
	d.Uint32()
	return st, d.Err()
}
