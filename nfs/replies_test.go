package nfs_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"holdfast/fs"
	"holdfast/fs/treetest"
	"holdfast/nfs"
	"holdfast/nfs/nfstest"
)

// again sends the same call, transaction id included, on another connection.
func again(t *testing.T, addr string, xid, proc uint32, args ...any) []byte {
	t.Helper()
	c := dial(t, addr)
	c.SetXID(xid)
	ch, err := c.Start(nfstest.NFS, 3, proc, nfstest.Words(args...))
	if err != nil {
		t.Fatal(err)
	}
	select {
	case rec, ok := <-ch:
		if !ok {
			t.Fatal("no reply")
		}
		return rec
	case <-time.After(20 * time.Second):
		t.Fatal("no reply in time")
	}
	return nil
}

// TestRepeated asks again for every change: the reply is the same, byte for
// byte, and it is done once. Then the server ends, the power is cut, and another
// server is asked.
func TestRepeated(t *testing.T) {
	tree := treetest.NewMemWrite(treetest.MemOptions{})
	s, addr := start(t, nfs.Options{Exports: []nfs.Export{exported(tree)}})
	c := dial(t, addr)
	root := must(c.Mount("/data"))(t)
	file := must(c.Create(root, "file", nfstest.Guarded))(t)
	must(c.Create(root, "old", nfstest.Guarded))(t)
	must(c.Create(root, "older", nfstest.Guarded))(t)
	must(c.Mkdir(root, "empty"))(t)
	steps := []struct {
		name   string
		proc   uint32
		args   []any
		forget bool // by a server that begins anew
	}{
		{"CREATE", nfstest.Create, []any{root, ".lck-1", nfstest.Guarded, nfstest.NoAttr}, false},
		{"CREATE exclusive", nfstest.Create, []any{root, ".lck-2", nfstest.Exclusive, nfstest.Fixed("12345678")}, false},
		{"MKDIR", nfstest.Mkdir, []any{root, "dir", nfstest.NoAttr}, false},
		{"SYMLINK", nfstest.Symlink, []any{root, "link", nfstest.NoAttr, "x"}, false},
		{"MKNOD", nfstest.Mknod, []any{root, "fifo", 7, nfstest.NoAttr}, false},
		{"LINK", nfstest.Link, []any{file, root, "hard"}, false},
		{"RENAME", nfstest.Rename, []any{root, "older", root, "new"}, false},
		{"REMOVE", nfstest.Remove, []any{root, "old"}, false},
		{"RMDIR", nfstest.Rmdir, []any{root, "empty"}, false},
		{"SETATTR", nfstest.SetAttr, []any{root, nfstest.Mode(0o700), false}, true},
		{"WRITE", nfstest.Write, []any{file, uint64(0), 4, nfstest.FileSync, "data"}, true},
		{"COMMIT", nfstest.Commit, []any{file, uint64(0), 0}, true},
	}
	first := map[string][]byte{}
	for i, st := range steps {
		xid := uint32(0x1000 + i)
		first[st.name] = again(t, addr, xid, st.proc, st.args...)
		if d := (nfstest.Decoder{B: first[st.name][24:]}); d.Uint32() != 0 {
			t.Fatalf("%s: %x", st.name, first[st.name])
		}
		if got := again(t, addr, xid, st.proc, st.args...); !bytes.Equal(got, first[st.name]) {
			t.Errorf("%s, repeated:\n got %x\nwant %x", st.name, got, first[st.name])
		}
	}
	if n := s.Stats().Repeated; n != uint64(len(steps)) {
		t.Errorf("%d of %d requests were seen to be repeated", n, len(steps))
	}
	// The same id with other arguments is another request.
	if d := (nfstest.Decoder{B: again(t, addr, 0x1000, nfstest.Create, root, ".lck-9", nfstest.Guarded, nfstest.NoAttr)[24:]}); d.Uint32() != 0 {
		t.Error("another request was taken for a repeated one")
	}
	_ = s.Close()
	tree.PowerCut()
	_, addr = start(t, nfs.Options{Exports: []nfs.Export{exported(tree)}})
	for i, st := range steps {
		got := again(t, addr, uint32(0x1000+i), st.proc, st.args...)
		if same := bytes.Equal(got, first[st.name]); same == st.forget {
			t.Errorf("%s, of the server after that: the same reply: %v", st.name, same)
		}
	}
	// Handles are good, and the bytes there.
	r, err := dial(t, addr).Read(file, 0, 10)
	if err != nil || string(r.Data) != "data" || !r.EOF {
		t.Errorf("READ after that: %q, %v", r.Data, err)
	}
}

