package nfs_test

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"holdfast/fs/treetest"
	"holdfast/nfs"
	"holdfast/nfs/nfstest"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// wire exchanges records with a server and writes them down.
type wire struct {
	t    *testing.T
	nc   net.Conn
	xid  uint32
	text strings.Builder
}

// ask sends a call and returns the results of its reply, status included.
func (w *wire) ask(name string, prog, vers, proc uint32, args ...any) *nfstest.Decoder {
	w.t.Helper()
	c := nfstest.Client{Cred: nfstest.Sys(0, 0, 4, 27)}
	w.xid++
	call := nfstest.Record(append(c.Header(w.xid, prog, vers, proc), nfstest.Words(args...)...))
	reply := w.raw(name, call)
	res, err := nfstest.Results(reply[4:])
	var rpc *nfstest.RPCError
	if err != nil && !errors.As(err, &rpc) {
		w.t.Fatalf("%s: %v", name, err)
	}
	return &nfstest.Decoder{B: res}
}

func (w *wire) raw(name string, call []byte) []byte {
	w.t.Helper()
	if _, err := w.nc.Write(call); err != nil {
		w.t.Fatal(err)
	}
	reply := make([]byte, 4)
	if _, err := io.ReadFull(w.nc, reply); err != nil {
		w.t.Fatalf("%s: %v", name, err)
	}
	reply = append(reply, make([]byte, binary.BigEndian.Uint32(reply)&0x7fffffff)...)
	if _, err := io.ReadFull(w.nc, reply[4:]); err != nil {
		w.t.Fatalf("%s: %v", name, err)
	}
	fmt.Fprintf(&w.text, "%s\n%s%s\n", name, dump("> ", call), dump("< ", reply))
	return reply
}

// dump shows bytes in lines of eight words.
func dump(prefix string, b []byte) string {
	var s strings.Builder
	for len(b) > 0 {
		line := b[:min(32, len(b))]
		b = b[len(line):]
		s.WriteString(prefix)
		for len(line) > 0 {
			word := line[:min(4, len(line))]
			line = line[len(word):]
			s.WriteString(hex.EncodeToString(word))
			if len(line) > 0 {
				s.WriteByte(' ')
			}
		}
		s.WriteByte('\n')
	}
	return s.String()
}

// handleOf decodes the handle in the results of LOOKUP, or of what makes things.
func handleOf(t *testing.T, d *nfstest.Decoder, made bool) nfstest.Handle {
	t.Helper()
	if d.Uint32() != 0 || (made && !d.Bool()) {
		t.Fatal("no handle")
	}
	return nfstest.Handle(d.Opaque())
}

// TestGolden holds requests and replies of every procedure to the byte.
func TestGolden(t *testing.T) {
	tree := treetest.NewMemWrite(treetest.MemOptions{Bytes: 1 << 30, Now: func() time.Time { return time.Unix(1_700_000_000, 5) }})
	s, addr := start(t, nfs.Options{Exports: []nfs.Export{exported(tree)}})
	s.SetPorts(nfs.Mappings(2049, 111))
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	w := &wire{t: t, nc: nc, xid: 0x48460000}
	call := func(name string, proc uint32, args ...any) *nfstest.Decoder {
		return w.ask(name, nfstest.NFS, 3, proc, args...)
	}

	w.ask("MOUNT NULL", nfstest.Mount, 3, 0)
	d := w.ask("MNT", nfstest.Mount, 3, 1, "/data")
	d.Uint32()
	root := nfstest.Handle(d.Opaque())
	w.ask("MNT of what is no export", nfstest.Mount, 3, 1, "/other")
	w.ask("DUMP", nfstest.Mount, 3, 2)
	w.ask("EXPORT", nfstest.Mount, 3, 5)
	w.ask("UMNT", nfstest.Mount, 3, 3, "/data")
	w.ask("UMNTALL", nfstest.Mount, 3, 4)

	call("NULL", nfstest.Null)
	call("GETATTR", nfstest.GetAttr, root)
	call("FSINFO", nfstest.FSInfo, root)
	call("FSSTAT", nfstest.FSStat, root)
	call("PATHCONF", nfstest.PathConf, root)
	call("ACCESS", nfstest.Access, root, 0x3f)
	file := handleOf(t, call("CREATE unchecked", nfstest.Create, root, "file", nfstest.Unchecked, nfstest.Mode(0o640)), true)
	call("CREATE guarded, there already", nfstest.Create, root, "file", nfstest.Guarded, nfstest.NoAttr)
	call("CREATE exclusive", nfstest.Create, root, ".lck-1", nfstest.Exclusive, nfstest.Fixed("verifier"))
	call("CREATE exclusive, with another verifier", nfstest.Create, root, ".lck-1", nfstest.Exclusive, nfstest.Fixed("another!"))
	call("LOOKUP", nfstest.Lookup, root, "file")
	call("LOOKUP of nothing", nfstest.Lookup, root, "nothing")
	call("SETATTR", nfstest.SetAttr, file, nfstest.Raw(nfstest.Words(true, 0o600, true, 1, true, 2, true, uint64(100_000), 1, 2, 1_600_000_000, 9)), false)
	call("SETATTR guarded", nfstest.SetAttr, file, nfstest.Size(5), true, 1, 2)
	call("WRITE unstable", nfstest.Write, file, uint64(3), 5, nfstest.Unstable, "hello")
	call("COMMIT", nfstest.Commit, file, uint64(0), 0)
	call("WRITE to be stable", nfstest.Write, file, uint64(99_999), 3, nfstest.FileSync, "end")
	call("READ", nfstest.Read, file, uint64(0), 11)
	call("READ to the end", nfstest.Read, file, uint64(99_990), 100)
	call("READ behind it", nfstest.Read, file, uint64(1<<40), 100)
	call("READ of a directory", nfstest.Read, root, uint64(0), 11)
	dir := handleOf(t, call("MKDIR", nfstest.Mkdir, root, "dir", nfstest.NoAttr), true)
	link := handleOf(t, call("SYMLINK", nfstest.Symlink, dir, "link", nfstest.NoAttr, "../file"), true)
	call("READLINK", nfstest.ReadLink, link)
	call("MKNOD", nfstest.Mknod, dir, "null", 4, nfstest.NoAttr, 1, 3)
	call("MKNOD of a FIFO", nfstest.Mknod, dir, "fifo", 7, nfstest.NoAttr)
	call("LINK", nfstest.Link, file, dir, "other name")
	call("READDIR", nfstest.ReadDir, dir, uint64(0), uint64(0), 4096)
	call("READDIRPLUS", nfstest.ReadDirPlus, root, uint64(0), uint64(0), 4096, 4096)
	call("READDIRPLUS, not all", nfstest.ReadDirPlus, root, uint64(0), uint64(0), 4096, 400)
	call("RENAME", nfstest.Rename, dir, "other name", root, "moved")
	call("RENAME into itself", nfstest.Rename, root, "dir", dir, "x")
	call("REMOVE", nfstest.Remove, dir, "null")
	call("RMDIR, not empty", nfstest.Rmdir, root, "dir")
	call("RMDIR of a file", nfstest.Rmdir, root, "file")
	empty := handleOf(t, call("MKDIR", nfstest.Mkdir, root, "empty", nfstest.NoAttr), true)
	call("RMDIR", nfstest.Rmdir, root, "empty")
	call("GETATTR of what is gone", nfstest.GetAttr, empty)
	w.ask("a program that is not there", 100021, 4, 0)
	w.ask("version 4", nfstest.NFS, 4, 0)
	w.ask("procedure 22", nfstest.NFS, 3, 22)
	w.ask("arguments that are none", nfstest.NFS, 3, nfstest.GetAttr, 5)
	golden(t, "testdata/golden.txt", w.text.String())
}

