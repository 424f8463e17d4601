package nfs

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"testing"
	"time"

	"holdfast/fs"
	"holdfast/fs/treetest"
	"holdfast/nfs/nfstest"
)

// TestShortWritesCount has a client send more short writes than its share while
// none can be done: what they take is counted, and soon no more are taken.
func TestShortWritesCount(t *testing.T) {
	const share, size = 1 << 20, 12 << 10
	hold := make(chan struct{})
	tree := treetest.NewMemWrite(treetest.MemOptions{Before: func(_ context.Context, op string, _ fs.ID, _ int64, _ int) error {
		if op == "WriteAt" {
			<-hold
		}
		return nil
	}})
	s, err := New(Options{
		Exports:   []Export{{ID: 1, Path: "/data", Tree: tree, Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, Key: [16]byte{1}}},
		ConnBytes: share, Workers: 2, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = s.Serve(l) }()
	defer s.Close()
	defer close(hold)
	c, err := nfstest.Dial(t.Context(), l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	root, err := c.Mount("/data")
	if err != nil {
		t.Fatal(err)
	}
	file, err := c.Create(root, "file", nfstest.Guarded)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for i := range uint64(1000) {
			if _, err := c.Start(nfstest.NFS, 3, nfstest.Write, nfstest.Words(file, i*size, size, nfstest.FileSync, string(make([]byte, size)))); err != nil {
				return // the test is over
			}
		}
	}()
	pending := func() (n int) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.sched.mu.Lock()
		defer s.sched.mu.Unlock()
		for c := range s.conns {
			n += c.acct.pending
		}
		return n
	}
	for last, same := -1, 0; same < 20; time.Sleep(10 * time.Millisecond) {
		if n := pending(); n != last || n == 0 {
			last, same = n, 0
		}
		same++
	}
	if n, held := pending(), s.Stats().HeldBytes; int64(n)*size > held || n*size > share+64<<10 {
		t.Errorf("%d writes of %d bytes wait, %d bytes are held of %d", n, size, held, share)
	}
}
