package nfs

import (
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// reply is one on its way to a client.
type reply struct {
	bufs    [][]byte // what is not written yet
	pooled  []byte   // goes back to the buffers
	release func()   // nil, or lets go of borrowed bytes
	cost    int64    // held for it
}

// smallReply is up to which length a reply overtakes longer ones.
const smallReply = 64 << 10

// sender writes replies to a connection: short ones first, each as one record,
// never making anybody wait but its own goroutine, which only works when the
// socket takes no more.
type sender struct {
	nc    net.Conn
	raw   syscall.RawConn // nil: only the goroutine writes
	stall time.Duration   // without progress for so long, the connection is closed
	done  func(*reply)    // is told of each reply that was sent, or never will be

	waitingSince atomic.Int64 // in nanoseconds: when the client last took something, 0 if it need not
	broken       atomic.Bool  // nothing more can be sent

	mu      sync.Mutex // guards all below
	writing bool       // somebody is, or the goroutine is about to
	handed  bool       // it is the goroutine that does
	current *reply     // begun
	small   []*reply
	large   []*reply
	dead    bool
	wake    sync.Cond

	// Of whoever is writing.
	now   reply
	one   [1][]byte
	iov   [][]byte
	wrote int
	err   error
	try   func(fd uintptr) bool
	wait  func(fd uintptr) bool
}

func newSender(nc net.Conn, stall time.Duration, done func(*reply)) *sender {
	s := &sender{nc: nc, stall: stall, done: done}
	s.wake.L = &s.mu
	if c, ok := nc.(syscall.Conn); ok && canWritev {
		s.raw, _ = c.SyscallConn()
	}
	s.try = func(fd uintptr) bool { s.wrote, s.err = writev(fd, s.iov); return true }
	s.wait = func(fd uintptr) bool { s.wrote, s.err = writev(fd, s.iov); return s.err != syscall.EAGAIN }
	return s
}

// send sends r, now or later.
func (s *sender) send(r *reply) {
	s.mu.Lock()
	switch {
	case s.dead:
		s.mu.Unlock()
		s.done(r)
		return
	case s.writing || s.raw == nil:
		s.enqueue(r)
		if !s.writing {
			s.hand(nil)
		}
		s.mu.Unlock()
		return
	}
	s.writing = true
	s.mu.Unlock()
	if s.writeSome(r, s.try) {
		s.done(r)
		r = nil
	}
	s.settle(r)
}

// sendNow sends p if that can be done at once, and else returns what is left of
// it: with begun it is the caller's turn until finish sends a copy of that,
// without begun send is to.
func (s *sender) sendNow(p []byte) (rest []byte, begun bool) {
	s.mu.Lock()
	if s.dead || s.writing || s.raw == nil {
		s.mu.Unlock()
		return p, false
	}
	s.writing = true
	s.mu.Unlock()
	s.one[0] = p
	s.now.bufs = s.one[:]
	if s.writeSome(&s.now, s.try) {
		s.settle(nil)
		return nil, true
	}
	return s.now.bufs[0], true
}

// finish goes on with what sendNow left.
func (s *sender) finish(r *reply) { s.settle(r) }

// settle ends the caller's turn at writing. rest, if not nil, is what it began.
func (s *sender) settle(rest *reply) {
	s.mu.Lock()
	switch {
	case s.dead:
		s.writing = false
		if rest != nil {
			s.mu.Unlock()
			s.done(rest)
			return
		}
	case rest != nil || len(s.small)+len(s.large) > 0:
		s.hand(rest)
	default:
		s.writing = false
		s.wake.Broadcast()
	}
	s.mu.Unlock()
}

// hand lets the goroutine write.
func (s *sender) hand(current *reply) {
	s.writing, s.handed, s.current = true, true, current
	s.wake.Broadcast()
}

func (s *sender) enqueue(r *reply) {
	n := 0
	for _, b := range r.bufs {
		n += len(b)
	}
	if n <= smallReply {
		s.small = append(s.small, r)
	} else {
		s.large = append(s.large, r)
	}
}

func (s *sender) dequeue() *reply {
	r := s.current
	switch {
	case r != nil:
		s.current = nil
	case len(s.small) > 0:
		r, s.small[0], s.small = s.small[0], nil, s.small[1:]
	case len(s.large) > 0:
		r, s.large[0], s.large = s.large[0], nil, s.large[1:]
	}
	return r
}

// loop is the goroutine. It ends when the connection does.
func (s *sender) loop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		for !s.handed && !s.dead {
			s.wake.Wait()
		}
		r := s.dequeue()
		if r == nil {
			if s.dead {
				return
			}
			s.writing, s.handed = false, false
			s.wake.Broadcast()
			continue
		}
		dead := s.dead
		s.mu.Unlock()
		if !dead {
			s.writeAll(r)
		}
		s.done(r)
		s.mu.Lock()
	}
}

// drain waits until all that there is to send has been sent, at most for d.
func (s *sender) drain(d time.Duration) {
	late := false
	timer := time.AfterFunc(d, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		late = true
		s.wake.Broadcast()
	})
	defer timer.Stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.writing && !s.dead && !late {
		s.wake.Wait()
	}
}

// close makes an end: nothing is written any more.
func (s *sender) close() {
	s.mu.Lock()
	s.dead = true
	s.wake.Broadcast()
	s.mu.Unlock()
	_ = s.nc.Close()
}

// abort ends the connection, of which no more requests are to be taken either.
func (s *sender) abort() {
	s.broken.Store(true)
	_ = s.nc.Close()
}

// stalledFor is how long the client has not taken a byte of what waits for it.
func (s *sender) stalledFor(now time.Time) time.Duration {
	since := s.waitingSince.Load()
	if since == 0 {
		return 0
	}
	return now.Sub(time.Unix(0, since))
}

// writeAll writes what is left of r, waiting for the client as long as it takes
// anything at all.
func (s *sender) writeAll(r *reply) {
	defer func() {
		s.waitingSince.Store(0)
		_ = s.nc.SetWriteDeadline(time.Time{}) // once passed, it would be in the way of the next reply
	}()
	for {
		s.waitingSince.Store(time.Now().UnixNano())
		_ = s.nc.SetWriteDeadline(time.Now().Add(s.stall))
		if s.raw == nil {
			bufs := net.Buffers(r.bufs)
			if _, err := bufs.WriteTo(s.nc); err != nil {
				s.abort()
			}
			return
		}
		if s.writeSome(r, s.wait) {
			return
		}
	}
}

// writeSome writes some of r in one system call and says whether nothing is
// left to be written, be it because the connection is broken.
func (s *sender) writeSome(r *reply, how func(fd uintptr) bool) bool {
	s.iov, s.wrote, s.err = r.bufs, 0, nil
	if err := s.raw.Write(how); err != nil {
		s.err = err
	}
	s.iov = nil
	switch s.err {
	case nil:
	case syscall.EAGAIN, syscall.EINTR:
		return false
	default:
		s.abort()
		return true
	}
	n := s.wrote
	for len(r.bufs) > 0 && n >= len(r.bufs[0]) {
		n -= len(r.bufs[0])
		r.bufs = r.bufs[1:]
	}
	if len(r.bufs) == 0 {
		return true
	}
	r.bufs[0] = r.bufs[0][n:]
	return false
}
