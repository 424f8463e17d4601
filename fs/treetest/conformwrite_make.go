package treetest

import (
	"fmt"
	"slices"
	"strings"

	"holdfast/fs"
)

// create goes through what is there and how it may be met.
func (w *writing) create() {
	before := w.attr(w.dir)
	set := fs.SetAttr{
		Set: fs.SetPerm | fs.SetUID | fs.SetGID | fs.SetSize | fs.SetMtime | fs.SetAtime, Perm: 0o4751, UID: 12, GID: 34, Size: 5,
		Mtime: fs.Time{Sec: 1e9, Nsec: 1}, Atime: fs.Time{Sec: 2e9, Nsec: 999_999_999},
	}
	c, err := w.t.Create(w.ctx, w.dir, "new", fs.Creation{}, set, nil)
	w.must(err, "unchecked, new")
	w.dirChanged(c.Dir, w.dir, before, "unchecked, new")
	a := w.attr(c.Object.ID)
	w.same(c.Object, a, "unchecked, new: the object")
	if a.Type != fs.TypeFile || a.Perm != 0o4751 || a.UID != 12 || a.GID != 34 || a.Size != 5 || a.Nlink != 1 || a.Mtime != set.Mtime || a.Atime != set.Atime {
		w.errorf("unchecked, new: %+v is not as it was set: %+v", a, set)
	}
	if a.Ctime.IsZero() || a.Ctime == set.Mtime {
		w.errorf("unchecked, new: Ctime %v", a.Ctime)
	}
	w.content(a.ID, "\x00\x00\x00\x00\x00")

	old := w.file(w.dir, "old", "content")
	made := w.attr(old)
	before = w.attr(w.dir)
	c, err = w.t.Create(w.ctx, w.dir, "old", fs.Creation{}, fs.SetAttr{Set: fs.SetPerm, Perm: 0o111}, nil)
	w.must(err, "unchecked, there")
	w.same(c.Object, made, "unchecked, there: the object, which no attribute but the size changes")
	w.unchanged(w.dir, before, "unchecked, there")
	w.content(old, "content")
	c, err = w.t.Create(w.ctx, w.dir, "old", fs.Creation{}, fs.SetAttr{Set: fs.SetSize, Size: 3}, nil)
	w.must(err, "unchecked with a size, there")
	if c.Object.ID != old || c.Object.Size != 3 {
		w.errorf("unchecked with a size, there: %+v", c.Object)
	}
	w.same(c.Object, w.attr(old), "unchecked with a size, there")
	w.content(old, "con")

	w.mkdir(w.dir, "directory")
	before = w.attr(w.dir)
	_, err = w.t.Create(w.ctx, w.dir, "old", fs.Creation{How: fs.CreateGuarded}, fs.SetAttr{}, nil)
	w.wants(err, fs.ErrExist, "guarded, there")
	for how := range fs.CreateExclusive + 1 {
		_, err = w.t.Create(w.ctx, w.dir, "directory", fs.Creation{How: how}, fs.SetAttr{}, nil)
		w.wants(err, fs.ErrExist, "way %d over a directory", how)
	}
	_, err = w.t.Create(w.ctx, w.dir, "negative", fs.Creation{}, fs.SetAttr{Set: fs.SetSize, Size: -1}, nil)
	w.wants(err, fs.ErrInvalid, "a size of -1")
	w.unchanged(w.dir, before, "what could not be made")
	c, err = w.t.Create(w.ctx, w.dir, "guarded", fs.Creation{How: fs.CreateGuarded}, fs.SetAttr{Set: fs.SetSize, Size: 300_000}, nil)
	w.must(err, "guarded with a size")
	w.same(c.Object, w.attr(c.Object.ID), "guarded with a size")
	w.content(c.Object.ID, strings.Repeat("\x00", 300_000))
}

