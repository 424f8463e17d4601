package repo

import (
	"context"
	"testing"
	"testing/synctest"
)

// TestBorrowAfterCancel: one reader that loses interest while it loads a frame
// costs another one, who waits for that frame, nothing.
func TestBorrowAfterCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := NewFrameCache(1<<20, 0)
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			_, err := c.borrow(ctx, frameKey{}, 8, true, func([]byte) error {
				<-ctx.Done()
				return ctx.Err()
			})
			if err == nil {
				t.Error("the one who lost interest got a frame")
			}
		}()
		synctest.Wait()
		go func() {
			e, err := c.borrow(t.Context(), frameKey{}, 8, true, func(b []byte) error {
				b[0] = 7
				return nil
			})
			if err != nil || e.data[0] != 7 {
				t.Errorf("the one who waited: %v, %v", e, err)
				return
			}
			c.giveBack(e)
		}()
		synctest.Wait()
		cancel()
		synctest.Wait()
	})
}

// TestBorrowAfterPanic: a load that panics leaves nobody waiting.
func TestBorrowAfterPanic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := NewFrameCache(1<<20, 0)
		fall := make(chan struct{})
		go func() {
			defer func() {
				if recover() == nil {
					t.Error("the panic was swallowed")
				}
			}()
			_, _ = c.borrow(t.Context(), frameKey{}, 8, true, func([]byte) error {
				<-fall
				panic("a mistake")
			})
		}()
		synctest.Wait()
		go func() {
			if _, err := c.borrow(t.Context(), frameKey{}, 8, true, nil); err != errUnfilled {
				t.Errorf("the one who waited: %v, want %v", err, errUnfilled)
			}
		}()
		synctest.Wait()
		close(fall)
		synctest.Wait()
		if s := c.Stats(); s.Waiting != 0 || s.Bytes != 0 {
			t.Errorf("left over: %+v", s)
		}
	})
}

// fill is a load that makes a frame of one value.
func fill(v byte) func([]byte) error {
	return func(b []byte) error {
		for i := range b {
			b[i] = v
		}
		return nil
	}
}

// TestLentFrames: what is lent is neither forgotten nor used again, whatever
// else comes, and all of it counts.
func TestLentFrames(t *testing.T) {
	const n = 64
	c := NewFrameCache(4*n, 0)
	var lent []*frameEntry
	for i := range 10 {
		e, err := c.borrow(t.Context(), frameKey{frame: i}, n, true, fill(byte(i)))
		if err != nil {
			t.Fatal(err)
		}
		lent = append(lent, e)
	}
	if s := c.Stats(); s.Bytes != 10*n {
		t.Errorf("%d bytes held with ten frames of %d lent", s.Bytes, n)
	}
	for i := range 100 {
		e, err := c.borrow(t.Context(), frameKey{frame: 100 + i}, n, true, fill(200))
		if err != nil {
			t.Fatal(err)
		}
		c.giveBack(e)
	}
	for i, e := range lent {
		if !c.has(e.key) {
			t.Errorf("lent frame %d was forgotten", i)
		}
		for _, b := range e.data {
			if b != byte(i) {
				t.Fatalf("lent frame %d became %d", i, b)
			}
		}
	}
	c.giveBack(lent...)
	if s := c.Stats(); s.Bytes > s.BudgetBytes {
		t.Errorf("%d bytes held of %d with nothing lent", s.Bytes, s.BudgetBytes)
	}
}

// TestWarmFrames: what was warmed counts as warm until it is asked for or
// forgotten.
func TestWarmFrames(t *testing.T) {
	const n = 64
	c := NewFrameCache(4*n, 0)
	warm := func(frame int, most int64) (there bool) {
		t.Helper()
		e, there := c.prepare(frameKey{frame: frame}, n, func(s FrameStats, bytes int64) bool { return s.WarmBytes+bytes <= most*n })
		if e == nil {
			return there
		}
		if err := c.load(e, fill(1)); err != nil {
			t.Fatal(err)
		}
		c.giveBack(e)
		return true
	}
	demand := func(frame int) {
		t.Helper()
		e, err := c.borrow(t.Context(), frameKey{frame: frame}, n, true, fill(1))
		if err != nil {
			t.Fatal(err)
		}
		c.giveBack(e)
	}
	want := func(warm int64) {
		t.Helper()
		if got := c.Stats().WarmBytes; got != warm*n {
			t.Errorf("%d warm bytes, want %d frames of %d", got, warm, n)
		}
	}
	for i := range 3 {
		if !warm(i, 3) || !warm(i, 0) {
			t.Errorf("frame %d was not warmed", i)
		}
	}
	if warm(3, 3) {
		t.Error("warmed more than may be")
	}
	want(3)
	demand(0)
	want(2)
	if e := c.have(frameKey{frame: 1}); e == nil {
		t.Error("a warm frame isn't there")
	} else {
		c.giveBack(e)
	}
	want(1)
	for i := range 4 {
		demand(10 + i)
	}
	want(0)
	if s := c.Stats(); s.Hits != 1 || s.Misses != 5 || s.Bytes != 4*n {
		t.Errorf("%+v", s)
	}
}

// TestChanged: who warms is told when no reader waits, and when there is room.
func TestChanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := NewFrameCache(1<<20, 0)
		hold := make(chan struct{})
		wait := func([]byte) error { <-hold; return nil }
		borrow := func(frame int) {
			e, err := c.borrow(t.Context(), frameKey{frame: frame}, 8, true, wait)
			if err != nil {
				t.Error(err)
				return
			}
			c.giveBack(e)
		}
		warm := func(frame int) {
			e, _ := c.prepare(frameKey{frame: frame}, 8, func(FrameStats, int64) bool { return true })
			if err := c.load(e, wait); err != nil {
				t.Error(err)
			}
			c.giveBack(e)
		}
		told := func(ch <-chan struct{}) bool {
			synctest.Wait()
			select {
			case <-ch:
				return true
			default:
				return false
			}
		}
		ch := c.Changed()
		if ch != c.Changed() {
			t.Error("two that listen do not hear the same")
		}
		go warm(1)
		go borrow(2)
		if told(ch) || c.Stats().Waiting != 1 {
			t.Errorf("told while a reader waits: %+v", c.Stats())
		}
		close(hold)
		if !told(ch) || c.Stats().Waiting != 0 {
			t.Errorf("not told that nobody waits: %+v", c.Stats())
		}
		ch = c.Changed()
		warm(3)
		if told(ch) {
			t.Error("told of more that is warm")
		}
		c.giveBack(c.have(frameKey{frame: 3}))
		if !told(ch) {
			t.Error("not told of less that is warm")
		}
	})
}
