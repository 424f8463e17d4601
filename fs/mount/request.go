package mount

import (
	"context"
	"sync"
	"time"
)

// grace is for how long a request goes on after it was interrupted. Linux
// interrupts requests for any signal a process handles, a timer's or a child's
// end among them, and if the request then ends with EINTR, that is what the
// process gets to see, which no program expects of a file. So what ends soon
// ends well, and what hangs can be killed.
const grace = time.Second

// A request is the context of one. It ends a while after the kernel has
// interrupted the request, or at once when the mount ends. (Most requests are
// over before anybody asks for Done, so a goroutine comes only with that.)
type request struct {
	base   context.Context
	cancel <-chan struct{} // closed when the kernel interrupts

	mu    sync.Mutex    // guards the rest
	done  chan struct{} // made when it is asked for
	ended chan struct{} // closed when the request is over; made with done
}

func (s *served) begin(cancel <-chan struct{}) *request {
	return &request{base: s.base, cancel: cancel}
}

// end releases what the request has.
func (r *request) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended != nil {
		close(r.ended)
	}
}

func (r *request) Done() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.done == nil {
		r.done, r.ended = make(chan struct{}), make(chan struct{})
		go r.watch(r.done, r.ended)
	}
	return r.done
}

func (r *request) watch(done chan<- struct{}, ended <-chan struct{}) {
	select {
	case <-ended:
		return
	case <-r.base.Done():
	case <-r.cancel:
		t := time.NewTimer(grace)
		defer t.Stop()
		select {
		case <-ended:
			return
		case <-r.base.Done():
		case <-t.C:
		}
	}
	close(done)
}

func (r *request) Err() error {
	select {
	case <-r.cancel:
	case <-r.base.Done():
	default:
		return nil
	}
	select {
	case <-r.Done():
		return context.Canceled
	default:
		return nil
	}
}

func (r *request) Deadline() (time.Time, bool) { return time.Time{}, false }

func (r *request) Value(key any) any { return r.base.Value(key) }