// TestJoined lets a request come again, on a new connection, while the first is
// under way: both wait for the same thing, which is done once. The one whose
// connection is gone isn't needed for that.
func TestJoined(t *testing.T) {
	var calls atomic.Int32
	held := make(chan struct{})
	tree := treetest.NewMemWrite(treetest.MemOptions{Before: func(_ context.Context, op string, _ fs.ID, _ int64, _ int) error {
		if op == "WriteAt" {
			calls.Add(1)
			<-held
		}
		return nil
	}})
	s, addr := start(t, nfs.Options{Exports: []nfs.Export{exported(tree)}})
	c := dial(t, addr)
	root := must(c.Mount("/data"))(t)
	file := must(c.Create(root, "file", nfstest.Guarded))(t)
	write := nfstest.Words(file, uint64(0), 4, nfstest.FileSync, "data")
	one := dial(t, addr)
	one.SetXID(77)
	if _, err := one.Start(nfstest.NFS, 3, nfstest.Write, write); err != nil {
		t.Fatal(err)
	}
	for calls.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	_ = one.Close()
	two := dial(t, addr)
	two.SetXID(77)
	ch, err := two.Start(nfstest.NFS, 3, nfstest.Write, write)
	if err != nil {
		t.Fatal(err)
	}
	for s.Stats().Repeated == 0 {
		time.Sleep(time.Millisecond)
	}
	close(held)
	res, err := two.Finish(ch)
	if err != nil || res[3] != 0 {
		t.Errorf("%x, %v", res, err)
	}
	if n := calls.Load(); n != 1 {
		t.Errorf("written %d times", n)
	}
}

// TestDropped resets a connection with requests that no worker has begun: those
// are not done, unless they were asked again meanwhile.
func TestDropped(t *testing.T) {
	held := make(chan struct{})
	first := make(chan struct{}, 100)
	tree := treetest.NewMemWrite(treetest.MemOptions{Before: func(_ context.Context, op string, _ fs.ID, off int64, _ int) error {
		if op == "WriteAt" {
			first <- struct{}{}
			<-held
		}
		return nil
	}})
	s, addr := start(t, nfs.Options{Exports: []nfs.Export{exported(tree)}, Workers: 1})
	c := dial(t, addr)
	root := must(c.Mount("/data"))(t)
	file := must(c.Create(root, "file", nfstest.Guarded))(t)
	one := dial(t, addr)
	for i := range 10 {
		one.SetXID(uint32(100 + i))
		if _, err := one.Start(nfstest.NFS, 3, nfstest.Write, nfstest.Words(file, uint64(i), 1, nfstest.FileSync, "x")); err != nil {
			t.Fatal(err)
		}
	}
	<-first
	// A call that is answered shows that all before it were read.
	must(one.GetAttr(root))(t)
	two := dial(t, addr)
	two.SetXID(105)
	ch, err := two.Start(nfstest.NFS, 3, nfstest.Write, nfstest.Words(file, uint64(5), 1, nfstest.FileSync, "x"))
	if err != nil {
		t.Fatal(err)
	}
	for s.Stats().Repeated == 0 {
		time.Sleep(time.Millisecond)
	}
	_ = one.Close()
	for s.Stats().Conns > 2 {
		time.Sleep(time.Millisecond)
	}
	close(held)
	if _, err := two.Finish(ch); err != nil {
		t.Fatal(err)
	}
	must(two.NFS(nfstest.Write, file, uint64(20), 1, nfstest.FileSync, "y"))(t) // behind all the others
	got := must(c.Read(file, 0, 30))(t).Data
	if want := "x\x00\x00\x00\x00x" + string(make([]byte, 14)) + "y"; string(got) != want {
		t.Errorf("file is %q, want %q", got, want)
	}
}

