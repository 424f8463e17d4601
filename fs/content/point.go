package content

import (
	"context"
	"fmt"
	"io"

	"holdfast/fs"
	"holdfast/repo"
)

func (p *point) id(ino uint64) fs.ID { return fs.ID{FS: fsOf(p.key, 0, 0), Ino: ino} }

func (p *point) time() fs.Time { return fs.TimeOf(p.Time) }

func (p *point) attr() fs.Attr { return dirAttr(p.id(inoPoint), p.time(), true) }

// pointNode finds an inode of a point that is not in a guest's file system.
func pointNode(t *Tree, p *point, ino uint64) node {
	switch ino {
	case inoPoint, inoDisks:
		return &pointDir{t: t, p: p, ino: ino}
	case inoFiles:
		if t.opt.Guests == nil {
			return nil
		}
		return &pointDir{t: t, p: p, ino: ino}
	case inoJSON:
		return &textFile{a: fileAttr(p.id(ino), p.time(), 0), text: func(context.Context) ([]byte, error) { return machineJSON(p) }}
	}
	if ino >= inoKept && ino < inoKept+uint64(len(p.Files)) {
		return &keptFile{t: t, p: p, file: int(ino - inoKept)}
	}
	disk, in := splitIno(ino)
	if disk < 0 || disk >= int64(len(p.Disks)) || disk >= maxDisks {
		return nil
	}
	i := int(disk)
	switch {
	case in >= inoView && in < inoView+uint64(len(views)):
		v := int(in - inoView)
		if !views[v].fits(p.Disks[i].SizeBytes) {
			return nil
		}
		return &viewFile{t: t, p: p, disk: i, view: v}
	case t.opt.Guests == nil:
		return nil
	case in == inoVolumes:
		return &volumesDir{t: t, p: p, disk: i}
	case in == inoNotes || in > inoUnreadable && in < inoUnreadable+maxSlots:
		return &textFile{a: fileAttr(p.id(ino), p.time(), 0), text: func(ctx context.Context) ([]byte, error) {
			return t.note(ctx, p, i, in)
		}}
	}
	return nil
}

// A child is an entry of a directory that never changes.
type child struct {
	name string
	id   fs.ID
	typ  fs.Type
}

// pointDir is a point's directory, or disks or files in it.
type pointDir struct {
	isDir
	t   *Tree
	p   *point
	ino uint64
}

func (d *pointDir) attr(context.Context) (fs.Attr, error) {
	return dirAttr(d.p.id(d.ino), d.p.time(), true), nil
}

// children lists what is in the directory.
func (d *pointDir) children() []child {
	var list []child
	switch d.ino {
	case inoPoint:
		list = []child{{"disks", d.p.id(inoDisks), fs.TypeDir}, {"machine.json", d.p.id(inoJSON), fs.TypeFile}}
		if d.t.opt.Guests != nil {
			list = append(list, child{"files", d.p.id(inoFiles), fs.TypeDir})
		}
		for i, name := range keptNames(d.p.Files) {
			list = append(list, child{name, d.p.id(inoKept + uint64(i)), fs.TypeFile})
		}
	case inoDisks:
		for i, names := range d.p.diskNames() {
			for v := range views {
				if i < maxDisks && views[v].fits(d.p.Disks[i].SizeBytes) {
					list = append(list, child{names.view + views[v].suffix, d.p.id(diskIno(i, inoView+uint64(v))), fs.TypeFile})
				}
			}
		}
	case inoFiles:
		for i, names := range d.p.diskNames() {
			if i < maxDisks {
				list = append(list, child{names.folder, d.p.id(diskIno(i, inoVolumes)), fs.TypeDir})
			}
		}
	}
	return list
}

func (d *pointDir) lookup(ctx context.Context, name string) (fs.Attr, error) {
	switch {
	case name == ".." && d.ino == inoPoint:
		return d.t.Attr(ctx, fs.ID{FS: fsOf(d.p.dir, 0, 0), Ino: inoMachine})
	case name == "..":
		return d.p.attr(), nil
	}
	return lookupChild(ctx, d.t, d.children(), name)
}

func (d *pointDir) readDir(_ context.Context, cookie uint64, fn func(fs.Entry) bool) error {
	return readChildren(d.children(), cookie, fn)
}

func lookupChild(ctx context.Context, t *Tree, list []child, name string) (fs.Attr, error) {
	for _, c := range list {
		if c.name == name {
			return t.Attr(ctx, c.id)
		}
	}
	return fs.Attr{}, fmt.Errorf("%q: %w", name, fs.ErrNotFound)
}

func readChildren(list []child, cookie uint64, fn func(fs.Entry) bool) error {
	for i := cookie; i < uint64(len(list)); i++ {
		c := list[i]
		if !fn(fs.Entry{Name: c.name, ID: c.id, Type: c.typ, Cookie: i + 1}) {
			return nil
		}
	}
	return nil
}

