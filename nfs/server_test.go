package nfs_test

import (
	"log/slog"
	"net"
	"net/netip"
	"testing"

	"holdfast/fs"
	"holdfast/fs/treetest"
	"holdfast/nfs"
	"holdfast/nfs/nfstest"
)

var everyone = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}

// exported is an export of a tree to everybody.
func exported(t fs.Tree) nfs.Export {
	return nfs.Export{ID: 7, Path: "/data", Tree: t, Allow: everyone, Key: [16]byte{1, 2, 3}}
}

// logTo is a logger that writes to the test's log.
type logTo struct{ tb testing.TB }

func (l logTo) Write(p []byte) (int, error) {
	l.tb.Logf("%s", p)
	return len(p), nil
}

// start serves on a port of the loopback interface until the test ends.
func start(tb testing.TB, opt nfs.Options) (s *nfs.Server, addr string) {
	tb.Helper()
	if opt.Log == nil {
		opt.Log = slog.New(slog.NewTextHandler(logTo{tb}, nil))
	}
	s, err := nfs.New(opt)
	if err != nil {
		tb.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(l) }()
	tb.Cleanup(func() {
		if err := s.Close(); err != nil {
			tb.Error(err)
		}
		if err := <-ended; err != nfs.ErrClosed {
			tb.Errorf("Serve returned %v", err)
		}
		if st := s.Stats(); st.HeldBytes != 0 || st.Conns != 0 {
			tb.Errorf("at the end %d bytes are held for %d connections", st.HeldBytes, st.Conns)
		}
	})
	return s, l.Addr().String()
}

func dial(tb testing.TB, addr string) *nfstest.Client {
	tb.Helper()
	c, err := nfstest.Dial(tb.Context(), addr)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = c.Close() })
	return c
}

// serveTree serves a tree and mounts it.
func serveTree(tb testing.TB, t fs.Tree, opt nfs.Options) (*nfs.Server, *nfstest.Client, nfstest.Handle) {
	tb.Helper()
	opt.Exports = append(opt.Exports, exported(t))
	s, addr := start(tb, opt)
	c := dial(tb, addr)
	root, err := c.Mount("/data")
	if err != nil {
		tb.Fatal(err)
	}
	return s, c, root
}

// TestConforms runs the suite of trees over the wire.
func TestConforms(t *testing.T) {
	files := treetest.Files{"big": {Data: make([]byte, 3<<20)}, "dir/sub/link": {Target: "../../big"}, "hole": {Attr: fs.Attr{Size: 1 << 33}}}
	for i := range 1000 {
		files["many/"+string(rune('a'+i%26))+string(rune('a'+i/26))] = treetest.File{Data: []byte{byte(i), byte(i >> 8)}}
	}
	for i := range files["big"].Data {
		files["big"].Data[i] = byte(i ^ i>>8 ^ i>>16)
	}
	_, c, root := serveTree(t, treetest.NewTree(files), nfs.Options{})
	tree, err := nfstest.NewTree(c, root)
	if err != nil {
		t.Fatal(err)
	}
	treetest.Conform(t, tree, treetest.Options{})
}
