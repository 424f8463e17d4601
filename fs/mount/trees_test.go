package mount

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync/atomic"

	"holdfast/fs"
	"holdfast/fs/treetest"
)

// bytesOf returns n bytes, the same for a seed.
func bytesOf(seed byte, n int) []byte {
	p := make([]byte, n)
	rand.NewChaCha8([32]byte{seed}).Read(p)
	return p
}

// smallFiles are a tree with one of everything.
func smallFiles() treetest.Files {
	sparse := make([]byte, 300_000)
	copy(sparse, "first")
	copy(sparse[200_000:], bytesOf(1, 50_000))
	return treetest.Files{
		".":                      {Attr: fs.Attr{Perm: 0o755}},
		"empty":                  {},
		"short":                  {Data: []byte("a few bytes")},
		"large":                  {Data: bytesOf(2, 3<<20+17), Attr: fs.Attr{UID: 1000, GID: 70000, Perm: 0o640}},
		"sparse":                 {Data: sparse, Attr: fs.Attr{Size: 5 << 30}},
		"suid":                   {Data: []byte("#!/bin/sh\n"), Attr: fs.Attr{Perm: 0o6755}},
		"dir/one":                {Data: []byte("1"), Xattrs: map[string]string{"user.comment": "hello", "user.empty": "", "trusted.x": "\x00\xff"}},
		"dir/two":                {Link: "dir/one"},
		"dir/deep/er":            {Data: []byte("deep")},
		"sticky":                 {Attr: fs.Attr{Type: fs.TypeDir, Perm: 0o1777}},
		"link":                   {Target: "dir/one"},
		"dangling":               {Target: strings.Repeat("x/", 2000)},
		"\xff\xfe bad":           {Data: []byte("a name that is not UTF-8")},
		"new\nline":              {Data: []byte("n")},
		"disk":                   {Attr: fs.Attr{Type: fs.TypeBlockDevice, Major: 259, Minor: 70000, Perm: 0o660}},
		"tty":                    {Attr: fs.Attr{Type: fs.TypeCharDevice, Major: 4, Minor: 64}},
		"pipe":                   {Attr: fs.Attr{Type: fs.TypeFIFO}},
		"socket":                 {Attr: fs.Attr{Type: fs.TypeSocket}},
		"old":                    {Data: []byte("o"), Attr: fs.Attr{Mtime: fs.Time{Sec: -8e9, Nsec: 1}, Atime: fs.Time{Sec: -1}}},
		"far":                    {Data: []byte("f"), Attr: fs.Attr{Mtime: fs.Time{Sec: 8e9, Nsec: 999_999_999}}},
		"streams":                {Data: []byte("main"), Streams: map[string][]byte{"Zone.Identifier": []byte("[ZoneTransfer]"), "none": nil}},
		strings.Repeat("n", 255): {Data: []byte("a long name")},
	}
}

// joined gives everything below the root to other file systems, as trees do that
// are made of several.
type joined struct {
	*treetest.Tree
}

const joinedFS = 0xfeed_beef_0000_0001

func (j joined) out(id fs.ID) fs.ID {
	if id != j.Tree.Root() {
		id.FS = joinedFS + id.Ino%3
	}
	return id
}

func (j joined) in(id fs.ID) (fs.ID, error) {
	inner := fs.ID{Ino: id.Ino}
	if j.out(inner) != id {
		return id, fs.ErrStale
	}
	return inner, nil
}

func (j joined) attr(a fs.Attr, err error) (fs.Attr, error) {
	a.ID = j.out(a.ID)
	return a, err
}

func (j joined) Attr(ctx context.Context, id fs.ID) (fs.Attr, error) {
	id, err := j.in(id)
	if err != nil {
		return fs.Attr{}, err
	}
	return j.attr(j.Tree.Attr(ctx, id))
}

func (j joined) Lookup(ctx context.Context, dir fs.ID, name string) (fs.Attr, error) {
	dir, err := j.in(dir)
	if err != nil {
		return fs.Attr{}, err
	}
	return j.attr(j.Tree.Lookup(ctx, dir, name))
}

