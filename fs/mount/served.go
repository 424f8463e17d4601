package mount

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync/atomic"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"holdfast/fs"
)

// served answers the requests of one mount. What it does not answer, which is
// all that would change something, is refused by the kernel already because the
// mount is read-only; go-fuse says ENOSYS to the rest. A tree that can be written
// has its methods beside these.
type served struct {
	fuse.RawFileSystem
	base    context.Context // of all requests; ends with the mount
	tree    fs.Tree
	nodes   nodes
	reasons *reasons

	opened atomic.Int64 // files and directories that are open
}

func newServed(base context.Context, t fs.Tree, log *slog.Logger) (*served, error) {
	root, err := t.Attr(base, t.Root())
	if err != nil {
		return nil, err
	}
	s := &served{RawFileSystem: fuse.NewDefaultRawFileSystem(), base: base, tree: t, reasons: newReasons(log)}
	s.nodes.init(node{id: root.ID, fixed: root.Fixed})
	return s, nil
}

func (s *served) String() string { return fsName }

// node returns what a request is about. When the mount has ended it is nothing
// any more: the tree may be closed.
func (s *served) node(h *fuse.InHeader) (node, error) {
	n, ok := s.nodes.get(h.NodeId)
	if !ok || s.base.Err() != nil {
		return n, fmt.Errorf("node %d: %w", h.NodeId, fs.ErrStale)
	}
	return n, nil
}

func (s *served) Lookup(cancel <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	r := s.begin(cancel)
	defer r.end()
	dir, err := s.node(h)
	if err != nil {
		return s.status(err)
	}
	a, err := s.tree.Lookup(r, dir.id, name)
	switch {
	case errors.Is(err, fs.ErrNotFound):
		out.NodeId = 0 // which the kernel remembers as well
		out.SetEntryTimeout(validity(dir.fixed))
		return fuse.OK
	case err != nil:
		return s.status(err)
	}
	if err := checkAttr(a); err != nil {
		return s.status(fmt.Errorf("%s: %w", name, err))
	}
	s.fillEntry(out, dir, a)
	return fuse.OK
}

// fillEntry answers with an entry of dir, which the kernel knows from then on.
func (s *served) fillEntry(out *fuse.EntryOut, dir node, a fs.Attr) {
	out.NodeId = s.nodes.add(a)
	out.SetEntryTimeout(validity(dir.fixed))
	out.SetAttrTimeout(validity(a.Fixed))
	fillAttr(&out.Attr, a)
}

func (s *served) Forget(number, lookups uint64) { s.nodes.forget(number, lookups) }

// attr describes what a request is about.
func (s *served) attr(r *request, h *fuse.InHeader) (a fs.Attr, err error) {
	n, err := s.node(h)
	if err != nil {
		return a, err
	}
	if a, err = s.tree.Attr(r, n.id); err != nil {
		return a, err
	}
	return a, checkAttr(a)
}

func (s *served) GetAttr(cancel <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	r := s.begin(cancel)
	defer r.end()
	a, err := s.attr(r, &in.InHeader)
	if err != nil {
		return s.status(err)
	}
	out.SetTimeout(validity(a.Fixed))
	fillAttr(&out.Attr, a)
	return fuse.OK
}

// Statx is asked when somebody wants to know the time of birth.
func (s *served) Statx(cancel <-chan struct{}, in *fuse.StatxIn, out *fuse.StatxOut) fuse.Status {
	r := s.begin(cancel)
	defer r.end()
	a, err := s.attr(r, &in.InHeader)
	if err != nil {
		return s.status(err)
	}
	out.AttrValid = uint64(validity(a.Fixed).Seconds())
	fillStatx(&out.Statx, a)
	return fuse.OK
}

func (s *served) Readlink(cancel <-chan struct{}, h *fuse.InHeader) ([]byte, fuse.Status) {
	r := s.begin(cancel)
	defer r.end()
	n, err := s.node(h)
	if err != nil {
		return nil, s.status(err)
	}
	target, err := s.tree.ReadLink(r, n.id)
	if err != nil {
		return nil, s.status(err)
	}
	return []byte(target), fuse.OK
}

func (s *served) Open(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	n, err := s.node(&in.InHeader)
	if err != nil {
		return s.status(err)
	}
	s.opened.Add(1)
	out.OpenFlags = fuse.FOPEN_NOFLUSH // nothing is ever written
	if n.fixed {
		out.OpenFlags |= fuse.FOPEN_KEEP_CACHE
	}
	return fuse.OK
}

func (s *served) Release(<-chan struct{}, *fuse.ReleaseIn) { s.opened.Add(-1) }

func (s *served) Read(cancel <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	r := s.begin(cancel)
	defer r.end()
	n, err := s.node(&in.InHeader)
	if err != nil {
		return nil, s.status(err)
	}
	got, err := s.tree.ReadAt(r, n.id, buf, int64(in.Offset))
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, s.status(err) // what came before the error is no short file
	}
	return fuse.ReadResultData(buf[:got]), fuse.OK
}

// Lseek is asked for data and holes only.
func (s *served) Lseek(cancel <-chan struct{}, in *fuse.LseekIn, out *fuse.LseekOut) fuse.Status {
	r := s.begin(cancel)
	defer r.end()
	n, err := s.node(&in.InHeader)
	if err != nil {
		return s.status(err)
	}
	off := int64(in.Offset)
	switch in.Whence {
	case unix.SEEK_DATA:
		off, _, err = fs.NextData(r, s.tree, n.id, off)
	case unix.SEEK_HOLE:
		off, err = s.nextHole(r, n.id, off)
	default:
		return fuse.Status(syscall.EINVAL)
	}
	if errors.Is(err, io.EOF) {
		return fuse.Status(syscall.ENXIO)
	}
	if err != nil {
		return s.status(err)
	}
	out.Offset = uint64(off)
	return fuse.OK
}

// nextHole finds the first hole at or after off, for which the end of the file
// counts too. io.EOF when off is at or behind that.
func (s *served) nextHole(ctx context.Context, id fs.ID, off int64) (int64, error) {
	const batch = 256
	for first := true; ; first = false {
		extents, err := s.tree.Extents(ctx, id, off, batch)
		if errors.Is(err, io.EOF) && !first {
			return off, nil
		}
		if err != nil {
			return 0, err
		}
		for _, e := range extents {
			if e.Kind == fs.Hole {
				return e.Off, nil
			}
			off = e.Off + e.Len
		}
		if err := ctx.Err(); err != nil {
			return 0, err
		}
	}
}

func (s *served) StatFs(cancel <-chan struct{}, h *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	r := s.begin(cancel)
	defer r.end()
	n, err := s.node(h)
	if err != nil {
		return s.status(err)
	}
	st, err := s.tree.StatFS(r, n.id)
	if err != nil {
		return s.status(err)
	}
	fillStatfs(out, st)
	return fuse.OK
}
