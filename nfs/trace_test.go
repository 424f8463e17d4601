package nfs_test

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"holdfast/fs/treetest"
	"holdfast/nfs"
	"holdfast/nfs/nfstest"
)

// lockedBuffer takes what several goroutines write.
type lockedBuffer struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// TestTold looks at what is counted, told and, if wanted, logged of requests.
func TestTold(t *testing.T) {
	var out lockedBuffer
	var mu sync.Mutex
	var told []nfs.Call
	tree := treetest.NewMemWrite(treetest.MemOptions{})
	s, c, root := serveTree(t, tree, nfs.Options{
		Log:     slog.New(slog.NewTextHandler(&out, nil)),
		Observe: func(c nfs.Call) { mu.Lock(); told = append(told, c); mu.Unlock() },
	})
	if _, err := c.NFS(nfstest.Null); err == nil {
		t.Fatal("NULL has no status")
	}
	must(c.GetAttr(root))(t)
	if strings.Contains(out.String(), "GETATTR") {
		t.Error("traced unasked")
	}
	s.SetTracing(true)
	file := must(c.Create(root, "file", nfstest.Guarded))(t)
	must(c.Write(file, 4096, []byte("some data"), nfstest.FileSync))(t)
	if _, err := c.Create(root, "file", nfstest.Guarded); err != nfstest.Exist {
		t.Fatal(err)
	}
	s.SetTracing(false)
	must(c.GetAttr(root))(t)

	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	for i, want := range []string{
		"msg=nfs op=CREATE client=127.0.0.1 xid=", "msg=nfs op=WRITE client=127.0.0.1 xid=", "msg=nfs op=CREATE client=127.0.0.1 xid=",
	} {
		if i >= len(lines) || !strings.Contains(lines[i], want) {
			t.Errorf("line %d of\n%s\nwant %q", i, out.String(), want)
		}
	}
	if len(lines) != 3 || !strings.Contains(lines[1], " status=0 ") || !strings.Contains(lines[1], " export=/data fs=0 ino=3 off=4096 bytes=9") || !strings.Contains(lines[2], " status=17 ") {
		t.Errorf("traced:\n%s", out.String())
	}
	if strings.Contains(out.String(), "some data") || strings.Contains(out.String(), "\"file\"") {
		t.Error("what clients write is in the log")
	}
	st := s.Stats()
	for name, want := range map[string]nfs.ProcedureStats{"CREATE": {Calls: 2, Failed: 1}, "WRITE": {Calls: 1}, "GETATTR": {Calls: 2}, "MNT": {Calls: 1}, "NFS NULL": {Calls: 1}} {
		got := st.Calls[name]
		if got.Calls != want.Calls || got.Failed != want.Failed || (name != "NFS NULL" && got.InBytes == 0) || got.OutBytes == 0 {
			t.Errorf("%s: %+v, want %+v and bytes", name, got, want)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if len(told) != 7 || told[3].Procedure != "CREATE" || told[5].Status != 17 || told[4].In < 9 || told[4].Dur <= 0 {
		t.Errorf("told of %+v", told)
	}
}
