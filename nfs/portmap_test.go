package nfs_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"holdfast/fs/treetest"
	"holdfast/internal/testreq"
	"holdfast/nfs"
	"holdfast/nfs/nfstest"
)

// TestDatagrams asks over UDP. Who may use no export gets no answer at all.
func TestDatagrams(t *testing.T) {
	s, err := nfs.New(nfs.Options{Exports: []nfs.Export{exported(treetest.NewTree(nil))}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	s.SetPorts(nfs.Mappings(2049, 111))
	serve := func(serve func(net.PacketConn) error) net.Conn {
		pc, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		go func() { _ = serve(pc) }()
		nc, err := net.Dial("udp", pc.LocalAddr().String())
		if err != nil {
			t.Fatal(err)
		}
		return nc
	}
	mapper, mount := serve(s.ServePortmapPacket), serve(s.ServePacket)
	defer mapper.Close()
	defer mount.Close()
	client := nfstest.Client{}
	ask := func(nc net.Conn, wait time.Duration, prog, vers, proc uint32, args ...any) ([]byte, error) {
		t.Helper()
		if _, err := nc.Write(append(client.Header(9, prog, vers, proc), nfstest.Words(args...)...)); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 9000)
		_ = nc.SetReadDeadline(time.Now().Add(wait))
		n, err := nc.Read(b)
		if err != nil {
			return nil, err
		}
		return nfstest.Results(b[:n])
	}
	const wait = 10 * time.Second
	if res, err := ask(mapper, wait, nfstest.Portmap, 2, 3, 100003, 3, 6, 0); err != nil || !bytes.Equal(res, nfstest.Words(2049)) {
		t.Errorf("GETPORT: %x, %v", res, err)
	}
	if res, err := ask(mount, wait, nfstest.Mount, 3, 1, "/data"); err != nil || len(res) != 4+36+12 {
		t.Errorf("MNT: %x, %v", res, err)
	}
	var r *nfstest.RPCError
	for name, call := range map[string]func() ([]byte, error){
		"SET":    func() ([]byte, error) { return ask(mapper, wait, nfstest.Portmap, 2, 1, 1, 2, 6, 9) },
		"UNSET":  func() ([]byte, error) { return ask(mapper, wait, nfstest.Portmap, 2, 2, 1, 2, 6, 9) },
		"CALLIT": func() ([]byte, error) { return ask(mapper, wait, nfstest.Portmap, 2, 5, 100003, 3, 0, "") },
	} {
		if _, err := call(); !errors.As(err, &r) || r.Stat != 3 {
			t.Errorf("%s: %v, want PROC_UNAVAIL", name, err)
		}
	}
	if _, err := ask(mount, wait, nfstest.NFS, 3, 0); !errors.As(err, &r) || r.Stat != 1 {
		t.Errorf("NFS: %v, want PROG_UNAVAIL", err)
	}
	e := exported(treetest.NewTree(nil))
	e.Allow = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
	if err := s.SetExports(t.Context(), []nfs.Export{e}); err != nil {
		t.Fatal(err)
	}
	for name, nc := range map[string]net.Conn{"port mapper": mapper, "mount": mount} {
		if res, err := ask(nc, 200*time.Millisecond, nfstest.Portmap, 2, 0); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("the %s answers a stranger: %x, %v", name, res, err)
		}
	}
}

// inNamespace runs the test again in a network of its own, where it is root of
// every port, with a /run of its own. It is true there.
func inNamespace(t *testing.T, programs ...string) bool {
	t.Helper()
	if os.Getenv("HOLDFAST_NAMESPACE") == t.Name() {
		return true
	}
	testreq.Need(t, append([]string{"root", "unshare", "ip", "mount"}, programs...)...)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "unshare", "--net", "--mount", "sh", "-ec", `ip link set lo up; mount -t tmpfs tmpfs /run; exec "$@"`, "sh",
		exe, "-test.run", "^"+t.Name()+"$", "-test.v", "-test.timeout", "60s")
	cmd.Env = append(os.Environ(), "HOLDFAST_NAMESPACE="+t.Name())
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("in the namespace: %v\n%s", err, out)
	} else if !bytes.Contains(out, []byte("--- PASS: "+t.Name())) {
		t.Errorf("in the namespace it did not run:\n%s", out)
	}
	return false
}

