package nfs

import (
	"context"
	"errors"
	"fmt"

	"holdfast/fs"
)

// status is an nfsstat3 other than NFS3_OK. Source: RFC 1813 section 2.6.
type status uint32

const (
	nfsPerm        status = 1
	nfsNoEnt       status = 2
	nfsIO          status = 5
	nfsAcces       status = 13
	nfsExist       status = 17
	nfsXDev        status = 18
	nfsNotDir      status = 20
	nfsIsDir       status = 21
	nfsInval       status = 22
	nfsFBig        status = 27
	nfsNoSpc       status = 28
	nfsROFS        status = 30
	nfsMLink       status = 31
	nfsNameTooLong status = 63
	nfsNotEmpty    status = 66
	nfsDQuot       status = 69
	nfsStale       status = 70
	nfsBadHandle   status = 10001
	nfsNotSync     status = 10002
	nfsBadCookie   status = 10003
	nfsNotSupp     status = 10004
	nfsTooSmall    status = 10005
	nfsServerFault status = 10006
	nfsBadType     status = 10007
	nfsJukebox     status = 10008
)

func (s status) Error() string { return fmt.Sprintf("NFS status %d", uint32(s)) }

// statuses is the border where errors of a tree become NFS statuses: the first
// that matches wins, and an error that matches none is nfsIO.
var statuses = []struct {
	err    error
	status status
}{
	{fs.ErrNotFound, nfsNoEnt},
	{fs.ErrStale, nfsStale},
	{fs.ErrNotDir, nfsNotDir},
	{fs.ErrIsDir, nfsIsDir},
	{fs.ErrInvalid, nfsInval},
	{fs.ErrNoXattr, nfsInval},
	{fs.ErrLoop, nfsInval},
	{fs.ErrDamaged, nfsIO},
	{fs.ErrUnsupported, nfsNotSupp},
	{fs.ErrRetry, nfsJukebox},
	{fs.ErrNoSpace, nfsNoSpc},
	{fs.ErrReadOnly, nfsROFS},
	{fs.ErrPermission, nfsPerm},
	{fs.ErrExist, nfsExist},
	{fs.ErrNotEmpty, nfsNotEmpty},
	{fs.ErrNameTooLong, nfsNameTooLong},
	{fs.ErrCrossing, nfsXDev},
	{fs.ErrTooManyLinks, nfsMLink},
	{fs.ErrTooLarge, nfsFBig},
	{fs.ErrQuota, nfsDQuot},
	{fs.ErrChanged, nfsNotSync},
	{fs.ErrBadCookie, nfsBadCookie},
	// The server ends, or the caller is gone: whoever still wants it asks again.
	{context.Canceled, nfsJukebox},
	{context.DeadlineExceeded, nfsJukebox},
}

// statusOf turns an error into what a client is told.
func statusOf(err error) status {
	var s status
	if errors.As(err, &s) {
		return s
	}
	for _, e := range statuses {
		if errors.Is(err, e.err) {
			return e.status
		}
	}
	return nfsIO
}
