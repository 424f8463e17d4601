//go:build linux

package e2e

import (
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"holdfast/fs"
	"holdfast/fs/guest/ext4"
	"holdfast/fs/treetest"
	"holdfast/nfs"
	"holdfast/nfs/nfstest"
)

// TestGuestOverNFS serves a guest's ext4, made of this module's sources, over
// NFS: what a client sees of every path is what the tree has.
func TestGuestOverNFS(t *testing.T) {
	begin(t, "mke2fs")
	image := filepath.Join(t.TempDir(), "ext4.img")
	src, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, part := range []string{"fs", "nfs", "image", "internal"} {
		if err := os.CopyFS(filepath.Join(dir, part), os.DirFS(filepath.Join(src, part))); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("fs/tree.go", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mke2fs", "-q", "-t", "ext4", "-d", dir, image, "256M").CombinedOutput(); err != nil {
		t.Fatalf("mke2fs: %v\n%s", err, out)
	}
	f, err := os.Open(image)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	tree, err := ext4.Open(f, 256<<20)
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	s, err := nfs.New(nfs.Options{Exports: []nfs.Export{{
		ID: 1, Path: "/guest", Tree: tree, Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}, ReadOnly: true, Key: [16]byte{1},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = s.Serve(l) }()
	c, err := nfstest.Dial(t.Context(), l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	root, err := c.Mount("/guest")
	if err != nil {
		t.Fatal(err)
	}
	seen, err := nfstest.NewTree(c, root)
	if err != nil {
		t.Fatal(err)
	}
	want, got := treetest.Snap(t, tree, tree.Root()), treetest.Snap(t, fs.Tree(seen), seen.Root())
	if diff := treetest.Diff(want, got, treetest.Btime|treetest.Xattrs|treetest.Streams); len(diff) > 0 {
		t.Errorf("%d differences, such as %v", len(diff), diff[:min(len(diff), 10)])
	}
	if n := len(want.Nodes); n < 300 {
		t.Errorf("the tree has %d paths", n)
	}
	treetest.Conform(t, seen, treetest.Options{})
}