func (j joined) ReadDir(ctx context.Context, dir fs.ID, cookie uint64, fn func(fs.Entry) bool) error {
	dir, err := j.in(dir)
	if err != nil {
		return err
	}
	return j.Tree.ReadDir(ctx, dir, cookie, func(e fs.Entry) bool {
		e.ID = j.out(e.ID)
		if e.Attr != nil {
			a, _ := j.attr(*e.Attr, nil)
			e.Attr = &a
		}
		return fn(e)
	})
}

func (j joined) ReadLink(ctx context.Context, id fs.ID) (string, error) {
	id, err := j.in(id)
	if err != nil {
		return "", err
	}
	return j.Tree.ReadLink(ctx, id)
}

func (j joined) ReadAt(ctx context.Context, id fs.ID, p []byte, off int64) (int, error) {
	id, err := j.in(id)
	if err != nil {
		return 0, err
	}
	return j.Tree.ReadAt(ctx, id, p, off)
}

func (j joined) Extents(ctx context.Context, id fs.ID, off int64, n int) ([]fs.Extent, error) {
	id, err := j.in(id)
	if err != nil {
		return nil, err
	}
	return j.Tree.Extents(ctx, id, off, n)
}

func (j joined) StatFS(ctx context.Context, id fs.ID) (fs.StatFS, error) {
	id, err := j.in(id)
	if err != nil {
		return fs.StatFS{}, err
	}
	return j.Tree.StatFS(ctx, id)
}

func (j joined) Xattrs(ctx context.Context, id fs.ID) ([]string, error) {
	id, err := j.in(id)
	if err != nil {
		return nil, err
	}
	return j.Tree.Xattrs(ctx, id)
}

func (j joined) Xattr(ctx context.Context, id fs.ID, name string) ([]byte, error) {
	id, err := j.in(id)
	if err != nil {
		return nil, err
	}
	return j.Tree.Xattr(ctx, id, name)
}

func (j joined) Streams(ctx context.Context, id fs.ID) ([]fs.Stream, error) {
	id, err := j.in(id)
	if err != nil {
		return nil, err
	}
	streams, err := j.Tree.Streams(ctx, id)
	for i := range streams {
		streams[i].ID = j.out(streams[i].ID)
	}
	return streams, err
}

// A wide tree is one directory of n empty files, with nothing in memory. It
// counts what it is asked.
type wide struct {
	n     int
	fixed bool
	attrs bool // has the attributes of entries at hand

	lists, lookups, asked atomic.Int64
}

func (w *wide) Root() fs.ID  { return fs.ID{Ino: 1} }
func (w *wide) Close() error { return nil }

func (w *wide) attr(ino uint64) fs.Attr {
	a := fs.Attr{ID: fs.ID{Ino: ino}, Type: fs.TypeFile, Perm: 0o644, Nlink: 1, Fixed: w.fixed, Size: int64(ino)}
	if ino == 1 {
		a.Type, a.Perm, a.Nlink = fs.TypeDir, 0o755, 2
	}
	return a
}

func (w *wide) Attr(_ context.Context, id fs.ID) (fs.Attr, error) {
	w.asked.Add(1)
	if id.Ino == 0 || id.Ino > uint64(w.n)+1 {
		return fs.Attr{}, fs.ErrStale
	}
	return w.attr(id.Ino), nil
}

func wideName(i int) string { return fmt.Sprintf("a file with the number %07d", i) }

func (w *wide) Lookup(_ context.Context, _ fs.ID, name string) (fs.Attr, error) {
	if name == ".." {
		return w.attr(1), nil
	}
	w.lookups.Add(1)
	var i int
	if _, err := fmt.Sscanf(name, "a file with the number %d", &i); err != nil || i >= w.n || wideName(i) != name {
		return fs.Attr{}, fs.ErrNotFound
	}
	return w.attr(uint64(i) + 2), nil
}

// cookie is not in the order of the entries, as a hash wouldn't be. It is its own
// inverse.
func (w *wide) cookie(x uint64) uint64 { return x ^ 0x2aaa_aaaa_aaaa_aaaa }

