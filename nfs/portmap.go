package nfs

import (
	"errors"
	"fmt"
	"net"

	"holdfast/nfs/internal/rpc"
	"holdfast/nfs/internal/xdr"
)

const (
	progPortmap    = 100000
	portmapVersion = 2
)

// Protocols of a Mapping.
const (
	TCP = 6
	UDP = 17
)

// Mapping says on which port a version of a program listens.
type Mapping struct {
	Prog, Vers, Prot, Port uint32
}

// Mappings are what a server on these ports is found by. A port of 0 is left out.
func Mappings(nfsPort, portmapPort int) []Mapping {
	var list []Mapping
	if nfsPort != 0 {
		port := uint32(nfsPort)
		list = []Mapping{
			{progNFS, nfsVersion, TCP, port},
			{progMount, mountVersion, TCP, port},
			{progMount, mountVersion, UDP, port},
		}
	}
	if portmapPort != 0 {
		port := uint32(portmapPort)
		list = append(list, Mapping{progPortmap, portmapVersion, TCP, port}, Mapping{progPortmap, portmapVersion, UDP, port})
	}
	return list
}

// portmapProgram is the port mapper, version 2. What would let a client change
// the table, or speak to others through us, is not there. Source: RFC 1833
// section 3.2.
var portmapProgram = program{number: progPortmap, version: portmapVersion, name: "PORTMAP", procs: []procedure{
	{name: "NULL", inline: always, run: runNull},
	{name: "SET"},
	{name: "UNSET"},
	{name: "GETPORT", inline: always, run: (*request).getPort},
	{name: "PMDUMP", inline: always, run: (*request).portDump},
	{name: "CALLIT"},
}}

// SetPorts says what the port mapper tells clients that may use an export.
func (s *Server) SetPorts(list []Mapping) { s.ports.Store(&list) }

// known are the mappings that a caller may hear of.
func (rq *request) known() []Mapping {
	if !rq.srv.exports.Load().allow(rq.route()) {
		return nil
	}
	return *rq.srv.ports.Load()
}

func (rq *request) getPort() error {
	m := Mapping{rq.args.Uint32(), rq.args.Uint32(), rq.args.Uint32(), rq.args.Uint32()}
	if !rq.args.Done() {
		return errGarbage
	}
	var port uint32
	for _, k := range rq.known() {
		if k.Prog == m.Prog && k.Prot == m.Prot && (k.Vers == m.Vers || port == 0) {
			// For a version that isn't there, the port where that will be told.
			port = k.Port
		}
	}
	rq.w.Uint32(port)
	return nil
}

func (rq *request) portDump() error {
	if !rq.args.Done() {
		return errGarbage
	}
	for _, k := range rq.known() {
		rq.w.Bool(true)
		rq.w.Uint32(k.Prog)
		rq.w.Uint32(k.Vers)
		rq.w.Uint32(k.Prot)
		rq.w.Uint32(k.Port)
	}
	rq.w.Bool(false)
	return nil
}

// maxDatagram is how long a call or a reply in a datagram is at most.
const maxDatagram = 9000

// ServePacket answers MOUNT requests that come as datagrams, from clients that
// may use an export; others get no answer. It returns as Serve does.
func (s *Server) ServePacket(pc net.PacketConn) error {
	return s.servePacket(pc, []program{mountProgram})
}

// ServePortmapPacket does that for portmap requests.
func (s *Server) ServePortmapPacket(pc net.PacketConn) error {
	return s.servePacket(pc, []program{portmapProgram})
}

func (s *Server) servePacket(pc net.PacketConn, programs []program) error {
	if !s.add(pc) {
		_ = pc.Close()
		return ErrClosed
	}
	defer s.remove(pc)
	slots := make(chan struct{}, 16) // of those that may have to wait
	buf := make([]byte, maxDatagram)
	for {
		n, from, err := pc.ReadFrom(buf)
		if err != nil {
			if s.ctx.Err() != nil {
				return ErrClosed
			}
			if errors.Is(err, net.ErrClosed) {
				return fmt.Errorf("nfs: %w", err)
			}
			continue // of one datagram: what was sent before found nobody
		}
		way := route{addrOf(from), specific(addrOf(pc.LocalAddr()))}
		if !s.exports.Load().allow(way) {
			continue
		}
		s.datagram(pc, from, way, buf[:n], programs, slots)
	}
}

// datagram answers one, here or, if that may take long, in a goroutine. If too
// many of those are under way it is lost, as datagrams may be.
func (s *Server) datagram(pc net.PacketConn, from net.Addr, way route, b []byte, programs []program, slots chan struct{}) {
	rq := &request{}
	rq.reset(s, s.ctx, way)
	w := xdr.Writer{B: make([]byte, 0, 512)}
	if !rq.begin(b, programs, &w) {
		return
	}
	finish := func() {
		if rq.proc != nil {
			rq.execute(&w)
		}
		if len(w.B) <= maxDatagram {
			_, _ = pc.WriteTo(rpc.Datagram(w.B), from)
		}
	}
	if rq.proc == nil || rq.proc.inline != nil {
		finish()
		return
	}
	select {
	case slots <- struct{}{}:
	default:
		return
	}
	rq.args = xdr.NewReader(append([]byte(nil), rq.args.Rest()...))
	rq.whole = rq.args
	s.wg.Go(func() {
		defer func() { <-slots }()
		finish()
	})
}