func (w *writing) exclusive() {
	how := fs.Creation{How: fs.CreateExclusive, Verifier: [8]byte{1, 2, 3, 4, 5, 6, 7, 8}}
	c, err := w.t.Create(w.ctx, w.dir, "lock", how, fs.SetAttr{Set: fs.SetUID | fs.SetPerm | fs.SetMtime, UID: 7, Perm: 0o1, Mtime: fs.Time{Sec: 5}}, nil)
	w.must(err, "exclusive, new")
	if a := c.Object; a.UID != 7 || a.Perm == 0o1 || a.Mtime == (fs.Time{Sec: 5}) {
		w.errorf("exclusive, new: %+v; of all attributes UID and GID are set", a)
	}
	id := c.Object.ID
	again := func(what string) {
		before := w.attr(w.dir)
		got, err := w.t.Create(w.ctx, w.dir, "lock", how, fs.SetAttr{Set: fs.SetUID, UID: 7}, nil)
		if err != nil || got.Object.ID != id {
			w.errorf("%s: the same verifier: %v, %v; want the same file", what, got.Object.ID, err)
		}
		other := how
		other.Verifier[7]++
		_, err = w.t.Create(w.ctx, w.dir, "lock", other, fs.SetAttr{}, nil)
		w.wants(err, fs.ErrExist, "%s: another verifier", what)
		w.unchanged(w.dir, before, "%s", what)
	}
	again("at once")
	_, err = w.t.WriteAt(w.ctx, id, []byte("owner"), 0, true)
	w.must(err, "write")
	again("after a write")
	_, err = w.t.SetAttr(w.ctx, id, fs.SetAttr{Set: fs.SetMtime | fs.SetAtime | fs.SetPerm, Mtime: fs.Time{Sec: 7}, Perm: 0o600})
	w.must(err, "SetAttr")
	again("after SetAttr, where some servers keep the verifier")
	w.file(w.dir, "plain", "")
	_, err = w.t.Create(w.ctx, w.dir, "plain", fs.Creation{How: fs.CreateExclusive}, fs.SetAttr{}, nil)
	w.wants(err, fs.ErrExist, "a verifier of zeros for a file that was made without one")
	if w.reopen(w.opt.Reopen, "Reopen") {
		again("opened again")
	}
	if w.reopen(w.opt.Crash, "Crash") {
		again("after a power cut")
	}
	w.content(id, "owner")
}

// reopen opens the tree again, if that can be done.
func (w *writing) reopen(how func() (fs.WriteTree, error), what string) bool {
	w.tb.Helper()
	if how == nil {
		return false
	}
	t, err := how()
	w.must(err, "%s", what)
	w.t = t
	return true
}

// make goes through what is made besides files.
func (w *writing) make() {
	before := w.attr(w.dir)
	set := fs.SetAttr{Set: fs.SetPerm | fs.SetUID | fs.SetGID, Perm: 0o2710, UID: 1, GID: 2}
	c, err := w.t.Mkdir(w.ctx, w.dir, "d", set, nil)
	w.must(err, "Mkdir")
	w.dirChanged(c.Dir, w.dir, before, "Mkdir")
	w.same(c.Object, w.attr(c.Object.ID), "Mkdir: the object")
	if a := c.Object; a.Type != fs.TypeDir || a.Perm != 0o2710 || a.UID != 1 || a.GID != 2 || a.Nlink != 2 {
		w.errorf("Mkdir: %+v", a)
	}
	if c.Dir.After.Nlink != before.Nlink+1 {
		w.errorf("Mkdir: %d links of the parent after %d", c.Dir.After.Nlink, before.Nlink)
	}
	if up, err := w.t.Lookup(w.ctx, c.Object.ID, ".."); err != nil || up.ID != w.dir {
		w.errorf(`Lookup("..") in a new directory: %v, %v`, up.ID, err)
	}
	if names := w.names(c.Object.ID); len(names) > 0 {
		w.errorf("a new directory has %q", names)
	}
	for i, target := range []string{"t", "../up", "/abs/olute", strings.Repeat("p/", 2000), "\xff"} {
		before := w.attr(w.dir)
		c, err := w.t.Symlink(w.ctx, w.dir, fmt.Sprintf("l%d", i), target, set, nil)
		w.must(err, "Symlink")
		w.dirChanged(c.Dir, w.dir, before, "Symlink")
		got, err := w.t.ReadLink(w.ctx, c.Object.ID)
		if err != nil || got != target || c.Object.Size != int64(len(target)) || c.Object.Type != fs.TypeSymlink {
			w.errorf("Symlink: %q, %v; %+v", short([]byte(got)), err, c.Object)
		}
	}
	w.nodes()
	before = w.attr(w.dir)
	_, err = w.t.Mkdir(w.ctx, w.dir, "d", fs.SetAttr{}, nil)
	w.wants(err, fs.ErrExist, "Mkdir over a directory")
	_, err = w.t.Symlink(w.ctx, w.dir, "d", "t", fs.SetAttr{}, nil)
	w.wants(err, fs.ErrExist, "Symlink over a directory")
	w.unchanged(w.dir, before, "what is there already")
}

