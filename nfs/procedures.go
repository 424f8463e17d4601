package nfs

import (
	"errors"

	"holdfast/fs"
	"holdfast/nfs/internal/rpc"
	"holdfast/nfs/internal/xdr"
)

// Source of the numbers: RFC 1813 sections 3 and 5.
const (
	progNFS   = 100003
	progMount = 100005

	nfsVersion   = 3
	mountVersion = 3

	procWrite  = 7
	procCommit = 21
)

// nfsProgram is NFS version 3, the 22 procedures of RFC 1813 section 3.3.
var nfsProgram = program{number: progNFS, version: nfsVersion, name: "NFS", procs: []procedure{
	{name: "NULL", inline: always, run: runNull},
	{name: "GETATTR", inline: (*request).attrCached, run: (*request).getAttr},
	{name: "SETATTR", lane: laneNames, changes: true, failure: failWcc, run: (*request).setAttr},
	{name: "LOOKUP", inline: (*request).attrCached, failure: failObject, run: (*request).lookup},
	{name: "ACCESS", inline: (*request).attrCached, failure: failObject, run: (*request).accessRights},
	{name: "READLINK", failure: failObject, run: (*request).readLink},
	{name: "READ", lane: laneRead, inline: (*request).readCached, plan: (*request).planRead, failure: failObject, run: (*request).read},
	{name: "WRITE", lane: laneWrite, changes: true, failure: failWcc, run: (*request).write},
	{name: "CREATE", lane: laneNames, changes: true, failure: failWcc, run: (*request).create},
	{name: "MKDIR", lane: laneNames, changes: true, failure: failWcc, run: (*request).mkdir},
	{name: "SYMLINK", lane: laneNames, changes: true, failure: failWcc, run: (*request).symlink},
	{name: "MKNOD", lane: laneNames, changes: true, failure: failWcc, run: (*request).mknod},
	{name: "REMOVE", lane: laneNames, changes: true, failure: failWcc, run: (*request).remove},
	{name: "RMDIR", lane: laneNames, changes: true, failure: failWcc, run: (*request).rmdir},
	{name: "RENAME", lane: laneNames, changes: true, failure: failTwoWcc, run: (*request).rename},
	{name: "LINK", lane: laneNames, changes: true, failure: failObjectWcc, run: (*request).link},
	{name: "READDIR", plan: (*request).planReadDir, failure: failObject, run: (*request).readDir},
	{name: "READDIRPLUS", plan: (*request).planReadDirPlus, failure: failObject, run: (*request).readDirPlus},
	{name: "FSSTAT", failure: failObject, run: (*request).fsStat},
	{name: "FSINFO", inline: (*request).attrCached, failure: failObject, run: (*request).fsInfo},
	{name: "PATHCONF", failure: failObject, run: (*request).pathConf},
	{name: "COMMIT", lane: laneWrite, changes: true, failure: failWcc, run: (*request).commit},
}}

func always(*request) bool { return true }

// runNull does nothing, which is what the procedure is for.
func runNull(rq *request) error {
	if !rq.args.Done() {
		return errGarbage
	}
	return nil
}

// attrCached says that attributes and names of the object are in memory.
func (rq *request) attrCached() bool {
	return rq.exp == nil || (rq.exp.cached != nil && rq.exp.cached.CachedAttr(rq.id))
}

// failure is what the results of a procedure hold when it fails.
type failure uint8

const (
	failBare      failure = iota // the status alone
	failObject                   // post_op_attr of the object
	failWcc                      // wcc_data of the object
	failObjectWcc                // post_op_attr of the object, wcc_data of the other
	failTwoWcc                   // wcc_data of either
)

