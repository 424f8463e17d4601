package nfs

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime/debug"
	"sync"
	"time"

	"holdfast/fs"
	"holdfast/nfs/internal/rpc"
	"holdfast/nfs/internal/xdr"
)

// program is an RPC program of one version.
type program struct {
	number  uint32
	version uint32
	name    string
	procs   []procedure // by number; no run: there is none
}

// procedure is how requests of one kind are dealt with.
type procedure struct {
	name string
	lane lane

	// inline, if not nil, says whether run would not have to wait for anything.
	inline func(rq *request) bool

	// plan, if not nil, says what the request will cost. args begin behind the
	// handle.
	plan func(rq *request, args xdr.Reader)

	// changes says that doing it twice isn't the same as once.
	changes bool

	// failure is what a failed reply holds beside the status.
	failure failure

	// run decodes the arguments, does it, and encodes the results, status
	// included. What it has encoded before it returns an error is taken back.
	run func(rq *request) error
}

// errGarbage is returned by run for arguments that can't be decoded.
var errGarbage = errors.New("arguments can't be decoded")

// request is one call under way.
type request struct {
	srv  *Server
	conn *conn // nil for a datagram
	ctx  context.Context
	peer netip.Addr
	at   netip.Addr // of ours, to which the client is connected
	call rpc.Call
	proc *procedure

	args   xdr.Reader
	whole  xdr.Reader // args from their beginning
	record []byte     // of a worker's request: a pooled buffer with the arguments
	held   int64      // for the record
	cost   int64      // held while it runs and until its reply is sent
	entry  *entry     // in the cache of replies

	// Of NFS procedures, all of which but NULL begin with a handle.
	exp    *export
	id     fs.ID
	access error // why the handle is no good
	user   user
	other  other // the second object of LINK and RENAME

	// Of READ.
	off       uint64
	count     uint32 // at most what the server sends at once
	long      bool   // more than copyBytes
	tail      fs.Borrowed
	tailBytes int

	w      *xdr.Writer
	status uint32 // of the reply, for those who count
}

// other is a second object: the directory of LINK, the target of RENAME.
type other struct {
	exp *export
	id  fs.ID
}

var requests = sync.Pool{New: func() any { return new(request) }}

func newRequest() *request { return requests.Get().(*request) }

func freeRequest(rq *request) {
	*rq = request{}
	requests.Put(rq)
}

func (rq *request) reset(s *Server, ctx context.Context, way route) {
	*rq = request{srv: s, ctx: ctx, peer: way.peer, at: way.local}
}

func (rq *request) route() route { return route{rq.peer, rq.at} }

// begin decodes the header of a call and finds its procedure. If there is
// something wrong with it, proc is nil and the answer has been appended to w;
// ok is false if there is nobody to be answered.
func (rq *request) begin(rec []byte, programs []program, w *xdr.Writer) (ok bool) {
	args, fault, ok := rpc.Parse(rec, &rq.call)
	if !ok {
		return false
	}
	if fault != nil {
		rq.srv.count.refused.Add(1)
		fault.Reply(w, rq.call.XID)
		return true
	}
	rq.args, rq.whole = args, args
	p := find(programs, rq.call.Prog)
	refusal := rpc.Success
	switch {
	case p == nil:
		refusal, p = rpc.ProgUnavail, &program{}
	case p.version != rq.call.Vers:
		refusal = rpc.ProgMismatch
	case rq.call.Proc >= uint32(len(p.procs)) || p.procs[rq.call.Proc].run == nil:
		refusal = rpc.ProcUnavail
	}
	if refusal != rpc.Success {
		rq.srv.count.refused.Add(1)
		rpc.Refuse(w, rq.call.XID, refusal, p.version, p.version)
		return true
	}
	rq.proc = &p.procs[rq.call.Proc]
	if p.number == progNFS && rq.call.Proc != 0 {
		rq.object()
	}
	return true
}

func find(programs []program, number uint32) *program {
	for i := range programs {
		if programs[i].number == number {
			return &programs[i]
		}
	}
	return nil
}

// object finds what the handle at the beginning of the arguments stands for and
// whether the caller may use its export.
func (rq *request) object() {
	args := rq.args
	h := args.Opaque(maxHandleBytes)
	if args.Bad() {
		rq.access = errGarbage
		return
	}
	rq.exp, rq.id, rq.access = rq.srv.exports.Load().resolve(h)
	if rq.access != nil {
		return
	}
	if !rq.exp.allows(rq.route()) {
		rq.exp, rq.access = nil, nfsAcces
		return
	}
	rq.user = rq.exp.userOf(&rq.call.Cred)
	if rq.proc.plan != nil {
		rq.proc.plan(rq, args)
	}
}

