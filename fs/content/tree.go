package content

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"holdfast/fs"
	"holdfast/fs/guest"
	"holdfast/repo"
)

// Options say how backups are shown. The zero value shows disks, but no files
// in them.
type Options struct {
	// Guests makes what reads the guests' file systems: one for each machine
	// whose files somebody looks at, closed when nobody has for a while. nil:
	// there is no files/.
	Guests func(ctx context.Context) (guest.Reader, error)

	Refresh time.Duration // how old the list of points may be; 0: a second
	Idle    time.Duration // how long what nobody uses stays open; 0: a minute

	// How many are open at most, beside those in use; 0: 64 points, 16 volumes.
	Points  int
	Volumes int

	Log *slog.Logger // nil: none
}

// Tree is the backups in a repository as files. It implements fs.XattrTree and
// fs.StreamTree for the sake of the guests' files; what it makes up has neither
// attributes nor streams. Of no extent does it say that it is fs.Stored, for
// there is no device to look at.
type Tree struct {
	repo *repo.Repository
	opt  Options

	listing sync.Mutex // held while the repository is asked for its points
	listed  atomic.Pointer[listing]

	// Each holds what the next ones need: a volume a point and a reader.
	points  *pool[repo.PointID, *openPoint]
	readers *pool[string, guest.Reader] // by the machine's file name
	volumes *pool[volumeKey, *openVolume]

	stop chan struct{}
	done sync.WaitGroup
}

var (
	_ fs.XattrTree  = (*Tree)(nil)
	_ fs.StreamTree = (*Tree)(nil)
)

