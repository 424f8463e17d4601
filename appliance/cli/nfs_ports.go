package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"syscall"
	"time"

	"holdfast/nfs"
)

// nfsPorts are the sockets that serve listens on.
type nfsPorts struct {
	port    int
	tcp     []net.Listener
	udp     []net.PacketConn // MOUNT of clients that ask by datagram
	mapTCP  []net.Listener
	mapUDP  []net.PacketConn
	portmap string // what became of the port mapper

	taken func(context.Context) error // takes back a registration
}

// listen takes the ports, or says who has them.
func (s *nfsService) listen(ctx context.Context) (_ *nfsPorts, err error) {
	p := new(nfsPorts)
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	addrs := s.opt.listen
	if len(addrs) == 0 {
		addrs = []string{""}
	}
	var hosts []string
	for _, text := range addrs {
		host, port, err := splitListen(text)
		if err != nil {
			return nil, err
		}
		if p.port != 0 && port != 0 && port != p.port {
			return nil, usagef("--listen %s: all addresses have one port", text)
		}
		if port == 0 {
			port = p.port // the one that was found free for the first
		}
		if err := p.listenNFS(ctx, host, port); err != nil {
			return nil, err
		}
		hosts = append(hosts, host)
	}
	switch s.opt.portmap {
	case portmapNone:
		p.portmap = portmapNone
	case portmapOwn:
		p.portmap, err = portmapOwn, p.listenPortmap(ctx, hosts)
	case portmapRegister:
		p.portmap = portmapRegister
	default:
		p.portmap = portmapOwn
		if err := p.listenPortmap(ctx, hosts); err != nil {
			var taken *portTakenError
			if !errors.As(err, &taken) {
				return nil, withHint(err, "--portmap none serves without it, to clients that are told the port")
			}
			p.portmap = portmapRegister
		}
	}
	return p, err
}

// splitListen reads ADDRESS[:PORT].
func splitListen(s string) (host string, port int, err error) {
	host, digits, err := net.SplitHostPort(s)
	if err != nil { // no port
		host, digits, err = s, strconv.Itoa(nfsPort), nil
		if n := len(host); n > 1 && host[0] == '[' && host[n-1] == ']' {
			host = host[1 : n-1]
		}
	}
	if host != "" && net.ParseIP(host) == nil {
		return "", 0, usagef("--listen %s: want an address of this machine", s)
	}
	port, err = strconv.Atoi(digits)
	if err != nil || port < 0 || port > 65535 {
		return "", 0, usagef("--listen %s: bad port", s)
	}
	return host, port, nil
}

func (p *nfsPorts) listenNFS(ctx context.Context, host string, port int) error {
	l, err := listenTCP(ctx, host, port)
	if err != nil {
		return err
	}
	p.tcp = append(p.tcp, l)
	p.port = l.Addr().(*net.TCPAddr).Port
	u, err := listenUDP(ctx, host, p.port)
	if err == nil {
		p.udp = append(p.udp, u)
	}
	return err
}

func (p *nfsPorts) listenPortmap(ctx context.Context, hosts []string) error {
	for _, host := range hosts {
		l, err := listenTCP(ctx, host, portmapPort)
		if err == nil {
			p.mapTCP = append(p.mapTCP, l)
			var u net.PacketConn
			if u, err = listenUDP(ctx, host, portmapPort); err == nil {
				p.mapUDP = append(p.mapUDP, u)
			}
		}
		if err != nil {
			closeAll(p.mapTCP, p.mapUDP)
			p.mapTCP, p.mapUDP = nil, nil
			return err
		}
	}
	return nil
}

// servePortmap makes the ports known.
func (p *nfsPorts) servePortmap(ctx context.Context, s *nfs.Server, serve func(func() error)) error {
	switch p.portmap {
	case portmapOwn:
		s.SetPorts(nfs.Mappings(p.port, portmapPort))
		for _, l := range p.mapTCP {
			serve(func() error { return s.ServePortmap(l) })
		}
		for _, u := range p.mapUDP {
			serve(func() error { return s.ServePortmapPacket(u) })
		}
	case portmapRegister:
		unregister, err := nfs.Register(ctx, fmt.Sprintf("127.0.0.1:%d", portmapPort), nfs.Mappings(p.port, 0))
		if err != nil {
			if holder := portHolder("tcp", portmapPort); holder != "" {
				err = fmt.Errorf("%w; port %d is used by %s", err, portmapPort, holder)
			}
			return withHint(fmt.Errorf("register with the port mapper: %w", err), "--portmap none serves without it, to clients that are told the port")
		}
		p.taken = unregister
	}
	return nil
}

// unregister takes back what the port mapper was told.
func (p *nfsPorts) unregister() {
	if p.taken == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	_ = p.taken(ctx) // whoever asks finds nobody
}

// close closes what nobody serves.
func (p *nfsPorts) close() {
	closeAll(p.tcp, p.udp)
	closeAll(p.mapTCP, p.mapUDP)
}

func closeAll(tcp []net.Listener, udp []net.PacketConn) {
	for _, l := range tcp {
		_ = l.Close() // the server may have
	}
	for _, u := range udp {
		_ = u.Close() // the same
	}
}

func listenTCP(ctx context.Context, host string, port int) (net.Listener, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(port)))
	return l, portError("tcp", port, err)
}

func listenUDP(ctx context.Context, host string, port int) (net.PacketConn, error) {
	u, err := new(net.ListenConfig).ListenPacket(ctx, "udp", net.JoinHostPort(host, strconv.Itoa(port)))
	return u, portError("udp", port, err)
}

// portTakenError says who has a port.
type portTakenError struct {
	network string
	port    int
	holder  string // "process 4711 (rpcbind)", "" if that can't be told
}

func (e *portTakenError) Error() string {
	if e.holder == "" {
		return fmt.Sprintf("port %d (%s) is used by another process", e.port, e.network)
	}
	return fmt.Sprintf("port %d (%s) is used by %s", e.port, e.network, e.holder)
}

// portError makes clear what keeps a port from being had.
func portError(network string, port int, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.EADDRINUSE):
		return &portTakenError{network, port, portHolder(network, port)}
	case errors.Is(err, syscall.EACCES) && port < 1024:
		return withHint(err, "ports below 1024 are for root, or CAP_NET_BIND_SERVICE; --portmap none does without 111")
	}
	return err
}
