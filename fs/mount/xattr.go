package mount

import (
	"errors"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"

	"holdfast/fs"
)

func (s *served) GetXAttr(cancel <-chan struct{}, h *fuse.InHeader, name string, dest []byte) (uint32, fuse.Status) {
	r := s.begin(cancel)
	defer r.end()
	n, err := s.node(h)
	if err != nil {
		return 0, s.status(err)
	}
	value, err := fs.XattrValue(r, s.tree, n.id, name)
	switch {
	case errors.Is(err, fs.ErrXattrBytes):
		return 0, fuse.Status(syscall.E2BIG)
	case err != nil:
		return 0, s.status(err)
	}
	return fit(dest, value)
}

// fit copies an answer to dest if it fits. Linux asks with an empty one for the
// size alone.
func fit(dest, value []byte) (uint32, fuse.Status) {
	if len(dest) < len(value) {
		return uint32(len(value)), fuse.ERANGE
	}
	return uint32(copy(dest, value)), fuse.OK
}

func (s *served) ListXAttr(cancel <-chan struct{}, h *fuse.InHeader, dest []byte) (uint32, fuse.Status) {
	r := s.begin(cancel)
	defer r.end()
	n, err := s.node(h)
	if err != nil {
		return 0, s.status(err)
	}
	names, _, err := fs.XattrNames(r, s.tree, n.id)
	if err != nil {
		return 0, s.status(err)
	}
	var list []byte
	for _, name := range names {
		list = append(append(list, name...), 0)
	}
	return fit(dest, list)
}
