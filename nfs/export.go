package nfs

import (
	"errors"
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strings"

	"holdfast/fs"
	"holdfast/nfs/internal/rpc"
)

// Export is a tree offered to clients.
type Export struct {
	// ID is in every file handle of the export and in its file system id. It is
	// never given to another export, or old handles would lead into that.
	ID uint32

	// Path is what clients mount: "/datastore". Directories below it can be
	// mounted too.
	Path string

	// Tree is what is below Path. Clients can change it if it is an
	// fs.WriteTree and ReadOnly is false.
	Tree fs.Tree

	// Allow are the networks whose clients may use the export. None: nobody.
	Allow []netip.Prefix

	// Listen are the addresses of this machine at which the export is offered. To
	// who connects to another one it isn't there. None: at all.
	Listen []netip.Addr

	ReadOnly bool

	// Sync makes every WRITE durable before it is answered, as FILE_SYNC. It is
	// for clients that don't look at the verifier of COMMIT and send nothing
	// again, as libnfs and with it qemu: of what they wrote UNSTABLE the end of
	// the server may otherwise take something.
	Sync bool

	// RootSquash makes the user root, and members of the group root, nobody.
	RootSquash bool

	// AnonUID and AnonGID are who squashed and anonymous callers are; 0: 65534.
	AnonUID, AnonGID uint32

	// Key authenticates file handles: who doesn't know it can't make one. The
	// same key after a restart keeps them good.
	Key [16]byte
}

// nobody is the user and group of who is nobody in particular, as in Linux.
const nobody = 65534

// export is an Export with what follows from it.
type export struct {
	Export
	root   fs.ID
	fsid   uint64
	write  fs.WriteTree  // nil if it can't be changed
	borrow fs.BorrowTree // nil if it doesn't lend
	cached fs.CachedTree // nil if it doesn't tell
}

// exports are all of a server's. It does not change once made.
type exports struct {
	list []*export
	byID map[uint32]*export
}

func newExports(list []Export) (*exports, error) {
	all := &exports{byID: map[uint32]*export{}}
	paths := map[string]bool{}
	for _, e := range list {
		if e.Tree == nil || !strings.HasPrefix(e.Path, "/") || path.Clean(e.Path) != e.Path || len(e.Path) > maxPathBytes {
			return nil, fmt.Errorf("export %q: it needs a tree and a clean absolute path", e.Path)
		}
		if paths[e.Path] || all.byID[e.ID] != nil {
			return nil, fmt.Errorf("export %q: its path or its id %d is taken", e.Path, e.ID)
		}
		if e.Key == ([16]byte{}) {
			return nil, fmt.Errorf("export %q: %w", e.Path, errors.New("no key for its handles"))
		}
		x := &export{Export: e, root: e.Tree.Root(), fsid: sipHash(&[16]byte{}, []byte{byte(e.ID >> 24), byte(e.ID >> 16), byte(e.ID >> 8), byte(e.ID)})}
		if !e.ReadOnly {
			x.write, _ = e.Tree.(fs.WriteTree)
		}
		x.borrow, _ = e.Tree.(fs.BorrowTree)
		x.cached, _ = e.Tree.(fs.CachedTree)
		if x.AnonUID == 0 {
			x.AnonUID = nobody
		}
		if x.AnonGID == 0 {
			x.AnonGID = nobody
		}
		paths[e.Path], all.byID[e.ID] = true, x
		all.list = append(all.list, x)
	}
	return all, nil
}

// route is how a request comes: from which address, and to which of this
// machine. local is the zero value where that can't be told.
type route struct{ peer, local netip.Addr }

// allows says whether who comes this way may use the export.
func (e *export) allows(r route) bool {
	if len(e.Listen) > 0 && r.local.IsValid() && !slices.Contains(e.Listen, r.local) {
		return false
	}
	return e.admits(r.peer)
}

// admits says whether a client of this address may use the export.
func (e *export) admits(peer netip.Addr) bool {
	for _, p := range e.Allow {
		if p.Contains(peer) {
			return true
		}
	}
	return false
}

// allow says whether who comes this way may use any export.
func (x *exports) allow(r route) bool {
	for _, e := range x.list {
		if e.allows(r) {
			return true
		}
	}
	return false
}

// user is who a caller is to an export.
type user struct {
	uid, gid uint32
	groups   []uint32
	squashed bool // which of the groups are root's no longer count
}

func (e *export) userOf(c *rpc.Cred) user {
	u := user{uid: c.UID, gid: c.GID, groups: c.Groups(), squashed: e.RootSquash}
	if c.Flavor != rpc.AuthSys {
		return user{uid: e.AnonUID, gid: e.AnonGID}
	}
	if e.RootSquash && u.uid == 0 {
		u.uid, u.gid, u.groups = e.AnonUID, e.AnonGID, nil
	}
	if e.RootSquash && u.gid == 0 {
		u.gid = e.AnonGID
	}
	return u
}

func (u *user) isRoot() bool { return u.uid == 0 }

func (u *user) inGroup(gid uint32) bool {
	if u.gid == gid {
		return true
	}
	for _, g := range u.groups {
		if g == gid && (g != 0 || !u.squashed) {
			return true
		}
	}
	return false
}

// Permission bits, as in the lowest three of a mode.
const (
	mayRead  = 4
	mayWrite = 2
	mayExec  = 1
)

// permits returns which of the permission bits u has on an inode.
func (u *user) permits(a *fs.Attr) uint16 {
	switch {
	case u.isRoot():
		if a.IsDir() || a.Perm&0o111 != 0 {
			return mayRead | mayWrite | mayExec
		}
		return mayRead | mayWrite
	case u.uid == a.UID:
		return a.Perm >> 6 & 7
	case u.inGroup(a.GID):
		return a.Perm >> 3 & 7
	}
	return a.Perm & 7
}