// TestGoldenPortmap does it for the port mapper.
func TestGoldenPortmap(t *testing.T) {
	s, err := nfs.New(nfs.Options{Exports: []nfs.Export{exported(treetest.NewTree(nil))}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	s.SetPorts(nfs.Mappings(2049, 111))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = s.ServePortmap(l) }()
	nc, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	w := &wire{t: t, nc: nc, xid: 0x48460000}
	w.ask("PORTMAP NULL", nfstest.Portmap, 2, 0)
	w.ask("GETPORT of NFS", nfstest.Portmap, 2, 3, 100003, 3, 6, 0)
	w.ask("GETPORT of MOUNT, UDP", nfstest.Portmap, 2, 3, 100005, 3, 17, 0)
	w.ask("GETPORT of what is not there", nfstest.Portmap, 2, 3, 100021, 4, 6, 0)
	w.ask("DUMP", nfstest.Portmap, 2, 4)
	w.ask("SET", nfstest.Portmap, 2, 1, 100003, 3, 6, 666)
	w.ask("UNSET", nfstest.Portmap, 2, 2, 100003, 3, 6, 666)
	w.ask("CALLIT", nfstest.Portmap, 2, 5, 100003, 3, 0, "")
	w.ask("version 3", nfstest.Portmap, 3, 0)
	w.ask("NFS", nfstest.NFS, 3, 0)
	golden(t, "testdata/portmap.txt", w.text.String())
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	gotLines, wantLines := strings.Split(got, "\n"), strings.Split(string(want), "\n")
	title := ""
	for i := range max(len(gotLines), len(wantLines)) {
		g, w := "", ""
		if i < len(gotLines) {
			g = gotLines[i]
		}
		if i < len(wantLines) {
			w = wantLines[i]
		}
		if w != "" && w[0] != '<' && w[0] != '>' {
			title = w
		}
		if g != w {
			t.Fatalf("%s:%d, %s:\n got %s\nwant %s", name, i+1, title, g, w)
		}
	}
}

// exchange sends b on a connection of its own and returns n bytes that come
// back, or with n 0 all until its end.
func exchange(t *testing.T, addr string, b []byte, n int) []byte {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if _, err := nc.Write(b); err != nil {
		t.Fatal(err)
	}
	_ = nc.SetReadDeadline(time.Now().Add(20 * time.Second))
	if n == 0 {
		got, err := io.ReadAll(nc)
		if err != nil && !strings.Contains(err.Error(), "reset") {
			t.Error(err)
		}
		return got
	}
	got := make([]byte, n)
	at, err := io.ReadFull(nc, got)
	if err != nil {
		t.Error(err)
	}
	return got[:at]
}
