package redirect

import (
	"sync"
	"time"
)

// rounds lets all who wait for a sync share one: whoever comes while one runs
// joins the next, and one of those leads it.
//
// Those whom a round has served often come again at once, but a little too late
// for the one that begins then: there would be two groups that wait for each
// other. So a round is held open for a moment, until as many have joined as
// there were lately. Where nobody comes, that is soon given up.
type rounds struct {
	mu   sync.Mutex
	busy bool
	next *round

	served int           // who shared the round before
	ended  time.Time     // when that ended
	took   time.Duration // how long it took
	misses int           // how often in a row a round was held open for nobody
	skip   int           // how many rounds are not held open because of that
}

type round struct {
	n    int           // who shares it
	want int           // who is waited for; 0: nobody
	full chan struct{} // closed when so many have joined
	lead chan struct{} // one token: whoever takes it leads
	done chan struct{}
	err  error
}

const (
	minPatience = 50 * time.Microsecond // less can't be measured
	maxPatience = 2 * time.Millisecond
)

// sync makes everything durable that was queued before.
func (s *Session) sync() error {
	c := &s.rounds
	r, first := c.join()
	if !first {
		select {
		case <-r.done:
			return r.err
		case <-r.lead:
		}
	}
	c.begin(r, first)
	began := time.Now()
	r.err = s.flushAndSync()
	c.end(r, began)
	return r.err
}

// join joins the next round and tells whether to lead it at once.
func (c *rounds) join() (r *round, first bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.next == nil {
		c.next = &round{full: make(chan struct{}), lead: make(chan struct{}, 1), done: make(chan struct{})}
	}
	r = c.next
	if r.n++; r.n == r.want {
		close(r.full)
	}
	first, c.busy = !c.busy, true
	return r, first
}

// begin waits for those who can be expected, and closes the round to others.
// first says that no round was under way when this one was made.
func (c *rounds) begin(r *round, first bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if d := c.patience(r, first); d > 0 {
		before := r.n
		c.mu.Unlock()
		t := time.NewTimer(d)
		select {
		case <-r.full:
		case <-t.C:
		}
		t.Stop()
		c.mu.Lock()
		c.learn(r.n-before, r.want-before)
	}
	c.next = nil
}

// patience says how many are expected in the round, and how long it is held
// open for them. mu is held.
func (c *rounds) patience(r *round, first bool) time.Duration {
	want := c.served
	if !first {
		want += r.n // these waited while those were served
	}
	d := min(c.took/2, maxPatience)
	switch {
	case want <= r.n || d < minPatience || time.Since(c.ended) > d:
		return 0
	case c.skip > 0:
		c.skip--
		return 0
	}
	r.want = want
	return d
}

// learn notes how many came of those who were expected. mu is held.
func (c *rounds) learn(came, expected int) {
	if 2*came >= expected {
		c.misses = 0
		return
	}
	c.misses = min(c.misses+1, 7)
	c.skip = 1 << c.misses
}

// end lets those who shared the round go, and the next one begin.
func (c *rounds) end(r *round, began time.Time) {
	c.mu.Lock()
	c.served, c.ended = r.n, time.Now()
	c.took = c.ended.Sub(began)
	if c.next != nil {
		c.next.lead <- struct{}{}
	} else {
		c.busy = false
	}
	c.mu.Unlock()
	close(r.done)
}
