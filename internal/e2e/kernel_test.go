//go:build linux

package e2e

import (
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"holdfast/image/vmtest"
)

// An nfsService is "holdfast nfs serve" as a process, which is killed and started
// again.
type nfsService struct {
	t       *testing.T
	program program
	repo    string
	args    []string
	pr      *process
	kills   int
	down    time.Duration // the longest time from a kill until it answered again
}

// newNFSService makes a repository and serves it at an address of the loopback
// interface.
func newNFSService(t *testing.T, addr string, flags ...string) *nfsService {
	dir := t.TempDir()
	s := &nfsService{t: t, program: program{state: filepath.Join(dir, "state")}, repo: filepath.Join(dir, "repository")}
	s.program.must(t, "repo", "init", s.repo)
	s.args = append([]string{"nfs", "serve", "--repo", s.repo, "--redirect", filepath.Join(dir, "redirect"), "--listen", addr}, flags...)
	return s
}

// start starts the server and waits until it answers.
func (s *nfsService) start() {
	s.t.Helper()
	s.pr = s.program.start(s.t, s.args...)
	answers := func() bool { return s.program.run(s.t, "nfs", "list").code == 0 }
	if !s.pr.waitFor(answers) {
		s.t.Fatalf("the server ended: %s", s.pr.wait())
	}
}

// restart is called with the lines that a machine prints.
func (s *nfsService) restart(line string) {
	if strings.HasPrefix(line, "@middle") {
		began := time.Now()
		s.pr.signal(syscall.SIGKILL)
		s.pr.wait()
		s.start()
		s.kills++
		s.down = max(s.down, time.Since(began))
	}
}

// freeAddr is an address of the loopback interface that nobody has just now.
func freeAddr(t *testing.T) (addr, port string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, err = net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return l.Addr().String(), port
}

// TestKernelClient mounts the datastore in a machine with a kernel of its own. In
// the middle of each group of what is done there the server's process is killed
// and started again, which the client may notice as a pause of 20 seconds at most.
func TestKernelClient(t *testing.T) {
	begin(t, "qemu-system-x86_64", "busybox", "kernel", "go")
	addr, port := freeAddr(t)
	s := newNFSService(t, addr, "--portmap", "none")
	s.start()
	m := vmtest.Machine{
		Modules:   []string{"nfsv3"},
		Network:   true,
		MemoryMiB: 384,
		Files:     map[string]string{"test": vmtest.TestBinary(t, "holdfast/nfs/mounttest")},
		Limit:     100 * time.Minute,
		Line:      s.restart,
		Script: fmt.Sprintf(`set -e
mount -t nfs -o vers=3,tcp,hard,nolock,port=%[1]s,mountport=%[1]s,mountproto=tcp,addr=10.0.2.2 10.0.2.2:/datastore /mnt
for seed in 1 2; do
	mkdir /mnt/test$seed
	/test -test.v -test.timeout 50m -dir /mnt/test$seed -align 512 -middle -pause 20s -ops 1000 -files 10000 -seed $seed
done
umount /mnt
`, port),
	}
	out := m.Run(t)
	t.Logf("%d kills, the server was away for %v at most\n%s", s.kills, s.down, out)
	if s.kills != 12 || strings.Count(out, "--- PASS: TestGroups (") != 2 {
		t.Error("not all groups have run")
	}
}