// TestSyncExport has UNSTABLE writes to an export that makes all of them durable.
func TestSyncExport(t *testing.T) {
	tree := treetest.NewMemWrite(treetest.MemOptions{})
	sync := exported(tree)
	sync.ID, sync.Path, sync.Sync = 8, "/sync", true
	_, c, plain := serveTree(t, tree, nfs.Options{Exports: []nfs.Export{sync}})
	for _, tt := range []struct {
		root nfstest.Handle
		want uint32
	}{{plain, nfstest.Unstable}, {must(c.Mount("/sync"))(t), nfstest.FileSync}} {
		name := fmt.Sprint("file ", tt.want)
		file := must(c.Create(tt.root, name, nfstest.Guarded))(t)
		if w, err := c.Write(file, 0, []byte("written"), nfstest.Unstable); err != nil || w.Committed != tt.want {
			t.Errorf("%s: committed %d, %v", name, w.Committed, err)
		}
		tree.PowerCut()
		r := must(c.Read(file, 0, 7))(t)
		if kept := string(r.Data) == "written"; kept != (tt.want == nfstest.FileSync) {
			t.Errorf("%s: after a power cut there is %q", name, r.Data)
		}
	}
}

// TestHalfClosed has a client that closes its side once it has asked, and waits
// for replies that take their time.
func TestHalfClosed(t *testing.T) {
	held := make(chan struct{})
	tree := treetest.NewMemWrite(treetest.MemOptions{Before: func(_ context.Context, op string, _ fs.ID, _ int64, _ int) error {
		if op == "ReadAt" || op == "Borrow" {
			<-held
		}
		return nil
	}})
	s, c, root := serveTree(t, tree, nfs.Options{RetryFor: time.Minute})
	stamped(t, tree, "file", 4<<20)
	file, _, err := c.Lookup(root, "file")
	if err != nil {
		t.Fatal(err)
	}
	nc, err := net.Dial("tcp", c.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	half := nfstest.NewClient(nc)
	var waiting []<-chan []byte
	for i := range 6 {
		ch, err := half.Start(nfstest.NFS, 3, nfstest.Read, nfstest.Words(file, uint64(i)<<18, 1<<20))
		if err != nil {
			t.Fatal(err)
		}
		waiting = append(waiting, ch)
	}
	must(half.GetAttr(root))(t) // shows that all before it were read
	if err := nc.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	for s.Stats().Conns > 1 { // that the server has heard
		time.Sleep(time.Millisecond)
	}
	close(held)
	for i, ch := range waiting {
		if res, err := half.Finish(ch); err != nil || len(res) < 1<<20 {
			t.Errorf("READ %d: %d bytes, %v", i, len(res), err)
		}
	}
	if _, err := half.GetAttr(root); err == nil {
		t.Error("the connection is still there")
	}
}

// TestRetry has a tree that is not ready for a while, and one that never is.
func TestRetry(t *testing.T) {
	for _, known := range []bool{false, true} {
		t.Run(fmt.Sprintf("said to be in memory: %v", known), func(t *testing.T) {
			var left atomic.Int32
			tree := treetest.NewMemWrite(treetest.MemOptions{
				Cached: func(fs.ID, int64, int) bool { return known },
				Before: func(_ context.Context, op string, _ fs.ID, _ int64, _ int) error {
					if (op == "Borrow" || op == "ReadAt" || op == "WriteAt" || op == "Lookup") && left.Add(-1) >= 0 {
						return errors.Join(errors.New("pack is on its way"), fs.ErrRetry)
					}
					return nil
				},
			})
			_, c, root := serveTree(t, knows{tree, known}, nfs.Options{RetryFor: time.Minute})
			_, hasty, _ := serveTree(t, knows{tree, known}, nfs.Options{RetryFor: 300 * time.Millisecond})
			file := must(c.Create(root, "file", nfstest.Guarded))(t)
			left.Store(2)
			must(c.Write(file, 0, make([]byte, 40_000), nfstest.FileSync))(t)
			for _, n := range []uint32{10, 40_000} {
				left.Store(3)
				if r, err := c.Read(file, 0, n); err != nil || len(r.Data) != int(n) {
					t.Errorf("READ of %d: %d bytes, %v", n, len(r.Data), err)
				}
				left.Store(1 << 30)
				began := time.Now()
				if _, err := hasty.Read(file, 0, n); err != nfstest.Jukebox || time.Since(began) < 300*time.Millisecond {
					t.Errorf("READ of %d that can't be: %v after %v", n, err, time.Since(began))
				}
			}
			left.Store(3)
			if h, _, err := c.Lookup(root, "file"); err != nil || !bytes.Equal(h, file) {
				t.Errorf("LOOKUP: %x, %v", h, err)
			}
			must(c.Read(file, 0, 10))(t)
		})
	}
}

// TestDamaged lets one part of a file be damaged: exactly the reads that touch
// it fail, whole.
func TestDamaged(t *testing.T) {
	const from, to = 100_000, 100_010
	for _, noBorrow := range []bool{false, true} {
		tree := treetest.NewMemWrite(treetest.MemOptions{NoBorrow: noBorrow, Before: func(_ context.Context, op string, _ fs.ID, off int64, n int) error {
			if (op == "Borrow" || op == "ReadAt") && off < to && off+int64(n) > from {
				return errors.Join(errors.New("chunk fails its digest"), fs.ErrDamaged)
			}
			return nil
		}})
		_, c, root := serveTree(t, tree, nfs.Options{})
		file := must(c.Create(root, "file", nfstest.Guarded))(t)
		must(c.Write(file, 0, make([]byte, 300_000), nfstest.FileSync))(t)
		for _, tt := range []struct {
			off  uint64
			n    uint32
			want error
		}{
			{0, 100_000, nil}, {0, 100_001, nfstest.IO}, {99_999, 2, nfstest.IO}, {100_009, 1, nfstest.IO}, {100_010, 1000, nil}, {0, 1 << 20, nfstest.IO}, {100_010, 1 << 20, nil},
		} {
			r, err := c.Read(file, tt.off, tt.n)
			if err != tt.want || (err == nil && len(r.Data) != int(min(uint64(tt.n), 300_000-tt.off))) {
				t.Errorf("READ of %d at %d: %d bytes, %v; want %v", tt.n, tt.off, len(r.Data), err, tt.want)
			}
		}
	}
}

// TestVerifier has unstable writes that are lost: the verifier tells.
func TestVerifier(t *testing.T) {
	tree := treetest.NewMemWrite(treetest.MemOptions{})
	_, c, root := serveTree(t, tree, nfs.Options{})
	file := must(c.Create(root, "file", nfstest.Guarded))(t)
	w := must(c.Write(file, 0, []byte("kept"), nfstest.Unstable))(t)
	if w.Committed != nfstest.Unstable || w.Count != 4 {
		t.Errorf("%+v", w)
	}
	if v := must(c.Commit(file))(t); v != w.Verifier {
		t.Errorf("COMMIT's verifier is %x, WRITE's %x", v, w.Verifier)
	}
	w = must(c.Write(file, 0, []byte("lost"), nfstest.Unstable))(t)
	tree.LoseWrites()
	if v := must(c.Commit(file))(t); v == w.Verifier {
		t.Error("writes were lost and the verifier is the same")
	}
	if r := must(c.Read(file, 0, 10))(t); string(r.Data) != "kept" {
		t.Errorf("file is %q", r.Data)
	}
	for _, how := range []uint32{nfstest.DataSync, nfstest.FileSync} {
		w := must(c.Write(file, 0, []byte{byte(how)}, how))(t)
		if w.Committed != nfstest.FileSync || w.Wcc.Before == nil || w.Wcc.After == nil {
			t.Errorf("WRITE %d: %+v", how, w)
		}
		tree.LoseWrites()
		if r := must(c.Read(file, 0, 1))(t); r.Data[0] != byte(how) {
			t.Errorf("WRITE %d was lost", how)
		}
	}
}
