package recovery

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"

	"holdfast/fs"
	"holdfast/fs/datastore"
	"holdfast/image/redirect"
	"holdfast/image/vmdk"
	"holdfast/repo"
)

// NewFrameCache returns a cache of frames for all that one process serves. One
// core decodes nothing, so that what needs no decoding is answered in time.
func NewFrameCache(budgetBytes int64) *repo.FrameCache {
	return repo.NewFrameCache(budgetBytes, max(1, runtime.NumCPU()-1))
}

// base is what lies below a redirected disk: the disk of a restore point, in
// whole sectors as a flat extent has them. Its errors are those of package fs.
type base struct {
	disk *repo.Disk
	flat vmdk.FlatView
	rec  *recorder // nil: nothing is recorded
}

var _ redirect.Lender = (*base)(nil)

func newBase(d *repo.Disk, rec *recorder) *base {
	return &base{disk: d, flat: vmdk.FlatView{Source: d}, rec: rec}
}

func (b *base) Size() int64 { return b.flat.Size() }

func (b *base) ReadAt(p []byte, off int64) (int, error) {
	b.rec.note(off, len(p))
	n, err := b.flat.ReadAt(p, off)
	return n, baseError(err)
}

func (b *base) NextData(off int64) (start, end int64, err error) {
	start, end, err = b.flat.NextData(off)
	return start, end, baseError(err)
}

// sectorBytes is what the length of a flat extent is a multiple of.
const sectorBytes = 512

var zeroSector [sectorBytes]byte

// Borrow is as redirect.Lender has it.
func (b *base) Borrow(ctx context.Context, off int64, n int) (segments [][]byte, pinned int64, release func(), err error) {
	b.rec.note(off, n)
	segments, pinned, release, err = b.disk.Borrow(ctx, off, n)
	if err != nil && err != io.EOF {
		return nil, 0, nil, baseError(err)
	}
	// What is missing from the last sector is zeros.
	end := min(off+int64(n), b.Size())
	if pad := end - max(off, b.disk.Size()); pad > 0 {
		segments = append(segments, zeroSector[:pad])
	}
	if end == off+int64(n) {
		err = nil
	}
	return segments, pinned, release, err
}

// Cached is as redirect.Lender has it.
func (b *base) Cached(off int64, n int) bool { return b.disk.Cached(off, n) }

// baseError turns an error of the repository into one of package fs, once: bytes
// that can't be healed are damaged, and those whose pack is not there, or not in
// the index yet, may come.
func baseError(err error) error {
	var corrupt *repo.CorruptError
	switch {
	case err == nil, errors.Is(err, io.EOF), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case errors.As(err, &corrupt) && corrupt.Missing, errors.Is(err, repo.ErrClosed):
		return fmt.Errorf("%w: %w", fs.ErrRetry, err)
	case errors.As(err, &corrupt):
		return fmt.Errorf("%w: %w", fs.ErrDamaged, err)
	}
	return err
}

// lending makes a datastore's disk of a redirected one whose base may lend.
func lending(s *redirect.Session, d *redirect.Disk) datastore.Disk {
	return lendingDisk{datastore.Redirected(s, d), d}
}

type lendingDisk struct {
	datastore.Disk
	d *redirect.Disk
}

var (
	_ datastore.Lender = lendingDisk{}
	_ datastore.Teller = lendingDisk{}
)

func (l lendingDisk) Borrow(ctx context.Context, off int64, n int) (fs.Borrowed, error) {
	segments, pinned, release, lent, err := l.d.Borrow(ctx, off, n)
	if !lent {
		return fs.Borrowed{}, fs.ErrUnsupported
	}
	return fs.Borrowed{Segments: segments, Pinned: pinned, Release: release}, err
}

func (l lendingDisk) Cached(off int64, n int) bool { return l.d.Cached(off, n) }