// New returns the tree of the backups in r, which must stay open until the tree
// is closed. It asks r nothing yet.
func New(r *repo.Repository, opt Options) *Tree {
	if opt.Refresh == 0 {
		opt.Refresh = time.Second
	}
	if opt.Idle == 0 {
		opt.Idle = time.Minute
	}
	if opt.Points == 0 {
		opt.Points = 64
	}
	if opt.Volumes == 0 {
		opt.Volumes = 16
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	t := &Tree{repo: r, opt: opt, stop: make(chan struct{})}
	t.points = newPool(opt.Points, t.openPoint, t.closePoint)
	t.readers = newPool(opt.Volumes, t.openReader, t.closeReader)
	t.volumes = newPool(opt.Volumes, t.openVolume, t.closeVolume)
	t.done.Go(t.tidy)
	return t
}

// tidy closes what nobody uses.
func (t *Tree) tidy() {
	tick := time.NewTicker(max(t.opt.Idle/4, time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-t.stop:
			return
		case now := <-tick.C:
			t.volumes.trim(now.Add(-t.opt.Idle))
			t.readers.trim(now.Add(-t.opt.Idle))
			t.points.trim(now.Add(-t.opt.Idle))
		}
	}
}

// Close lets go of all points. The repository stays open.
func (t *Tree) Close() error {
	close(t.stop)
	t.done.Wait()
	t.volumes.end()
	t.readers.end()
	t.points.end()
	return nil
}

// Root is the directory of machines.
func (t *Tree) Root() fs.ID { return top }

// Attr describes an inode.
func (t *Tree) Attr(ctx context.Context, id fs.ID) (fs.Attr, error) {
	n, err := t.node(ctx, id)
	if err != nil {
		return fs.Attr{}, err
	}
	return n.attr(ctx)
}

// Lookup describes what a directory has under a name.
func (t *Tree) Lookup(ctx context.Context, dir fs.ID, name string) (fs.Attr, error) {
	n, err := t.node(ctx, dir)
	if err != nil {
		return fs.Attr{}, err
	}
	return n.lookup(ctx, name)
}

// ReadDir calls fn for the entries of a directory behind cookie.
func (t *Tree) ReadDir(ctx context.Context, dir fs.ID, cookie uint64, fn func(fs.Entry) bool) error {
	n, err := t.node(ctx, dir)
	if err != nil {
		return err
	}
	return n.readDir(ctx, cookie, fn)
}

// ReadLink returns the target of a symbolic link.
func (t *Tree) ReadLink(ctx context.Context, id fs.ID) (string, error) {
	n, err := t.node(ctx, id)
	if err != nil {
		return "", err
	}
	return n.readLink(ctx)
}

// ReadAt reads from a file. The bytes of a disk go straight into p.
func (t *Tree) ReadAt(ctx context.Context, id fs.ID, p []byte, off int64) (int, error) {
	n, err := t.node(ctx, id)
	if err != nil {
		return 0, err
	}
	if off < 0 {
		return 0, fmt.Errorf("read at %d: %w", off, fs.ErrInvalid)
	}
	return n.readAt(ctx, p, off)
}

// Extents tells where a file has bytes: those of a disk where its block map has
// chunks.
func (t *Tree) Extents(ctx context.Context, id fs.ID, off int64, n int) ([]fs.Extent, error) {
	node, err := t.node(ctx, id)
	if err != nil {
		return nil, err
	}
	if off < 0 {
		return nil, fmt.Errorf("extents from %d: %w", off, fs.ErrInvalid)
	}
	return node.extents(ctx, off, n)
}

// StatFS describes the guest's file system, or this tree.
func (t *Tree) StatFS(ctx context.Context, id fs.ID) (fs.StatFS, error) {
	n, err := t.node(ctx, id)
	if err != nil {
		return fs.StatFS{}, err
	}
	if v, ok := n.(*inVolume); ok {
		return v.statFS(ctx)
	}
	return fs.StatFS{Type: "holdfast", BlockBytes: 4096}, nil
}

// Xattrs lists the names of the attributes of a guest's file.
func (t *Tree) Xattrs(ctx context.Context, id fs.ID) ([]string, error) {
	n, err := t.node(ctx, id)
	if err != nil {
		return nil, err
	}
	if v, ok := n.(*inVolume); ok {
		return v.xattrs(ctx)
	}
	return nil, nil
}

// Xattr returns the value of an attribute of a guest's file.
func (t *Tree) Xattr(ctx context.Context, id fs.ID, name string) ([]byte, error) {
	n, err := t.node(ctx, id)
	if err != nil {
		return nil, err
	}
	if v, ok := n.(*inVolume); ok {
		return v.xattr(ctx, name)
	}
	return nil, fmt.Errorf("%q: %w", name, fs.ErrNoXattr)
}

// Streams lists the alternate streams of a guest's file.
func (t *Tree) Streams(ctx context.Context, id fs.ID) ([]fs.Stream, error) {
	n, err := t.node(ctx, id)
	if err != nil {
		return nil, err
	}
	if v, ok := n.(*inVolume); ok {
		return v.streams(ctx)
	}
	return nil, nil
}

// node is an inode that was found: what its methods answer is what the tree's
// do.
type node interface {
	attr(ctx context.Context) (fs.Attr, error)
	lookup(ctx context.Context, name string) (fs.Attr, error)
	readDir(ctx context.Context, cookie uint64, fn func(fs.Entry) bool) error
	readLink(ctx context.Context) (string, error)
	readAt(ctx context.Context, p []byte, off int64) (int, error)
	extents(ctx context.Context, off int64, n int) ([]fs.Extent, error)
}

// node finds an inode, or says ErrStale.
func (t *Tree) node(ctx context.Context, id fs.ID) (node, error) {
	if id == top {
		return &topDir{t: t}, nil
	}
	key, disk, slot := splitFS(id.FS)
	v, err := t.find(ctx, key)
	if err != nil {
		return nil, fmt.Errorf("inode %x:%x: %w", id.FS, id.Ino, err)
	}
	var n node
	switch v := v.(type) {
	case *machine:
		if disk == 0 && slot == 0 {
			n = machineNode(t, v, id.Ino)
		}
	case *point:
		switch {
		case slot != 0 && disk < len(v.Disks) && t.opt.Guests != nil:
			n = &inVolume{t: t, p: v, key: volumeKey{v.ID, disk, slot}, id: id}
		case slot == 0 && disk == 0:
			n = pointNode(t, v, id.Ino)
		}
	}
	if n == nil {
		return nil, fmt.Errorf("inode %x:%x: %w", id.FS, id.Ino, fs.ErrStale)
	}
	return n, nil
}

// isDir, isFile and isLink answer what directories, files and symbolic links
// have not.
type (
	isDir  struct{ noLink }
	isFile struct {
		noLink
		noDir
	}
	isLink struct{ noDir }
)

type (
	noDir  struct{}
	noLink struct{}
)

func (noDir) lookup(context.Context, string) (fs.Attr, error) { return fs.Attr{}, fs.ErrNotDir }

func (noDir) readDir(context.Context, uint64, func(fs.Entry) bool) error { return fs.ErrNotDir }

func (noLink) readLink(context.Context) (string, error) {
	return "", fmt.Errorf("no symbolic link: %w", fs.ErrInvalid)
}

func (isDir) readAt(context.Context, []byte, int64) (int, error) { return 0, fs.ErrIsDir }

func (isDir) extents(context.Context, int64, int) ([]fs.Extent, error) { return nil, fs.ErrIsDir }

func (isLink) readAt(context.Context, []byte, int64) (int, error) {
	return 0, fmt.Errorf("symbolic link: %w", fs.ErrInvalid)
}

func (isLink) extents(context.Context, int64, int) ([]fs.Extent, error) {
	return nil, fmt.Errorf("symbolic link: %w", fs.ErrInvalid)
}
