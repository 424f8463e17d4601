package nfs

import (
	"slices"
	"sync"
	"time"
)

// lane is a kind of work with workers of its own, so that one kind never waits
// behind another.
type lane uint8

const (
	laneMeta  lane = iota // attributes, names looked up, directories read
	laneRead              // reads that may have to wait
	laneWrite             // writes and commits
	laneNames             // changes of names and attributes
	lanes
)

// job is a request on its way to a worker.
type job interface {
	// run does it, and sees to it that what it holds is released at last.
	run()

	// drop ends a job whose connection is gone; false if it is to run after all,
	// because somebody else waits for it.
	drop() bool
}

// sched hands jobs to workers, each connection in turn, and keeps count of the
// bytes that are held for connections: for their long requests, for the replies
// of reads under way, and for replies that clients have not taken yet.
//
// A connection that holds its share gets no more work and is not read from; the
// share is limit divided by the connections, at most perConn. One request it
// gets in any case, a long one if all together hold less than limit.
type sched struct {
	limit   int64
	perConn int64

	mu      sync.Mutex // guards all below and every account
	held    int64
	peak    int64
	conns   int
	starved []*account // that wait because of limit, not of their share
	lanes   [lanes]struct {
		workers, busy int
		ready         []*account // those with jobs, in turn
	}
	wg sync.WaitGroup // of workers
}

// account is a connection's part of a sched.
type account struct {
	held    int64
	pending int // jobs that no worker has begun, none of which is part of held
	queues  [lanes][]queued
	running int       // jobs that a worker has
	room    sync.Cond // L is the sched's mu
	dead    bool
	late    bool // drain has waited long enough
}

type queued struct {
	job  job
	cost int64 // bytes to hold while it runs and until its reply is sent
}

const (
	// maxPending is how many requests of a connection wait for workers.
	maxPending = 1024

	// pendingBytes is what one of those takes: its arguments in a buffer of the
	// shortest kind, and itself.
	pendingBytes  = shortestBytes + 512
	shortestBytes = 1<<smallestBuffer + bufferSlack

	// alwaysBytes is what a connection that holds nothing gets at any time.
	alwaysBytes = 64 << 10
)

func newSched(limit, perConn int64, workers [lanes]int) *sched {
	s := &sched{limit: limit, perConn: perConn}
	for i := range s.lanes {
		s.lanes[i].workers = workers[i]
	}
	return s
}

func (s *sched) open() *account {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns++
	a := &account{}
	a.room.L = &s.mu
	return a
}

// close lets nobody wait for a any more. Jobs that no worker has begun are
// dropped, or run if somebody else waits for them.
func (s *sched) close(a *account) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns--
	a.dead = true
	a.room.Broadcast()
	s.startAll()
}

// drain waits until no worker has a job of a, which is closed, at most for d.
func (s *sched) drain(a *account, d time.Duration) {
	late := time.AfterFunc(d, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		a.late = true
		a.room.Broadcast()
	})
	defer late.Stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	for a.running > 0 && !a.late {
		a.room.Wait()
	}
}

type verdict uint8

const (
	fits verdict = iota
	overShare
	overLimit
)

// judge says whether a may hold n bytes more, of which a request that has own
// bytes already is to be the owner. Under mu.
func (s *sched) judge(a *account, n, own int64) verdict {
	switch {
	case a.dead || n == 0:
		return fits
	case a.held == own:
		if own+n <= alwaysBytes || s.held+n <= s.limit || s.held == own {
			return fits
		}
		return overLimit
	case a.held+n > s.share():
		return overShare
	case s.held+n > s.limit:
		return overLimit
	}
	return fits
}

// share is what one connection may hold. Under mu.
func (s *sched) share() int64 { return min(s.perConn, s.limit/int64(max(s.conns, 1))) }