func (w *wide) ReadDir(_ context.Context, dir fs.ID, cookie uint64, fn func(fs.Entry) bool) error {
	if dir.Ino != 1 {
		return fs.ErrNotDir
	}
	w.lists.Add(1)
	from := 0
	if cookie != 0 {
		from = int(w.cookie(cookie))
	}
	for i := from; i < w.n; i++ {
		e := fs.Entry{Name: wideName(i), ID: fs.ID{Ino: uint64(i) + 2}, Type: fs.TypeFile, Cookie: w.cookie(uint64(i) + 1)}
		if w.attrs {
			a := w.attr(e.ID.Ino)
			e.Attr = &a
		}
		if !fn(e) {
			break
		}
	}
	return nil
}

func (w *wide) ReadLink(context.Context, fs.ID) (string, error) { return "", fs.ErrInvalid }
func (w *wide) ReadAt(context.Context, fs.ID, []byte, int64) (int, error) {
	return 0, io.EOF
}
func (w *wide) Extents(context.Context, fs.ID, int64, int) ([]fs.Extent, error) { return nil, io.EOF }
func (w *wide) StatFS(context.Context, fs.ID) (fs.StatFS, error)                { return fs.StatFS{}, nil }

// odd is a small tree of which some files misbehave, by their names.
type odd struct {
	*treetest.Tree
	moves atomic.Int64 // that "latest" has made
}

func oddFiles() treetest.Files {
	text := []byte("what a file holds")
	return treetest.Files{
		"plain":       {Data: text},
		"panics":      {Data: text},
		"hangs":       {Data: bytesOf(3, 4096)},
		"slow":        {Data: bytesOf(3, 4096)},
		"damaged":     {Data: text, Err: fmt.Errorf("inode 5, block 7: bad checksum: %w", fs.ErrDamaged)},
		"unsupported": {Data: text, Err: fmt.Errorf("encrypted: %w", fs.ErrUnsupported)},
		"half":        {Data: bytesOf(4, 8192)},
		"latest":      {Target: "nowhere"},
		"huge":        {Data: append(make([]byte, 200_000), bytesOf(1, 50_000)...), Attr: fs.Attr{Size: 5 << 30}},
		"locked":      {Data: text, Attr: fs.Attr{Perm: 0o600}},
		"shadow":      {Xattrs: map[string]string{"user.stream.a": "attribute"}, Streams: map[string][]byte{"a": []byte("stream"), "b": []byte("bytes"), "huge": make([]byte, 64<<10+1), "full": make([]byte, 64<<10)}},
	}
}

func newOdd() *odd { return &odd{Tree: treetest.NewTree(oddFiles())} }

var errHalf = errors.New("the second half can't be read")

func (o *odd) is(ctx context.Context, id fs.ID, name string) bool {
	a, err := o.Tree.Lookup(ctx, o.Root(), name)
	return err == nil && a.ID == id
}

func (o *odd) ReadAt(ctx context.Context, id fs.ID, p []byte, off int64) (int, error) {
	switch {
	case o.is(context.Background(), id, "panics"):
		panic("this program is wrong")
	case o.is(context.Background(), id, "hangs"):
		<-ctx.Done()
		return 0, ctx.Err()
	case o.is(context.Background(), id, "slow"):
		for range 40 { // 200 ms
			sleep(ctx)
		}
	case o.is(context.Background(), id, "half"):
		n, _ := o.Tree.ReadAt(ctx, id, p[:min(len(p), 4096)], off)
		return n, errHalf
	}
	return o.Tree.ReadAt(ctx, id, p, off)
}

func (o *odd) moving(ctx context.Context, a fs.Attr, err error) (fs.Attr, error) {
	if err == nil && o.is(ctx, a.ID, "latest") {
		a.Fixed = false
	}
	if a.ID == o.Root() {
		a.Fixed = false
	}
	return a, err
}

func (o *odd) Attr(ctx context.Context, id fs.ID) (fs.Attr, error) {
	a, err := o.Tree.Attr(ctx, id)
	return o.moving(ctx, a, err)
}

func (o *odd) Lookup(ctx context.Context, dir fs.ID, name string) (fs.Attr, error) {
	a, err := o.Tree.Lookup(ctx, dir, name)
	return o.moving(ctx, a, err)
}

func (o *odd) ReadLink(ctx context.Context, id fs.ID) (string, error) {
	return fmt.Sprintf("point-%d", o.moves.Load()), nil
}
