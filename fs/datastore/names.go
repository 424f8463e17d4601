package datastore

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"holdfast/fs"
)

// What a new name and a new inode add to the state.
func nameGrowth(name string, extra int) growth {
	return growth{live: nodeCost + entryCost + int64(len(name)+extra), nodes: 1, small: true}
}

// noted lets the caller say its note about a change.
func (x *tx) noted(c fs.Change, note fs.Note) {
	if note == nil {
		return
	}
	switch b := note(c); {
	case len(b) > fs.MaxNoteBytes:
		x.t.s.opt.Log.Error("a note is too long and not kept", "bytes", len(b))
	case len(b) > 0:
		x.put(noteRec{x.now, bytes.Clone(b)})
	}
}

// dir returns a directory to be changed, with what it was before in c.
func (x *tx) dir(id fs.ID, c *fs.Touched) (*node, error) {
	d, err := x.t.getDir(id)
	if err == nil {
		c.Before = x.t.version(d)
	}
	return d, err
}

// vacant finds the directory in which a new name is to be; with fs.ErrExist also
// if it is there.
func (x *tx) vacant(dir fs.ID, name string, c *fs.Touched) (*node, error) {
	if err := badName(name); err != nil {
		return nil, err
	}
	d, err := x.dir(dir, c)
	if err != nil {
		return nil, err
	}
	if _, ok := d.byName[name]; ok {
		return d, fmt.Errorf("%q: %w", name, fs.ErrExist)
	}
	return d, nil
}

// occupied finds a directory and what has a name in it; n is nil for a session.
func (x *tx) occupied(dir fs.ID, name string, c *fs.Touched) (d *node, e dirent, n *node, err error) {
	if err := badName(name); err != nil {
		return nil, e, nil, err
	}
	if d, err = x.dir(dir, c); err != nil {
		return nil, e, nil, err
	}
	e, ok := d.named(name)
	if !ok {
		return nil, e, nil, fmt.Errorf("%q: %w", name, fs.ErrNotFound)
	}
	if !e.session {
		n = x.st.nodes[e.child]
	}
	return d, e, n, nil
}

// newInode makes an inode, without a name yet.
func (x *tx) newInode(i inode, set fs.SetAttr) *node {
	i.ino, i.nlink = x.st.ino+1, 1
	if i.typ == fs.TypeDir {
		i.nlink = 2
	}
	i.atime, i.mtime, i.ctime, i.btime = x.now, x.now, x.now, x.now
	i.set(set, x.now)
	x.put(&i)
	n := x.st.nodes[i.ino]
	x.touched = append(x.touched, n)
	return n
}

// enter gives an inode a name.
func (x *tx) enter(d *node, name string, n *node) {
	x.put(entryRec{dir: d.ino, cookie: x.st.cookie + 1, child: n.ino, name: name})
	links := uint32(0)
	if n.typ == fs.TypeDir {
		links = 1
	}
	x.stamp(d, links)
}

// take takes a name away.
func (x *tx) take(d *node, e dirent, n *node) {
	x.put(goneRec{d.ino, e.cookie})
	links := uint32(0)
	if n.typ == fs.TypeDir {
		links = ^links // one less
	}
	x.stamp(d, links)
}

// stamp gives a directory that has changed its times.
func (x *tx) stamp(d *node, links uint32) {
	x.edit(d, func(i *inode) { i.mtime, i.nlink = x.now, i.nlink+links })
}

// drop takes one link off an inode, and the inode away with the last. It says
// whether there is a file to be removed.
func (x *tx) drop(n *node) (large bool) {
	if n.typ != fs.TypeDir && n.nlink > 1 {
		x.edit(n, func(i *inode) { i.nlink-- })
		return false
	}
	if n.keep == keepDisk {
		x.t.s.opt.Log.Warn("the last name of a disk was removed; what was written to it is kept until the session ends",
			"session", x.t.number, "disk", x.st.disks[n.disk].name)
	}
	x.put(forgetRec{n.ino})
	x.t.dropSoft(n)
	x.forgot = true
	return n.keep == keepLarge
}

