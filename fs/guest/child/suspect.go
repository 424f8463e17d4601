package child

import (
	"context"
	"fmt"
	"hash/maphash"
	"time"

	"holdfast/fs"
)

// suspect is a question that was under way when a process died.
type suspect struct {
	deaths int
	last   time.Time
}

const (
	// guiltyDeaths is how many processes a question may see die before it is
	// refused. From the first on it is asked while no other suspect is, so that
	// the innocent are soon cleared.
	guiltyDeaths = 3

	// forget is when a suspect is given another chance.
	forget = 10 * time.Minute

	maxSuspects = 4096
)

// suspect notes what was under way when a process died. c.mu is held.
func (c *Child) suspect(calls map[uint64]*call) {
	now := time.Now()
	for _, q := range calls {
		if len(c.suspects) >= maxSuspects {
			clear(c.suspects)
		}
		s := c.suspects[q.key]
		s.deaths++
		if q.guilty != nil {
			s.deaths = guiltyDeaths
		}
		s.last = now
		c.suspects[q.key] = s
	}
}

// ask asks the process, unless this very question has ended some before. The
// error of the answer is returned as it is.
func (c *Child) ask(ctx context.Context, k *conn, kind kind, f frame) (*cursor, error) {
	key := maphash.Bytes(c.hashing, f[headerBytes:]) + uint64(kind)
	c.mu.Lock()
	s, suspected := c.suspects[key]
	if suspected && time.Since(s.last) > forget {
		delete(c.suspects, key)
		suspected = false
	}
	c.mu.Unlock()
	if !suspected {
		return k.call(ctx, kind, f, key)
	}
	if s.deaths >= guiltyDeaths {
		return nil, &lostError{fmt.Errorf("%v: the reading process has ended over it before: %w", kind, fs.ErrDamaged)}
	}
	select {
	case c.alone <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-c.alone }()
	cur, err := k.call(ctx, kind, f, key)
	if cur != nil { // answered: it was another's fault
		c.mu.Lock()
		delete(c.suspects, key)
		c.mu.Unlock()
	}
	return cur, err
}
