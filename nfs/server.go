package nfs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"holdfast/fs"
)

// Options are what a Server can be told. The zero value serves nothing, well.
type Options struct {
	// Exports are those offered at first; see SetExports.
	Exports []Export

	// MaxTransfer is how many bytes one READ or WRITE moves at most: a power of
	// two from 64 KiB to 1 MiB, 0: 1 MiB.
	MaxTransfer int

	// InFlightBytes bounds what is held in memory for requests and replies of
	// all connections, 0: 256 MiB. ConnBytes bounds it for one, 0: 8 MiB. A
	// connection's share is never more than InFlightBytes divided by their number.
	InFlightBytes int64
	ConnBytes     int64

	// MaxConns is how many connections there can be, 0: 1024. Clients that may
	// use no export get none once half of those are taken.
	MaxConns int

	// Workers is how many reads may wait for their bytes at once, and likewise
	// how many writes, 0: 128.
	Workers int

	// RetryFor is how long a request goes on asking a tree that answers
	// fs.ErrRetry before the client is told to come again, 0: 5 s.
	RetryFor time.Duration

	// StallTimeout ends a connection whose client neither takes a byte of its
	// replies nor sends the rest of a request for so long, 0: 60 s. While three
	// quarters of InFlightBytes are held, a twelfth of that is too long.
	StallTimeout time.Duration

	// Log gets what goes wrong. nil: nothing does.
	Log *slog.Logger

	// Observe, if not nil, is told of each request once it is done. It is
	// called by many goroutines at once and must not wait.
	Observe func(Call)
}

// Server serves exports over NFS version 3, with the MOUNT protocol on the same
// port. Safe for concurrent use.
type Server struct {
	opt     Options
	log     *slog.Logger
	ctx     context.Context // of changes; ends with the server
	cancel  context.CancelFunc
	sched   *sched
	replies *replies
	exports atomic.Pointer[exports]
	mounts  mounts
	ports   atomic.Pointer[[]Mapping]

	retrying atomic.Int32
	tracing  atomic.Bool
	count    counters

	mu     sync.Mutex // guards all below
	closed bool
	open   map[interface{ Close() error }]bool // listeners and connections
	conns  map[*conn]bool
	ushers bool // the goroutine that shows stalled clients out is there
	wg     sync.WaitGroup
}

// ErrClosed is what serving ends with when the server is closed.
var ErrClosed = errors.New("nfs: server closed")

