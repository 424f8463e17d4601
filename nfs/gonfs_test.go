package nfs_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"testing"
	"time"

	gonfs "github.com/willscott/go-nfs-client/nfs"
	gorpc "github.com/willscott/go-nfs-client/nfs/rpc"

	"holdfast/fs/treetest"
	"holdfast/nfs"
)

// TestGoNFSClient lets a client of another house make, write, list, read, move
// and remove.
func TestGoNFSClient(t *testing.T) {
	_, addr := start(t, nfs.Options{Exports: []nfs.Export{exported(treetest.NewMemWrite(treetest.MemOptions{}))}, MaxTransfer: 64 << 10})
	root := must(dial(t, addr).Mount("/data"))(t)
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
	v, err := gonfs.NewTargetWithClient(client, gorpc.NewAuthUnix("peer", 0, 0).Auth(), root, "/data", time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	info, err := v.FSInfo()
	if err != nil || info.RTMax != 64<<10 || info.WTMax != 64<<10 {
		t.Errorf("FSINFO: %+v, %v", info, err)
	}
	must(v.Mkdir("/dir", 0o755))(t)
	data := bytes.Repeat([]byte("0123456789abcdef\n"), 30_000)
	w := must(v.OpenFile("/dir/file", 0o644))(t)
	if n, err := io.Copy(w, bytes.NewReader(data)); err != nil || int(n) != len(data) {
		t.Fatalf("write: %d, %v", n, err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	read := func(name string) {
		t.Helper()
		r, err := v.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
	read("/dir/file")
	if err := v.Rename("/dir/file", "/dir/moved"); err != nil {
		t.Fatal(err)
	}
	read("/dir/moved")
	want := []string{"moved"}
	for i := range 300 {
		name := fmt.Sprintf("f%03d", i)
		must(v.Create("/dir/"+name, 0o600))(t)
		want = append(want, name)
	}
	slices.Sort(want)
	list := must(v.ReadDirPlus("/dir"))(t)
	var names []string
	for _, e := range list {
		if e.Name() != "." && e.Name() != ".." {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	if !slices.Equal(names, want) {
		t.Errorf("%d names, want %d", len(names), len(want))
	}
	if err := v.RmDir("/dir"); !gonfs.IsNotEmptyError(err) {
		t.Errorf("RMDIR of a full directory: %v", err)
	}
	if err := v.RemoveAll("/dir"); err != nil {
		t.Error(err)
	}
	if list := must(v.ReadDirPlus("/"))(t); slices.ContainsFunc(list, func(e *gonfs.EntryPlus) bool { return e.Name() == "dir" }) {
		t.Error("the directory is still there")
	}
}
