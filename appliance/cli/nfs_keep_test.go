package cli

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"holdfast/internal/testreq"
	"holdfast/nfs/nfstest"
)

// TestKeepFileSystem puts files into a file system over NFS, as a machine that
// runs from it does, keeps it, and looks at what was kept with the system's tools.
func TestKeepFileSystem(t *testing.T) {
	testreq.Need(t, "mke2fs", "debugfs", "e2fsck")
	tool := func(args ...string) string {
		t.Helper()
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
		if path, err := exec.LookPath("/usr/sbin/" + args[0]); err == nil {
			cmd.Path, cmd.Err = path, nil
		}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%q: %v\n%s", args, err, out)
		}
		return string(out)
	}
	dir := t.TempDir()
	image, text := filepath.Join(dir, "ext4"), filepath.Join(dir, "text")
	content := bytes.Repeat([]byte("what the machine has written\n"), 30000)
	if err := os.WriteFile(text, content, 0o600); err != nil {
		t.Fatal(err)
	}
	tool("mke2fs", "-q", "-t", "ext4", "-b", "4096", image, "24M")
	base, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	tool("debugfs", "-w", "-R", "write "+text+" new", image)
	tool("debugfs", "-w", "-R", "mkdir dir", image)
	changed, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}

	s := newServed(t, base)
	s.start()
	s.run("nfs", "publish", "m@latest", "--no-swap-room")
	writeChanges(t, s.addr, base, changed)
	s.end(syscall.SIGKILL)
	s.start()
	var kept keptListing
	if err := json.Unmarshal([]byte(s.run("nfs", "keep", "m", "--json")), &kept); err != nil {
		t.Fatal(err)
	}
	back := filepath.Join(dir, "back")
	s.run("repo", "restore", filepath.Join(s.dir, "repo"), string(kept.Point), "--to", back)
	tool("e2fsck", "-f", "-n", back)
	if got := tool("debugfs", "-R", "cat new", back); !strings.HasSuffix(got, string(content)) {
		t.Errorf("the new file has %d bytes, want %d", len(got), len(content))
	}
	s.run("repo", "restore", filepath.Join(s.dir, "repo"), "m@latest", "--to", back+".base")
	if got, err := os.ReadFile(back + ".base"); err != nil || !bytes.Equal(got, base) {
		t.Errorf("the base point has changed, %v", err)
	}
}

// writeChanges writes the blocks that differ to the disk that is served, and
// commits them.
func writeChanges(t *testing.T, addr string, base, changed []byte) {
	t.Helper()
	c, err := nfstest.Dial(t.Context(), addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	dir, err := c.Mount(datastorePath + "/m")
	if err != nil {
		t.Fatal(err)
	}
	h, _, err := c.Lookup(dir, "disk-flat.vmdk")
	if err != nil {
		t.Fatal(err)
	}
	verifier, written := uint64(0), 0
	for off := 0; off < len(changed); off += nfstest.BlockBytes {
		block := changed[off : off+nfstest.BlockBytes]
		if bytes.Equal(block, base[off:off+nfstest.BlockBytes]) {
			continue
		}
		res, err := c.Write(h, uint64(off), block, nfstest.Unstable)
		if err != nil {
			t.Fatal(err)
		}
		verifier = res.Verifier
		written++
	}
	if v, err := c.Commit(h); err != nil || v != verifier || written == 0 {
		t.Fatalf("commit of %d blocks: verifier %x, want %x, %v", written, v, verifier, err)
	}
}
