package nfs

import (
	"cmp"
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"holdfast/fs"
	"holdfast/nfs/internal/rpc"
)

// mountProgram is MOUNT version 3, RFC 1813 section 5.2.
var mountProgram = program{number: progMount, version: mountVersion, name: "MOUNT", procs: []procedure{
	{name: "NULL", inline: always, run: runNull},
	{name: "MNT", run: (*request).mnt},
	{name: "DUMP", inline: always, run: (*request).dump},
	{name: "UMNT", inline: always, run: (*request).umnt},
	{name: "UMNTALL", inline: always, run: (*request).umntAll},
	{name: "EXPORT", inline: always, run: (*request).export},
}}

// mountstat3. Source: RFC 1813 section 5.1.5.
const (
	mntNoEnt       = 2
	mntServerFault = 10006
)

// maxMountPath is MNTPATHLEN, how long a path to be mounted is at most.
const maxMountPath = 1024

// mounts is who has mounted what, as far as clients tell. Nothing depends on
// it, and it begins empty with the server.
type mounts struct {
	mu   sync.Mutex // guards list
	list []mounted  // oldest first
}

type mounted struct {
	client netip.Addr
	path   string
}

const maxMounts = 1024

// mnt is MNT, RFC 1813 section 5.2.1.
func (rq *request) mnt() error {
	path, ok := rq.mountPath()
	if !ok {
		return errGarbage
	}
	e, id, err := rq.srv.findMount(rq.ctx, rq.route(), path)
	if err != nil {
		rq.status = mountStatus(err)
		rq.w.Uint32(rq.status)
		return nil
	}
	rq.srv.mounts.add(mounted{rq.peer, path})
	w := rq.ok()
	e.putHandle(w, id)
	// The first flavour is the one clients take.
	w.Uint32(2)
	w.Uint32(rpc.AuthSys)
	w.Uint32(rpc.AuthNone)
	return nil
}

func (rq *request) mountPath() (string, bool) {
	path := string(rq.args.Opaque(len(rq.args.Rest())))
	return path, rq.args.Done()
}

// findMount finds the directory that a path leads to: an export's, or below it.
func (s *Server) findMount(ctx context.Context, from route, path string) (*export, fs.ID, error) {
	if len(path) > maxMountPath {
		return nil, fs.ID{}, fs.ErrNameTooLong
	}
	path = "/" + strings.Trim(path, "/")
	var best *export
	for _, e := range s.exports.Load().list {
		if (best == nil || len(e.Path) > len(best.Path)) && (path == e.Path || strings.HasPrefix(path, strings.TrimSuffix(e.Path, "/")+"/")) {
			best = e
		}
	}
	switch {
	case best == nil && !s.exports.Load().allow(from):
		return nil, fs.ID{}, nfsAcces // and no word about what there is
	case best == nil:
		return nil, fs.ID{}, fs.ErrNotFound
	case !best.allows(from):
		return nil, fs.ID{}, nfsAcces
	}
	a, err := fs.Resolve(ctx, best.Tree, best.root, path[len(strings.TrimSuffix(best.Path, "/")):], true)
	if err == nil && !a.IsDir() {
		err = fs.ErrNotDir
	}
	return best, a.ID, err
}

// mountStatus turns an error into a mountstat3.
func mountStatus(err error) uint32 {
	switch s := statusOf(err); {
	case errors.Is(err, fs.ErrLoop), s == nfsStale:
		return mntNoEnt
	case s == nfsNoEnt || s == nfsAcces || s == nfsNotDir || s == nfsNameTooLong || s == nfsIO:
		return uint32(s)
	}
	return mntServerFault
}

// dump is DUMP, RFC 1813 section 5.2.2. Clients see their own mounts alone.
func (rq *request) dump() error {
	if !rq.args.Done() {
		return errGarbage
	}
	rq.srv.mounts.mu.Lock()
	defer rq.srv.mounts.mu.Unlock()
	for _, m := range rq.srv.mounts.list {
		if m.client == rq.peer {
			rq.w.Bool(true)
			rq.w.String(m.client.String())
			rq.w.String(m.path)
		}
	}
	rq.w.Bool(false)
	return nil
}

// umnt is UMNT, RFC 1813 section 5.2.3.
func (rq *request) umnt() error {
	path, ok := rq.mountPath()
	if !ok {
		return errGarbage
	}
	rq.srv.mounts.remove(func(m mounted) bool { return m == mounted{rq.peer, path} })
	return nil
}

// umntAll is UMNTALL, RFC 1813 section 5.2.4.
func (rq *request) umntAll() error {
	if !rq.args.Done() {
		return errGarbage
	}
	rq.srv.mounts.remove(func(m mounted) bool { return m.client == rq.peer })
	return nil
}

// export is EXPORT, RFC 1813 section 5.2.5. Clients see what they may mount,
// and of who else may only that there are others.
func (rq *request) export() error {
	if !rq.args.Done() {
		return errGarbage
	}
	list := slices.Clone(rq.srv.exports.Load().list)
	slices.SortFunc(list, func(a, b *export) int { return cmp.Compare(a.Path, b.Path) })
	for _, e := range list {
		if !e.allows(rq.route()) {
			continue
		}
		rq.w.Bool(true)
		rq.w.String(e.Path)
		for _, p := range e.Allow {
			if p.Contains(rq.peer) {
				rq.w.Bool(true)
				rq.w.String(p.String())
			}
		}
		rq.w.Bool(false)
	}
	rq.w.Bool(false)
	return nil
}

func (m *mounts) add(n mounted) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if slices.Contains(m.list, n) {
		return
	}
	if len(m.list) >= maxMounts {
		m.list = slices.Delete(m.list, 0, 1)
	}
	m.list = append(m.list, n)
}

func (m *mounts) remove(which func(mounted) bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.list = slices.DeleteFunc(m.list, which)
}