// textFile is a small file that is made whenever somebody asks.
type textFile struct {
	isFile
	a    fs.Attr // but for the size
	text func(context.Context) ([]byte, error)
}

func (f *textFile) attr(ctx context.Context) (fs.Attr, error) {
	b, err := f.text(ctx)
	if err != nil {
		return fs.Attr{}, err
	}
	a := f.a
	a.Size = int64(len(b))
	return a, nil
}

func (f *textFile) readAt(ctx context.Context, p []byte, off int64) (int, error) {
	b, err := f.text(ctx)
	if err != nil {
		return 0, err
	}
	if off >= int64(len(b)) {
		return 0, io.EOF
	}
	n := copy(p, b[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *textFile) extents(ctx context.Context, off int64, _ int) ([]fs.Extent, error) {
	b, err := f.text(ctx)
	if err != nil {
		return nil, err
	}
	if off >= int64(len(b)) {
		return nil, io.EOF
	}
	return []fs.Extent{{Off: off, Len: int64(len(b)) - off, Kind: fs.Made}}, nil
}

// viewFile is a disk in some form.
type viewFile struct {
	isFile
	t    *Tree
	p    *point
	disk int
	view int
}

func (f *viewFile) attr(ctx context.Context) (fs.Attr, error) {
	id := f.p.id(diskIno(f.disk, inoView+uint64(f.view)))
	if size := views[f.view].size; size != nil {
		name := f.p.diskNames()[f.disk].view + views[f.view].suffix
		return fileAttr(id, f.p.time(), size(f.p.Disks[f.disk], name)), nil
	}
	var size int64
	err := f.with(ctx, func(c contents) error {
		size = c.Size()
		return nil
	})
	return fileAttr(id, f.p.time(), size), err
}

func (f *viewFile) readAt(ctx context.Context, p []byte, off int64) (n int, err error) {
	err = f.with(ctx, func(c contents) error {
		n, err = readContents(ctx, c, p, off)
		return err
	})
	return n, err
}

func (f *viewFile) extents(ctx context.Context, off int64, n int) (list []fs.Extent, err error) {
	err = f.with(ctx, func(c contents) error {
		list, err = extents(c, off, n)
		return err
	})
	return list, err
}

// with calls fn with what is in the file, while the point is held.
func (f *viewFile) with(ctx context.Context, fn func(contents) error) error {
	op, release, err := f.t.open(ctx, f.p)
	if err != nil {
		return err
	}
	defer release()
	c, err := op.view(ctx, f.p, f.disk, f.view)
	if err != nil {
		return fsError(err)
	}
	return fsError(fn(c))
}

// open holds a point for as long as somebody uses it.
func (t *Tree) open(ctx context.Context, p *point) (*openPoint, func(), error) {
	if p.gone && !t.points.has(p.ID) {
		return nil, nil, fmt.Errorf("point %s: %w", p.ID, fs.ErrStale)
	}
	return t.points.acquire(ctx, p.ID)
}

// openPoint takes the point's lease.
func (t *Tree) openPoint(_ context.Context, id repo.PointID) (*openPoint, error) {
	r, err := t.repo.OpenPoint(id)
	if err != nil {
		return nil, fsError(err)
	}
	op := &openPoint{reader: r}
	for range r.Point().Disks {
		op.disks = append(op.disks, &openDisk{views: make([]lazy[contents], len(views))})
	}
	return op, nil
}

func (t *Tree) closePoint(op *openPoint) {
	if err := op.reader.Close(); err != nil {
		t.opt.Log.Warn("lease can't be given up", "point", op.reader.Point().ID, "err", err)
	}
}

// openPoint is a point that is being read.
type openPoint struct {
	reader *repo.Reader
	disks  []*openDisk
	files  lazy[[]repo.MachineFile]
}

type openDisk struct {
	views  []lazy[contents]
	layout lazy[*layout]
	states lazy[[]state]
}

// disk returns a disk of the point, which may read ahead by itself.
func (op *openPoint) disk(i int) (*repo.Disk, error) {
	return op.reader.Disk(op.reader.Point().Disks[i].Name)
}

// loader is a view that has to look at the whole disk before it knows its size.
type loader interface {
	Load(ctx context.Context) error
}

func (op *openPoint) view(ctx context.Context, p *point, disk, view int) (contents, error) {
	return op.disks[disk].views[view].get(func() (contents, error) {
		d, err := op.disk(disk)
		if err != nil {
			return nil, err
		}
		base := p.diskNames()[disk].view
		name := base + views[view].suffix
		c, err := views[view].open(d, name)
		if l, ok := c.(loader); ok && err == nil {
			err = l.Load(ctx)
		}
		if err != nil {
			return nil, fmt.Errorf("show disk %s as %s: %w", d.Info().Name, name, err)
		}
		return c, nil
	})
}
