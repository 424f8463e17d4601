package mount

import (
	"errors"
	"slices"
	"strings"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"

	"holdfast/fs"
)

// streamPrefix begins the name of the attribute that an alternate stream is
// shown as.
const streamPrefix = "user.stream."

// Limits of Linux. Source: linux/limits.h, XATTR_SIZE_MAX and XATTR_NAME_MAX.
const (
	maxXattrBytes     = 64 << 10
	maxXattrNameBytes = 255
)

func (s *served) hasXattrs() bool { return s.xattrs != nil || s.streams != nil }

func (s *served) GetXAttr(cancel <-chan struct{}, h *fuse.InHeader, name string, dest []byte) (uint32, fuse.Status) {
	r := s.begin(cancel)
	defer r.end()
	n, err := s.node(h)
	if err != nil {
		return 0, s.status(err)
	}
	value, err := s.xattr(r, n.id, name)
	switch {
	case err != nil:
		return 0, s.status(err)
	case len(value) > maxXattrBytes:
		return 0, fuse.Status(syscall.E2BIG)
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

// xattr returns an attribute, or a stream by an attribute's name. A stream that
// is too long has maxXattrBytes+1 zero bytes.
func (s *served) xattr(r *request, id fs.ID, name string) ([]byte, error) {
	if s.xattrs != nil {
		value, err := s.xattrs.Xattr(r, id, name)
		if err == nil || !errors.Is(err, fs.ErrNoXattr) {
			return value, err
		}
	}
	want, ok := strings.CutPrefix(name, streamPrefix)
	if s.streams == nil || !ok {
		return nil, fs.ErrNoXattr
	}
	streams, err := s.streams.Streams(r, id)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(streams, func(st fs.Stream) bool { return st.Name == want })
	if i < 0 {
		return nil, fs.ErrNoXattr
	}
	value := make([]byte, min(streams[i].Size, maxXattrBytes+1))
	if len(value) == 0 || len(value) > maxXattrBytes {
		return value, nil
	}
	if n, err := s.tree.ReadAt(r, streams[i].ID, value, 0); n < len(value) {
		return nil, err
	}
	return value, nil
}

func (s *served) ListXAttr(cancel <-chan struct{}, h *fuse.InHeader, dest []byte) (uint32, fuse.Status) {
	r := s.begin(cancel)
	defer r.end()
	n, err := s.node(h)
	if err != nil {
		return 0, s.status(err)
	}
	names, err := s.xattrNames(r, n.id)
	if err != nil {
		return 0, s.status(err)
	}
	var list []byte
	for _, name := range names {
		list = append(append(list, name...), 0)
	}
	return fit(dest, list)
}

// xattrNames lists the names of all that xattr returns.
func (s *served) xattrNames(r *request, id fs.ID) (names []string, err error) {
	if s.xattrs != nil {
		if names, err = s.xattrs.Xattrs(r, id); err != nil {
			return nil, err
		}
		names = slices.DeleteFunc(slices.Clone(names), func(name string) bool { return !xattrNameable(name) })
	}
	if s.streams == nil {
		return names, nil
	}
	streams, err := s.streams.Streams(r, id)
	if err != nil {
		return nil, err
	}
	for _, st := range streams {
		name := streamPrefix + st.Name
		if st.Size <= maxXattrBytes && xattrNameable(name) && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names, nil
}

func xattrNameable(name string) bool {
	return name != "" && len(name) <= maxXattrNameBytes && !strings.Contains(name, "\x00")
}
