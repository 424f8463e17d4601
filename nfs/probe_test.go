package nfs_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"holdfast/fs"
	"holdfast/fs/treetest"
	"holdfast/nfs"
	"holdfast/nfs/nfstest"
)

// must makes a file or directory for a test.
func must[T any](v T, err error) func(testing.TB) T {
	return func(tb testing.TB) T {
		tb.Helper()
		if err != nil {
			tb.Fatal(err)
		}
		return v
	}
}

// TestStatuses asks for what can't be, and wants exactly the status that the
// specification has for it, with the results that belong to it.
func TestStatuses(t *testing.T) {
	tree := treetest.NewMemWrite(treetest.MemOptions{Bytes: 1 << 19})
	ro := exported(treetest.NewTree(treetest.Files{"f": {Data: []byte("x")}, "d/x": {}, "l": {Target: "f"}}))
	ro.ID, ro.Path = 8, "/ro"
	secret := exported(treetest.NewTree(nil))
	secret.ID, secret.Path, secret.Allow = 9, "/secret", []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
	s, c, root := serveTree(t, tree, nfs.Options{Exports: []nfs.Export{ro, secret}})
	roRoot := must(c.Mount("/ro"))(t)
	roFile, _, err := c.Lookup(roRoot, "f")
	if err != nil {
		t.Fatal(err)
	}
	file := must(c.Create(root, "file", nfstest.Guarded))(t)
	dir := must(c.Mkdir(root, "dir"))(t)
	must(c.Create(dir, "below", nfstest.Guarded))(t)
	must(c.NFS(nfstest.Symlink, root, "link", nfstest.NoAttr, "file"))(t)
	link, _, err := c.Lookup(root, "link")
	if err != nil {
		t.Fatal(err)
	}
	gone := must(c.Mkdir(root, "gone"))(t)
	must(c.NFS(nfstest.Rmdir, root, "gone"))(t)
	bent := bytes.Clone(file)
	bent[20] ^= 1
	other := bytes.Clone(file)
	binary.BigEndian.PutUint32(other[4:], 99)
	foreign := bytes.Clone(file) // an export we may not use: a handle as its key would make it
	binary.BigEndian.PutUint32(foreign[4:], 9)
	long := strings.Repeat("n", 256)

	tests := []struct {
		name string
		want nfstest.Status
		proc uint32
		args []any
		rest string // what follows the status: post_op_attr and wcc_data, + there or - not
	}{
		{"a handle with a bit changed", nfstest.BadHandle, nfstest.GetAttr, []any{nfstest.Handle(bent)}, ""},
		{"a handle of another length", nfstest.BadHandle, nfstest.GetAttr, []any{file[:31]}, ""},
		{"an empty handle", nfstest.BadHandle, nfstest.GetAttr, []any{nfstest.Handle{}}, ""},
		{"64 bytes of another server's", nfstest.BadHandle, nfstest.GetAttr, []any{nfstest.Handle(make([]byte, 64))}, ""},
		{"a handle of an export that is gone", nfstest.Stale, nfstest.GetAttr, []any{nfstest.Handle(other)}, ""},
		{"a handle made up for another export", nfstest.BadHandle, nfstest.GetAttr, []any{nfstest.Handle(foreign)}, ""},
		{"a handle of what is gone", nfstest.Stale, nfstest.GetAttr, []any{gone}, ""},
		{"gone: SETATTR", nfstest.Stale, nfstest.SetAttr, []any{gone, nfstest.NoAttr, false}, "w"},
		{"gone: LOOKUP", nfstest.Stale, nfstest.Lookup, []any{gone, "x"}, "-"},
		{"gone: ACCESS", nfstest.Stale, nfstest.Access, []any{gone, 1}, "-"},
		{"gone: READLINK", nfstest.Stale, nfstest.ReadLink, []any{gone}, "-"},
		{"gone: READ", nfstest.Stale, nfstest.Read, []any{gone, uint64(0), 5}, "-"},
		{"gone: WRITE", nfstest.Stale, nfstest.Write, []any{gone, uint64(0), 1, 0, "x"}, "w"},
		{"gone: CREATE", nfstest.Stale, nfstest.Create, []any{gone, "x", 1, nfstest.NoAttr}, "w"},
		{"gone: MKDIR", nfstest.Stale, nfstest.Mkdir, []any{gone, "x", nfstest.NoAttr}, "w"},
		{"gone: SYMLINK", nfstest.Stale, nfstest.Symlink, []any{gone, "x", nfstest.NoAttr, "y"}, "w"},
		{"gone: MKNOD", nfstest.Stale, nfstest.Mknod, []any{gone, "x", 7, nfstest.NoAttr}, "w"},
		{"gone: REMOVE", nfstest.Stale, nfstest.Remove, []any{gone, "x"}, "w"},
		{"gone: RMDIR", nfstest.Stale, nfstest.Rmdir, []any{gone, "x"}, "w"},
		{"gone: RENAME", nfstest.Stale, nfstest.Rename, []any{gone, "x", root, "y"}, "wW"},
		{"gone: RENAME to", nfstest.Stale, nfstest.Rename, []any{root, "file", gone, "y"}, "Ww"},
		{"gone: LINK", nfstest.Stale, nfstest.Link, []any{file, gone, "y"}, "+w"},
		{"gone: LINK of it", nfstest.Stale, nfstest.Link, []any{gone, root, "y"}, "-W"},
		{"gone: READDIR", nfstest.Stale, nfstest.ReadDir, []any{gone, uint64(0), uint64(0), 4096}, "-"},
		{"gone: READDIRPLUS", nfstest.Stale, nfstest.ReadDirPlus, []any{gone, uint64(0), uint64(0), 4096, 4096}, "-"},
		{"gone: FSSTAT", nfstest.Stale, nfstest.FSStat, []any{gone}, "-"},
		{"gone: FSINFO", nfstest.Stale, nfstest.FSInfo, []any{gone}, "-"},
		{"gone: PATHCONF", nfstest.Stale, nfstest.PathConf, []any{gone}, "-"},
		{"gone: COMMIT", nfstest.Stale, nfstest.Commit, []any{gone, uint64(0), 0}, "w"},

		{"LOOKUP with a slash", nfstest.Acces, nfstest.Lookup, []any{root, "dir/below"}, "+"},
		{"LOOKUP with NUL", nfstest.Acces, nfstest.Lookup, []any{root, "file\x00"}, "+"},
		{"LOOKUP of no name", nfstest.Acces, nfstest.Lookup, []any{root, ""}, "+"},
		{"LOOKUP of 256 bytes", nfstest.NameTooLong, nfstest.Lookup, []any{root, long}, "+"},
		{"LOOKUP of nothing", nfstest.NoEnt, nfstest.Lookup, []any{root, "none"}, "+"},
		{"LOOKUP in a file", nfstest.NotDir, nfstest.Lookup, []any{file, "x"}, "+"},
		{"LOOKUP of .. in a file", nfstest.NotDir, nfstest.Lookup, []any{file, ".."}, "+"},

		{"SETATTR of a directory's size", nfstest.Inval, nfstest.SetAttr, []any{dir, nfstest.Size(0), false}, "W"},
		{"SETATTR of a link's size", nfstest.Inval, nfstest.SetAttr, []any{link, nfstest.Size(0), false}, "W"},
		{"SETATTR of more than can be", nfstest.FBig, nfstest.SetAttr, []any{file, nfstest.Size(1 << 63), false}, "W"},
		{"SETATTR with another ctime", nfstest.NotSync, nfstest.SetAttr, []any{file, nfstest.Size(0), true, 5, 5}, "W"},
		{"SETATTR with a time that is none", nfstest.Inval, nfstest.SetAttr, []any{file, nfstest.Raw(nfstest.Words(false, false, false, false, 2, 5, 1_000_000_000, 0)), false}, "W"},

		{"READLINK of a file", nfstest.Inval, nfstest.ReadLink, []any{file}, "+"},
		{"READ of a directory", nfstest.Inval, nfstest.Read, []any{dir, uint64(0), 5}, "+"},
		{"READ of a link", nfstest.Inval, nfstest.Read, []any{link, uint64(0), 5}, "+"},
		{"WRITE to a directory", nfstest.Inval, nfstest.Write, []any{dir, uint64(0), 1, 0, "x"}, "W"},
		{"WRITE of fewer bytes than it says", nfstest.Inval, nfstest.Write, []any{file, uint64(0), 2, 0, "x"}, "W"},
		{"WRITE behind all", nfstest.FBig, nfstest.Write, []any{file, uint64(math.MaxUint64), 1, 0, "x"}, "W"},
		{"WRITE just behind all", nfstest.FBig, nfstest.Write, []any{file, uint64(math.MaxInt64), 1, 0, "x"}, "W"},
		{"WRITE without room", nfstest.NoSpc, nfstest.Write, []any{file, uint64(0), 1 << 20, 0, make([]byte, 1<<20)}, "W"},
		{"COMMIT of a directory", nfstest.Inval, nfstest.Commit, []any{dir, uint64(0), 0}, "W"},

		{"CREATE of what is there", nfstest.Exist, nfstest.Create, []any{root, "file", nfstest.Guarded, nfstest.NoAttr}, "W"},
		{"CREATE over a directory", nfstest.Exist, nfstest.Create, []any{root, "dir", nfstest.Unchecked, nfstest.NoAttr}, "W"},
		{"CREATE exclusive of what is there", nfstest.Exist, nfstest.Create, []any{root, "file", nfstest.Exclusive, nfstest.Fixed("12345678")}, "W"},
		{"CREATE with a slash", nfstest.Acces, nfstest.Create, []any{root, "a/b", 0, nfstest.NoAttr}, "W"},
		{"CREATE of 256 bytes", nfstest.NameTooLong, nfstest.Create, []any{root, long, 0, nfstest.NoAttr}, "W"},
		{"CREATE of .", nfstest.Exist, nfstest.Create, []any{root, ".", 0, nfstest.NoAttr}, "W"},
		{"CREATE in a file", nfstest.NotDir, nfstest.Create, []any{file, "x", 0, nfstest.NoAttr}, "W"},
		{"MKDIR of what is there", nfstest.Exist, nfstest.Mkdir, []any{root, "file", nfstest.NoAttr}, "W"},
		{"MKDIR of ..", nfstest.Exist, nfstest.Mkdir, []any{root, "..", nfstest.NoAttr}, "W"},
		{"MKDIR of no name", nfstest.Acces, nfstest.Mkdir, []any{root, "", nfstest.NoAttr}, "W"},
		{"SYMLINK of what is there", nfstest.Exist, nfstest.Symlink, []any{root, "link", nfstest.NoAttr, "x"}, "W"},
		{"SYMLINK to 5,000 bytes", nfstest.NameTooLong, nfstest.Symlink, []any{root, "l2", nfstest.NoAttr, strings.Repeat("x", 5000)}, "W"},
		{"MKNOD of a file with attributes", nfstest.BadType, nfstest.Mknod, []any{root, "n", 1, nfstest.NoAttr}, "g"},
		{"MKNOD of a regular file", nfstest.BadType, nfstest.Mknod, []any{root, "n", 1}, "W"},
		{"REMOVE of nothing", nfstest.NoEnt, nfstest.Remove, []any{root, "none"}, "W"},
		{"REMOVE of a directory", nfstest.IsDir, nfstest.Remove, []any{root, "dir"}, "W"},
		{"REMOVE of .", nfstest.Inval, nfstest.Remove, []any{root, "."}, "W"},
		{"REMOVE of ..", nfstest.Inval, nfstest.Remove, []any{root, ".."}, "W"},
		{"RMDIR of .", nfstest.Inval, nfstest.Rmdir, []any{root, "."}, "W"},
		{"RMDIR of ..", nfstest.Exist, nfstest.Rmdir, []any{dir, ".."}, "W"},
		{"RMDIR of a file", nfstest.NotDir, nfstest.Rmdir, []any{root, "file"}, "W"},
		{"RMDIR of what is not empty", nfstest.NotEmpty, nfstest.Rmdir, []any{root, "dir"}, "W"},
		{"RENAME of nothing", nfstest.NoEnt, nfstest.Rename, []any{root, "none", root, "x"}, "WW"},
		{"RENAME of .", nfstest.Inval, nfstest.Rename, []any{root, ".", root, "x"}, "WW"},
		{"RENAME to ..", nfstest.Inval, nfstest.Rename, []any{root, "file", root, ".."}, "WW"},
		{"RENAME into itself", nfstest.Inval, nfstest.Rename, []any{root, "dir", dir, "x"}, "WW"},
		{"RENAME of a file over a directory", nfstest.Exist, nfstest.Rename, []any{root, "file", root, "dir"}, "WW"},
		{"RENAME to another export", nfstest.XDev, nfstest.Rename, []any{root, "file", roRoot, "x"}, "WW"},
		{"RENAME to 256 bytes", nfstest.NameTooLong, nfstest.Rename, []any{root, "file", root, long}, "WW"},
		{"LINK to a directory", nfstest.Inval, nfstest.Link, []any{dir, root, "x"}, "+W"},
		{"LINK of what is there", nfstest.Exist, nfstest.Link, []any{file, root, "link"}, "+W"},
		{"LINK in a file", nfstest.NotDir, nfstest.Link, []any{file, file, "x"}, "+W"},
		{"LINK to another export", nfstest.XDev, nfstest.Link, []any{roFile, root, "x"}, "+W"},
		{"READDIR of a file", nfstest.NotDir, nfstest.ReadDir, []any{file, uint64(0), uint64(0), 4096}, "+"},
		{"READDIR in 50 bytes", nfstest.TooSmall, nfstest.ReadDir, []any{root, uint64(0), uint64(0), 50}, "+"},
		{"READDIR behind all cookies", nfstest.BadCookie, nfstest.ReadDir, []any{root, uint64(1 << 63), uint64(0), 4096}, "+"},
		{"READDIRPLUS in 200 bytes", nfstest.TooSmall, nfstest.ReadDirPlus, []any{root, uint64(0), uint64(0), 4096, 200}, "+"},

		{"read-only: SETATTR", nfstest.ROFS, nfstest.SetAttr, []any{roFile, nfstest.NoAttr, false}, "W"},
		{"read-only: WRITE", nfstest.ROFS, nfstest.Write, []any{roFile, uint64(0), 1, 0, "x"}, "W"},
		{"read-only: CREATE", nfstest.ROFS, nfstest.Create, []any{roRoot, "x", 0, nfstest.NoAttr}, "W"},
		{"read-only: MKDIR", nfstest.ROFS, nfstest.Mkdir, []any{roRoot, "x", nfstest.NoAttr}, "W"},
		{"read-only: REMOVE", nfstest.ROFS, nfstest.Remove, []any{roRoot, "f"}, "W"},
		{"read-only: RMDIR", nfstest.ROFS, nfstest.Rmdir, []any{roRoot, "d"}, "W"},
		{"read-only: RENAME", nfstest.ROFS, nfstest.Rename, []any{roRoot, "f", roRoot, "g"}, "WW"},
		{"read-only: LINK", nfstest.ROFS, nfstest.Link, []any{roFile, roRoot, "g"}, "+W"},
		{"read-only: COMMIT", nfstest.ROFS, nfstest.Commit, []any{roFile, uint64(0), 0}, "W"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d, err := c.NFS(tt.proc, tt.args...)
			if tt.rest == "g" {
				var r *nfstest.RPCError
				if !errors.As(err, &r) || r.Denied || r.Stat != 4 {
					t.Errorf("got %v, want GARBAGE_ARGS", err)
				}
				return
			}
			if err != tt.want {
				t.Fatalf("got %v, want %v", err, tt.want)
			}
			for _, r := range tt.rest {
				var got, want bool
				switch r {
				case '+', '-':
					got, want = d.PostOp() != nil, r == '+'
				case 'w', 'W':
					got, want = d.Wcc().After != nil, r == 'W'
				}
				if got != want {
					t.Errorf("of %q, %c: attributes there: %v", tt.rest, r, got)
				}
			}
			if err := d.Err(); err != nil {
				t.Error(err)
			}
		})
	}
	if _, err := c.Mount("/secret"); err != nfstest.Acces {
		t.Errorf("MNT of an export for others: %v", err)
	}
	if _, err := c.Mount("/data/file"); err != nfstest.NotDir {
		t.Errorf("MNT of a file: %v", err)
	}
	if _, err := c.Mount("/data/" + strings.Repeat("x", 1100)); err != nfstest.NameTooLong {
		t.Errorf("MNT of a long path: %v", err)
	}
	below := must(c.Mount("/data/dir/"))(t)
	if !bytes.Equal(below, dir) {
		t.Error("MNT of a directory below gives another handle")
	}
	// Who was allowed is not for ever.
	e := exported(tree)
	e.Allow = secret.Allow
	if err := s.SetExports(t.Context(), []nfs.Export{e, ro}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.GetAttr(root); err != nfstest.Acces {
		t.Errorf("GETATTR once the export is for others: %v", err)
	}
	if _, err := c.GetAttr(roRoot); err != nil {
		t.Errorf("GETATTR of the other: %v", err)
	}
}

