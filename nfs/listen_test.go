package nfs_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"

	"holdfast/fs/treetest"
	"holdfast/nfs"
	"holdfast/nfs/nfstest"
)

// TestListen offers exports at one address each, over a listener for all.
func TestListen(t *testing.T) {
	both := exported(treetest.NewTree(nil))
	one, two := both, both
	one.ID, one.Path, one.Listen = 8, "/one", []netip.Addr{netip.MustParseAddr("127.0.0.1")}
	two.ID, two.Path, two.Listen = 9, "/two", []netip.Addr{netip.MustParseAddr("127.0.0.2"), netip.MustParseAddr("192.0.2.7")}
	s, err := nfs.New(nfs.Options{Exports: []nfs.Export{both, one, two}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = s.Serve(l) }()
	port := l.Addr().(*net.TCPAddr).Port
	handles := map[string]nfstest.Handle{}
	for _, tt := range []struct {
		at, path string
		err      error
	}{
		{"127.0.0.1", "/data", nil},
		{"127.0.0.2", "/data", nil},
		{"127.0.0.1", "/one", nil},
		{"127.0.0.2", "/one", nfstest.Acces},
		{"127.0.0.1", "/two", nfstest.Acces},
		{"127.0.0.2", "/two", nil},
	} {
		c := dial(t, fmt.Sprint(tt.at, ":", port))
		h, err := c.Mount(tt.path)
		if !errors.Is(err, tt.err) {
			t.Errorf("%s at %s: %v, want %v", tt.path, tt.at, err, tt.err)
		}
		if err == nil {
			handles[tt.path] = h
		}
		// A handle from elsewhere is no way in either.
		if h := handles[tt.path]; h != nil {
			if _, err := c.GetAttr(h); !errors.Is(err, tt.err) {
				t.Errorf("GETATTR of %s at %s: %v, want %v", tt.path, tt.at, err, tt.err)
			}
		}
	}
	res, err := dial(t, fmt.Sprint("127.0.0.2:", port)).Call(nfstest.Mount, 3, 5, nil)
	if err != nil {
		t.Fatal(err)
	}
	d := nfstest.Decoder{B: res}
	var list []string
	for d.Bool() {
		list = append(list, string(d.Opaque()))
		for d.Bool() {
			d.Opaque()
		}
	}
	if fmt.Sprint(list) != "[/data /two]" {
		t.Errorf("EXPORT at 127.0.0.2: %v", list)
	}
}
