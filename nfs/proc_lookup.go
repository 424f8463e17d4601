package nfs

import "holdfast/fs"

// lookup is LOOKUP, RFC 1813 section 3.3.3.
func (rq *request) lookup() error {
	r := rq.decode()
	name := r.Opaque(len(r.Rest()))
	if !r.Done() {
		return errGarbage
	}
	if err := checkName(string(name)); err != nil {
		return err
	}
	dir, err := rq.attr(0)
	switch {
	case err != nil:
		return err
	case !dir.IsDir():
		return nfsNotDir
	case rq.user.permits(&dir)&mayExec == 0:
		return nfsAcces
	}
	found := dir
	switch {
	case string(name) == ".", string(name) == ".." && rq.id == rq.exp.root:
	default:
		if found, err = rq.exp.Tree.Lookup(rq.ctx, rq.id, string(name)); err != nil {
			return err
		}
	}
	w := rq.ok()
	rq.exp.putHandle(w, found.ID)
	rq.exp.putPostOp(w, &found)
	rq.exp.putPostOp(w, &dir)
	return nil
}

// readLink is READLINK, RFC 1813 section 3.3.5.
func (rq *request) readLink() error {
	if !rq.decode().Done() {
		return errGarbage
	}
	a, err := rq.attr(0)
	if err != nil {
		return err
	}
	if a.Type != fs.TypeSymlink {
		return nfsInval
	}
	target, err := rq.exp.Tree.ReadLink(rq.ctx, rq.id)
	if err != nil {
		return err
	}
	w := rq.ok()
	rq.exp.putPostOp(w, &a)
	w.String(target)
	return nil
}
