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
		c := newFrameCache(1 << 20)
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			_, _, err := c.borrow(ctx, frameKey{}, 8, func([]byte) error {
				<-ctx.Done()
				return ctx.Err()
			})
			if err == nil {
				t.Error("the one who lost interest got a frame")
			}
		}()
		synctest.Wait()
		go func() {
			data, giveBack, err := c.borrow(t.Context(), frameKey{}, 8, func(b []byte) error {
				b[0] = 7
				return nil
			})
			if err != nil || data[0] != 7 {
				t.Errorf("the one who waited: %v, %v", data, err)
				return
			}
			giveBack()
		}()
		synctest.Wait()
		cancel()
		synctest.Wait()
	})
}