// fail encodes the status that err means and what goes with it: the objects'
// attributes as they are now, where they can be had.
func (rq *request) fail(err error) error {
	s := statusOf(err)
	rq.status = uint32(s)
	rq.w.Uint32(rq.status)
	if s == nfsIO || s == nfsServerFault {
		rq.srv.log.Warn("a request failed", "procedure", rq.proc.name, "client", rq.peer.String(), "error", err.Error())
	}
	object := func(e *export, id fs.ID) {
		if e == nil || s == nfsJukebox {
			rq.w.Bool(false)
			return
		}
		a, err := e.Tree.Attr(rq.ctx, id)
		if err != nil {
			rq.w.Bool(false)
			return
		}
		e.putPostOp(rq.w, &a)
	}
	switch rq.proc.failure {
	case failObject:
		object(rq.exp, rq.id)
	case failWcc:
		rq.w.Bool(false)
		object(rq.exp, rq.id)
	case failObjectWcc:
		object(rq.exp, rq.id)
		rq.w.Bool(false)
		object(rq.other.exp, rq.other.id)
	case failTwoWcc:
		rq.w.Bool(false)
		object(rq.exp, rq.id)
		rq.w.Bool(false)
		object(rq.other.exp, rq.other.id)
	}
	return nil
}

// ok encodes the status of success.
func (rq *request) ok() *xdr.Writer {
	rq.w.Uint32(0)
	return rq.w
}

// attr returns the object's attributes, if the caller has the rights in need.
func (rq *request) attr(need uint16) (fs.Attr, error) {
	a, err := rq.exp.Tree.Attr(rq.ctx, rq.id)
	if err == nil && rq.user.permits(&a)&need != need {
		err = nfsAcces
	}
	return a, err
}

// writable returns the tree if the object may be changed as far as the export
// goes.
func (rq *request) writable() (fs.WriteTree, error) {
	if rq.exp.write == nil {
		return nil, nfsROFS
	}
	return rq.exp.write, nil
}

// directory is writable for a change of the entries of a directory. Root's
// rights need no look at it.
func (rq *request) directory(e *export, id fs.ID) (fs.WriteTree, fs.Attr, error) {
	if e.write == nil {
		return nil, fs.Attr{}, nfsROFS
	}
	if rq.user.isRoot() {
		return e.write, fs.Attr{}, nil
	}
	a, err := e.Tree.Attr(rq.ctx, id)
	switch {
	case err != nil:
	case !a.IsDir():
		err = nfsNotDir
	case rq.user.permits(&a)&(mayWrite|mayExec) != mayWrite|mayExec:
		err = nfsAcces
	}
	return e.write, a, err
}

const sticky = 0o1000

// mayTake says whether the caller may take a name from a directory with
// attributes dir: in one with the sticky bit only what is his own.
func (rq *request) mayTake(e *export, dir *fs.Attr, name string) error {
	if rq.user.isRoot() || dir.Perm&sticky == 0 || dir.UID == rq.user.uid {
		return nil
	}
	a, err := e.Tree.Lookup(rq.ctx, dir.ID, name)
	if err == nil && a.UID != rq.user.uid {
		err = nfsPerm
	}
	if errors.Is(err, fs.ErrNotFound) {
		err = nil // the tree will say so, or it is the new name
	}
	return err
}

// maxName is how long a name is at most; trees may allow less.
const maxName = 255

// getName decodes a filename3. Which names there can be is a question of its own.
func getName(r *xdr.Reader) string { return string(r.Opaque(len(r.Rest()))) }

// checkName refuses what can be no name. Source: RFC 1813 section 3.2,
// filename3: NFS3ERR_ACCES for characters that a server can't handle.
func checkName(name string) error {
	if len(name) > maxName {
		return nfsNameTooLong
	}
	if name == "" {
		return nfsAcces
	}
	for i := range len(name) {
		if name[i] == '/' || name[i] == 0 {
			return nfsAcces
		}
	}
	return nil
}

func isDots(name string) bool { return name == "." || name == ".." }

// noted returns what lets a tree journal a reply with the change that it
// answers. encode encodes the results.
func (rq *request) noted(encode func(w *xdr.Writer, c *fs.Change)) fs.Note {
	return func(c fs.Change) []byte {
		w := xdr.Writer{B: getBuffer(1 << 10)}
		defer func() { putBuffer(w.B) }()
		start := rpc.Begin(&w, rq.call.XID, rpc.Success)
		encode(&w, &c)
		rpc.End(&w, start, 0)
		if noteHeader+len(w.B) > fs.MaxNoteBytes {
			return nil
		}
		return appendNote(make([]byte, 0, noteHeader+len(w.B)), &rq.entry.key, w.B)
	}
}
