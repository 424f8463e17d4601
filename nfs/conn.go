package nfs

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"time"

	"holdfast/nfs/internal/rpc"
	"holdfast/nfs/internal/xdr"
)

const (
	// headerBytes is the most that a record has beside data: an RPC header with
	// credentials, a handle and some numbers.
	headerBytes = 4 << 10

	// batchBytes is how much the replies made in the read loop may come to
	// before they are sent.
	batchBytes = 64 << 10

	// copyBytes is up to which length a READ is copied into its reply rather
	// than borrowed: a borrowed frame is held whole until the client has it.
	copyBytes = 16 << 10
)

// conn is a connection of a client. Its goroutine reads requests, does those
// that need not wait and hands the others to workers, so that replies leave in
// any order.
type conn struct {
	srv      *Server
	nc       net.Conn
	peer     netip.Addr
	at       netip.Addr // of ours
	programs []program
	ctx      context.Context // of reads for the connection; ends with it
	acct     *account
	out      *sender
	in       *rpc.RecordReader
	gone     atomic.Bool

	// Of the goroutine that reads.
	batch    xdr.Writer // replies not sent yet
	inline   request
	owned    int64 // held for the record that is being read
	deadline bool  // set for reading
}

func (s *Server) newConn(nc net.Conn, peer netip.Addr, programs []program) *conn {
	c := &conn{srv: s, nc: nc, peer: peer, at: specific(addrOf(nc.LocalAddr())), programs: programs, acct: s.sched.open()}
	c.out = newSender(nc, s.opt.StallTimeout, c.sent)
	c.in = rpc.NewRecordReader(nc, s.opt.MaxTransfer+headerBytes)
	c.in.Waiting, c.in.Room = c.waiting, c.room
	return c
}

// sent lets go of what a reply held.
func (c *conn) sent(r *reply) {
	if r.release != nil {
		r.release()
	}
	putBuffer(r.pooled)
	c.srv.sched.release(c.acct, r.cost)
}

// serve reads requests until the connection ends.
func (c *conn) serve(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	c.ctx = ctx
	loop := make(chan struct{})
	go func() {
		defer close(loop)
		c.out.loop()
	}()
	err := c.read()
	c.gone.Store(true)
	c.srv.sched.close(c.acct)
	if errors.Is(err, io.EOF) {
		// The client may have closed its own side alone, and wait for the replies.
		c.flush()
		c.srv.sched.drain(c.acct, c.srv.opt.RetryFor)
		c.out.drain(c.srv.opt.RetryFor)
	}
	cancel()
	c.out.close()
	<-loop
	c.srv.sched.release(c.acct, c.owned)
	if err != nil && !errors.Is(err, net.ErrClosed) && !errors.Is(err, io.EOF) {
		c.srv.log.Debug("connection ended", "client", c.nc.RemoteAddr().String(), "error", err.Error())
	}
}

func (c *conn) read() error {
	for {
		if len(c.batch.B) > 0 && (len(c.batch.B) >= batchBytes || !c.in.Ready()) {
			c.flush()
		}
		if len(c.batch.B) == 0 && c.srv.sched.full(c.acct) && !c.srv.sched.wait(c.acct, 0, 0) {
			return net.ErrClosed
		}
		rec, own, err := c.in.Next()
		if err != nil {
			return err
		}
		if c.out.broken.Load() {
			// It came long ago, and its client has asked again on another
			// connection, where what was asked later may be done already.
			return net.ErrClosed
		}
		held := c.owned
		c.owned = 0
		if !c.handle(rec, own, held) {
			return errors.New("what came is no call")
		}
	}
}

// waiting sets a limit to how long the rest of a record may take to begin to come.
func (c *conn) waiting(mid bool) {
	if len(c.batch.B) > 0 {
		c.flush()
	}
	switch {
	case mid:
		_ = c.nc.SetReadDeadline(time.Now().Add(c.srv.opt.StallTimeout))
		c.deadline = true
	case c.deadline:
		_ = c.nc.SetReadDeadline(time.Time{})
		c.deadline = false
	}
}