// TestMalformed sends what is no proper request: the connection answers as RFC
// 5531 says, or ends, and the server goes on.
func TestMalformed(t *testing.T) {
	s, addr := start(t, nfs.Options{Exports: []nfs.Export{exported(treetest.NewTree(nil))}, StallTimeout: time.Second})
	c := nfstest.Client{Cred: nfstest.Sys(0, 0)}
	call := func(prog, vers, proc uint32, args ...any) []byte {
		return append(c.Header(7, prog, vers, proc), nfstest.Words(args...)...)
	}
	garbage := "00000007 00000001 00000000 00000000 00000000 00000004"
	null := "00000007 00000001 00000000 00000000 00000000 00000000"
	fragments := func(b []byte, cuts ...int) []byte {
		var out []byte
		at := 0
		for _, n := range cuts {
			out = append(binary.BigEndian.AppendUint32(out, uint32(n-at)), b[at:n]...)
			at = n
		}
		return append(out, nfstest.Record(b[at:])...)
	}
	h := must(dial(t, addr).Mount("/data"))(t)
	tests := []struct {
		name string
		send []byte
		want string // words behind the record mark; "" for an end without an answer
	}{
		{"NULL", nfstest.Record(call(100003, 3, 0)), null},
		{"NULL in fragments", fragments(call(100003, 3, 0), 1, 2, 9, 40), null},
		{"NULL in fragments, some empty", fragments(call(100003, 3, 0), 0, 0, 8, 8), null},
		{"a program that is not there", nfstest.Record(call(100021, 4, 0)), "00000007 00000001 00000000 00000000 00000000 00000001"},
		{"NFS version 2", nfstest.Record(call(100003, 2, 0)), "00000007 00000001 00000000 00000000 00000000 00000002 00000003 00000003"},
		{"NFS version 4", nfstest.Record(call(100003, 4, 0)), "00000007 00000001 00000000 00000000 00000000 00000002 00000003 00000003"},
		{"MOUNT version 1", nfstest.Record(call(100005, 1, 0)), "00000007 00000001 00000000 00000000 00000000 00000002 00000003 00000003"},
		{"procedure 22", nfstest.Record(call(100003, 3, 22)), "00000007 00000001 00000000 00000000 00000000 00000003"},
		{"procedure 4294967295", nfstest.Record(call(100003, 3, 0xffffffff)), "00000007 00000001 00000000 00000000 00000000 00000003"},
		{"MOUNT procedure 6", nfstest.Record(call(100005, 3, 6)), "00000007 00000001 00000000 00000000 00000000 00000003"},
		{"the port mapper on this port", nfstest.Record(call(100000, 2, 0)), "00000007 00000001 00000000 00000000 00000000 00000001"},
		{"NULL with arguments", nfstest.Record(call(100003, 3, 0, 1)), garbage},
		{"GETATTR without arguments", nfstest.Record(call(100003, 3, 1)), garbage},
		{"GETATTR with more", nfstest.Record(call(100003, 3, 1, h, 1)), garbage},
		{"a handle of 65 bytes", nfstest.Record(call(100003, 3, 1, strings.Repeat("h", 65))), garbage},
		{"a handle of 4 GiB", nfstest.Record(call(100003, 3, 1, 0xffffffff, 1)), garbage},
		{"WRITE of more than comes", nfstest.Record(call(100003, 3, 7, h, uint64(0), 10, 0, 10)), garbage},
		{"MNT without a path", nfstest.Record(call(100005, 3, 1)), garbage},
		{"a reply", nfstest.Record(nfstest.Words(7, 1, 0, 0, 0, 0)), ""},
		{"three bytes", nfstest.Record([]byte("abc")), ""},
		{"nothing in a record", nfstest.Record(nil), ""},
		{"RPC version 3", nfstest.Record(nfstest.Words(7, 0, 3, 100003, 3, 0, 0, 0, 0, 0)), "00000007 00000001 00000001 00000000 00000002 00000002"},
		{"RPCSEC_GSS", nfstest.Record(nfstest.Words(7, 0, 2, 100003, 3, 0, 6, 0, 0, 0)), "00000007 00000001 00000001 00000001 00000001"},
		{"a record of 2 GiB", []byte{0xff, 0xff, 0xff, 0xff, 1, 2, 3}, ""},
		{"a record just too long", binary.BigEndian.AppendUint32(nil, 1<<31|(1<<20+4<<10+1)), ""},
		{"HTTP", []byte("GET / HTTP/1.0\r\n\r\n"), ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var want []byte
			if tt.want != "" {
				want = nfstest.Record(unhex(t, tt.want))
			}
			if got := exchange(t, addr, tt.send, len(want)); !bytes.Equal(got, want) {
				t.Errorf("\n got %swant %s", dump("", got), dump("", want))
			}
		})
	}
	t.Run("a record that stops in the middle", func(t *testing.T) {
		nc, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		if _, err := nc.Write(nfstest.Record(call(100003, 3, 0))[:30]); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		_ = nc.SetReadDeadline(began.Add(20 * time.Second))
		if n, err := nc.Read(make([]byte, 10)); n != 0 || err == nil || time.Since(began) < 900*time.Millisecond || time.Since(began) > 15*time.Second {
			t.Errorf("%d bytes, %v after %v; want the end after a second", n, err, time.Since(began))
		}
	})
	t.Run("a connection that asks nothing stays", func(t *testing.T) {
		c := dial(t, addr)
		time.Sleep(1500 * time.Millisecond)
		if _, err := c.Mount("/data"); err != nil {
			t.Error(err)
		}
	})
	if n := s.Stats().Panics; n != 0 {
		t.Errorf("%d panics", n)
	}
}

