package nfs

import (
	"sync"
	"testing"
	"time"
)

// work is a job for tests.
type work struct {
	do      func()
	dropped func()
}

func (w work) run() { w.do() }

func (w work) drop() bool {
	if w.dropped == nil {
		return false
	}
	w.dropped()
	return true
}

func evenly(n int) (w [lanes]int) {
	for i := range w {
		w[i] = n
	}
	return w
}

// TestSchedTurns has two connections, one with many jobs: they take turns.
func TestSchedTurns(t *testing.T) {
	s := newSched(1<<20, 1<<20, evenly(1))
	a, b := s.open(), s.open()
	var order []string
	begin := make(chan struct{})
	s.submit(a, laneRead, work{do: func() { <-begin }}, 0)
	for range 5 {
		s.submit(a, laneRead, work{do: func() { order = append(order, "a") }}, 0)
	}
	for range 2 {
		s.submit(b, laneRead, work{do: func() { order = append(order, "b") }}, 0)
	}
	close(begin)
	s.wg.Wait()
	got := ""
	for _, o := range order {
		got += o
	}
	if got != "ababaaa" {
		t.Errorf("ran %s", got)
	}
}

// TestSchedLanes shows that one lane's jobs do not keep another's waiting.
func TestSchedLanes(t *testing.T) {
	s := newSched(1<<20, 1<<20, evenly(2))
	a := s.open()
	hold := make(chan struct{})
	for range 10 {
		s.submit(a, laneRead, work{do: func() { <-hold }}, 0)
	}
	done := make(chan struct{})
	s.submit(a, laneMeta, work{do: func() { close(done) }}, 0)
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Error("waits behind reads")
	}
	close(hold)
	s.wg.Wait()
}

// TestSchedShare lets jobs hold bytes: a connection has no more than its share
// under way, but one in any case, and all together no more than the limit.
func TestSchedShare(t *testing.T) {
	const mib = 1 << 20
	const pending = 20 * pendingBytes // all of them
	s := newSched(4*mib+pending, 3*mib, evenly(100))
	var mu sync.Mutex
	running, most := map[*account]int{}, map[*account]int{}
	hold := make(chan struct{})
	job := func(a *account, cost int64) work {
		return work{do: func() {
			mu.Lock()
			running[a]++
			most[a] = max(most[a], running[a])
			mu.Unlock()
			<-hold
			mu.Lock()
			running[a]--
			mu.Unlock()
			s.release(a, cost)
		}}
	}
	a := s.open()
	for range 10 {
		s.submit(a, laneRead, job(a, mib), mib)
	}
	b := s.open()
	for range 10 {
		s.submit(b, laneRead, job(b, mib), mib)
	}
	c := s.open()
	s.submit(c, laneRead, job(c, 100), 100) // short: always
	s.submit(c, laneRead, job(c, mib), mib)
	time.Sleep(50 * time.Millisecond)
	mu.Lock()
	// What waits is part of the limit, too.
	if running[a] != 3 || running[b] != 1 || running[c] != 1 {
		t.Errorf("%d, %d and %d jobs run, want 3, 1 and 1", running[a], running[b], running[c])
	}
	mu.Unlock()
	close(hold)
	s.wg.Wait()
	if s.held != 0 || s.peak > 4*mib+pending+100 || most[a] > 3 {
		t.Errorf("%d bytes are held, %d were at most; %d jobs of one", s.held, s.peak, most[a])
	}
}

// TestSchedWait lets a reader wait for room, and be told of the end.
func TestSchedWait(t *testing.T) {
	s := newSched(1000_000, 500_000, evenly(1))
	a, b := s.open(), s.open()
	if !s.wait(a, 400_000, 0) || !s.try(a, 50_000) || s.try(a, 200_000) {
		t.Error("a share of 500,000 bytes")
	}
	got := make(chan bool)
	go func() { got <- s.wait(a, 200_000, 0) }()
	select {
	case <-got:
		t.Error("did not wait")
	case <-time.After(20 * time.Millisecond):
	}
	s.release(a, 300_000)
	if !<-got {
		t.Error("no room when there is")
	}
	s.hold(b, 650_000) // all there is
	go func() { got <- s.wait(a, 300_000, 350_000) }()
	time.Sleep(10 * time.Millisecond)
	s.release(b, 650_000)
	if !<-got {
		t.Error("no room for the rest of one's own when there is")
	}
	go func() { got <- s.wait(a, 500_000, 0) }()
	time.Sleep(10 * time.Millisecond)
	s.close(a)
	if <-got {
		t.Error("room for who is gone")
	}
}

// TestSchedDrop closes a connection with jobs that have not begun.
func TestSchedDrop(t *testing.T) {
	s := newSched(1<<20, 1<<20, evenly(1))
	a := s.open()
	hold := make(chan struct{})
	var ran, dropped int
	s.submit(a, laneWrite, work{do: func() { <-hold }}, 0)
	for i := range 10 {
		w := work{do: func() { ran++ }}
		if i%2 == 0 {
			w.dropped = func() { dropped++ }
		}
		s.submit(a, laneWrite, w, 1000)
	}
	s.close(a)
	close(hold)
	s.wg.Wait()
	if ran != 5 || dropped != 5 || s.held != 0 {
		t.Errorf("%d ran, %d were dropped, %d bytes are held", ran, dropped, s.held)
	}
}

// TestSchedPending has a connection with nothing but short requests that wait.
func TestSchedPending(t *testing.T) {
	s := newSched(1<<20, 1<<20, evenly(1))
	a := s.open()
	hold := make(chan struct{})
	n := 0
	for ; !s.full(a); n++ {
		s.submit(a, laneRead, work{do: func() { <-hold }}, 0)
	}
	if most := 1 << 18 / pendingBytes; n < most || n > most+3 {
		t.Errorf("%d requests wait, their share is %d", n, most)
	}
	close(hold)
	if !s.wait(a, 0, 0) {
		t.Error("no room when they are done")
	}
	s.wg.Wait()
	if s.held != 0 {
		t.Errorf("%d bytes are held", s.held)
	}
}
