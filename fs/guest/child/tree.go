package child

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"

	"holdfast/fs"
	"holdfast/fs/guest"
)

// What a tree can do beside fs.Tree.
const (
	canXattrs = 1 << iota
	canStreams
	canNotes
)

// tree is a file system that the process reads.
type tree struct {
	c      *Child
	disk   guest.Disk
	vol    guest.Volume
	number uint32

	opening chan struct{}        // holds the right to open it in a process
	open    atomic.Pointer[conn] // the line to the process in which it is open
	closed  atomic.Bool

	root  fs.ID // these three as first opened
	can   uint8
	notes []string

	pages   pages
	extents extentCache
	ahead   ahead
}

func newTree(c *Child, d guest.Disk, v guest.Volume) *tree {
	return &tree{c: c, disk: d, vol: v, number: c.numbers.Add(1), opening: make(chan struct{}, 1)}
}

// openIn sees to it that the tree is open in the process behind k.
func (t *tree) openIn(ctx context.Context, k *conn) error {
	if t.open.Load() == k {
		return nil
	}
	select {
	case t.opening <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-t.opening }()
	if t.closed.Load() {
		return errClosed
	}
	if t.open.Load() == k {
		return nil
	}
	k.attach(t.number, t.disk)
	cur, err := t.c.ask(ctx, k, kindOpen, newFrame(256).u32(t.number).i64(t.disk.Size()).volume(&t.vol))
	if err != nil {
		return err
	}
	root, can, notes := fs.ID{Ino: cur.u64()}, cur.u8(), cur.strs(maxText)
	if err := cur.end(); err != nil {
		return err
	}
	if root.Ino == 0 || len(notes) > maxNotes {
		return damaged("root inode %d, %d notes", root.Ino, len(notes))
	}
	if t.root != (fs.ID{}) && (root != t.root || can != t.can) {
		return damaged("opened again, the file system is another")
	}
	if t.root == (fs.ID{}) {
		t.root, t.can, t.notes = root, can, notes
	}
	t.open.Store(k)
	return nil
}

// withAbilities returns the tree with the methods that its file system has.
func (t *tree) withAbilities() fs.Tree {
	x, s, n := xattrs{t}, streams{t}, notes{t}
	switch t.can & (canXattrs | canStreams | canNotes) {
	case canXattrs:
		return struct {
			*tree
			xattrs
		}{t, x}
	case canStreams:
		return struct {
			*tree
			streams
		}{t, s}
	case canNotes:
		return struct {
			*tree
			notes
		}{t, n}
	case canXattrs | canStreams:
		return struct {
			*tree
			xattrs
			streams
		}{t, x, s}
	case canXattrs | canNotes:
		return struct {
			*tree
			xattrs
			notes
		}{t, x, n}
	case canStreams | canNotes:
		return struct {
			*tree
			streams
			notes
		}{t, s, n}
	case canXattrs | canStreams | canNotes:
		return struct {
			*tree
			xattrs
			streams
			notes
		}{t, x, s, n}
	}
	return t
}

// ask asks the process about the tree. take gets the answer, its error taken
// off, and has to use it up.
func (t *tree) ask(ctx context.Context, kind kind, f frame, take func(*cursor) error) error {
	if t.closed.Load() {
		return errClosed
	}
	_, err := retry(ctx, t.c, func(k *conn) (none struct{}, err error) {
		if err := t.openIn(ctx, k); err != nil {
			return none, err
		}
		cur, err := t.c.ask(ctx, k, kind, f)
		if err != nil {
			return none, err
		}
		if err := take(cur); err != nil {
			return none, fmt.Errorf("volume %s: %w", t.vol.Name, err)
		}
		return none, nil
	})
	return lost("volume "+t.vol.Name, err)
}

// about begins a question about an inode.
func (t *tree) about(id fs.ID) (frame, error) {
	if id.FS != 0 || id.Ino == 0 {
		return nil, fmt.Errorf("inode %d/%d: %w", id.FS, id.Ino, fs.ErrStale)
	}
	return newFrame(64).u32(t.number).u64(id.Ino), nil
}

func (t *tree) Root() fs.ID { return t.root }

