package redirect

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"
	"time"

	"holdfast/repo/vfs"
)

// adopt waits until a session that failed is repaired, compares it with what it
// may hold, and takes what it holds for what was written last: after a failure
// all of that is promised, unless something was written since.
func (w *world) adopt(verifier uint64, promised bool) error {
	for end := time.Now().Add(20 * time.Second); errors.Is(w.s.usable(false), ErrFailed); time.Sleep(100 * time.Microsecond) {
		if time.Now().After(end) {
			return errors.New("the session was not repaired")
		}
	}
	if w.s.Verifier() == verifier {
		return errors.New("the verifier is the same after a failure")
	}
	return w.take(promised)
}

// take compares the disks with what they may hold, and takes what they hold for
// what was written last.
func (w *world) take(promised bool) error {
	for k, d := range w.s.Disks() {
		v := w.model[k]
		p, err := v.snap().check(d)
		if err != nil {
			return err
		}
		v.write(p, 0)
		if promised {
			v.commit(0, int64(len(p)))
		}
	}
	return nil
}

// tryWork does n random operations and goes on after a failure. Every operation
// either succeeds, or is refused with an error that refuse allows, or loses what
// was not promised, which changes the verifier.
func (w *world) tryWork(ctx context.Context, rng *rand.Rand, n int, refuse ...error) error {
	verifier := w.s.Verifier()
	for range n {
		durable, err := w.tryOne(ctx, rng)
		refused := false
		for _, r := range refuse {
			refused = refused || errors.Is(err, r)
		}
		switch {
		case errors.Is(err, ErrFailed), w.s.Verifier() != verifier:
			// What succeeded came after the repair, and need not be durable.
			if err := w.adopt(verifier, err != nil); err != nil {
				return err
			}
			if err == nil {
				durable()
			}
			verifier = w.s.Verifier()
		case err == nil:
			durable()
		case refused || errors.Is(err, ErrReadOnly) || errors.Is(err, ErrBusy):
			if err := w.take(false); err != nil {
				return err
			}
		default:
			return err
		}
	}
	return nil
}

// tryOne does one operation, and returns what is to be noted when it succeeded.
func (w *world) tryOne(ctx context.Context, rng *rand.Rand) (noteDurable func(), err error) {
	all := func() {
		for _, v := range w.model {
			v.commit(0, int64(len(v.bytes)))
		}
	}
	k := rng.IntN(len(w.bases))
	d, v := w.s.Disks()[k], w.model[k]
	switch op := rng.IntN(20); {
	case op < 16:
		off, p := randomWrite(rng, len(w.bases[k].data))
		durable := rng.IntN(2) == 0
		v.write(p, off)
		_, err = d.Write(p, off, durable)
		return func() {
			if durable {
				v.commit(off, int64(len(p)))
			}
		}, err
	case op < 18:
		return all, d.Commit()
	case op < 19:
		return all, w.s.Checkpoint()
	}
	if w.s.Sealed() == nil {
		_, err = w.s.Seal()
		return all, err
	}
	return all, w.s.Merge(ctx)
}

// inTheEnd closes the session, reopens it after a power cut and compares.
func (w *world) inTheEnd() error {
	w.disk.Heal()
	if err := w.take(false); err != nil {
		return err
	}
	if err := w.s.Close(); err != nil {
		return fmt.Errorf("close: %w", err)
	}
	var snaps []snap
	for _, v := range w.model {
		snaps = append(snaps, v.snap())
	}
	s, err := Open(w.mem.CrashClone(vfs.CrashOptions{}), specs(w.bases...), w.opt)
	if err != nil {
		return err
	}
	for k, d := range s.Disks() {
		if _, err := snaps[k].check(d); err != nil {
			return errors.Join(fmt.Errorf("opened again: %w", err), s.Close())
		}
	}
	return s.Close()
}

