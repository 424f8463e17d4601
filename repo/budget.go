package repo

import (
	"context"
	"sync"
	"time"
)

// A budget slows reading down, so that others get their share of the disk. Safe
// for concurrent use.
type budget struct {
	bytesPerSecond int64   // 0: no limit
	share          float64 // of the time, that reading may take; 0 or 1: all

	mu   sync.Mutex // guards next
	next time.Time  // when the bytes read so far would have been read at the rate
}

// limited reports whether it slows anything down.
func (b *budget) limited() bool { return b.bytesPerSecond > 0 || b.share > 0 && b.share < 1 }

// spend accounts for n bytes that took so long to read, and waits.
func (b *budget) spend(ctx context.Context, n int, took time.Duration) error {
	wait := time.Duration(0)
	if b.share > 0 && b.share < 1 {
		wait = time.Duration(float64(took) * (1/b.share - 1))
	}
	if b.bytesPerSecond > 0 {
		wait = max(wait, b.pace(n))
	}
	if wait <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// pace returns how long the rate asks to wait after n more bytes. What was not
// used for a second is not saved up.
func (b *budget) pace(n int) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	if b.next.Before(now.Add(-time.Second)) {
		b.next = now
	}
	b.next = b.next.Add(time.Duration(float64(n) / float64(b.bytesPerSecond) * float64(time.Second)))
	return b.next.Sub(now)
}
