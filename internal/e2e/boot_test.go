//go:build linux

package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"holdfast/fs"
	"holdfast/fs/guest/ext4"
	"holdfast/image/vmtest"
	"holdfast/nfs/nfstest"
)

// inNetwork runs the test again in a network of its own, where every port is free.
// It is true there.
func inNetwork(t *testing.T, parts ...string) bool {
	const env = "HOLDFAST_E2E_NETWORK"
	begin(t, append(parts, "root", "unshare", "ip")...)
	if os.Getenv(env) == t.Name() {
		return true
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "unshare", "--net", "sh", "-ec", `ip link set lo up; exec "$@"`, "sh",
		exe, "-test.run", "^"+t.Name()+"$", "-test.v", "-test.timeout", "60m")
	cmd.Env = append(os.Environ(), env+"="+t.Name())
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil || !bytes.Contains(out, []byte("--- PASS: "+t.Name())) {
		t.Errorf("in the network of its own: %v", err)
	}
	return false
}

const (
	bootBytes = 64 << 20
	bootFiles = 24 // that the machine writes
)

// bootInit is the machine's own first program: it reads what it has, and writes
// files, which is disturbed half way. Names and contents follow from numbers.
const bootInit = `#!/bin/busybox sh
set -e
export PATH=/bin
/bin/busybox --install -s /bin
echo "booted from $(cat /etc/name)"
md5sum -c /etc/sums >/dev/null
mkdir -p /new
for i in $(seq 1 24); do
	seq $i $((i * 997 + 5000)) >/new/file$i
	rm -f /old/$i
	[ $i != 8 ] || echo @middle
	[ $((i % 4)) != 0 ] || sync
done
mv /etc/name /etc/renamed
md5sum -c /etc/sums >/dev/null
sync
echo "wrote $(ls /new | wc -l) files"
`

// bootDisk makes the disk of a machine: ext4 with busybox, some megabytes of files
// with their sums, and its first program.
func bootDisk(t *testing.T, disk string) {
	root := t.TempDir()
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(busybox)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name string, content []byte, mode os.FileMode) {
		t.Helper()
		file := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, content, mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(root, "dev"), 0o755); err != nil {
		t.Fatal(err)
	}
	write("bin/busybox", program, 0o755)
	write("sbin/start", []byte(bootInit), 0o755)
	write("etc/name", []byte("a restore point\n"), 0o644)
	for i := range 16 {
		p := make([]byte, 512<<10)
		nfstest.Stamp(p, int64(i)<<20, 9)
		write(fmt.Sprintf("data/%d", i), p, 0o644)
	}
	for i := 1; i <= bootFiles; i++ {
		write(fmt.Sprintf("old/%d", i), []byte("goes"), 0o644)
	}
	cmd := exec.Command("sh", "-c", "md5sum data/* | sed 's, , /,2' >etc/sums")
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	tool(t, "mke2fs", "-q", "-t", "ext4", "-d", root, disk, fmt.Sprint(bootBytes>>10, "K"))
}

// TestBootFromBackup boots a machine from a restore point, through qemu's own NFS
// client, and has it write files; once more with the server killed and started
// again half way. What is kept of either is a file system in order with the new
// files, and the point it came from is as it was.
func TestBootFromBackup(t *testing.T) {
	if !inNetwork(t, "qemu-system-x86_64", "qemu-nfs", "busybox", "kernel", "mke2fs") {
		return
	}
	disk := filepath.Join(t.TempDir(), "disk.raw")
	bootDisk(t, disk)
	original := sumFile(t, disk)
	// qemu's client sends nothing again that a server lost before COMMIT.
	s := newNFSService(t, "127.0.0.1:2049", "--portmap", "own", "--sync")
	s.program.must(t, "repo", "backup", s.repo, "--machine", "m", disk)
	s.start()
	for _, killed := range []bool{false, true} {
		name := fmt.Sprintf("m-killed-%v", killed)
		s.program.must(t, "nfs", "publish", "m@latest", "--name", name, "--no-swap-room")
		m := vmtest.Machine{
			Modules: []string{"virtio_pci", "virtio_blk", "crc32c_generic", "ext4"},
			Args:    []string{"-drive", "file=nfs://127.0.0.1/datastore/" + name + "/disk-flat.vmdk,format=raw,if=virtio,cache=none"},
			Limit:   20 * time.Minute,
			Script: `set -e
mount -t ext4 /dev/vda /mnt
mount -t devtmpfs dev /mnt/dev
chroot /mnt /sbin/start
umount /mnt/dev /mnt
`,
		}
		if killed {
			m.Line = s.restart
		}
		out := m.Run(t)
		if !strings.Contains(out, "booted from a restore point") || !strings.Contains(out, fmt.Sprintf("wrote %d files", bootFiles)) {
			t.Errorf("the machine says\n%s", out)
		}
		s.program.must(t, "nfs", "keep", name, "--as", name)
		s.checkKept(name)
		s.program.must(t, "nfs", "stop", name)
	}
	if s.kills != 1 {
		t.Errorf("the server was killed %d times", s.kills)
	}
	t.Logf("the server was away for %v", s.down)
	s.pr.signal(syscall.SIGTERM)
	s.pr.wait()
	s.program.must(t, "repo", "scrub", s.repo)
	if got := sumFile(t, s.restored("m@latest")); got != original {
		t.Error("the point that the machine ran from is not as it was")
	}
}

// restored restores the disk of a point.
func (s *nfsService) restored(point string) string {
	s.t.Helper()
	to := filepath.Join(s.t.TempDir(), "restored.raw")
	s.program.must(s.t, "repo", "restore", s.repo, point, "--to", to)
	return to
}

// checkKept restores the point that was made of a session: its file system is in
// order and holds what the machine wrote, and no more what it removed.
func (s *nfsService) checkKept(machine string) {
	s.t.Helper()
	file := s.restored(machine + "@latest")
	tool(s.t, "e2fsck", "-f", "-n", file)
	f, err := os.Open(file)
	if err != nil {
		s.t.Fatal(err)
	}
	defer f.Close()
	tree, err := ext4.Open(f, bootBytes)
	if err != nil {
		s.t.Fatal(err)
	}
	defer tree.Close()
	ctx := context.Background()
	for i := 1; i <= bootFiles; i++ {
		var want bytes.Buffer
		for n := i; n <= i*997+5000; n++ {
			fmt.Fprintln(&want, n)
		}
		a, err := fs.Resolve(ctx, tree, tree.Root(), fmt.Sprint("new/file", i), true)
		if err != nil {
			s.t.Error(err)
			continue
		}
		got := make([]byte, a.Size)
		if _, err := fs.File(ctx, tree, a).ReadAt(got, 0); err != nil || !bytes.Equal(got, want.Bytes()) {
			s.t.Errorf("new/file%d: %d bytes, %v; want %d", i, len(got), err, want.Len())
		}
		if _, err := fs.Resolve(ctx, tree, tree.Root(), fmt.Sprint("old/", i), true); err == nil {
			s.t.Errorf("old/%d is still there", i)
		}
	}
	if _, err := fs.Resolve(ctx, tree, tree.Root(), "etc/renamed", true); err != nil {
		s.t.Error(err)
	}
}