func (w *writing) nodes() {
	nodes := []fs.Node{{Type: fs.TypeFIFO}, {Type: fs.TypeSocket}, {Type: fs.TypeCharDevice, Major: 1, Minor: 3}, {Type: fs.TypeBlockDevice, Major: 0xfff, Minor: 0xfffff}}
	for _, n := range nodes {
		before := w.attr(w.dir)
		c, err := w.t.Mknod(w.ctx, w.dir, n.Type.String(), n, fs.SetAttr{Set: fs.SetPerm, Perm: 0o640}, nil)
		if w.opt.NoNodes {
			w.wants(err, fs.ErrUnsupported, "Mknod of a %v", n.Type)
			continue
		}
		w.must(err, "Mknod of a %v", n.Type)
		w.dirChanged(c.Dir, w.dir, before, "Mknod of a %v", n.Type)
		if a := w.attr(c.Object.ID); a != c.Object || a.Type != n.Type || a.Major != n.Major || a.Minor != n.Minor || a.Perm != 0o640 {
			w.errorf("Mknod of a %v: %+v, %+v", n.Type, c.Object, a)
		}
		_, err = w.t.Mknod(w.ctx, w.dir, n.Type.String(), n, fs.SetAttr{}, nil)
		w.wants(err, fs.ErrExist, "Mknod of a %v again", n.Type)
	}
	_, err := w.t.Mknod(w.ctx, w.dir, "odd", fs.Node{Type: fs.TypeDir}, fs.SetAttr{}, nil)
	if err == nil {
		w.errorf("Mknod made a directory")
	}
}

func (w *writing) link() {
	id := w.file(w.dir, "one", "shared")
	sub := w.mkdir(w.dir, "sub")
	before, object := w.attr(sub), w.attr(id)
	c, err := w.t.Link(w.ctx, id, sub, "two", nil)
	w.must(err, "Link")
	w.dirChanged(c.Dir, sub, before, "Link")
	w.same(c.Object, w.attr(id), "Link: the object")
	if c.Object.Nlink != 2 || !laterTime(c.Object.Ctime, object.Ctime) || c.Object.Mtime != object.Mtime {
		w.errorf("Link: %+v after %+v", c.Object, object)
	}
	if a, err := w.t.Lookup(w.ctx, sub, "two"); err != nil || a != c.Object {
		w.errorf("Lookup of the second name: %+v, %v", a, err)
	}
	before = w.attr(w.dir)
	_, err = w.t.Link(w.ctx, id, w.dir, "one", nil)
	w.wants(err, fs.ErrExist, "Link over itself")
	_, err = w.t.Link(w.ctx, sub, w.dir, "three", nil)
	w.wants(err, fs.ErrIsDir, "Link to a directory")
	w.unchanged(w.dir, before, "links that can't be")
	w.same(w.attr(id), c.Object, "links that can't be: the object")
	l, err := w.t.Symlink(w.ctx, w.dir, "symlink", "one", fs.SetAttr{}, nil)
	w.must(err, "Symlink")
	if c, err := w.t.Link(w.ctx, l.Object.ID, w.dir, "symlink 2", nil); err != nil || c.Object.Type != fs.TypeSymlink {
		w.errorf("Link to a symbolic link: %v, %v; want the link itself", c.Object.Type, err)
	}
}

