package nfs

import (
	"holdfast/fs"
	"holdfast/nfs/internal/xdr"
)

// remove is REMOVE, RFC 1813 section 3.3.12.
func (rq *request) remove() error {
	return rq.take(nfsInval, func(t fs.WriteTree, name string, note fs.Note) (fs.Change, error) {
		return t.Remove(rq.ctx, rq.id, name, note)
	})
}

// rmdir is RMDIR, RFC 1813 section 3.3.13.
func (rq *request) rmdir() error {
	return rq.take(nfsExist, func(t fs.WriteTree, name string, note fs.Note) (fs.Change, error) {
		return t.Rmdir(rq.ctx, rq.id, name, note)
	})
}

// take does what the two have in common. The name ".." gives dotdot.
func (rq *request) take(dotdot status, do func(fs.WriteTree, string, fs.Note) (fs.Change, error)) error {
	r := rq.decode()
	name := getName(r)
	if !r.Done() {
		return errGarbage
	}
	switch name {
	case ".":
		return nfsInval
	case "..":
		return dotdot
	}
	if err := checkName(name); err != nil {
		return err
	}
	t, dir, err := rq.directory(rq.exp, rq.id)
	if err != nil {
		return err
	}
	if err := rq.mayTake(rq.exp, &dir, name); err != nil {
		return err
	}
	c, err := do(t, name, rq.noted(rq.putTaken))
	if err != nil {
		return err
	}
	rq.putTaken(rq.w, &c)
	return nil
}

func (rq *request) putTaken(w *xdr.Writer, c *fs.Change) {
	w.Uint32(0)
	rq.exp.putWcc(w, &c.Dir)
}

// rename is RENAME, RFC 1813 section 3.3.14.
func (rq *request) rename() error {
	r := rq.decode()
	name, h := getName(r), r.Opaque(maxHandleBytes)
	toName := getName(r)
	if !r.Done() {
		return errGarbage
	}
	if err := rq.otherObject(h); err != nil {
		return err
	}
	for _, n := range []string{name, toName} {
		if isDots(n) {
			return nfsInval
		}
		if err := checkName(n); err != nil {
			return err
		}
	}
	t, from, err := rq.directory(rq.exp, rq.id)
	if err != nil {
		return err
	}
	_, to, err := rq.directory(rq.exp, rq.other.id)
	if err != nil {
		return err
	}
	if err := rq.mayTake(rq.exp, &from, name); err != nil {
		return err
	}
	if err := rq.mayTake(rq.exp, &to, toName); err != nil {
		return err
	}
	c, err := t.Rename(rq.ctx, rq.id, name, rq.other.id, toName, rq.noted(rq.putMoved))
	if err != nil {
		return err
	}
	rq.putMoved(rq.w, &c)
	return nil
}

func (rq *request) putMoved(w *xdr.Writer, c *fs.Change) {
	w.Uint32(0)
	rq.exp.putWcc(w, &c.Dir)
	rq.exp.putWcc(w, &c.ToDir)
}
