package nfs_test

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"holdfast/fs/treetest"
	"holdfast/nfs"
	"holdfast/nfs/nfstest"
)

// TestOthersThanRoot has users who may do some things and not others.
func TestOthersThanRoot(t *testing.T) {
	e := exported(treetest.NewMemWrite(treetest.MemOptions{}))
	squash := e
	squash.ID, squash.Path, squash.RootSquash = 8, "/squash", true
	_, addr := start(t, nfs.Options{Exports: []nfs.Export{e, squash}})
	root := dial(t, addr)
	top := must(root.Mount("/data"))(t)
	made := func(d *nfstest.Decoder, err error) nfstest.Handle {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return handleFrom(d)
	}
	owned := func(mode, uid, gid int) nfstest.Raw {
		return nfstest.Words(true, mode, true, uid, true, gid, false, 0, 0)
	}
	home := made(root.NFS(nfstest.Mkdir, top, "home", owned(0o755, 1000, 100)))
	tmp := made(root.NFS(nfstest.Mkdir, top, "tmp", owned(0o1777, 0, 0)))
	private := made(root.NFS(nfstest.Create, top, "private", nfstest.Guarded, owned(0o600, 1000, 100)))
	shared := made(root.NFS(nfstest.Create, top, "shared", nfstest.Guarded, owned(0o664, 1000, 100)))
	program := made(root.NFS(nfstest.Create, top, "program", nfstest.Guarded, owned(0o711, 1000, 100)))
	must(root.NFS(nfstest.Create, tmp, "his", nfstest.Guarded, owned(0o644, 1000, 100)))(t)
	closed := made(root.NFS(nfstest.Mkdir, top, "closed", owned(0o700, 0, 0)))

	he, she, anon := dial(t, addr), dial(t, addr), dial(t, addr)
	he.Cred, she.Cred, anon.Cred = nfstest.Sys(1000, 100), nfstest.Sys(1001, 101, 100), nil
	squashed := dial(t, addr)
	squashedTop := must(squashed.Mount("/squash"))(t)
	now := nfstest.Raw(nfstest.Words(false, false, false, false, 1, 1))
	then := nfstest.Raw(nfstest.Words(false, false, false, false, 2, 1, 1, 2, 1, 1))
	tests := []struct {
		name string
		c    *nfstest.Client
		want error
		proc uint32
		args []any
	}{
		{"owner reads", he, nil, nfstest.Read, []any{private, uint64(0), 1}},
		{"another reads", she, nfstest.Acces, nfstest.Read, []any{private, uint64(0), 1}},
		{"the group reads", she, nil, nfstest.Read, []any{shared, uint64(0), 1}},
		{"anybody reads", anon, nil, nfstest.Read, []any{shared, uint64(0), 1}},
		{"who may execute reads", anon, nil, nfstest.Read, []any{program, uint64(0), 1}},
		{"owner writes", he, nil, nfstest.Write, []any{private, uint64(0), 1, 2, "x"}},
		{"the group writes", she, nil, nfstest.Write, []any{shared, uint64(0), 1, 2, "x"}},
		{"anybody writes", anon, nfstest.Acces, nfstest.Write, []any{shared, uint64(0), 1, 2, "x"}},
		{"another commits", she, nfstest.Acces, nfstest.Commit, []any{private, uint64(0), 0}},
		{"owner creates", he, nil, nfstest.Create, []any{home, "f", nfstest.Guarded, nfstest.NoAttr}},
		{"another creates", she, nfstest.Acces, nfstest.Create, []any{home, "g", nfstest.Guarded, nfstest.NoAttr}},
		{"she creates where all may", she, nil, nfstest.Create, []any{tmp, "hers", nfstest.Guarded, nfstest.NoAttr}},
		{"for somebody else", she, nfstest.Perm, nfstest.Create, []any{tmp, "not hers", nfstest.Guarded, owned(0o600, 1000, 100)}},
		{"a device", she, nfstest.Perm, nfstest.Mknod, []any{tmp, "dev", 4, nfstest.NoAttr, 1, 3}},
		{"removes what is not hers", she, nfstest.Perm, nfstest.Remove, []any{tmp, "his"}},
		{"moves what is not hers", she, nfstest.Perm, nfstest.Rename, []any{tmp, "his", tmp, "x"}},
		{"moves over what is not hers", she, nfstest.Perm, nfstest.Rename, []any{tmp, "hers", tmp, "his"}},
		{"removes nothing", she, nfstest.NoEnt, nfstest.Remove, []any{tmp, "nothing"}},
		{"removes what is hers", she, nil, nfstest.Remove, []any{tmp, "hers"}},
		{"links into his", she, nfstest.Acces, nfstest.Link, []any{shared, home, "l"}},
		{"looks into what is closed", she, nfstest.Acces, nfstest.Lookup, []any{closed, "x"}},
		{"lists what is closed", she, nfstest.Acces, nfstest.ReadDir, []any{closed, uint64(0), uint64(0), 4096}},
		{"owner sets the mode", he, nil, nfstest.SetAttr, []any{private, nfstest.Mode(0o640), false}},
		{"another sets the mode", she, nfstest.Perm, nfstest.SetAttr, []any{shared, nfstest.Mode(0o777), false}},
		{"the group sets the size", she, nil, nfstest.SetAttr, []any{shared, nfstest.Size(9), false}},
		{"anybody sets the size", anon, nfstest.Acces, nfstest.SetAttr, []any{shared, nfstest.Size(9), false}},
		{"the group touches", she, nil, nfstest.SetAttr, []any{shared, now, false}},
		{"the group sets times", she, nfstest.Perm, nfstest.SetAttr, []any{shared, then, false}},
		{"owner gives away", he, nfstest.Perm, nfstest.SetAttr, []any{private, owned(0o600, 1001, 100), false}},
		{"owner gives to a group not his", he, nfstest.Perm, nfstest.SetAttr, []any{private, owned(0o600, 1000, 101), false}},
		{"root squashed creates", squashed, nfstest.Acces, nfstest.Create, []any{squashedTop, "x", nfstest.Guarded, nfstest.NoAttr}},
		{"root creates", root, nil, nfstest.Create, []any{top, "x", nfstest.Guarded, nfstest.NoAttr}},
	}
	for _, tt := range tests {
		if _, err := tt.c.NFS(tt.proc, tt.args...); err != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
	for _, tt := range []struct {
		c    *nfstest.Client
		h    nfstest.Handle
		want uint32
	}{
		{he, private, 0x0d}, {she, private, 0x01}, {she, shared, 0x0d}, {anon, shared, 0x01}, {root, private, 0x0d}, {root, program, 0x2d},
		{anon, program, 0x20}, {he, home, 0x1f}, {she, home, 0x03}, {she, closed, 0}, {root, closed, 0x1f},
	} {
		d, err := tt.c.NFS(nfstest.Access, tt.h, 0x3f)
		if err != nil {
			t.Fatal(err)
		}
		d.PostOp()
		if got := d.Uint32(); got != tt.want {
			t.Errorf("ACCESS of %x: %02x, want %02x", tt.h[16:24], got, tt.want)
		}
	}
	h, a, err := he.Lookup(home, "f")
	if err != nil || a.UID != 1000 || a.GID != 100 {
		t.Errorf("%x is %+v's, %v", h, a, err)
	}
}

func handleFrom(d *nfstest.Decoder) nfstest.Handle {
	d.Bool()
	return nfstest.Handle(d.Opaque())
}

// TestRaces has many clients make the same names at once: each name is made
// once, and what is moved about is never lost.
func TestRaces(t *testing.T) {
	tree := treetest.NewMemWrite(treetest.MemOptions{})
	s, addr := start(t, nfs.Options{Exports: []nfs.Export{exported(tree)}})
	first := dial(t, addr)
	root := must(first.Mount("/data"))(t)
	a, b := must(first.Mkdir(root, "a"))(t), must(first.Mkdir(root, "b"))(t)
	must(first.Create(a, "moving", nfstest.Guarded))(t)
	const clients, names = 8, 100
	var made, locks, moved atomic.Int32
	var wg sync.WaitGroup
	for i := range clients {
		c := dial(t, addr)
		c.SetXID(uint32(i+1) << 24)
		wg.Go(func() {
			for n := range names {
				if _, err := c.Create(root, fmt.Sprint("name ", n), nfstest.Guarded); err == nil {
					made.Add(1)
				} else if err != nfstest.Exist {
					t.Error(err)
				}
				if _, err := c.NFS(nfstest.Create, root, fmt.Sprint(".lck-", n), nfstest.Exclusive, nfstest.Fixed(fmt.Sprintf("%08d", i))); err == nil {
					locks.Add(1)
				} else if err != nfstest.Exist {
					t.Error(err)
				}
				from, to := a, b
				if (n+i)%2 == 0 {
					from, to = b, a
				}
				if err := c.Rename(from, "moving", to, "moving"); err == nil {
					moved.Add(1)
				} else if err != nfstest.NoEnt {
					t.Error(err)
				}
				if _, _, err := c.ReadDirPlus(root, 0, 4096, 8192); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if made.Load() != names || locks.Load() != names || moved.Load() == 0 {
		t.Errorf("%d of %d names and %d locks were made, %d moves", made.Load(), names, locks.Load(), moved.Load())
	}
	at := 0
	for _, d := range []nfstest.Handle{a, b} {
		if _, _, err := first.Lookup(d, "moving"); err == nil {
			at++
		} else if err != nfstest.NoEnt {
			t.Error(err)
		}
	}
	if at != 1 {
		t.Errorf("what was moved is in %d places", at)
	}
	if st := s.Stats(); st.Calls["CREATE"].Calls != 2*clients*names+1 || st.Calls["CREATE"].Failed != 2*(clients-1)*names {
		t.Errorf("%+v", st.Calls["CREATE"])
	}
}

// TestListing changes a directory while it is read: every name that is there
// all the time comes exactly once.
func TestListing(t *testing.T) {
	_, c, root := serveTree(t, treetest.NewMemWrite(treetest.MemOptions{}), nfs.Options{})
	want := map[string]bool{}
	for i := range 1000 {
		name := fmt.Sprintf("stays %04d", i)
		want[name] = true
		must(c.Create(root, name, nfstest.Guarded))(t)
		must(c.Create(root, fmt.Sprintf("goes %04d", i), nfstest.Guarded))(t)
	}
	for _, plus := range []bool{true, false} {
		seen := map[string]int{}
		cookie, pages := uint64(0), 0
		for {
			list, eof, err := c.ReadDirPlus(root, cookie, 512, 4096)
			if !plus {
				list, eof, err = c.ReadDir(root, cookie, 1024)
			}
			if err != nil || (len(list) == 0 && !eof) {
				t.Fatal(err, len(list))
			}
			for _, e := range list {
				seen[e.Name]++
				cookie = e.Cookie
				if plus && (e.Attr == nil || e.Handle == nil || e.Attr.FileID != e.FileID) {
					t.Errorf("%q: %+v", e.Name, e)
				}
			}
			if eof {
				break
			}
			if pages++; pages%3 == 0 {
				// The entry that the cookie stands for may be the one that goes.
				if err := c.Remove(root, list[len(list)-1].Name); err != nil && !errors.Is(err, nfstest.IsDir) && !errors.Is(err, nfstest.Inval) {
					t.Fatal(err)
				}
				delete(want, list[len(list)-1].Name)
				must(c.Create(root, fmt.Sprint("new ", plus, pages), nfstest.Guarded))(t)
			}
		}
		for name := range want {
			if seen[name] != 1 {
				t.Errorf("%q came %d times", name, seen[name])
			}
		}
		if seen["."] != 1 || seen[".."] != 1 || pages < 10 {
			t.Errorf(". came %d times, .. %d times, in %d pages", seen["."], seen[".."], pages)
		}
	}
	// The two that the tree does not list can be read one by one, too.
	one := func(cookie uint64) nfstest.Entry {
		t.Helper()
		list, eof, err := c.ReadDir(root, cookie, 88+4+8+8+40)
		if err != nil || len(list) != 1 || eof {
			t.Fatalf("%d entries behind %d, %v", len(list), cookie, err)
		}
		return list[0]
	}
	if e := one(0); e.Name != "." {
		t.Errorf("first is %q", e.Name)
	} else if e = one(e.Cookie); e.Name != ".." {
		t.Errorf("second is %q", e.Name)
	} else if e = one(e.Cookie); e.Name == "." || e.Name == ".." {
		t.Errorf("third is %q", e.Name)
	}
}
