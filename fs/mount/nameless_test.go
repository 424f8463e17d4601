package mount

import (
	"context"
	"log/slog"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"

	"holdfast/fs"
)

// nameless is a tree whose first entries have names that Linux can't show.
type nameless struct {
	*wide
	first int
	err   error // at the end of the directory
}

func (n *nameless) ReadDir(ctx context.Context, dir fs.ID, cookie uint64, fn func(fs.Entry) bool) error {
	more := true
	err := n.wide.ReadDir(ctx, dir, cookie, func(e fs.Entry) bool {
		if e.ID.Ino < uint64(n.first)+2 {
			e.Name = "a/" + e.Name
		}
		more = fn(e)
		return more
	})
	if err == nil && more {
		err = n.err
	}
	return err
}

// TestNamesThatCantBeShown lists a directory in which more such names follow one
// another than fit into an answer: an empty one would be the directory's end.
func TestNamesThatCantBeShown(t *testing.T) {
	const n, first = 1000, 900
	for _, plus := range []bool{false, true} {
		for _, end := range []error{nil, fs.ErrDamaged} {
			tree := &nameless{wide: &wide{n: n}, first: first, err: end}
			s, err := newServed(t.Context(), tree, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			list, status := listed(s, placeDots, plus)
			if want := fuse.Status(errno(end)); len(list) != n-first || status != want {
				t.Errorf("plus %v, end %v: %d names of %d, then %v", plus, end, len(list), n-first, status)
			}
		}
	}
}

// listed asks for the root's entries from off on, as the kernel does.
func listed(s *served, off uint64, plus bool) (list []fuse.DirEntry, status fuse.Status) {
	for {
		buf := make([]byte, 4096)
		out := fuse.NewDirEntryList(buf, off)
		in := &fuse.ReadIn{InHeader: fuse.InHeader{NodeId: fuse.FUSE_ROOT_ID}, Offset: off, Size: uint32(len(buf))}
		var part []fuse.DirEntry
		if plus {
			status = s.ReadDirPlus(nil, in, out)
			part, _, _ = fuse.ParseDirLookupEntries(out.Bytes())
		} else {
			status = s.ReadDir(nil, in, out)
			part, _ = fuse.ParseDirEntries(out.Bytes())
		}
		if status != fuse.OK || len(part) == 0 {
			return list, status
		}
		list = append(list, part...)
		off = part[len(part)-1].Off
	}
}

// orphan is a tree in which no directory leads up.
type orphan struct {
	fs.Tree
	err error
}

func (o orphan) Lookup(ctx context.Context, dir fs.ID, name string) (fs.Attr, error) {
	if name == ".." {
		return fs.Attr{}, o.err
	}
	return o.Tree.Lookup(ctx, dir, name)
}

// TestWithoutParent lists a directory of which only its own parent is damaged.
func TestWithoutParent(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want fuse.Status
		n    int
	}{{fs.ErrDamaged, fuse.OK, 102}, {fs.ErrStale, fuse.OK, 102}, {fs.ErrRetry, fuse.Status(errno(fs.ErrRetry)), 0}} {
		for _, plus := range []bool{false, true} {
			s, err := newServed(t.Context(), orphan{&wide{n: 100}, tt.err}, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			list, status := listed(s, 0, plus)
			if len(list) != tt.n || status != tt.want {
				t.Errorf("plus %v, %v: %d entries, then %v; want %d, %v", plus, tt.err, len(list), status, tt.n, tt.want)
			}
		}
	}
}