// busy says that a has enough jobs: as many as can be, or a quarter of its share
// in bytes. Those count for the limit, so that three quarters of it are always
// there for what lets jobs end. Under mu.
func (s *sched) busy(a *account) bool {
	return a.pending >= maxPending || int64(a.pending)*pendingBytes > s.share()/4
}

// hold counts n bytes for a, whether they fit or not.
func (s *sched) hold(a *account, n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.add(a, n)
}

func (s *sched) add(a *account, n int64) {
	a.held += n
	s.held += n
	s.peak = max(s.peak, s.held)
}

// wait returns once a, with own bytes of the request in question, may hold n
// bytes more, which it then does, and its jobs are not too many. It is false if
// the connection is gone.
func (s *sched) wait(a *account, n, own int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for !a.dead {
		v := s.judge(a, max(n, 1), own)
		if v == fits && !s.busy(a) {
			s.add(a, n)
			return true
		}
		if v == overLimit {
			s.starved = append(s.starved, a)
		}
		a.room.Wait()
	}
	return false
}

// try is wait for what need not wait.
func (s *sched) try(a *account, n int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a.dead || s.judge(a, n, 0) != fits {
		return false
	}
	s.add(a, n)
	return true
}

// full says whether wait(a, 0, 0) would wait.
func (s *sched) full(a *account) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.busy(a) || s.judge(a, 1, 0) != fits
}

// crowded says that little is left of limit.
func (s *sched) crowded() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.held > s.limit/4*3
}

// release is the opposite of hold.
func (s *sched) release(a *account, n int64) {
	if n == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	a.held -= n
	s.held -= n
	a.room.Signal()
	s.feed()
	s.startAll()
}

// feed wakes those that wait because of limit. Under mu.
func (s *sched) feed() {
	for _, a := range s.starved {
		a.room.Signal()
	}
	s.starved = s.starved[:0]
}

// submit queues a job.
func (s *sched) submit(a *account, l lane, j job, cost int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a.pending++
	s.held += pendingBytes
	s.peak = max(s.peak, s.held)
	if a.queues[l] = append(a.queues[l], queued{j, cost}); len(a.queues[l]) == 1 {
		s.lanes[l].ready = append(s.lanes[l].ready, a)
	}
	s.start(l)
}

func (s *sched) startAll() {
	for l := range lanes {
		s.start(l)
	}
}

// start begins workers of a lane for as many jobs as there are. Under mu.
func (s *sched) start(l lane) {
	lane := &s.lanes[l]
	for lane.busy < lane.workers {
		a, q, ok := s.next(l)
		if !ok {
			return
		}
		lane.busy++
		s.wg.Add(1)
		go s.work(l, a, q)
	}
}

// next takes the next job that may run and counts what it holds. Under mu.
func (s *sched) next(l lane) (*account, queued, bool) {
	lane := &s.lanes[l]
	for i, a := range lane.ready {
		q := a.queues[l][0]
		if s.judge(a, q.cost, 0) != fits {
			continue
		}
		// The others come before a's next.
		lane.ready = slices.Delete(lane.ready, i, i+1)
		if a.queues[l] = slices.Delete(a.queues[l], 0, 1); len(a.queues[l]) > 0 {
			lane.ready = append(lane.ready, a)
		}
		a.pending--
		a.running++
		s.held -= pendingBytes
		a.room.Signal()
		s.feed()
		if a.dead {
			q.cost = 0 // a read, and those are dropped
		}
		s.add(a, q.cost)
		return a, q, true
	}
	return nil, queued{}, false
}

func (s *sched) work(l lane, a *account, q queued) {
	defer s.wg.Done()
	for ok := true; ok; {
		s.mu.Lock()
		dead := a.dead
		s.mu.Unlock()
		if dead && q.job.drop() {
			s.release(a, q.cost)
		} else {
			q.job.run()
		}
		s.mu.Lock()
		a.running--
		a.room.Signal()
		if a, q, ok = s.next(l); !ok {
			s.lanes[l].busy--
		}
		s.mu.Unlock()
	}
}
