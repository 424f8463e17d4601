package content

import (
	"context"
	"fmt"
	"sort"

	"holdfast/fs"
)

// What this package makes up belongs to nobody in particular and can be read by
// whoever gets at the tree.
const (
	dirPerm  = 0o555
	filePerm = 0o444
)

// dirAttr describes a directory. That it has one link says that links don't
// count its directories, as in btrfs.
func dirAttr(id fs.ID, at fs.Time, fixed bool) fs.Attr {
	return fs.Attr{
		ID: id, Type: fs.TypeDir, Perm: dirPerm, Nlink: 1,
		Atime: at, Mtime: at, Ctime: at, Btime: at, Fixed: fixed,
	}
}

func fileAttr(id fs.ID, at fs.Time, size int64) fs.Attr {
	return fs.Attr{
		ID: id, Type: fs.TypeFile, Perm: filePerm, Nlink: 1, Size: size,
		Atime: at, Mtime: at, Ctime: at, Btime: at, Fixed: true,
	}
}

// topDir is the directory of machines.
type topDir struct {
	isDir
	t *Tree
}

func (d *topDir) attr(ctx context.Context) (fs.Attr, error) {
	l, err := d.t.list(ctx)
	if l == nil {
		return fs.Attr{}, err
	}
	var at fs.Time
	for _, m := range l.machines {
		if last := m.time(); last.Sec > at.Sec || last.Sec == at.Sec && last.Nsec > at.Nsec {
			at = last
		}
	}
	return dirAttr(top, at, false), nil
}

func (d *topDir) lookup(ctx context.Context, name string) (fs.Attr, error) {
	if name == ".." {
		return d.attr(ctx)
	}
	l, err := d.t.list(ctx)
	if err != nil {
		return fs.Attr{}, err
	}
	if m := l.byName[name]; m != nil {
		return m.attr(), nil
	}
	return fs.Attr{}, fmt.Errorf("machine %q: %w", name, fs.ErrNotFound)
}

func (d *topDir) readDir(ctx context.Context, cookie uint64, fn func(fs.Entry) bool) error {
	l, err := d.t.list(ctx)
	if err != nil {
		return err
	}
	first := sort.Search(len(l.machines), func(i int) bool { return l.machines[i].key > cookie })
	for _, m := range l.machines[first:] {
		a := m.attr()
		if !fn(fs.Entry{Name: m.file, ID: a.ID, Type: a.Type, Cookie: m.key, Attr: &a}) {
			return nil
		}
	}
	return nil
}

// time is when the last point was made.
func (m *machine) time() fs.Time { return fs.TimeOf(m.points[len(m.points)-1].Time) }

func (m *machine) id() fs.ID { return fs.ID{FS: fsOf(m.key, 0, 0), Ino: inoMachine} }

func (m *machine) attr() fs.Attr { return dirAttr(m.id(), m.time(), false) }

// machineNode finds the directory of a machine or what is in it beside points.
func machineNode(t *Tree, m *machine, ino uint64) node {
	switch ino {
	case inoMachine:
		return &machineDir{t: t, m: m}
	case inoLatest:
		return &latestLink{m: m}
	}
	return nil
}

// machineDir is the directory of a machine's points.
type machineDir struct {
	isDir
	t *Tree
	m *machine
}

func (d *machineDir) attr(context.Context) (fs.Attr, error) { return d.m.attr(), nil }

func (d *machineDir) lookup(ctx context.Context, name string) (fs.Attr, error) {
	switch name {
	case "..":
		return d.t.Attr(ctx, top)
	case nameLatest:
		return d.m.latestAttr(), nil
	}
	if p := d.m.named(name); p != nil {
		return p.attr(), nil
	}
	return fs.Attr{}, fmt.Errorf("point %q of machine %q: %w", name, d.m.name, fs.ErrNotFound)
}

func (d *machineDir) readDir(_ context.Context, cookie uint64, fn func(fs.Entry) bool) error {
	if cookie < cookieLatest {
		a := d.m.latestAttr()
		if !fn(fs.Entry{Name: nameLatest, ID: a.ID, Type: a.Type, Cookie: cookieLatest, Attr: &a}) {
			return nil
		}
	}
	points := d.m.points
	first := sort.Search(len(points), func(i int) bool { return points[i].cookie > cookie })
	for _, p := range points[first:] {
		a := p.attr()
		if !fn(fs.Entry{Name: p.name, ID: a.ID, Type: a.Type, Cookie: p.cookie, Attr: &a}) {
			return nil
		}
	}
	return nil
}

const nameLatest = "latest"

func (m *machine) latestAttr() fs.Attr {
	at := fs.TimeOf(m.latest.Time)
	return fs.Attr{
		ID: fs.ID{FS: fsOf(m.key, 0, 0), Ino: inoLatest}, Type: fs.TypeSymlink, Perm: 0o777, Nlink: 1,
		Size: int64(len(m.latest.name)), Atime: at, Mtime: at, Ctime: at, Btime: at,
	}
}

// latestLink is the symbolic link to a machine's last point.
type latestLink struct {
	isLink
	m *machine
}

func (k *latestLink) attr(context.Context) (fs.Attr, error) { return k.m.latestAttr(), nil }

func (k *latestLink) readLink(context.Context) (string, error) { return k.m.latest.name, nil }
