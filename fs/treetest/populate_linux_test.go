package treetest

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"holdfast/fs"
	"holdfast/internal/testreq"
)

// TestPopulateLinux makes all that there is, on a file system of its own, and
// sees that it is there.
func TestPopulateLinux(t *testing.T) {
	testreq.Need(t, "root", "loop", "mkfs.ext4")
	img, dir := filepath.Join(t.TempDir(), "img"), t.TempDir()
	run := func(name string, args ...string) {
		t.Helper()
		if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
			t.Fatalf("%s %q: %v\n%s", name, args, err, out)
		}
	}
	if err := os.WriteFile(img, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(img, 512<<20); err != nil {
		t.Fatal(err)
	}
	run("mkfs.ext4", "-q", "-I", "256", img)
	run("mount", "-o", "loop,nobarrier", img, dir)
	t.Cleanup(func() { run("umount", dir) })
	plan := Linux(3)
	plan.BigDir, plan.Fragmented = 900, 2
	if err := Populate(t, dir, plan); err != nil {
		t.Fatal(err)
	}
	s := SnapHost(t, dir)
	n := map[string]int{}
	for _, p := range s.Paths() {
		a := s.Nodes[p]
		n[a.Type.String()]++
		for name, is := range map[string]bool{
			"linked": len(a.Links) > 5, "holed": a.Type == fs.TypeFile && a.Used+8192 < a.Size, "huge": a.Size > 4<<30, "attributed": len(a.Xattrs) > 3,
			"ACL": a.Xattrs["system.posix_acl_access"] != "", "set-user": a.Perm&0o4000 != 0, "before 1970": a.Mtime.Sec < 0, "after 2106": a.Mtime.Sec > 1<<32,
			"owned": a.UID > 1<<16, "large minor": a.Minor > 255,
		} {
			if is {
				n[name]++
			}
		}
	}
	for what, least := range map[string]int{
		"file": 900, "directory": 200, "symlink": 15, "fifo": 1, "socket": 1, "character device": 3, "block device": 2, "linked": 60, "holed": 6,
		"huge": 2, "attributed": 1, "ACL": 2, "set-user": 5, "before 1970": 10, "after 2106": 10, "owned": 20, "large minor": 2,
	} {
		if n[what] < least {
			t.Errorf("%s: %d, want at least %d", what, n[what], least)
		}
	}
}
