package nfs

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"syscall"
	"time"

	"holdfast/nfs/internal/rpc"
	"holdfast/nfs/internal/xdr"
)

// ErrPortTaken is what Register gives when the port mapper knows another server.
var ErrPortTaken = errors.New("nfs: another server is registered")

// Register tells a port mapper that runs on this machine, at addr such as
// "127.0.0.1:111", about a server's ports, instead of one of our own. It has to
// be done as root, from a port that only root gets. What it returns takes it
// back.
func Register(ctx context.Context, addr string, list []Mapping) (unregister func(context.Context) error, err error) {
	var done []Mapping
	unregister = func(ctx context.Context) error {
		return askPortmap(ctx, addr, func(call func(proc uint32, m Mapping) (uint32, error)) error {
			var errs []error
			for _, m := range done {
				if _, err := call(pmapUnset, m); err != nil {
					errs = append(errs, err)
				}
			}
			return errors.Join(errs...)
		})
	}
	err = askPortmap(ctx, addr, func(call func(proc uint32, m Mapping) (uint32, error)) error {
		for _, m := range list {
			port, err := call(pmapGetPort, m)
			if err != nil {
				return err
			}
			if port == m.Port {
				done = append(done, m)
				continue
			}
			if port != 0 {
				return fmt.Errorf("%w: program %d version %d at port %d", ErrPortTaken, m.Prog, m.Vers, port)
			}
			ok, err := call(pmapSet, m)
			if err != nil {
				return err
			}
			if ok == 0 {
				return fmt.Errorf("nfs: register program %d version %d with %s: refused", m.Prog, m.Vers, addr)
			}
			done = append(done, m)
		}
		return nil
	})
	if err != nil {
		return nil, errors.Join(err, unregister(ctx))
	}
	return unregister, nil
}

// Procedures of the port mapper. Source: RFC 1833 section 3.2.
const (
	pmapSet     = 1
	pmapUnset   = 2
	pmapGetPort = 3
)

// askPortmap lets do make calls that return a number.
func askPortmap(ctx context.Context, addr string, do func(call func(proc uint32, m Mapping) (uint32, error)) error) error {
	nc, err := dialPrivileged(ctx, addr)
	if err != nil {
		return fmt.Errorf("nfs: reach the port mapper: %w", err)
	}
	defer nc.Close()
	_ = nc.SetDeadline(time.Now().Add(10 * time.Second))
	records := rpc.NewRecordReader(nc, 4096)
	xid := uint32(0)
	return do(func(proc uint32, m Mapping) (uint32, error) {
		xid++
		var w xdr.Writer
		for _, v := range []uint32{0, xid, 0, 2, progPortmap, portmapVersion, proc, 0, 0, 0, 0, m.Prog, m.Vers, m.Prot, m.Port} {
			w.Uint32(v)
		}
		rpc.End(&w, 0, 0)
		if _, err := nc.Write(w.B); err != nil {
			return 0, fmt.Errorf("nfs: ask the port mapper: %w", err)
		}
		rec, _, err := records.Next()
		if err != nil {
			return 0, fmt.Errorf("nfs: ask the port mapper: %w", unexpectedEnd(err))
		}
		// A success without a verifier is 24 bytes before the number.
		if len(rec) != 28 || binary.BigEndian.Uint32(rec) != xid || binary.BigEndian.Uint32(rec[8:]) != 0 || binary.BigEndian.Uint32(rec[20:]) != 0 {
			return 0, fmt.Errorf("nfs: the port mapper answers procedure %d with %x", proc, rec)
		}
		return binary.BigEndian.Uint32(rec[24:]), nil
	})
}

func unexpectedEnd(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// dialPrivileged connects from a port below 1024 if it can.
func dialPrivileged(ctx context.Context, addr string) (net.Conn, error) {
	to, err := netip.ParseAddrPort(addr)
	if err != nil {
		return nil, err
	}
	var last error
	for port := 1023; port > 600; port-- {
		d := net.Dialer{LocalAddr: &net.TCPAddr{Port: port}, Timeout: 10 * time.Second}
		nc, err := d.DialContext(ctx, "tcp", to.String())
		if err == nil {
			return nc, nil
		}
		if last = err; !isBindError(err) {
			break
		}
	}
	return nil, last
}

// isBindError says that it is the port of our own that can't be had.
func isBindError(err error) bool {
	return errors.Is(err, syscall.EADDRINUSE) || errors.Is(err, syscall.EADDRNOTAVAIL)
}
