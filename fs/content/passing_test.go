package content_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"

	"holdfast/fs"
	"holdfast/fs/content"
	"holdfast/fs/guest"
	"holdfast/internal/testreq"
)

// failing is a reader whose process has no files left to open for a while.
type failing struct {
	guest.Direct
	layouts, opens *atomic.Int32 // that fail
}

var errFiles = fmt.Errorf("open pack: %w", syscall.EMFILE)

func (f failing) Layout(ctx context.Context, d guest.Disk) (guest.Layout, error) {
	if f.layouts.Add(-1) >= 0 {
		return guest.Layout{}, errFiles
	}
	return f.Direct.Layout(ctx, d)
}

func (f failing) Open(ctx context.Context, d guest.Disk, v guest.Volume) (fs.Tree, error) {
	if f.opens.Add(-1) >= 0 {
		return nil, errFiles
	}
	return f.Direct.Open(ctx, d, v)
}

// TestNothingConcluded lets the first looks at a disk fail of something that has
// nothing to do with the disk. Whoever mounts remembers for ever what a disk
// has, so that this must be an error, not a disk or a volume that can't be read.
func TestNothingConcluded(t *testing.T) {
	testreq.Need(t, "mkfs.ext4")
	img := file(t, "img", 16<<20)
	run(t, "mkfs.ext4", "-q", "-d", noisy(t, 1), img)
	w := newWorld(t)
	w.backupFile(0, "m", img)
	for _, tt := range []struct{ layouts, opens int32 }{{1, 0}, {0, 1}, {1, 1}} {
		f := failing{layouts: new(atomic.Int32), opens: new(atomic.Int32)}
		f.layouts.Store(tt.layouts)
		f.opens.Store(tt.opens)
		tree := w.tree(content.Options{Guests: func(context.Context) (guest.Reader, error) { return f, nil }})
		dir := resolve(t, tree, "m/latest/files/disk0").ID
		for range tt.layouts + tt.opens {
			err := tree.ReadDir(background, dir, 0, func(e fs.Entry) bool {
				t.Errorf("there is %s", e.Name)
				return true
			})
			if !errors.Is(err, syscall.EMFILE) {
				t.Errorf("it gives %v", err)
			}
		}
		if got := names(t, tree, "m/latest/files/disk0"); !slices.Contains(got, "whole") {
			t.Errorf("afterwards there is %q", got)
		}
	}
}