// full says that no inode can be made.
func (x *tx) full(d *node) error {
	switch {
	case x.st.ino >= maxIno || x.st.cookie >= maxCookie:
		return fmt.Errorf("session %d: all its numbers are used up: %w", x.t.number, fs.ErrNoSpace)
	case d.nlink >= maxLinks:
		return fmt.Errorf("directory %#x: %w", x.t.id(d.ino).Ino, fs.ErrTooManyLinks)
	}
	return nil
}

// Create makes a regular file. CreateUnchecked with another size for a disk that
// is there gives fs.ErrPermission.
func (s *Store) Create(ctx context.Context, dir fs.ID, name string, how fs.Creation, set fs.SetAttr, note fs.Note) (c fs.Change, err error) {
	t, err := s.enter(ctx, dir)
	if err != nil {
		return c, err
	}
	defer t.leave()
	if how.How == fs.CreateExclusive {
		set.Set &= fs.SetUID | fs.SetGID
	}
	size := set.Size
	sized := set.Set&fs.SetSize != 0
	switch {
	case sized && size < 0:
		return c, fmt.Errorf("size %d: %w", size, fs.ErrInvalid)
	case sized && size > maxFileBytes:
		return c, fmt.Errorf("size %d: %w", size, fs.ErrTooLarge)
	}
	later, made := false, false // the size is set afterwards; there was none
	err = t.change(nameGrowth(name, 0), func(x *tx) error {
		c = fs.Change{}
		d, err := x.vacant(dir, name, &c.Dir)
		if err != nil && (d == nil || how.How == fs.CreateGuarded) {
			return err
		}
		e, there := d.named(name)
		if made = !there; made {
			if err := x.full(d); err != nil {
				return err
			}
			if later = sized && size > inlineBytes; later {
				set.Set &^= fs.SetSize
			}
			i := inode{typ: fs.TypeFile, keep: keepInline, perm: 0o644, verifier: how.Verifier, exclusive: how.How == fs.CreateExclusive}
			n := x.newInode(i, set)
			x.enter(d, name, n)
			c.Object = t.attr(n)
		} else {
			n := x.st.nodes[e.child]
			if e.session || n.typ != fs.TypeFile || how.How == fs.CreateExclusive && (!n.exclusive || n.verifier != how.Verifier) {
				return err
			}
			later = how.How == fs.CreateUnchecked && sized && size != n.length()
			c.Object = t.attr(n)
		}
		c.Dir.After = t.attr(d)
		if !later {
			x.noted(c, note)
		}
		return nil
	})
	if err != nil || !later {
		return c, err
	}
	done, err := t.createSized(c, size, note)
	if err != nil && made {
		_, rerr := s.Remove(ctx, dir, name, nil)
		err = errors.Join(err, rerr)
	}
	return done, err
}

// createSized gives what Create made or found its size.
func (t *tree) createSized(c fs.Change, size int64, note fs.Note) (fs.Change, error) {
	touched, err := t.setAttr(c.Object.ID, fs.SetAttr{Set: fs.SetSize, Size: size})
	if err != nil {
		return c, err
	}
	c.Object = touched.After
	return c, t.change(growth{small: true}, func(x *tx) error {
		x.noted(c, note)
		return nil
	})
}

// add makes an inode with a name.
func (s *Store) add(ctx context.Context, dir fs.ID, name string, i inode, set fs.SetAttr, note fs.Note) (c fs.Change, err error) {
	t, err := s.enter(ctx, dir)
	if err != nil {
		return c, err
	}
	defer t.leave()
	set.Set &^= fs.SetSize
	err = t.change(nameGrowth(name, len(i.target)), func(x *tx) error {
		c = fs.Change{}
		d, err := x.vacant(dir, name, &c.Dir)
		if err == nil {
			err = x.full(d)
		}
		if err != nil {
			return err
		}
		if i.typ == fs.TypeDir {
			i.parent = d.ino
		}
		n := x.newInode(i, set)
		x.enter(d, name, n)
		c.Object, c.Dir.After = t.attr(n), t.attr(d)
		x.noted(c, note)
		return nil
	})
	return c, err
}

