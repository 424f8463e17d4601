package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"holdfast/fs"
	"holdfast/internal/testreq"
	"holdfast/nfs/nfstest"
)

// newServed is a repository with a machine m, of which nothing is served yet.
func newServed(t *testing.T, disk []byte) *served {
	s := &served{t: t, dir: t.TempDir(), addr: freePort(t)}
	path := filepath.Join(s.dir, "disk.raw")
	if err := os.WriteFile(path, disk, 0o600); err != nil {
		t.Fatal(err)
	}
	repo := filepath.Join(s.dir, "repo")
	s.run("repo", "init", repo)
	s.run("repo", "backup", repo, "--machine", "m", path)
	t.Cleanup(func() {
		if s.cmd != nil {
			s.end(syscall.SIGKILL)
		}
	})
	return s
}

// TestServeContent serves the backups as files beside the datastore.
func TestServeContent(t *testing.T) {
	disk := bytes.Repeat([]byte("holdfast"), 5000)
	s := newServed(t, disk)
	s.start("--export", "content")
	c, err := nfstest.Dial(t.Context(), s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	root, err := c.Mount(contentPath)
	if err != nil {
		t.Fatal(err)
	}
	tree, err := nfstest.NewTree(c, root)
	if err != nil {
		t.Fatal(err)
	}
	a, err := fs.Resolve(t.Context(), tree, tree.Root(), "m/latest/disks/disk.raw", true)
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, a.Size)
	if n, err := tree.ReadAt(t.Context(), a.ID, got, 0); n < len(got) && err != nil && !errors.Is(err, io.EOF) || !bytes.Equal(got, disk) {
		t.Errorf("%d of %d bytes, %v", n, len(got), err)
	}
	if _, err := c.Mkdir(root, "x"); !errors.Is(err, nfstest.ROFS) {
		t.Errorf("made a directory in it: %v", err)
	}
}

// TestPortTaken names who has a port.
func TestPortTaken(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	code, _, stderr := holdfast(t.Context(), "nfs", "serve", "--repo", "r", "--redirect", "w", "--portmap", "none", "--listen", l.Addr().String())
	port := l.Addr().(*net.TCPAddr).Port
	want := fmt.Sprintf("holdfast: nfs serve: port %d (tcp) is used by process %d (", port, os.Getpid())
	if code != exitBusy || !strings.HasPrefix(stderr, want) || !strings.Contains(stderr, "hint: ") {
		t.Errorf("exit code %d, %q, want %q", code, stderr, want)
	}
	u, err := net.ListenPacket("udp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	if got, want := portHolder("udp", port), fmt.Sprintf("process %d (", os.Getpid()); !strings.HasPrefix(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if got := portHolder("tcp", port); got != "" {
		t.Errorf("nobody listens, but %q", got)
	}
}

func TestListeners(t *testing.T) {
	const table = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:0801 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1111 1 0 100 0 0 10 0
   1: 0100007F:0801 0100007F:C350 01 00000000:00000000 00:00000000 00000000     0        0 2222 1 0 20 4 30 10 -1
   2: 0100007F:006F 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 3333 1 0 100 0 0 10 0
   3: garbage
`
	if got := fmt.Sprint(listeners(table, "tcp", 2049)); got != "[1111]" {
		t.Error(got)
	}
	if got := fmt.Sprint(listeners(table, "udp", 2049)); got != "[1111 2222]" {
		t.Error(got)
	}
}

// TestServePortmap serves on the ports that hypervisors know, in a network of its
// own, and registers with a port mapper that is there.
func TestServePortmap(t *testing.T) {
	testreq.Need(t, "root", "unshare", "ip")
	s := newServed(t, bytes.Repeat([]byte("holdfast"), 500))
	script := `set -e
ip link set lo up
"$HOLDFAST" nfs serve --repo repo --redirect w1 --state s1 &
first=$!
trap 'kill -9 $first' EXIT
for i in $(seq 600); do "$HOLDFAST" nfs list --state s1 >out 2>&1 && break; sleep 0.1; done
"$HOLDFAST" nfs list --state s1 --json
if timeout 60 "$HOLDFAST" nfs serve --repo repo --redirect w2 --state s2; then exit 1; fi
if timeout 60 "$HOLDFAST" nfs serve --repo repo --redirect w3 --state s3 --listen 127.0.0.1:3049; then exit 1; fi
`
	if err := os.WriteFile(filepath.Join(s.dir, "script"), []byte(script), 0o600); err != nil {
		t.Fatal(err)
	}
	// The program has to be called by its name.
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(s.dir, "holdfast")
	if err := os.Symlink(self, program); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "unshare", "--net", "sh", "script")
	cmd.Dir = s.dir
	cmd.Env = append(s.program().Env, "HOLDFAST="+program)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{
		`"portmap": "own"`,
		"Serving /datastore on [::]:2049",
		"esxcli storage nfs add --host=",
		"port 2049 (tcp) is used by process ",
		"(holdfast)",
		// Our own port mapper takes no registrations.
		"register with the port mapper: ",
		"port 111 is used by process ",
	} {
		if !strings.Contains(string(out), want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
}
