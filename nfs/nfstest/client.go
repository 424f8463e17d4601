// Package nfstest is a small NFS version 3 client for tests and benchmarks. It
// has its own encoding, so that server and client do not share a mistake, keeps
// many requests in flight on one connection, and shows every status as it
// came. Load makes load and verifies each byte that comes back.
package nfstest

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
)

// Programs.
const (
	NFS     = 100003
	Mount   = 100005
	Portmap = 100000
)

// Client is a connection to a server. Safe for concurrent use.
type Client struct {
	// Cred is the body of the AUTH_SYS credentials; nil: AUTH_NONE.
	Cred []byte

	nc  net.Conn
	xid atomic.Uint32

	wmu sync.Mutex // guards writing
	mu  sync.Mutex // guards all below
	to  map[uint32]chan []byte
	err error
}

// RPCError is a reply that isn't a success: Denied with its reject_stat and
// what follows, or accepted with its accept_stat.
type RPCError struct {
	Denied bool
	Stat   uint32
	Rest   []uint32
}

func (e *RPCError) Error() string {
	return fmt.Sprintf("nfstest: rpc: denied %v, status %d %v", e.Denied, e.Stat, e.Rest)
}

// Sys returns AUTH_SYS credentials.
func Sys(uid, gid uint32, groups ...uint32) []byte {
	b := Words(1, "nfstest", uid, gid, len(groups))
	for _, g := range groups {
		b = append(b, Words(g)...)
	}
	return b
}

// Dial connects to a server, as root.
func Dial(ctx context.Context, addr string) (*Client, error) {
	var d net.Dialer
	nc, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return NewClient(nc), nil
}

// NewClient returns a client on a connection.
func NewClient(nc net.Conn) *Client {
	c := &Client{nc: nc, Cred: Sys(0, 0), to: map[uint32]chan []byte{}}
	c.xid.Store(rand.Uint32())
	go c.read()
	return c
}

// Close closes the connection. Calls under way fail.
func (c *Client) Close() error { return c.nc.Close() }

// Addr is the server's address.
func (c *Client) Addr() net.Addr { return c.nc.RemoteAddr() }

// SetXID makes n the transaction id of the next call.
func (c *Client) SetXID(n uint32) { c.xid.Store(n - 1) }

func (c *Client) read() {
	r := bufio.NewReaderSize(c.nc, 256<<10)
	for {
		rec, err := readRecord(r)
		if err == nil && len(rec) < 12 {
			err = ErrReply
		}
		c.mu.Lock()
		if err != nil {
			c.err = err
			for _, ch := range c.to {
				close(ch)
			}
			c.to = nil
			c.mu.Unlock()
			return
		}
		xid := binary.BigEndian.Uint32(rec)
		ch := c.to[xid]
		delete(c.to, xid)
		c.mu.Unlock()
		if ch != nil {
			ch <- rec
		}
	}
}

func readRecord(r io.Reader) ([]byte, error) {
	var rec []byte
	for {
		var mark [4]byte
		if _, err := io.ReadFull(r, mark[:]); err != nil {
			return nil, err
		}
		m := binary.BigEndian.Uint32(mark[:])
		n := int(m & 0x7fffffff)
		if n > 4<<20 {
			return nil, ErrReply
		}
		at := len(rec)
		rec = append(rec, make([]byte, n)...)
		if _, err := io.ReadFull(r, rec[at:]); err != nil {
			return nil, err
		}
		if m>>31 == 1 {
			return rec, nil
		}
	}
}

// Header returns a call without its record mark, for who wants to change it.
func (c *Client) Header(xid, prog, vers, proc uint32) []byte {
	b := Words(xid, 0, 2, prog, vers, proc)
	if c.Cred == nil {
		b = append(b, Words(0, 0)...)
	} else {
		b = append(b, Words(1, c.Cred)...)
	}
	return append(b, Words(0, 0)...)
}

// Record returns b with its record mark.
func Record(b []byte) []byte {
	return append(binary.BigEndian.AppendUint32(make([]byte, 0, len(b)+4), 1<<31|uint32(len(b))), b...)
}

// Start sends a call. The channel gets the reply's record, or is closed.
func (c *Client) Start(prog, vers, proc uint32, args []byte) (<-chan []byte, error) {
	xid := c.xid.Add(1)
	return c.StartRaw(xid, Record(append(c.Header(xid, prog, vers, proc), args...)))
}

// StartRaw sends b and waits for a reply with this transaction id.
func (c *Client) StartRaw(xid uint32, b []byte) (<-chan []byte, error) {
	ch := make(chan []byte, 1)
	c.mu.Lock()
	if c.err != nil {
		defer c.mu.Unlock()
		return nil, c.err
	}
	c.to[xid] = ch
	c.mu.Unlock()
	c.wmu.Lock()
	defer c.wmu.Unlock()
	if _, err := c.nc.Write(b); err != nil {
		return nil, err
	}
	return ch, nil
}

// Call makes a call and returns its results.
func (c *Client) Call(prog, vers, proc uint32, args []byte) ([]byte, error) {
	ch, err := c.Start(prog, vers, proc, args)
	if err != nil {
		return nil, err
	}
	return c.Finish(ch)
}

// Finish waits for the reply of a call that was started and returns its results.
func (c *Client) Finish(ch <-chan []byte) ([]byte, error) {
	rec, ok := <-ch
	if !ok {
		c.mu.Lock()
		defer c.mu.Unlock()
		return nil, fmt.Errorf("nfstest: no reply: %w", c.err)
	}
	return Results(rec)
}

// Results returns what the record of a reply holds, or an *RPCError.
func Results(rec []byte) ([]byte, error) {
	d := Decoder{B: rec}
	d.Uint32()
	if d.Uint32() != 1 {
		return nil, ErrReply
	}
	denied := d.Uint32() == 1
	if !denied {
		d.Uint32()
		d.Opaque()
	}
	stat := d.Uint32()
	if d.err != nil {
		return nil, ErrReply
	}
	if !denied && stat == 0 {
		return d.B, nil
	}
	e := &RPCError{Denied: denied, Stat: stat}
	for len(d.B) > 0 {
		e.Rest = append(e.Rest, d.Uint32())
	}
	return nil, errors.Join(e, d.err)
}