func (w *writing) remove() {
	id := w.file(w.dir, "one", "shared")
	_, err := w.t.Link(w.ctx, id, w.dir, "two", nil)
	w.must(err, "Link")
	before, object := w.attr(w.dir), w.attr(id)
	c, err := w.t.Remove(w.ctx, w.dir, "one", nil)
	w.must(err, "Remove")
	w.dirChanged(c.Dir, w.dir, before, "Remove")
	if c.Object != (fs.Attr{}) {
		w.errorf("Remove: object %+v, want none", c.Object)
	}
	if a := w.attr(id); a.Nlink != 1 || !laterTime(a.Ctime, object.Ctime) {
		w.errorf("one of two names removed: %+v", a)
	}
	w.content(id, "shared")
	_, err = w.t.Remove(w.ctx, w.dir, "two", nil)
	w.must(err, "Remove of the last name")
	_, err = w.t.Attr(w.ctx, id)
	w.wants(err, fs.ErrStale, "Attr after the last name went")
	_, err = w.t.WriteAt(w.ctx, id, []byte("x"), 0, true)
	w.wants(err, fs.ErrStale, "WriteAt after the last name went")
	_, err = w.t.Lookup(w.ctx, w.dir, "two")
	w.wants(err, fs.ErrNotFound, "Lookup of a name that went")
	if again := w.file(w.dir, "two", ""); again == id {
		w.errorf("the ID %v is given again", id)
	}
	sub := w.mkdir(w.dir, "sub")
	w.file(sub, "in it", "")
	before = w.attr(w.dir)
	_, err = w.t.Remove(w.ctx, w.dir, "sub", nil)
	w.wants(err, fs.ErrIsDir, "Remove of a directory")
	_, err = w.t.Rmdir(w.ctx, w.dir, "two", nil)
	w.wants(err, fs.ErrNotDir, "Rmdir of a file")
	_, err = w.t.Rmdir(w.ctx, w.dir, "sub", nil)
	w.wants(err, fs.ErrNotEmpty, "Rmdir of a directory that isn't empty")
	_, err = w.t.Remove(w.ctx, w.dir, "none", nil)
	w.wants(err, fs.ErrNotFound, "Remove of no name")
	_, err = w.t.Rmdir(w.ctx, w.dir, "none", nil)
	w.wants(err, fs.ErrNotFound, "Rmdir of no name")
	w.unchanged(w.dir, before, "what can't be removed")
	_, err = w.t.Remove(w.ctx, sub, "in it", nil)
	w.must(err, "Remove in a directory")
	c, err = w.t.Rmdir(w.ctx, w.dir, "sub", nil)
	w.must(err, "Rmdir")
	w.dirChanged(c.Dir, w.dir, before, "Rmdir")
	if c.Dir.After.Nlink != before.Nlink-1 {
		w.errorf("Rmdir: %d links of the parent after %d", c.Dir.After.Nlink, before.Nlink)
	}
	_, err = w.t.Attr(w.ctx, sub)
	w.wants(err, fs.ErrStale, "Attr of a directory that went")
}

func (w *writing) rename() {
	id := w.file(w.dir, "a", "A")
	sub := w.mkdir(w.dir, "sub")
	here, there, object := w.attr(w.dir), w.attr(sub), w.attr(id)
	c, err := w.t.Rename(w.ctx, w.dir, "a", sub, "b", nil)
	w.must(err, "Rename")
	w.dirChanged(c.Dir, w.dir, here, "Rename: from")
	w.dirChanged(c.ToDir, sub, there, "Rename: to")
	w.same(c.Object, w.attr(id), "Rename: the object")
	if c.Object.ID != id || c.Object.Nlink != 1 || !laterTime(c.Object.Ctime, object.Ctime) {
		w.errorf("Rename: %+v after %+v", c.Object, object)
	}
	_, err = w.t.Lookup(w.ctx, w.dir, "a")
	w.wants(err, fs.ErrNotFound, "Lookup of the old name")

	over := w.file(w.dir, "over", "old")
	here = w.attr(w.dir)
	c, err = w.t.Rename(w.ctx, sub, "b", w.dir, "over", nil)
	w.must(err, "Rename over a file")
	w.dirChanged(c.ToDir, w.dir, here, "Rename over a file: to")
	w.content(id, "A")
	_, err = w.t.Attr(w.ctx, over)
	w.wants(err, fs.ErrStale, "Attr of what was renamed over")
	if names := w.names(w.dir); !slices.Equal(slices.Sorted(slices.Values(names)), []string{"over", "sub"}) {
		w.errorf("after a rename over a file there are %q", names)
	}

	_, err = w.t.Link(w.ctx, id, w.dir, "other name", nil)
	w.must(err, "Link")
	here = w.attr(w.dir)
	c, err = w.t.Rename(w.ctx, w.dir, "other name", w.dir, "over", nil)
	if err != nil || c.Object.ID != id {
		w.errorf("Rename of one name of an inode over another: %v, %v", c.Object.ID, err)
	}
	w.unchanged(w.dir, here, "Rename of one name of an inode over another")
	_, err = w.t.Rename(w.ctx, w.dir, "over", w.dir, "over", nil)
	w.must(err, "Rename to the same name")
	w.unchanged(w.dir, here, "Rename to the same name")

	_, err = w.t.Rename(w.ctx, w.dir, "none", w.dir, "x", nil)
	w.wants(err, fs.ErrNotFound, "Rename of no name")
	_, err = w.t.Rename(w.ctx, w.dir, "over", w.dir, "sub", nil)
	w.wants(err, fs.ErrExist, "Rename of a file over a directory")
	_, err = w.t.Rename(w.ctx, w.dir, "sub", w.dir, "over", nil)
	w.wants(err, fs.ErrExist, "Rename of a directory over a file")
	w.unchanged(w.dir, here, "renames that can't be")
	c, err = w.t.Rename(w.ctx, w.dir, "over", w.dir, "renamed", nil)
	w.must(err, "Rename in a directory")
	w.dirChanged(c.Dir, w.dir, here, "Rename in a directory: from")
	w.dirChanged(c.ToDir, w.dir, here, "Rename in a directory: to")
}

