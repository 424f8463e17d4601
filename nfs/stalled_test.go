package nfs_test

import (
	"context"
	"encoding/binary"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"holdfast/fs"
	"holdfast/fs/treetest"
	"holdfast/nfs"
	"holdfast/nfs/nfstest"
)

// stream is a connection on which requests go out as they are.
type stream struct {
	net.Conn
	t      *testing.T
	client nfstest.Client
}

func newStream(t *testing.T, addr, from string) *stream {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	nc, err := d.DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = nc.Close() })
	_ = nc.SetDeadline(time.Now().Add(30 * time.Second))
	return &stream{nc, t, nfstest.Client{Cred: nfstest.Sys(0, 0)}}
}

// call is a request's record.
func (s *stream) call(xid, proc uint32, args ...any) []byte {
	return nfstest.Record(append(s.client.Header(xid, nfstest.NFS, 3, proc), nfstest.Words(args...)...))
}

func (s *stream) send(p []byte) {
	s.t.Helper()
	if _, err := s.Write(p); err != nil {
		s.t.Fatal(err)
	}
}

// reply reads one, without its record mark.
func (s *stream) reply() []byte {
	s.t.Helper()
	var mark [4]byte
	if _, err := io.ReadFull(s, mark[:]); err != nil {
		s.t.Fatal(err)
	}
	p := make([]byte, binary.BigEndian.Uint32(mark[:])&^(1<<31))
	if _, err := io.ReadFull(s, p); err != nil {
		s.t.Fatal(err)
	}
	return p
}

// serveAt is serveTree that tells the server's address too.
func serveAt(t *testing.T, tree fs.Tree, opt nfs.Options) (s *nfs.Server, addr string, c *nfstest.Client, root nfstest.Handle) {
	t.Helper()
	opt.Exports = []nfs.Export{exported(tree)}
	s, addr = start(t, opt)
	c = dial(t, addr)
	return s, addr, c, must(c.Mount("/data"))(t)
}

// TestSlowOnce has a client take its replies late, but in time, then nothing for
// longer than a client may be stalled, and then ask again: it is answered.
func TestSlowOnce(t *testing.T) {
	const stall = time.Second
	tree := treetest.NewMemWrite(treetest.MemOptions{})
	stamped(t, tree, "file", 8<<20)
	_, addr, c, root := serveAt(t, tree, nfs.Options{StallTimeout: stall})
	file, _, err := c.Lookup(root, "file")
	if err != nil {
		t.Fatal(err)
	}
	s := newStream(t, addr, "127.0.0.1")
	const many = 24 // more than lies between them
	for i := range uint32(many) {
		s.send(s.call(i, nfstest.Read, file, uint64(i%8)<<20, 1<<20))
	}
	time.Sleep(stall / 4)
	for range many {
		s.reply()
	}
	time.Sleep(2 * stall)
	s.send(s.call(many, nfstest.GetAttr, file))
	if p := s.reply(); binary.BigEndian.Uint32(p) != many {
		t.Errorf("%x", p)
	}
}

// TestStalledThenDropped has a client ask for much that it does not take, and
// then write. When the server gives it up, the write is not done: its client has
// long asked for it, and for others, on another connection.
func TestStalledThenDropped(t *testing.T) {
	tree := treetest.NewMemWrite(treetest.MemOptions{NoBorrow: true})
	stamped(t, tree, "file", 16<<20)
	srv, addr, c, root := serveAt(t, tree, nfs.Options{StallTimeout: time.Second, ConnBytes: 1 << 20, Log: slog.New(slog.DiscardHandler)})
	file, _, err := c.Lookup(root, "file")
	if err != nil {
		t.Fatal(err)
	}
	other := must(c.Create(root, "other", nfstest.Guarded))(t)
	s := newStream(t, addr, "127.0.0.1")
	var ask []byte
	for i := range uint32(64) {
		if ask = append(ask, s.call(i, nfstest.Read, file, uint64(i%16)<<20, 1<<20)...); i == 32 {
			ask = append(ask, s.call(99, nfstest.Write, other, uint64(0), 3, nfstest.FileSync, "old")...)
		}
	}
	s.send(ask)
	for srv.Stats().Calls["READ"].Calls == 0 {
		time.Sleep(time.Millisecond)
	}
	for end := time.Now().Add(20 * time.Second); srv.Stats().Conns > 1; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the stalled connection is still there")
		}
	}
	r, err := c.Read(other, 0, 10)
	if err != nil || len(r.Data) > 0 {
		t.Errorf("the file holds %q, %v", r.Data, err)
	}
}

// TestReadWithMore sends reads with far more behind their arguments, on a
// connection whose share doesn't take both that and the reply.
func TestReadWithMore(t *testing.T) {
	tree := treetest.NewMemWrite(treetest.MemOptions{})
	stamped(t, tree, "file", 1<<20)
	_, addr, c, root := serveAt(t, tree, nfs.Options{ConnBytes: 1 << 20})
	file, _, err := c.Lookup(root, "file")
	if err != nil {
		t.Fatal(err)
	}
	more := nfstest.Fixed(string(make([]byte, 600<<10)))
	s := newStream(t, addr, "127.0.0.1")
	for i, p := range [][]byte{
		s.call(0, nfstest.Read, file, uint64(0), 1<<20, more),
		s.call(1, nfstest.ReadDir, root, uint64(0), uint64(0), 1<<20, more),
		s.call(2, nfstest.ReadDirPlus, root, uint64(0), uint64(0), 1<<20, 1<<20, more),
	} {
		s.send(p)
		if p := s.reply(); len(p) != 24 || binary.BigEndian.Uint32(p) != uint32(i) || binary.BigEndian.Uint32(p[20:]) != 4 {
			t.Errorf("%d: %x, want GARBAGE_ARGS", i, p)
		}
	}
}

// TestStrangers has somebody who may use nothing take connections: half of them
// stay for those who may.
func TestStrangers(t *testing.T) {
	e := exported(treetest.NewMemWrite(treetest.MemOptions{}))
	e.Allow = []netip.Prefix{netip.MustParsePrefix("127.0.0.2/32")}
	_, addr := start(t, nfs.Options{Exports: []nfs.Export{e}, MaxConns: 8, Log: slog.New(slog.DiscardHandler)})
	for i := range 8 {
		s := newStream(t, addr, "127.0.0.1")
		_, _ = s.Write(s.call(1, 0))
		if _, err := s.Read(make([]byte, 1)); (err == nil) != (i < 4) {
			t.Errorf("stranger %d: %v", i, err)
		}
	}
	for range 4 {
		s := newStream(t, addr, "127.0.0.2")
		s.send(s.call(1, 0))
		s.reply()
	}
}

// TestCommitFull answers a COMMIT that finds no space so that it comes again.
func TestCommitFull(t *testing.T) {
	var asked atomic.Int32
	tree := treetest.NewMemWrite(treetest.MemOptions{Before: func(_ context.Context, op string, _ fs.ID, _ int64, _ int) error {
		if op == "Commit" && asked.Add(1) == 1 {
			return fs.ErrNoSpace
		}
		return nil
	}})
	_, addr, c, root := serveAt(t, tree, nfs.Options{})
	file := must(c.Create(root, "file", nfstest.Guarded))(t)
	s := newStream(t, addr, "127.0.0.1")
	for _, want := range []uint32{10008, 0} {
		s.send(s.call(1, nfstest.Commit, file, uint64(0), 0))
		if p := s.reply(); binary.BigEndian.Uint32(p[24:]) != want {
			t.Errorf("status %d, want %d", binary.BigEndian.Uint32(p[24:]), want)
		}
	}
}
