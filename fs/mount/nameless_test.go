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
			read := func(off uint64) ([]fuse.DirEntry, fuse.Status) {
				buf := make([]byte, 4096)
				out := fuse.NewDirEntryList(buf, off)
				in := &fuse.ReadIn{InHeader: fuse.InHeader{NodeId: fuse.FUSE_ROOT_ID}, Offset: off, Size: uint32(len(buf))}
				if plus {
					st := s.ReadDirPlus(nil, in, out)
					list, _, _ := fuse.ParseDirLookupEntries(out.Bytes())
					return list, st
				}
				st := s.ReadDir(nil, in, out)
				list, _ := fuse.ParseDirEntries(out.Bytes())
				return list, st
			}
			off, found, status := uint64(placeDots), 0, fuse.OK
			for status == fuse.OK {
				var list []fuse.DirEntry
				if list, status = read(off); len(list) == 0 {
					break
				}
				found += len(list)
				off = list[len(list)-1].Off
			}
			if want := fuse.Status(errno(end)); found != n-first || status != want {
				t.Errorf("plus %v, end %v: %d names of %d, then %v", plus, end, found, n-first, status)
			}
		}
	}
}
