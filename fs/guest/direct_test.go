package guest

import (
	"errors"
	"io"
	"testing"

	"holdfast/fs"
)

type readerAt = io.ReaderAt

// tryOpen opens a volume: what says that it can be read must be readable, and
// all else be refused with its reason.
func tryOpen(t *testing.T, d Disk, v Volume) {
	t.Helper()
	tree, err := Direct{}.Open(t.Context(), d, v)
	if v.Why != "" {
		if !errors.Is(err, fs.ErrUnsupported) {
			t.Errorf("open a volume of which %q: %v", v.Why, err)
		}
		return
	}
	if err != nil {
		t.Errorf("open: %v", err)
		return
	}
	defer tree.Close()
	s, err := tree.StatFS(t.Context(), tree.Root())
	if err != nil || s.Type != v.Format || s.Label != v.Label {
		t.Errorf("the tree is %+v, %v; the volume %+v", s, err, v)
	}
}
