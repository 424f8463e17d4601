//go:build linux

package e2e

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"testing"
	"time"

	gonfs "github.com/willscott/go-nfs-client/nfs"
	gorpc "github.com/willscott/go-nfs-client/nfs/rpc"

	"holdfast/fs"
	"holdfast/fs/datastore"
	"holdfast/fs/treetest"
	"holdfast/nfs"
	"holdfast/nfs/nfstest"
	"holdfast/repo/vfs"
)

// served is a datastore in a directory, served over NFS.
type served struct {
	store *datastore.Store
	srv   *nfs.Server
	addr  string
}

func serveStore(t *testing.T, fsys vfs.FS) *served {
	t.Helper()
	store, err := datastore.Open(fsys, datastore.Options{MaxFiles: 20_000})
	if err != nil {
		t.Fatal(err)
	}
	srv, err := nfs.New(nfs.Options{Exports: []nfs.Export{{
		ID: 1, Path: "/datastore", Tree: store, Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}, Key: [16]byte{1},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = srv.Serve(l) }()
	return &served{store, srv, l.Addr().String()}
}

func (s *served) stop(t *testing.T) {
	t.Helper()
	if err := s.srv.Close(); err != nil {
		t.Error(err)
	}
	if err := s.store.Close(); err != nil {
		t.Error(err)
	}
}

func (s *served) dial(t *testing.T) *nfstest.Client {
	t.Helper()
	c, err := nfstest.Dial(t.Context(), s.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// TestDatastoreOverNFS serves a datastore: a client of another house works in a
// session, the server is started anew, handles are good and a GUARDED create
// that is sent again gets its old answer, and the suite of trees passes.
func TestDatastoreOverNFS(t *testing.T) {
	begin(t)
	fsys, err := vfs.OS(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer fsys.Close()
	if err := datastore.Create(fsys, datastore.Options{}); err != nil {
		t.Fatal(err)
	}
	s := serveStore(t, fsys)
	number, err := s.store.AddSession(datastore.SessionSpec{Name: "vm", Files: []datastore.File{{Name: "vm.vmx", Data: []byte("config")}}})
	if err != nil {
		t.Fatal(err)
	}
	root, err := s.dial(t).Mount("/datastore")
	if err != nil {
		t.Fatal(err)
	}
	otherHouse(t, s.addr, root)

	c := s.dial(t)
	dir, a, err := c.Lookup(root, "vm")
	if err != nil || a.FileID != datastore.SessionRoot(number).Ino {
		t.Fatalf("the session: %+v, %v", a, err)
	}
	c.SetXID(77)
	lock, err := c.Create(dir, ".lck-1", nfstest.Guarded)
	if err != nil {
		t.Fatal(err)
	}
	w, err := c.Write(lock, 0, []byte("host 1"), nfstest.FileSync)
	if err != nil || w.Count != 6 {
		t.Fatal(w, err)
	}
	before, err := c.GetAttr(lock)
	if err != nil {
		t.Fatal(err)
	}
	s.stop(t)
	s = serveStore(t, fsys)
	defer func() { s.stop(t) }()
	c = s.dial(t)
	if after, err := c.GetAttr(lock); err != nil || after != before {
		t.Errorf("after a restart: %+v, %v; before: %+v", after, err, before)
	}
	c.SetXID(77)
	if again, err := c.Create(dir, ".lck-1", nfstest.Guarded); err != nil || !bytes.Equal(again, lock) {
		t.Errorf("the GUARDED create once more: %x, %v; it was %x", again, err, lock)
	}
	if _, err := c.Create(dir, ".lck-1", nfstest.Guarded); err != nfstest.Exist {
		t.Errorf("another GUARDED create: %v", err)
	}
	for i := range 1500 {
		if _, err := c.Create(dir, fmt.Sprintf("many %d", i), nfstest.Guarded); err != nil {
			t.Fatal(err)
		}
	}
	tree, err := nfstest.NewTree(c, root)
	if err != nil {
		t.Fatal(err)
	}
	treetest.Conform(t, fs.Tree(tree), treetest.Options{})
}

// otherHouse works in the session with go-nfs-client.
func otherHouse(t *testing.T, addr string, root nfstest.Handle) {
	t.Helper()
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	client, err := gonfs.DialServiceAtPort(host, n)
	if err != nil {
		t.Fatal(err)
	}
	v, err := gonfs.NewTargetWithClient(client, gorpc.NewAuthUnix("peer", 0, 0).Auth(), root, "/datastore", time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	data := bytes.Repeat([]byte("0123456789abcdef\n"), 60_000)
	for _, dir := range []string{"/vm/logs", "/of the root"} {
		if _, err := v.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		w, err := v.OpenFile(dir+"/file", 0o644)
		if err != nil {
			t.Fatal(err)
		}
		if n, err := io.Copy(w, bytes.NewReader(data)); err != nil || int(n) != len(data) {
			t.Fatalf("write: %d, %v", n, err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if err := v.Rename(dir+"/file", dir+"/moved"); err != nil {
			t.Fatal(err)
		}
		r, err := v.Open(dir + "/moved")
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%s: %d bytes, %v", dir, len(got), err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := v.Rename("/vm/logs/moved", "/of the root/x"); err == nil {
		t.Error("a rename out of a session was done")
	}
	if err := v.RmDir("/vm"); err == nil {
		t.Error("a session was removed")
	}
	if err := v.RemoveAll("/vm/logs"); err != nil {
		t.Error(err)
	}
}