func unhex(t *testing.T, words string) []byte {
	t.Helper()
	var b []byte
	for w := range strings.FieldsSeq(words) {
		var v uint32
		if _, err := fmt.Sscanf(w, "%x", &v); err != nil {
			t.Fatal(err)
		}
		b = binary.BigEndian.AppendUint32(b, v)
	}
	return b
}

// panicky is a tree with a mistake in it.
type panicky struct{ *treetest.MemWrite }

func (panicky) StatFS(context.Context, fs.ID) (fs.StatFS, error) { panic("a mistake") }

// TestPanic lets a request meet a mistake: it alone fails.
func TestPanic(t *testing.T) {
	s, c, root := serveTree(t, panicky{treetest.NewMemWrite(treetest.MemOptions{})}, nfs.Options{Log: slog.New(slog.DiscardHandler)})
	for range 3 {
		_, err := c.NFS(nfstest.FSStat, root)
		var r *nfstest.RPCError
		if !errors.As(err, &r) || r.Denied || r.Stat != 5 {
			t.Errorf("got %v, want SYSTEM_ERR", err)
		}
		if _, err := c.GetAttr(root); err != nil {
			t.Error(err)
		}
	}
	if n := s.Stats().Panics; n != 3 {
		t.Errorf("%d panics counted", n)
	}
}