func (w *writing) renameDirs() {
	a, b := w.mkdir(w.dir, "a"), w.mkdir(w.dir, "b")
	sub := w.mkdir(a, "sub")
	below := w.mkdir(sub, "below")
	from, to := w.attr(a), w.attr(b)
	c, err := w.t.Rename(w.ctx, a, "sub", b, "moved", nil)
	w.must(err, "Rename of a directory")
	w.dirChanged(c.Dir, a, from, "Rename of a directory: from")
	w.dirChanged(c.ToDir, b, to, "Rename of a directory: to")
	if c.Dir.After.Nlink != from.Nlink-1 || c.ToDir.After.Nlink != to.Nlink+1 || c.Object.Nlink != 3 {
		w.errorf("Rename of a directory: links %d, %d and %d", c.Dir.After.Nlink, c.ToDir.After.Nlink, c.Object.Nlink)
	}
	if up, err := w.t.Lookup(w.ctx, sub, ".."); err != nil || up.ID != b {
		w.errorf(`Lookup("..") in a directory that moved: %v, %v; want %v`, up.ID, err, b)
	}
	for _, into := range []fs.ID{sub, below} {
		_, err = w.t.Rename(w.ctx, b, "moved", into, "itself", nil)
		w.wants(err, fs.ErrInvalid, "Rename of a directory into itself")
	}
	empty, full := w.mkdir(w.dir, "empty"), w.mkdir(w.dir, "full")
	w.file(full, "in it", "")
	here := w.attr(w.dir)
	_, err = w.t.Rename(w.ctx, b, "moved", w.dir, "full", nil)
	w.wants(err, fs.ErrNotEmpty, "Rename of a directory over one that isn't empty")
	w.unchanged(w.dir, here, "Rename over a directory that isn't empty")
	c, err = w.t.Rename(w.ctx, b, "moved", w.dir, "empty", nil)
	w.must(err, "Rename of a directory over an empty one")
	if c.ToDir.After.Nlink != here.Nlink {
		w.errorf("Rename of a directory over another one: %d links after %d", c.ToDir.After.Nlink, here.Nlink)
	}
	_, err = w.t.Attr(w.ctx, empty)
	w.wants(err, fs.ErrStale, "Attr of the directory renamed over")
	if got, err := w.t.Lookup(w.ctx, w.dir, "empty"); err != nil || got.ID != sub {
		w.errorf("Lookup after a rename over a directory: %v, %v", got.ID, err)
	}
	if got, err := w.t.Lookup(w.ctx, sub, "below"); err != nil || got.ID != below {
		w.errorf("Lookup in a directory that moved: %v, %v", got.ID, err)
	}
}
