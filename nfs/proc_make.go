package nfs

import (
	"errors"
	"fmt"

	"holdfast/fs"
	"holdfast/nfs/internal/xdr"
)

// createmode3. Source: RFC 1813 section 3.3.8.
const (
	createUnchecked = 0
	createGuarded   = 1
	createExclusive = 2
)

// create is CREATE, RFC 1813 section 3.3.8.
func (rq *request) create() error {
	r := rq.decode()
	name := getName(r)
	var how fs.Creation
	var set fs.SetAttr
	var bad error
	switch r.Uint32() {
	case createUnchecked:
		set, bad = getSetAttr(r)
	case createGuarded:
		how.How = fs.CreateGuarded
		set, bad = getSetAttr(r)
	case createExclusive:
		how.How = fs.CreateExclusive
		copy(how.Verifier[:], r.Fixed(len(how.Verifier)))
	default:
		return errGarbage
	}
	return rq.make(r, name, bad, &set, func(t fs.WriteTree, note fs.Note) (fs.Change, error) {
		return t.Create(rq.ctx, rq.id, name, how, set, note)
	})
}

// mkdir is MKDIR, RFC 1813 section 3.3.9.
func (rq *request) mkdir() error {
	r := rq.decode()
	name := getName(r)
	set, bad := getSetAttr(r)
	set.Set &^= fs.SetSize
	return rq.make(r, name, bad, &set, func(t fs.WriteTree, note fs.Note) (fs.Change, error) {
		return t.Mkdir(rq.ctx, rq.id, name, set, note)
	})
}

// maxPathBytes is how long the target of a link is at most, as in Linux.
const maxPathBytes = 4096

// symlink is SYMLINK, RFC 1813 section 3.3.10.
func (rq *request) symlink() error {
	r := rq.decode()
	name := getName(r)
	set, bad := getSetAttr(r)
	set.Set &^= fs.SetSize
	target := getName(r)
	if bad == nil && len(target) > maxPathBytes {
		bad = nfsNameTooLong
	}
	return rq.make(r, name, bad, &set, func(t fs.WriteTree, note fs.Note) (fs.Change, error) {
		return t.Symlink(rq.ctx, rq.id, name, target, set, note)
	})
}

// mknod is MKNOD, RFC 1813 section 3.3.11.
func (rq *request) mknod() error {
	r := rq.decode()
	name := getName(r)
	var node fs.Node
	var set fs.SetAttr
	var bad error
	typ := r.Uint32()
	switch typ {
	case ftypes[fs.TypeCharDevice], ftypes[fs.TypeBlockDevice]:
		node.Type = fs.TypeCharDevice
		if typ == ftypes[fs.TypeBlockDevice] {
			node.Type = fs.TypeBlockDevice
		}
		set, bad = getSetAttr(r)
		node.Major, node.Minor = r.Uint32(), r.Uint32()
	case ftypes[fs.TypeSocket]:
		node.Type = fs.TypeSocket
		set, bad = getSetAttr(r)
	case ftypes[fs.TypeFIFO]:
		node.Type = fs.TypeFIFO
		set, bad = getSetAttr(r)
	case ftypes[fs.TypeFile], ftypes[fs.TypeDir], ftypes[fs.TypeSymlink]:
		bad = nfsBadType
	default:
		return errGarbage
	}
	set.Set &^= fs.SetSize
	if bad == nil && (node.Type == fs.TypeCharDevice || node.Type == fs.TypeBlockDevice) && !rq.user.isRoot() {
		bad = nfsPerm
	}
	return rq.make(r, name, bad, &set, func(t fs.WriteTree, note fs.Note) (fs.Change, error) {
		return t.Mknod(rq.ctx, rq.id, name, node, set, note)
	})
}

// make does what the four have in common: something gets a name. r is at the
// end of the arguments and bad is what they say that can't be.
func (rq *request) make(r *xdr.Reader, name string, bad error, set *fs.SetAttr, do func(fs.WriteTree, fs.Note) (fs.Change, error)) error {
	if !r.Done() {
		return errGarbage
	}
	switch {
	case isDots(name):
		return nfsExist
	case bad != nil:
		return bad
	}
	if err := checkName(name); err != nil {
		return err
	}
	t, _, err := rq.directory(rq.exp, rq.id)
	if err != nil {
		return err
	}
	if err := rq.mayOwn(set); err != nil {
		return err
	}
	c, err := do(t, rq.noted(rq.putMade))
	if err != nil {
		return err
	}
	rq.putMade(rq.w, &c)
	return nil
}

// mayOwn makes the caller the owner of what is made. Only root makes things for
// others.
func (rq *request) mayOwn(set *fs.SetAttr) error {
	if set.Set&fs.SetUID == 0 {
		set.UID = rq.user.uid
	}
	if set.Set&fs.SetGID == 0 {
		set.GID = rq.user.gid
	}
	set.Set |= fs.SetUID | fs.SetGID
	if !rq.user.isRoot() && (set.UID != rq.user.uid || !rq.user.inGroup(set.GID)) {
		return nfsPerm
	}
	return nil
}

// putMade encodes the results of the four.
func (rq *request) putMade(w *xdr.Writer, c *fs.Change) {
	w.Uint32(0)
	w.Bool(true)
	rq.exp.putHandle(w, c.Object.ID)
	rq.exp.putPostOp(w, &c.Object)
	rq.exp.putWcc(w, &c.Dir)
}

// link is LINK, RFC 1813 section 3.3.15.
func (rq *request) link() error {
	r := rq.decode()
	h, name := r.Opaque(maxHandleBytes), getName(r)
	if !r.Done() {
		return errGarbage
	}
	if err := rq.otherObject(h); err != nil {
		return err
	}
	if isDots(name) {
		return nfsExist
	}
	if err := checkName(name); err != nil {
		return err
	}
	t, _, err := rq.directory(rq.exp, rq.other.id)
	if err != nil {
		return err
	}
	c, err := t.Link(rq.ctx, rq.id, rq.other.id, name, rq.noted(rq.putLinked))
	if errors.Is(err, fs.ErrIsDir) {
		err = fmt.Errorf("%w: %w", nfsInval, err)
	}
	if err != nil {
		return err
	}
	rq.putLinked(rq.w, &c)
	return nil
}

func (rq *request) putLinked(w *xdr.Writer, c *fs.Change) {
	w.Uint32(0)
	rq.exp.putPostOp(w, &c.Object)
	rq.exp.putWcc(w, &c.Dir)
}

// otherObject finds what a second handle stands for, which has to be in the
// same export.
func (rq *request) otherObject(h []byte) error {
	e, id, err := rq.srv.exports.Load().resolve(h)
	if err != nil {
		return err
	}
	if !e.allows(rq.route()) {
		return nfsAcces
	}
	rq.other = other{e, id}
	if e != rq.exp {
		return nfsXDev
	}
	return nil
}
