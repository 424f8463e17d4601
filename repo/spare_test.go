package repo

import (
	"sync/atomic"
	"syscall"
	"testing"

	"holdfast/repo/vfs"
)

// fewFiles has room for a number of further files.
type fewFiles struct {
	*vfs.Mem
	left atomic.Int64
}

func (f *fewFiles) Create(name string) (vfs.File, error) {
	if f.left.Add(-1) < 0 {
		f.left.Add(1)
		return nil, syscall.ENOSPC
	}
	file, err := f.Mem.Create(name)
	if err != nil {
		f.left.Add(1)
	}
	return file, err
}

func (f *fewFiles) Remove(name string) error {
	err := f.Mem.Remove(name)
	if err == nil {
		f.left.Add(1)
	}
	return err
}

// TestNoMoreFiles: there are bytes, and no file can be made but for those that
// were kept for this.
func TestNoMoreFiles(t *testing.T) {
	s := sampleOf(t, sampleShapes()[0])
	for _, spares := range []bool{false, true} {
		f := &fewFiles{Mem: s.clone()}
		f.left.Store(1000)
		if spares {
			if err := keepSpares(f); err != nil {
				t.Fatal(err)
			}
		}
		o := s.own(t, f)
		f.left.Store(0)
		_, err := o.Expire(t.Context(), s.points[0].id, "")
		if spares != (err == nil) {
			t.Errorf("with spare files %v: expire gives %v", spares, err)
		}
		if spares {
			if res, err := o.Sweep(t.Context(), SweepOptions{}); err != nil || res.Points != 1 {
				t.Errorf("swept %+v, %v", res, err)
			}
		}
		f.left.Store(1000)
		if err := o.Close(); err != nil {
			t.Error(err)
		}
	}
}
