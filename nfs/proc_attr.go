package nfs

import (
	"errors"

	"holdfast/fs"
)

// getAttr is GETATTR, RFC 1813 section 3.3.1.
func (rq *request) getAttr() error {
	if !rq.decode().Done() {
		return errGarbage
	}
	a, err := rq.exp.Tree.Attr(rq.ctx, rq.id)
	if err != nil {
		return err
	}
	rq.exp.putAttr(rq.ok(), &a)
	return nil
}

// setAttr is SETATTR, RFC 1813 section 3.3.2.
func (rq *request) setAttr() error {
	r := rq.decode()
	set, bad := getSetAttr(r)
	if r.Bool() {
		set.Set |= fs.GuardCtime
		set.Ctime, _ = getTime(r)
	}
	if !r.Done() {
		return errGarbage
	}
	if bad != nil {
		return bad
	}
	t, err := rq.writable()
	if err != nil {
		return err
	}
	if err := rq.maySet(set.Set, &set); err != nil {
		return err
	}
	touched, err := t.SetAttr(rq.ctx, rq.id, set)
	if errors.Is(err, fs.ErrIsDir) {
		err = nfsInval
	}
	if err != nil {
		return err
	}
	rq.exp.putWcc(rq.ok(), &touched)
	return nil
}

// maySet says whether the caller may set these attributes: the owner any but
// the owner, whoever may write the size and the present time.
func (rq *request) maySet(mask fs.SetMask, set *fs.SetAttr) error {
	if rq.user.isRoot() {
		return nil
	}
	a, err := rq.attr(0)
	if err != nil {
		return err
	}
	owner := a.UID == rq.user.uid
	mayWriteIt := owner || rq.user.permits(&a)&mayWrite != 0
	switch {
	case mask&fs.SetUID != 0 && (!owner || set.UID != a.UID),
		mask&fs.SetGID != 0 && (!owner || !rq.user.inGroup(set.GID)),
		mask&(fs.SetPerm|fs.SetAtime|fs.SetMtime) != 0 && !owner:
		return nfsPerm
	case mask&(fs.SetSize|fs.SetAtimeNow|fs.SetMtimeNow) != 0 && !mayWriteIt:
		return nfsAcces
	}
	return nil
}

// What ACCESS is asked about. Source: RFC 1813 section 3.3.4.
const (
	accessRead    = 0x01
	accessLookup  = 0x02
	accessModify  = 0x04
	accessExtend  = 0x08
	accessDelete  = 0x10
	accessExecute = 0x20
)

// accessRights is ACCESS, RFC 1813 section 3.3.4.
func (rq *request) accessRights() error {
	r := rq.decode()
	asked := r.Uint32()
	if !r.Done() {
		return errGarbage
	}
	a, err := rq.exp.Tree.Attr(rq.ctx, rq.id)
	if err != nil {
		return err
	}
	may := rq.user.permits(&a)
	var granted uint32
	if may&mayRead != 0 {
		granted |= accessRead
	}
	if may&mayExec != 0 {
		granted |= accessExecute
		if a.IsDir() {
			granted = granted&^accessExecute | accessLookup
		}
	}
	if may&mayWrite != 0 && rq.exp.write != nil {
		granted |= accessModify | accessExtend
		if a.IsDir() {
			granted |= accessDelete
		}
	}
	w := rq.ok()
	rq.exp.putPostOp(w, &a)
	w.Uint32(granted & asked)
	return nil
}