// decode decodes the handle at the beginning of the arguments again.
func (rq *request) decode() *xdr.Reader {
	rq.args.Opaque(maxHandleBytes)
	return &rq.args
}

// execute does the request and appends its reply to w, but for the bytes in tail.
// It is false, and nothing has happened, if that was tried in the read loop and a
// worker has to go on trying.
func (rq *request) execute(w *xdr.Writer) bool {
	rq.w = w
	before := len(w.B)
	start := rpc.Begin(w, rq.call.XID, rpc.Success)
	began := rq.srv.started(rq)
	err := rq.attempt(start)
	switch {
	case errors.Is(err, errLater):
		w.B = w.B[:before]
		rq.args, rq.w = rq.whole, nil
		return false
	case err == nil:
		rpc.End(w, start, rq.tailBytes+xdr.Padding(rq.tailBytes))
	case errors.Is(err, errGarbage):
		w.B = w.B[:start]
		rpc.Refuse(w, rq.call.XID, rpc.GarbageArgs, 0, 0)
	case errors.Is(err, errPanic):
		w.B = w.B[:start]
		rpc.Refuse(w, rq.call.XID, rpc.SystemErr, 0, 0)
	}
	rq.srv.finished(rq, began, err, len(w.B)-start+rq.tailBytes)
	rq.w = nil
	return true
}

// errLater says that a worker has to do it.
var errLater = errors.New("later")

// attempt runs the procedure, again and again for a while if all that is missing
// is time. A status is encoded here; errGarbage, errPanic and errLater are returned.
func (rq *request) attempt(start int) error {
	err := rq.once()
	switch {
	case !errors.Is(err, fs.ErrRetry):
	case rq.record != nil:
		err = rq.again(start, err)
	case rq.conn != nil:
		return errLater
	}
	if err == nil || errors.Is(err, errGarbage) || errors.Is(err, errPanic) {
		return err
	}
	rpc.Rewind(rq.w, start)
	return rq.fail(err)
}

// again repeats what gave fs.ErrRetry for as long as the server is to, unless
// half the workers do that already.
func (rq *request) again(start int, err error) error {
	s := rq.srv
	defer s.retrying.Add(-1)
	if int(s.retrying.Add(1)) > s.opt.Workers/2 {
		return err
	}
	end := time.NewTimer(s.opt.RetryFor)
	defer end.Stop()
	for wait := 20 * time.Millisecond; errors.Is(err, fs.ErrRetry); wait = min(2*wait, 500*time.Millisecond) {
		select {
		case <-rq.ctx.Done():
			return err
		case <-end.C:
			return err
		case <-time.After(wait):
		}
		rpc.Rewind(rq.w, start)
		rq.args = rq.whole
		err = rq.once()
	}
	return err
}

// errPanic stands for a mistake of ours.
var errPanic = errors.New("panic")

// once runs the procedure. A panic ends the request and nothing else.
func (rq *request) once() (err error) {
	defer func() {
		if p := recover(); p != nil {
			rq.srv.log.Error("a request failed for a mistake in this program", "procedure", rq.proc.name, "client", rq.peer.String(),
				"panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			rq.srv.count.panics.Add(1)
			if rq.tail.Release != nil {
				rq.tail.Release()
			}
			rq.tail, rq.tailBytes = fs.Borrowed{}, 0
			err = errPanic
		}
	}()
	if rq.access != nil {
		return rq.access
	}
	return rq.proc.run(rq)
}

// run is a worker's doing of the request.
func (rq *request) run() {
	c, s := rq.conn, rq.srv
	if rq.proc.changes {
		// It ends even if who asked for it is gone.
		rq.ctx = s.ctx
	}
	w := xdr.Writer{B: getBuffer(rq.replyRoom())}
	rq.execute(&w)
	cost := rq.cost
	if rq.proc.changes {
		for _, other := range s.replies.end(rq.entry, w.B, rq.status != uint32(nfsJukebox)) {
			if other != c {
				other.reply(append(getBuffer(len(w.B)), w.B...), nil, 0)
			}
		}
	}
	s.sched.release(c.acct, rq.held)
	rq.held = 0
	c.reply(w.B, rq, cost)
	rq.free()
}

// replyRoom is how long the part of the reply in w may become, or a good guess.
func (rq *request) replyRoom() int {
	if rq.long && rq.exp.borrow != nil {
		return 1 << 10
	}
	return max(int(rq.cost), 1<<10)
}

// drop ends a request whose connection is gone.
func (rq *request) drop() bool {
	if rq.proc.changes && !rq.srv.replies.drop(rq.entry) {
		return false
	}
	rq.free()
	return true
}

func (rq *request) free() {
	putBuffer(rq.record)
	rq.srv.sched.release(rq.conn.acct, rq.held)
	freeRequest(rq)
}