// TestFailedOperations lets one operation fail in each run, or two: syncs, whose
// bytes are lost, and all others with EIO and ENOSPC.
func TestFailedOperations(t *testing.T) {
	const n = 25
	tests := []struct {
		name string
		is   func(vfs.Op) bool
		err  error
	}{
		{"sync", func(op vfs.Op) bool { return op.Kind == vfs.OpSync }, syscall.EIO},
		{"other", func(op vfs.Op) bool { return op.Kind != vfs.OpSync && op.Kind != vfs.OpLock }, syscall.EIO},
		{"full", func(op vfs.Op) bool { return op.Kind == vfs.OpWrite || op.Kind == vfs.OpPreallocate }, syscall.ENOSPC},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			runs, failures, readOnly := 0, 0, 0
			for skip := 0; ; skip += 1 + runs/12 {
				w := newWorld(uint64(skip))
				if err := w.create(); err != nil {
					t.Fatal(err)
				}
				seen, hit := 0, 0
				var mu sync.Mutex // the session writes from several goroutines
				w.disk.OnOp(func(i int, op vfs.Op) {
					mu.Lock()
					defer mu.Unlock()
					if tt.is(op) {
						// The fault takes effect from the next operation on; that
						// is near enough when it is one of these.
						if seen == skip || seen == skip+9 && skip%2 == 1 {
							w.disk.FailAt(i+1, tt.err)
							hit++
						}
						seen++
					}
				})
				verifier := w.s.Verifier()
				err := w.tryWork(t.Context(), rand.New(rand.NewPCG(uint64(skip), 3)), steps(n), ErrNoSpace, syscall.EIO, syscall.ENOSPC)
				w.disk.OnOp(nil)
				if w.s.Verifier() != verifier {
					failures++
				}
				if errors.Is(w.s.usable(true), ErrReadOnly) {
					readOnly++
				}
				if err = errors.Join(err, w.inTheEnd()); err != nil {
					for i, op := range w.disk.Ops() {
						if op.Err != nil {
							t.Logf("%d %v", i, op)
						}
					}
					t.Fatalf("failure %d: %v", skip, err)
				}
				runs++
				mu.Lock()
				done := hit == 0
				mu.Unlock()
				if done {
					break
				}
			}
			t.Logf("%d runs, verifier changed in %d, read-only after %d", runs, failures, readOnly)
		})
	}
}

// TestRepairFails lets a sync fail on a volume that can't be read then: nothing
// is returned for what is not known, and nothing panics.
func TestRepairFails(t *testing.T) {
	w := newWorld(9)
	w.opt.markAfter = time.Millisecond
	if err := w.create(); err != nil {
		t.Fatal(err)
	}
	d := w.s.Disks()[0]
	if _, err := d.Write(make([]byte, 3*grainBytes), 0, true); err != nil {
		t.Fatal(err)
	}
	w.disk.FailReads("*", syscall.EIO)
	w.disk.Inject(vfs.Fault{At: w.disk.Count(), Sticky: true})
	if _, err := d.Write(make([]byte, 3*grainBytes), 0, true); err == nil {
		t.Fatal("written")
	}
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		w.s.mu.RLock()
		lost := w.s.lost
		w.s.mu.RUnlock()
		if lost != nil {
			break
		}
		if time.Now().After(end) {
			t.Fatal("no repair was tried")
		}
	}
	if _, err := d.ReadAt(make([]byte, 10), 0); !errors.Is(err, ErrFailed) {
		t.Errorf("read: %v", err)
	}
	if _, _, err := d.NextData(0); !errors.Is(err, ErrFailed) {
		t.Errorf("next data: %v", err)
	}
	if _, err := w.s.Seal(); !errors.Is(err, ErrFailed) {
		t.Errorf("seal: %v", err)
	}
	if err := w.s.Checkpoint(); !errors.Is(err, ErrFailed) {
		t.Errorf("checkpoint: %v", err)
	}
	if st, err := w.s.Stats(); err != nil || !st.ReadOnly {
		t.Errorf("stats: %+v, %v", st, err)
	}
	w.s.toMark()
	time.Sleep(10 * time.Millisecond)
	if err := w.s.Close(); !errors.Is(err, ErrFailed) {
		t.Errorf("close: %v", err)
	}
	w.disk.Heal()
	s := mustOpen(t, w.mem, w.opt, w.bases...)
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
