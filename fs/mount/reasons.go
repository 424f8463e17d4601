package mount

import (
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// reasons logs why requests fail, each reason once a minute: whoever reads a
// damaged file may ask very often.
type reasons struct {
	log *slog.Logger

	mu    sync.Mutex // guards the rest
	told  map[string]bool
	since time.Time // of told
}

func newReasons(log *slog.Logger) *reasons {
	return &reasons{log: log, told: make(map[string]bool)}
}

// Bounds of what is remembered, and so of what is logged in a minute.
const (
	reasonsFor = time.Minute
	maxReasons = 1000
)

func (r *reasons) tell(message string, args ...any) {
	if r.fresh(message+fmt.Sprint(args...), time.Now()) {
		r.log.Warn(message, args...)
	}
}

// fresh says whether a text was not told lately, and notes that it is told now.
func (r *reasons) fresh(text string, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now.Sub(r.since) > reasonsFor {
		clear(r.told)
		r.since = now
	}
	if r.told[text] || len(r.told) >= maxReasons {
		return false
	}
	r.told[text] = true
	return true
}