func (s *Store) Mkdir(ctx context.Context, dir fs.ID, name string, set fs.SetAttr, note fs.Note) (fs.Change, error) {
	return s.add(ctx, dir, name, inode{typ: fs.TypeDir, perm: 0o755}, set, note)
}

func (s *Store) Symlink(ctx context.Context, dir fs.ID, name, target string, set fs.SetAttr, note fs.Note) (fs.Change, error) {
	if len(target) > maxTargetBytes {
		return fs.Change{}, fmt.Errorf("target of %d bytes: %w", len(target), fs.ErrNameTooLong)
	}
	return s.add(ctx, dir, name, inode{typ: fs.TypeSymlink, perm: 0o777, target: target}, set, note)
}

func (s *Store) Mknod(ctx context.Context, dir fs.ID, name string, node fs.Node, set fs.SetAttr, note fs.Note) (fs.Change, error) {
	i := inode{typ: node.Type, perm: 0o644}
	switch node.Type {
	case fs.TypeCharDevice, fs.TypeBlockDevice:
		i.major, i.minor = node.Major, node.Minor
	case fs.TypeFIFO, fs.TypeSocket:
	default:
		return fs.Change{}, fmt.Errorf("node of type %v: %w", node.Type, fs.ErrInvalid)
	}
	return s.add(ctx, dir, name, i, set, note)
}

// Link gives an inode another name, within its session.
func (s *Store) Link(ctx context.Context, id, dir fs.ID, name string, note fs.Note) (c fs.Change, err error) {
	t, err := s.enterBoth(ctx, id, dir)
	if err != nil {
		return c, err
	}
	defer t.leave()
	g := nameGrowth(name, 0)
	g.nodes = 0
	err = t.change(g, func(x *tx) error {
		c = fs.Change{}
		n, err := t.get(id)
		if err == nil && n.typ == fs.TypeDir {
			err = fmt.Errorf("link to inode %#x: %w", id.Ino, fs.ErrIsDir)
		}
		if err != nil {
			return err
		}
		d, err := x.vacant(dir, name, &c.Dir)
		if err == nil {
			err = x.full(d)
		}
		if err == nil && n.nlink >= maxLinks {
			err = fmt.Errorf("inode %#x: %w", id.Ino, fs.ErrTooManyLinks)
		}
		if err != nil {
			return err
		}
		x.edit(n, func(i *inode) { i.nlink++ })
		x.enter(d, name, n)
		c.Object, c.Dir.After = t.attr(n), t.attr(d)
		x.noted(c, note)
		return nil
	})
	return c, err
}

// Remove takes away a name that is no directory's. Of a disk only the name goes.
func (s *Store) Remove(ctx context.Context, dir fs.ID, name string, note fs.Note) (fs.Change, error) {
	return s.remove(ctx, dir, name, note, func(n *node) error {
		if n == nil || n.typ == fs.TypeDir {
			return fs.ErrIsDir
		}
		return nil
	})
}

// Rmdir takes away an empty directory. fs.ErrPermission for a session's.
func (s *Store) Rmdir(ctx context.Context, dir fs.ID, name string, note fs.Note) (fs.Change, error) {
	return s.remove(ctx, dir, name, note, func(n *node) error {
		switch {
		case n == nil:
			return errOfSession
		case n.typ != fs.TypeDir:
			return fs.ErrNotDir
		case len(n.entries) > 0:
			return fs.ErrNotEmpty
		}
		return nil
	})
}

// errOfSession is for what clients can't do to a session's directory.
var errOfSession = fmt.Errorf("it is the directory of a session, which has to be ended: %w", fs.ErrPermission)

