package treetest

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"holdfast/fs"
)

// Fields is a set of what Diff leaves out.
type Fields uint32

const (
	Perm Fields = 1 << iota
	Owner
	Nlink    // of what is not a directory
	DirNlink // of directories, which file systems count differently
	Links    // which paths are the same inode
	Size     // of what is not a directory
	DirSize
	Used
	Atime
	Mtime
	Ctime
	Btime
	Device // numbers of device nodes
	Target
	Content
	Xattrs
	Streams
	SymlinkPerm
	DirTimes // of directories, all of them
)

// Diff says in what got differs from want, a line for each difference, ordered
// by path. Nodes with an Err differ from everything.
func Diff(want, got *Snapshot, ignore Fields) []string {
	all := map[string]bool{}
	for p := range want.Nodes {
		all[p] = true
	}
	for p := range got.Nodes {
		all[p] = true
	}
	var list []string
	for _, p := range slices.Sorted(maps.Keys(all)) {
		w, g := want.Nodes[p], got.Nodes[p]
		switch {
		case g == nil:
			list = append(list, fmt.Sprintf("%q: missing, want a %v of %d bytes", p, w.Type, w.Size))
		case w == nil:
			list = append(list, fmt.Sprintf("%q: got a %v of %d bytes, want nothing", p, g.Type, g.Size))
		case w.Err != nil || g.Err != nil:
			list = append(list, fmt.Sprintf("%q: error: got %v, want %v", p, g.Err, w.Err))
		case w.Type != g.Type:
			list = append(list, fmt.Sprintf("%q: type: got %v, want %v", p, g.Type, w.Type))
		default:
			d := differ{path: p, ignore: ignore}
			d.node(w, g)
			list = append(list, d.list...)
		}
	}
	return list
}

type differ struct {
	path   string
	ignore Fields
	list   []string
}

func (d *differ) note(f Fields, what string, got, want any) {
	if d.ignore&f == 0 {
		d.list = append(d.list, fmt.Sprintf("%q: %s: got %v, want %v", d.path, what, got, want))
	}
}

// compare notes a difference unless it is one of those left out.
func compare[T comparable](d *differ, f Fields, what string, got, want T) {
	if got != want {
		d.note(f, what, got, want)
	}
}

func (d *differ) node(w, g *Node) {
	sizeField, nlinkField := Size, Nlink
	if w.IsDir() {
		sizeField, nlinkField = DirSize, DirNlink
	}
	if w.IsDir() && d.ignore&DirTimes != 0 {
		d.ignore |= Atime | Mtime | Ctime | Btime
	}
	if w.Type == fs.TypeSymlink && d.ignore&SymlinkPerm != 0 {
		d.ignore |= Perm
	}
	compare(d, Perm, "perm", fmt.Sprintf("%#o", g.Perm), fmt.Sprintf("%#o", w.Perm))
	compare(d, Owner, "owner", fmt.Sprintf("%d:%d", g.UID, g.GID), fmt.Sprintf("%d:%d", w.UID, w.GID))
	compare(d, nlinkField, "nlink", g.Nlink, w.Nlink)
	compare(d, sizeField, "size", g.Size, w.Size)
	compare(d, Used, "used", g.Used, w.Used)
	for _, t := range []struct {
		field     Fields
		name      string
		got, want fs.Time
	}{{Atime, "atime", g.Atime, w.Atime}, {Mtime, "mtime", g.Mtime, w.Mtime}, {Ctime, "ctime", g.Ctime, w.Ctime}, {Btime, "btime", g.Btime, w.Btime}} {
		compare(d, t.field, t.name, t.got, t.want)
	}
	if w.Type == fs.TypeCharDevice || w.Type == fs.TypeBlockDevice {
		compare(d, Device, "device", fmt.Sprintf("%d:%d", g.Major, g.Minor), fmt.Sprintf("%d:%d", w.Major, w.Minor))
	}
	if !slices.Equal(g.Links, w.Links) {
		d.note(Links, "links", fmt.Sprintf("%.8q", g.Links), fmt.Sprintf("%.8q", w.Links))
	}
	compare(d, Target, "target", fmt.Sprintf("%q", g.Target), fmt.Sprintf("%q", w.Target))
	compare(d, Content, "content", g.Sum, w.Sum)
	compareMaps(d, Xattrs, "xattr", g.Xattrs, w.Xattrs, quoteShort)
	compareMaps(d, Streams, "stream", g.Streams, w.Streams, func(s Stream) string { return fmt.Sprintf("%+v", s) })
}

func compareMaps[V comparable](d *differ, f Fields, what string, got, want map[string]V, show func(V) string) {
	for _, k := range slices.Sorted(maps.Keys(want)) {
		if v, ok := got[k]; !ok {
			d.note(f, what+" "+k, "none", show(want[k]))
		} else if v != want[k] {
			d.note(f, what+" "+k, show(v), show(want[k]))
		}
	}
	for _, k := range slices.Sorted(maps.Keys(got)) {
		if _, ok := want[k]; !ok {
			d.note(f, what+" "+k, show(got[k]), "none")
		}
	}
}

func quoteShort(s string) string {
	if len(s) > 40 {
		return fmt.Sprintf("%q… of %d bytes", s[:40], len(s))
	}
	return fmt.Sprintf("%q", s)
}

// named says whether an error tells whose fault it is: of the bytes, or of us.
func named(err error) bool {
	return errors.Is(err, fs.ErrDamaged) || errors.Is(err, fs.ErrUnsupported)
}