func (t *tree) Attr(ctx context.Context, id fs.ID) (a fs.Attr, err error) {
	f, err := t.about(id)
	if err != nil {
		return fs.Attr{}, err
	}
	err = t.ask(ctx, kindAttr, f, func(c *cursor) error {
		if a, err = c.attr(); err != nil {
			return err
		}
		if a.ID != id {
			return damaged("inode %d says that it is %d", id.Ino, a.ID.Ino)
		}
		return c.end()
	})
	if err != nil {
		return fs.Attr{}, err
	}
	return a, nil
}

func (t *tree) Lookup(ctx context.Context, dir fs.ID, name string) (a fs.Attr, err error) {
	if name != ".." && (!isName(name) && name != ".") {
		return t.noName(ctx, dir, name)
	}
	f, err := t.about(dir)
	if err != nil {
		return fs.Attr{}, err
	}
	err = t.ask(ctx, kindLookup, f.str(name), func(c *cursor) error {
		if a, err = c.attr(); err != nil {
			return err
		}
		return c.end()
	})
	if err != nil {
		return fs.Attr{}, err
	}
	return a, nil
}

// noName looks up what no entry can be called.
func (t *tree) noName(ctx context.Context, dir fs.ID, name string) (fs.Attr, error) {
	a, err := t.Attr(ctx, dir)
	if err != nil {
		return fs.Attr{}, err
	}
	if !a.IsDir() {
		return fs.Attr{}, fmt.Errorf("inode %d: %w", dir.Ino, fs.ErrNotDir)
	}
	return fs.Attr{}, fmt.Errorf("%.40q: %w", name, fs.ErrNotFound)
}

func (t *tree) ReadLink(ctx context.Context, id fs.ID) (target string, err error) {
	f, err := t.about(id)
	if err != nil {
		return "", err
	}
	err = t.ask(ctx, kindReadLink, f, func(c *cursor) error {
		target = c.str(maxLink)
		if strings.IndexByte(target, 0) >= 0 {
			return damaged("inode %d: the target of the link has a zero byte", id.Ino)
		}
		return c.end()
	})
	if err != nil {
		return "", err
	}
	return target, nil
}

func (t *tree) StatFS(ctx context.Context, id fs.ID) (s fs.StatFS, err error) {
	f, err := t.about(id)
	if err != nil {
		return fs.StatFS{}, err
	}
	err = t.ask(ctx, kindStatFS, f, func(c *cursor) (err error) {
		s, err = c.statfs()
		return err
	})
	return s, err
}

// Close closes the file system. What is still being asked may fail.
func (t *tree) Close() error {
	if t.closed.Swap(true) {
		return nil
	}
	t.opening <- struct{}{} // not while it is being opened
	defer func() { <-t.opening }()
	k := t.open.Swap(nil)
	if k == nil {
		return nil
	}
	defer k.detach(t.number)
	ctx, cancel := context.WithTimeout(context.Background(), writeTime)
	defer cancel()
	if cur, err := k.call(ctx, kindClose, newFrame(4).u32(t.number), 0); cur != nil {
		return err
	}
	return nil // with its process it has ended too
}

// xattrs makes a tree an fs.XattrTree.
type xattrs struct{ t *tree }

func (x xattrs) Xattrs(ctx context.Context, id fs.ID) (names []string, err error) {
	f, err := x.t.about(id)
	if err != nil {
		return nil, err
	}
	err = x.t.ask(ctx, kindXattrs, f, func(c *cursor) (err error) {
		names, err = c.xattrs()
		return err
	})
	return names, err
}

func (x xattrs) Xattr(ctx context.Context, id fs.ID, name string) (value []byte, err error) {
	f, err := x.t.about(id)
	if err != nil {
		return nil, err
	}
	if len(name) > maxName {
		return nil, fmt.Errorf("%.40q: %w", name, fs.ErrNoXattr)
	}
	err = x.t.ask(ctx, kindXattr, f.str(name), func(c *cursor) error {
		value = []byte(c.str(maxBody))
		return c.end()
	})
	if err != nil {
		return nil, err
	}
	return value, nil
}

// streams makes a tree an fs.StreamTree.
type streams struct{ t *tree }

func (s streams) Streams(ctx context.Context, id fs.ID) (list []fs.Stream, err error) {
	f, err := s.t.about(id)
	if err != nil {
		return nil, err
	}
	err = s.t.ask(ctx, kindStreams, f, func(c *cursor) (err error) {
		list, err = c.streams()
		return err
	})
	return list, err
}

// notes makes a tree an fs.NotedTree.
type notes struct{ t *tree }

func (n notes) Notes() []string { return n.t.notes }
