package nfs_test

import (
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"holdfast/fs/treetest"
	"holdfast/image/vmtest"
	"holdfast/nfs"
)

// restarted is a server on one port that is ended and begun anew, each time
// with the loss of what was not committed.
type restarted struct {
	tb     testing.TB
	tree   *treetest.MemWrite
	port   int
	server *nfs.Server
	times  int
}

func startRestarted(tb testing.TB) *restarted {
	r := &restarted{tb: tb, tree: treetest.NewMemWrite(treetest.MemOptions{})}
	l := r.listen()
	r.port = l.Addr().(*net.TCPAddr).Port
	r.serve(l)
	tb.Cleanup(func() { _ = r.server.Close() })
	return r
}

func (r *restarted) listen() net.Listener {
	l, err := net.Listen("tcp", fmt.Sprint("127.0.0.1:", r.port))
	if err != nil {
		r.tb.Fatal(err)
	}
	return l
}

func (r *restarted) serve(l net.Listener) {
	s, err := nfs.New(nfs.Options{Exports: []nfs.Export{exported(r.tree)}})
	if err != nil {
		r.tb.Fatal(err)
	}
	r.server = s
	go func() { _ = s.Serve(l) }()
}

// restart is called with the lines that a machine prints.
func (r *restarted) restart(line string) {
	if !strings.HasPrefix(line, "@middle") {
		return
	}
	if err := r.server.Close(); err != nil {
		r.tb.Error(err)
	}
	r.tree.PowerCut()
	r.serve(r.listen())
	r.times++
}

// TestKernelClient mounts an export in a machine with a kernel of its own, and
// does there what programs do with files. In the middle of each group the server
// ends, with the loss of what was not committed, and another takes its place.
// What takes longer is done by "make e2e".
func TestKernelClient(t *testing.T) {
	vmtest.Need(t, "go")
	s := startRestarted(t)
	flags, run := "-ops 30 -loops 1", "(basic|open|fsx)"
	if os.Getenv("HOLDFAST_LONG") != "" {
		flags, run = "-ops 1000 -files 10000 -loops 20", "."
	}
	m := vmtest.Machine{
		Modules: []string{"nfsv3"},
		Network: true,
		Files:   map[string]string{"test": vmtest.TestBinary(t, "holdfast/nfs/mounttest")},
		Limit:   40 * time.Minute,
		Line:    s.restart,
		Script: fmt.Sprintf(`set -e
mount -t nfs -o vers=3,tcp,hard,nolock,port=%[1]d,mountport=%[1]d,mountproto=tcp,addr=10.0.2.2 10.0.2.2:/data /mnt
grep ' nfs ' /proc/mounts
mkdir /mnt/test
/test -test.v -test.timeout 40m -test.run '^TestGroups$/%[3]s' -dir /mnt/test -align 512 -middle %[2]s
umount /mnt
cat /proc/uptime
`, s.port, flags, run),
	}
	out := m.Run(t)
	t.Logf("%d restarts\n%s", s.times, out)
	if s.times < 3 || !strings.Contains(out, "--- PASS: TestGroups") {
		t.Error("not all groups have run")
	}
	if st := s.server.Stats(); st.Panics != 0 {
		t.Errorf("%+v", st)
	}
}