// New makes a server. Notes that the trees of the exports recorded before tell
// it what it has answered.
func New(opt Options) (*Server, error) {
	opt.MaxTransfer = cmp.Or(opt.MaxTransfer, 1<<20)
	opt.InFlightBytes = cmp.Or(opt.InFlightBytes, 256<<20)
	opt.ConnBytes = cmp.Or(opt.ConnBytes, 8<<20)
	opt.MaxConns = cmp.Or(opt.MaxConns, 1024)
	opt.Workers = cmp.Or(opt.Workers, 128)
	opt.RetryFor = cmp.Or(opt.RetryFor, 5*time.Second)
	opt.StallTimeout = cmp.Or(opt.StallTimeout, time.Minute)
	if n := opt.MaxTransfer; n < 64<<10 || n > 1<<20 || n&(n-1) != 0 {
		return nil, fmt.Errorf("nfs: %d bytes a transfer: %w", n, fs.ErrInvalid)
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{opt: opt, log: opt.Log, replies: newReplies(), open: map[interface{ Close() error }]bool{}, conns: map[*conn]bool{}}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.sched = newSched(opt.InFlightBytes, opt.ConnBytes, [lanes]int{
		laneMeta: max(opt.Workers/4, 2), laneRead: opt.Workers, laneWrite: opt.Workers, laneNames: max(opt.Workers/2, 2),
	})
	s.ports.Store(&[]Mapping{})
	s.exports.Store(&exports{})
	return s, s.SetExports(s.ctx, opt.Exports)
}

// SetExports replaces the exports. Those that go, or allow somebody no more, are
// gone for requests that come after it; requests under way end as they would.
func (s *Server) SetExports(ctx context.Context, list []Export) error {
	all, err := newExports(list)
	if err != nil {
		return fmt.Errorf("nfs: %w", err)
	}
	old := s.exports.Load()
	for _, e := range all.list {
		if was := old.byID[e.ID]; was != nil && was.Tree == e.Tree {
			continue
		}
		if t, ok := e.Tree.(fs.RecordTree); ok {
			if err := t.RecordedNotes(ctx, s.replies.recall); err != nil {
				return fmt.Errorf("nfs: export %s: recall what was answered: %w", e.Path, err)
			}
		}
	}
	s.exports.Store(all)
	return nil
}

// Serve answers NFS and MOUNT requests of the connections that l accepts, until
// Close, when it returns ErrClosed, or until l fails. It closes l.
func (s *Server) Serve(l net.Listener) error {
	return s.serve(l, []program{nfsProgram, mountProgram})
}

// ServePortmap answers portmap requests of the connections that l accepts; see
// SetPorts.
func (s *Server) ServePortmap(l net.Listener) error {
	return s.serve(l, []program{portmapProgram})
}

func (s *Server) serve(l net.Listener, programs []program) error {
	if !s.add(l) {
		_ = l.Close()
		return ErrClosed
	}
	defer s.remove(l)
	for {
		nc, err := l.Accept()
		if err != nil {
			if s.ctx.Err() != nil {
				return ErrClosed
			}
			if !temporary(err) {
				return fmt.Errorf("nfs: %w", err)
			}
			s.log.Warn("can't accept a connection", "error", err.Error())
			time.Sleep(50 * time.Millisecond)
			continue
		}
		s.accept(nc, programs)
	}
}

// temporary says whether a listener may well accept the next connection: this
// one was reset, or there are no file descriptors at the moment.
func temporary(err error) bool {
	var t interface{ Temporary() bool }
	return errors.As(err, &t) && t.Temporary()
}

func (s *Server) accept(nc net.Conn, programs []program) {
	peer := addrOf(nc.RemoteAddr())
	welcome := s.exports.Load().allow(route{peer, specific(addrOf(nc.LocalAddr()))})
	s.mu.Lock()
	full := len(s.conns) >= s.opt.MaxConns || !welcome && len(s.conns) >= s.opt.MaxConns/2
	if full || s.closed {
		s.mu.Unlock()
		_ = nc.Close()
		if full {
			s.log.Warn("too many connections", "client", peer.String(), "connections", s.opt.MaxConns)
		}
		return
	}
	c := s.newConn(nc, peer, programs)
	s.conns[c] = true
	s.open[nc] = true
	if !s.ushers {
		s.ushers = true
		s.wg.Go(s.usher)
	}
	s.wg.Add(1)
	s.mu.Unlock()
	if tcp, ok := nc.(*net.TCPConn); ok {
		// Without these the connection works all the same.
		_ = tcp.SetNoDelay(true)
		_ = tcp.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: 30 * time.Second, Interval: 10 * time.Second, Count: 6})
	}
	go func() {
		defer s.wg.Done()
		c.serve(s.ctx)
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.conns, c)
		delete(s.open, nc)
	}()
}

// usher ends connections whose clients keep memory from others by not taking
// their replies, until the server ends.
func (s *Server) usher() {
	tick := time.NewTicker(max(s.opt.StallTimeout/60, 20*time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return
		case now := <-tick.C:
			if !s.sched.crowded() {
				continue
			}
			s.mu.Lock()
			for c := range s.conns {
				if c.out.stalledFor(now) > s.opt.StallTimeout/12 {
					s.log.Warn("a client that takes no replies was disconnected, as memory is short", "client", c.peer.String())
					c.out.abort()
				}
			}
			s.mu.Unlock()
		}
	}
}

func addrOf(a net.Addr) netip.Addr {
	switch a := a.(type) {
	case *net.TCPAddr:
		return a.AddrPort().Addr().Unmap().WithZone("")
	case *net.UDPAddr:
		return a.AddrPort().Addr().Unmap().WithZone("")
	}
	return netip.Addr{}
}

// specific returns the address, if it is one and not all of this machine's.
func specific(a netip.Addr) netip.Addr {
	if a.IsUnspecified() {
		return netip.Addr{}
	}
	return a
}

func (s *Server) add(c interface{ Close() error }) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.open[c] = true
	return true
}

func (s *Server) remove(c interface{ Close() error }) {
	s.mu.Lock()
	delete(s.open, c)
	s.mu.Unlock()
	_ = c.Close()
}

// Close ends all listeners and connections and waits for the requests under
// way. The trees are not closed.
func (s *Server) Close() error {
	s.mu.Lock()
	s.closed = true
	open := s.open
	s.open = map[interface{ Close() error }]bool{}
	s.mu.Unlock()
	s.cancel()
	for c := range open {
		_ = c.Close()
	}
	s.wg.Wait()
	s.sched.wg.Wait()
	return nil
}
