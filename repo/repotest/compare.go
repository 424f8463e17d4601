package repotest

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"holdfast/repo"
	"holdfast/repo/vfs"
)

// Check opens a repository for reading and compares all of it with the model.
func Check(tb testing.TB, fsys vfs.FS, opt repo.Options, m *Model) {
	tb.Helper()
	if err := OpenAndCompare(tb.Context(), fsys, opt, m); err != nil {
		tb.Error(err)
	}
}

// OpenAndCompare is Check that returns its finding.
func OpenAndCompare(ctx context.Context, fsys vfs.FS, opt repo.Options, m *Model) error {
	r, err := repo.Open(ctx, fsys, opt)
	if err != nil {
		return err
	}
	return errors.Join(Compare(ctx, r, m.Points()), r.Close())
}

// Compare says in what a repository differs from these points: it must list
// them and no others, each machine's in this order, and read as they do.
func Compare(ctx context.Context, r *repo.Repository, want []Point) error {
	got, err := r.Points(ctx)
	if err != nil {
		return err
	}
	var errs []error
	sequence := make(map[string]uint64)
	for _, w := range want {
		i := slices.IndexFunc(got, func(p repo.Point) bool { return p.ID == w.ID })
		if i < 0 {
			errs = append(errs, fmt.Errorf("point %s of %s is not listed", w.ID, w.Machine))
			continue
		}
		p := got[i]
		if p.Machine != w.Machine || p.Sequence <= sequence[p.MachineID] {
			errs = append(errs, fmt.Errorf("point %s is number %d of %s, after number %d, want of %s",
				p.ID, p.Sequence, p.Machine, sequence[p.MachineID], w.Machine))
		}
		sequence[p.MachineID] = p.Sequence
		errs = append(errs, ComparePoint(ctx, r, w))
	}
	for _, p := range got {
		if !slices.ContainsFunc(want, func(w Point) bool { return w.ID == p.ID }) {
			errs = append(errs, fmt.Errorf("point %s of %s is listed and should not be", p.ID, p.Machine))
		}
	}
	return errors.Join(errs...)
}

// ComparePoint says in what a point differs from what it should be: names and
// sizes of disks, a whole restore, what NextData calls a hole, and reads here
// and there.
func ComparePoint(ctx context.Context, r *repo.Repository, want Point) error {
	pr, err := r.OpenPoint(want.ID)
	if err != nil {
		return err
	}
	return errors.Join(CompareReader(ctx, pr, want), pr.Close())
}

// CompareReader is ComparePoint for a point that is open, and may have expired
// since.
func CompareReader(ctx context.Context, pr *repo.Reader, want Point) error {
	if got := pr.Point().Disks; len(got) != len(want.Disks) {
		return fmt.Errorf("point %s has %d disks, want %d", want.ID, len(got), len(want.Disks))
	}
	for _, w := range want.Disks {
		d, err := pr.Disk(w.Name)
		if err == nil {
			err = compareDisk(ctx, d, w.Disk)
		}
		if err != nil {
			return fmt.Errorf("point %s, disk %s: %w", want.ID, w.Name, err)
		}
	}
	return nil
}

func compareDisk(ctx context.Context, got *repo.Disk, want *Disk) error {
	if got.Size() != want.size {
		return fmt.Errorf("%d bytes, want %d", got.Size(), want.size)
	}
	restored := restoreTarget{want: want}
	if _, err := got.Restore(ctx, &restored, repo.RestoreOptions{}); err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	if err := restored.rest(); err != nil {
		return err
	}
	if err := compareHoles(got, want); err != nil {
		return err
	}
	rng := rand.New(rand.NewPCG(uint64(want.size), 1))
	for range 3 {
		if err := CompareRead(ctx, got, want, rng); err != nil {
			return err
		}
	}
	return compareEnd(got, want)
}

// restoreTarget compares what is written to it.
type restoreTarget struct {
	want *Disk

	mu      sync.Mutex // guards written
	written [][2]int64 // from, to
}

// WriteAt implements io.WriterAt, for several callers at once.
func (t *restoreTarget) WriteAt(p []byte, off int64) (int, error) {
	q := make([]byte, len(p))
	if n, _ := t.want.ReadAt(q, off); n < len(p) || !bytes.Equal(p, q) {
		return 0, fmt.Errorf("%d bytes at %d are not those that were backed up", len(p), off)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.written = append(t.written, [2]int64{off, off + int64(len(p))})
	return len(p), nil
}

// rest looks at what was not written.
func (t *restoreTarget) rest() error {
	slices.SortFunc(t.written, func(a, b [2]int64) int { return cmp.Compare(a[0], b[0]) })
	end := int64(0)
	for _, w := range append(t.written, [2]int64{t.want.size, t.want.size}) {
		if w[0] < end {
			return fmt.Errorf("restore wrote byte %d twice", w[0])
		}
		if !t.want.zero(end, w[0]-end) {
			return fmt.Errorf("restore left out data between %d and %d", end, w[0])
		}
		end = w[1]
	}
	return nil
}

// compareHoles walks the disk by NextData: what it passes over must be zeros.
func compareHoles(got *repo.Disk, want *Disk) error {
	for off := int64(0); ; {
		start, end, err := got.NextData(off)
		if errors.Is(err, io.EOF) {
			start, end, err = want.size, want.size, nil
		}
		if err != nil {
			return fmt.Errorf("next data at %d: %w", off, err)
		}
		if start < off || end < start || end > want.size || start == end && start < want.size {
			return fmt.Errorf("next data at %d: from %d to %d of %d", off, start, end, want.size)
		}
		if !want.zero(off, start-off) {
			return fmt.Errorf("next data at %d passes over data before %d", off, start)
		}
		if off = end; off == want.size {
			return nil
		}
	}
}

// CompareRead reads somewhere and compares.
func CompareRead(ctx context.Context, got *repo.Disk, want *Disk, rng *rand.Rand) error {
	if want.size == 0 {
		return nil
	}
	off := rng.Int64N(want.size)
	p := make([]byte, 1+rng.IntN(100<<10))
	if rng.IntN(2) == 0 {
		p = p[:1+rng.IntN(min(len(p), 5000))]
	}
	q := make([]byte, len(p))
	n, err := got.ReadAtContext(ctx, p, off)
	wantN, wantErr := want.ReadAt(q, off)
	switch {
	case n != wantN || !errors.Is(err, wantErr):
		return fmt.Errorf("read %d bytes at %d: got %d, %v, want %d, %v", len(p), off, n, err, wantN, wantErr)
	case !bytes.Equal(p[:n], q[:n]):
		return fmt.Errorf("read %d bytes at %d: other bytes than were backed up", len(p), off)
	}
	return nil
}

func compareEnd(got *repo.Disk, want *Disk) error {
	p := make([]byte, 9)
	q := make([]byte, 9)
	from := max(0, want.size-5)
	n, err := got.ReadAt(p, from)
	m, _ := want.ReadAt(q, from)
	if n != m || !errors.Is(err, io.EOF) || !bytes.Equal(p[:n], q[:m]) {
		return fmt.Errorf("read over the end: got %x, %v, want %x, EOF", p[:n], err, q[:m])
	}
	return nil
}
