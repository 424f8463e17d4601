package nfs_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"holdfast/fs/treetest"
	"holdfast/nfs"
	"holdfast/nfs/nfstest"
)

// TestQemuDriver lets qemu's own NFS client, with our port mapper, convert,
// compare, check and write disks on an export.
func TestQemuDriver(t *testing.T) {
	if !inNamespace(t, "qemu-img", "qemu-io", "qemu-nfs") {
		return
	}
	s, err := nfs.New(nfs.Options{Exports: []nfs.Export{exported(treetest.NewMemWrite(treetest.MemOptions{Bytes: 1 << 30}))}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for port, serve := range map[string]func(net.Listener) error{"2049": s.Serve, "111": s.ServePortmap} {
		l, err := net.Listen("tcp", "127.0.0.1:"+port)
		if err != nil {
			t.Fatal(err)
		}
		go func() { _ = serve(l) }()
	}
	s.SetPorts(nfs.Mappings(2049, 111))
	const url = "nfs://127.0.0.1/data/"

	const size = 24 << 20
	want := make([]byte, size)
	rnd := rand.New(rand.NewPCG(5, 5))
	for range 40 { // and holes between
		off := rnd.IntN(size/8-50_000) * 8
		nfstest.Stamp(want[off:off+100_000], int64(off), 3)
	}
	local := filepath.Join(t.TempDir(), "disk.raw")
	if err := os.WriteFile(local, want, 0o600); err != nil {
		t.Fatal(err)
	}
	command(t, "qemu-img", "convert", "-f", "raw", "-O", "raw", local, url+"disk.raw")
	command(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", local, url+"disk.raw")
	command(t, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", url+"disk.raw", url+"disk.qcow2")
	command(t, "qemu-img", "check", "-f", "qcow2", url+"disk.qcow2")
	command(t, "qemu-img", "compare", "-f", "raw", "-F", "qcow2", local, url+"disk.qcow2")

	// Random writes, some of them overlapping and unaligned, then reads of the
	// same program in another order, then the file as our own client sees it.
	var script strings.Builder
	for i := range 300 {
		off, n := rnd.IntN(size-300_000), 1+rnd.IntN(30_000)
		if i%10 == 0 {
			n *= 10
		}
		if i%3 > 0 {
			off, n = off&^511, (n+511)&^511
		}
		pattern := byte(1 + rnd.IntN(255))
		for k := range n {
			want[off+k] = pattern
		}
		fmt.Fprintf(&script, "write -q -P %d %d %d\n", pattern, off, n)
		if i%20 == 0 {
			script.WriteString("flush\n")
		}
		if i%25 == 0 {
			fmt.Fprintf(&script, "read -q -P %d %d %d\n", pattern, off, n)
		}
	}
	script.WriteString("flush\n")
	file := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(file, []byte(script.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"disk.raw", "disk.qcow2"} {
		out := command(t, "sh", "-ec", `qemu-io -f "$1" "$2" <"$3"`, "sh", strings.TrimPrefix(filepath.Ext(name), "."), url+name, file)
		if strings.Contains(out, "fail") || strings.Contains(out, "rror") {
			t.Errorf("qemu-io on %s: %s", name, out)
		}
	}
	command(t, "qemu-img", "check", "-f", "qcow2", url+"disk.qcow2")
	command(t, "qemu-img", "compare", "-f", "raw", "-F", "qcow2", url+"disk.raw", url+"disk.qcow2")

	c := dial(t, "127.0.0.1:2049")
	root := must(c.Mount("/data"))(t)
	disk, _, err := c.Lookup(root, "disk.raw")
	if err != nil {
		t.Fatal(err)
	}
	for off := 0; off < size; off += 1 << 20 {
		if r := must(c.Read(disk, uint64(off), 1<<20))(t); !bytes.Equal(r.Data, want[off:off+1<<20]) {
			t.Fatalf("the bytes from %d on are not those that were written", off)
		}
	}
	if st := s.Stats(); st.Calls["WRITE"].Calls < 300 || st.Panics != 0 {
		t.Errorf("%+v", st)
	}
}