// room makes room for a long record, when the client's share allows it.
func (c *conn) room(old []byte, n int) ([]byte, error) {
	b := getBuffer(n)
	if more := int64(cap(b)) - c.owned; more > 0 {
		c.flush()
		if !c.srv.sched.wait(c.acct, more, c.owned) {
			return nil, os.ErrClosed
		}
		c.owned += more
	}
	b = append(b, old...)
	if old != nil {
		putBuffer(old)
	}
	return b, nil
}

// flush sends the replies that the read loop has made.
func (c *conn) flush() {
	if len(c.batch.B) == 0 {
		return
	}
	rest, begun := c.out.sendNow(c.batch.B)
	if len(rest) > 0 {
		b := append(getBuffer(len(rest)), rest...)
		r := &reply{bufs: [][]byte{b}, pooled: b, cost: int64(cap(b))}
		c.srv.sched.hold(c.acct, r.cost)
		if begun {
			c.out.finish(r)
		} else {
			c.out.send(r)
		}
	}
	c.batch.B = c.batch.B[:0]
	if cap(c.batch.B) > 4*batchBytes {
		c.batch.B = nil
	}
}

// reply sends what a worker, or another connection's worker, made for this one.
// cost is held already.
func (c *conn) reply(b []byte, r *request, cost int64) {
	out := &reply{bufs: [][]byte{b}, pooled: b, cost: cost}
	if r != nil && r.tail.Release != nil {
		out.bufs = append(out.bufs, r.tail.Segments...)
		if n := xdr.Padding(r.tailBytes); n > 0 {
			out.bufs = append(out.bufs, zeros[:n])
		}
		out.release = r.tail.Release
		if extra := r.tail.Pinned - int64(r.tailBytes); extra > 0 {
			c.srv.sched.hold(c.acct, extra)
			out.cost += extra
		}
	}
	if out.cost == 0 {
		out.cost = int64(cap(b))
		c.srv.sched.hold(c.acct, out.cost)
	}
	c.out.send(out)
}

var zeros [4]byte

// handle deals with a record, of which held bytes are accounted for if it is a
// buffer of its own. It is false if the record is nothing to be answered.
func (c *conn) handle(rec []byte, own bool, held int64) bool {
	rq := &c.inline
	rq.reset(c.srv, c.ctx, route{c.peer, c.at})
	ok := rq.begin(rec, c.programs, &c.batch)
	switch {
	case rq.proc == nil: // answered, or not to be
	case rq.proc.inline != nil && rq.proc.inline(rq) && c.here(rq):
	default:
		own = !c.submit(rec, own, held) && own
	}
	if own {
		putBuffer(rec)
		c.srv.sched.release(c.acct, held)
	}
	return ok
}

// here does a request in the read loop. It is false if a worker has to: the
// client should first take what it has asked for, or something is missing that
// may be there soon.
func (c *conn) here(rq *request) bool {
	rq.conn = c
	if !rq.long {
		return rq.execute(&c.batch)
	}
	// A long one goes by itself, with bytes that may be borrowed.
	c.flush()
	if !c.srv.sched.try(c.acct, rq.cost) {
		return false
	}
	w := xdr.Writer{B: getBuffer(rq.replyRoom())}
	if !rq.execute(&w) {
		putBuffer(w.B)
		c.srv.sched.release(c.acct, rq.cost)
		return false
	}
	c.reply(w.B, rq, rq.cost)
	return true
}

// submit hands the request in c.inline to a worker, unless it has been asked
// before. It says whether it took over the record.
func (c *conn) submit(rec []byte, own bool, held int64) bool {
	rq := newRequest()
	*rq = c.inline
	rq.conn = c
	if rq.proc.changes {
		old := c.srv.replies.begin(rq)
		if old != nil {
			c.batch.B = append(c.batch.B, old...)
		}
		if rq.entry == nil {
			freeRequest(rq)
			return false
		}
	}
	if own {
		rq.record, rq.held = rec, held
	} else {
		rq.record = append(getBuffer(len(rec)), rec...)
		// The scheduler counts the shortest kind of buffers for a job.
		if rq.held = int64(cap(rq.record)) - shortestBytes; rq.held > 0 {
			c.srv.sched.hold(c.acct, rq.held)
		}
		rq.args = xdr.NewReader(rq.record[len(rec)-len(rq.args.Rest()):])
	}
	rq.whole = rq.args
	c.srv.sched.submit(c.acct, rq.proc.lane, rq, rq.cost)
	return own
}
