package nfs

import (
	"math"

	"holdfast/fs"
	"holdfast/nfs/internal/xdr"
)

// ftypes are the ftype3 of each fs.Type. Source: RFC 1813 section 2.5.
var ftypes = [...]uint32{
	fs.TypeUnknown:     1,
	fs.TypeFile:        1,
	fs.TypeDir:         2,
	fs.TypeBlockDevice: 3,
	fs.TypeCharDevice:  4,
	fs.TypeSymlink:     5,
	fs.TypeSocket:      6,
	fs.TypeFIFO:        7,
}

// putAttr encodes a fattr3.
func (e *export) putAttr(w *xdr.Writer, a *fs.Attr) {
	w.Uint32(ftypes[a.Type])
	w.Uint32(uint32(a.Perm))
	w.Uint32(a.Nlink)
	w.Uint32(a.UID)
	w.Uint32(a.GID)
	w.Uint64(uint64(a.Size))
	w.Uint64(uint64(a.Used))
	w.Uint32(a.Major)
	w.Uint32(a.Minor)
	w.Uint64(e.fsid)
	w.Uint64(e.fileID(a.ID))
	putTime(w, a.Atime)
	putTime(w, a.Mtime)
	putTime(w, a.Ctime)
}

// putTime encodes an nfstime3, which knows 1970 to 2106. Times beyond become
// the nearest that it knows.
func putTime(w *xdr.Writer, t fs.Time) {
	switch {
	case t.Sec < 0:
		t = fs.Time{}
	case t.Sec > math.MaxUint32:
		t = fs.Time{Sec: math.MaxUint32, Nsec: 999_999_999}
	}
	w.Uint32(uint32(t.Sec))
	w.Uint32(t.Nsec)
}

// putPostOp encodes a post_op_attr.
func (e *export) putPostOp(w *xdr.Writer, a *fs.Attr) {
	w.Bool(true)
	e.putAttr(w, a)
}

// putWcc encodes a wcc_data.
func (e *export) putWcc(w *xdr.Writer, t *fs.Touched) {
	w.Bool(true)
	w.Uint64(uint64(t.Before.Size))
	putTime(w, t.Before.Mtime)
	putTime(w, t.Before.Ctime)
	e.putPostOp(w, &t.After)
}

// getTime decodes an nfstime3.
func getTime(r *xdr.Reader) (fs.Time, bool) {
	t := fs.Time{Sec: int64(r.Uint32()), Nsec: r.Uint32()}
	return t, t.Nsec < 1e9
}

// getSetAttr decodes a sattr3. An error is one of its values; the Reader knows
// whether it could be decoded.
func getSetAttr(r *xdr.Reader) (set fs.SetAttr, err error) {
	if r.Bool() {
		set.Set |= fs.SetPerm
		set.Perm = uint16(r.Uint32() & 0o7777)
	}
	if r.Bool() {
		set.Set |= fs.SetUID
		set.UID = r.Uint32()
	}
	if r.Bool() {
		set.Set |= fs.SetGID
		set.GID = r.Uint32()
	}
	if r.Bool() {
		set.Set |= fs.SetSize
		size := r.Uint64()
		if size > math.MaxInt64 {
			err = nfsFBig
			size = 0
		}
		set.Size = int64(size)
	}
	when := func(now, given fs.SetMask, t *fs.Time) {
		switch r.Uint32() {
		case 0: // DONT_CHANGE
		case 1: // SET_TO_SERVER_TIME
			set.Set |= now
		case 2: // SET_TO_CLIENT_TIME
			set.Set |= given
			ok := false
			if *t, ok = getTime(r); !ok && err == nil {
				err = nfsInval
			}
		default:
			r.Fixed(-1)
		}
	}
	when(fs.SetAtimeNow, fs.SetAtime, &set.Atime)
	when(fs.SetMtimeNow, fs.SetMtime, &set.Mtime)
	return set, err
}
