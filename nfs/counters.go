package nfs

import (
	"context"
	"log/slog"
	"net/netip"
	"sync/atomic"
	"time"
)

// Call is what Options.Observe is told of a request.
type Call struct {
	Procedure string // "READ", "MNT"
	Client    netip.Addr
	Status    uint32 // of NFS and MOUNT: 0 is success
	In, Out   int    // bytes of arguments and results
	Dur       time.Duration
}

// Stats are what a Server has counted since it was made, and what it holds now.
type Stats struct {
	Calls     map[string]ProcedureStats // by name, of those that were called
	Refused   uint64                    // calls with another program, version or procedure, or credentials that can't be
	Repeated  uint64                    // requests that had been made before
	Panics    uint64
	Conns     int
	HeldBytes int64 // for requests and replies
	PeakBytes int64 // the most that ever was
}

// ProcedureStats are the counts of one procedure.
type ProcedureStats struct {
	Calls, Failed     uint64
	InBytes, OutBytes uint64
}

// counters count requests by program and procedure.
type counters struct {
	procs           [3][22]procCounters
	refused, panics atomic.Uint64
}

type procCounters struct{ calls, failed, in, out atomic.Uint64 }

func (c *counters) of(call uint32, proc uint32) *procCounters {
	i := 0
	switch call {
	case progMount:
		i = 1
	case progPortmap:
		i = 2
	}
	return &c.procs[i][proc]
}

// Stats returns what has been counted.
func (s *Server) Stats() Stats {
	st := Stats{Calls: map[string]ProcedureStats{}, Refused: s.count.refused.Load(), Panics: s.count.panics.Load()}
	for _, p := range []program{nfsProgram, mountProgram, portmapProgram} {
		for i := range p.procs {
			c := s.count.of(p.number, uint32(i))
			if n := c.calls.Load(); n > 0 {
				name := p.procs[i].name
				if name == "NULL" {
					name = p.name + " NULL"
				}
				st.Calls[name] = ProcedureStats{n, c.failed.Load(), c.in.Load(), c.out.Load()}
			}
		}
	}
	s.replies.mu.Lock()
	st.Repeated = s.replies.hits
	s.replies.mu.Unlock()
	s.sched.mu.Lock()
	st.HeldBytes, st.PeakBytes, st.Conns = s.sched.held, s.sched.peak, s.sched.conns
	s.sched.mu.Unlock()
	return st
}

// SetTracing lets the server log a line for each request, or not any more.
func (s *Server) SetTracing(on bool) { s.tracing.Store(on) }

// started returns the time, if anybody wants to know.
func (s *Server) started(*request) (t time.Time) {
	if s.opt.Observe != nil || s.tracing.Load() {
		t = time.Now()
	}
	return t
}

// finished counts a request, and tells about it.
func (s *Server) finished(rq *request, began time.Time, err error, out int) {
	c := s.count.of(rq.call.Prog, rq.call.Proc)
	c.calls.Add(1)
	in := len(rq.whole.Rest())
	c.in.Add(uint64(in))
	c.out.Add(uint64(out))
	if err != nil || rq.status != 0 {
		c.failed.Add(1)
	}
	if began.IsZero() {
		return
	}
	dur := time.Since(began)
	if s.opt.Observe != nil {
		s.opt.Observe(Call{rq.proc.name, rq.peer, rq.status, in, out, dur})
	}
	if !s.tracing.Load() {
		return
	}
	attrs := []slog.Attr{
		slog.String("op", rq.proc.name), slog.String("client", rq.peer.String()), slog.Uint64("xid", uint64(rq.call.XID)),
		slog.Uint64("status", uint64(rq.status)), slog.Int("in", in), slog.Int("out", out), slog.Duration("dur", dur),
	}
	if rq.exp != nil {
		attrs = append(attrs, slog.String("export", rq.exp.Path), slog.Uint64("fs", rq.id.FS), slog.Uint64("ino", rq.id.Ino))
	}
	if rq.count > 0 {
		attrs = append(attrs, slog.Uint64("off", rq.off), slog.Uint64("bytes", uint64(rq.count)))
	}
	if err != nil {
		attrs = append(attrs, slog.String("error", err.Error()))
	}
	s.log.LogAttrs(context.Background(), slog.LevelInfo, "nfs", attrs...)
}