// command runs a program and returns what it prints.
func command(t *testing.T, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		t.Errorf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// TestLibnfs lets the programs of libnfs, an implementation of another house,
// list, read and write, with our own port mapper.
func TestLibnfs(t *testing.T) {
	if !inNamespace(t, "nfs-ls", "nfs-cp") {
		return
	}
	data := bytes.Repeat([]byte("0123456789abcde\n"), 200_000)
	ro := exported(treetest.NewTree(treetest.Files{
		"dir/file": {Data: data}, "dir/sub/x": {}, "link": {Target: "dir/file"}, "empty": {},
	}))
	ro.ID, ro.Path = 8, "/ro"
	s, err := nfs.New(nfs.Options{Exports: []nfs.Export{exported(treetest.NewMemWrite(treetest.MemOptions{})), ro}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	listen := func(port string, serve func(net.Listener) error) {
		l, err := net.Listen("tcp", "127.0.0.1:"+port)
		if err != nil {
			t.Fatal(err)
		}
		go func() { _ = serve(l) }()
	}
	listen("2049", s.Serve)
	listen("111", s.ServePortmap)
	s.SetPorts(nfs.Mappings(2049, 111))

	list := command(t, "nfs-ls", "-R", "nfs://127.0.0.1/ro")
	for _, want := range []string{"dir", "dir/file", "dir/sub", "dir/sub/x", "link", "empty", "3200000"} {
		if !strings.Contains(list, want) {
			t.Errorf("nfs-ls does not tell of %s:\n%s", want, list)
		}
	}
	local := filepath.Join(t.TempDir(), "file")
	command(t, "nfs-cp", "nfs://127.0.0.1/ro/dir/file", local)
	if got, err := os.ReadFile(local); err != nil || !bytes.Equal(got, data) {
		t.Errorf("nfs-cp gives %d bytes, %v", len(got), err)
	}
	command(t, "nfs-cp", local, "nfs://127.0.0.1/data/copy")
	back := filepath.Join(t.TempDir(), "back")
	command(t, "nfs-cp", "nfs://127.0.0.1/data/copy", back)
	if got, err := os.ReadFile(back); err != nil || !bytes.Equal(got, data) {
		t.Errorf("written and read back: %d bytes, %v", len(got), err)
	}
	if st := s.Stats(); st.Calls["WRITE"].Calls == 0 || st.Panics != 0 {
		t.Errorf("%+v", st)
	}
}

// TestRegister registers with a real port mapper, and finds one that knows
// another server already.
func TestRegister(t *testing.T) {
	if !inNamespace(t, "rpcbind") {
		return
	}
	cmd := exec.Command("rpcbind", "-f")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	for range 100 {
		if nc, err := net.Dial("tcp", "127.0.0.1:111"); err == nil {
			_ = nc.Close()
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	ports := nfs.Mappings(2049, 0)
	c := dial(t, "127.0.0.1:111")
	port := func(m nfs.Mapping) string {
		res, err := c.Call(nfstest.Portmap, 2, 3, nfstest.Words(m.Prog, m.Vers, m.Prot, 0))
		if err != nil {
			t.Fatal(err)
		}
		return string(res)
	}
	unregister, err := nfs.Register(t.Context(), "127.0.0.1:111", ports)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range ports {
		if got := port(m); got != string(nfstest.Words(2049)) {
			t.Errorf("%+v is at %x", m, got)
		}
	}
	if _, err := nfs.Register(t.Context(), "127.0.0.1:111", nfs.Mappings(2050, 0)); !errors.Is(err, nfs.ErrPortTaken) {
		t.Errorf("a second server: %v", err)
	}
	if err := unregister(t.Context()); err != nil {
		t.Error(err)
	}
	for _, m := range ports {
		if got := port(m); got != string(nfstest.Words(0)) {
			t.Errorf("%+v is still at %x", m, got)
		}
	}
}