func (s *Store) remove(ctx context.Context, dir fs.ID, name string, note fs.Note, check func(*node) error) (c fs.Change, err error) {
	t, err := s.enter(ctx, dir)
	if err != nil {
		return c, err
	}
	defer t.leave()
	var large *fs.ID
	err = t.change(growth{small: true}, func(x *tx) error {
		c = fs.Change{}
		d, e, n, err := x.occupied(dir, name, &c.Dir)
		if err != nil {
			return err
		}
		if err := check(n); err != nil {
			return fmt.Errorf("%q: %w", name, err)
		}
		x.take(d, e, n)
		id := t.id(n.ino)
		if x.drop(n) {
			large = &id
		}
		c.Dir.After = t.attr(d)
		x.noted(c, note)
		return nil
	})
	if err == nil && large != nil {
		t.removeLarge(*large)
	}
	return c, err
}

// Rename moves a name, within a session. fs.ErrPermission for a session's
// directory.
func (s *Store) Rename(ctx context.Context, from fs.ID, name string, to fs.ID, toName string, note fs.Note) (c fs.Change, err error) {
	t, err := s.enterBoth(ctx, from, to)
	if err != nil {
		return c, err
	}
	defer t.leave()
	var large *fs.ID
	g := nameGrowth(toName, 0)
	g.nodes = 0
	err = t.change(g, func(x *tx) error {
		c = fs.Change{}
		m, err := x.move(from, name, to, toName, &c)
		if err != nil {
			return err
		}
		if m.over != m.n {
			large = x.rename(m, toName)
		}
		c.Object, c.Dir.After, c.ToDir.After = t.attr(m.n), t.attr(m.d), t.attr(m.to)
		x.noted(c, note)
		return nil
	})
	if err == nil && large != nil {
		t.removeLarge(*large)
	}
	return c, err
}

// move is a rename that can be.
type move struct {
	d, to    *node
	e, old   dirent // the name, and the one that it takes the place of
	n, over  *node  // what they stand for; over may be nil
	replaces bool
}

// move looks whether a rename can be. over is n where nothing is to be done.
func (x *tx) move(from fs.ID, name string, to fs.ID, toName string, c *fs.Change) (m move, err error) {
	if m.d, m.e, m.n, err = x.occupied(from, name, &c.Dir); err != nil {
		return m, err
	}
	if err := badName(toName); err != nil {
		return m, err
	}
	if m.to, err = x.dir(to, &c.ToDir); err != nil {
		return m, err
	}
	if m.n == nil {
		return m, fmt.Errorf("%q: %w", name, errOfSession)
	}
	if m.n.typ == fs.TypeDir && x.within(m.to, m.n) {
		return m, fmt.Errorf("%q into itself: %w", name, fs.ErrInvalid)
	}
	if m.old, m.replaces = m.to.named(toName); !m.replaces {
		return m, nil
	}
	if m.old.session && m.n.typ == fs.TypeDir {
		return m, fmt.Errorf("%q: %w", toName, errOfSession)
	}
	m.over = x.st.nodes[m.old.child]
	switch {
	case m.old.session || m.over != m.n && (m.over.typ == fs.TypeDir) != (m.n.typ == fs.TypeDir):
		return m, fmt.Errorf("%q: %w", toName, fs.ErrExist)
	case m.over != m.n && len(m.over.entries) > 0:
		return m, fmt.Errorf("%q: %w", toName, fs.ErrNotEmpty)
	}
	return m, nil
}

// within says whether a directory is another one or below it.
func (x *tx) within(d, top *node) bool {
	for ; d != top; d = x.st.nodes[d.parent] {
		if d.ino == rootIno {
			return false
		}
	}
	return true
}

// rename makes a rename. It returns the ID of the file that is to be removed.
func (x *tx) rename(m move, toName string) (large *fs.ID) {
	if m.replaces {
		x.take(m.to, m.old, m.over)
		id := x.t.id(m.over.ino)
		if x.drop(m.over) {
			large = &id
		}
	}
	x.take(m.d, m.e, m.n)
	x.edit(m.n, func(i *inode) {
		if i.typ == fs.TypeDir {
			i.parent = m.to.ino
		}
	})
	x.enter(m.to, toName, m.n)
	return large
}
