package vfs_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"holdfast/internal/testreq"
	"holdfast/repo/vfs"
	"holdfast/repo/vfs/vfstest"
)

func TestLocked(t *testing.T) {
	t.Run("mem", func(t *testing.T) { vfstest.RunLocked(t, vfs.NewMem()) })
	t.Run("faulty mem", func(t *testing.T) { vfstest.RunLocked(t, vfs.NewFaulty(vfs.NewMem())) })
	t.Run("xfs", func(t *testing.T) { vfstest.RunLocked(t, openXFS(t)) })
	err := vfstest.SetLocked(struct{ vfs.FS }{vfs.NewMem()}, "f", true)
	wants(t, "set locked in another file system", err, errors.ErrUnsupported)
}

// openXFS returns an empty XFS of its own, in a file.
func openXFS(t *testing.T) *vfs.Dir {
	testreq.Need(t, "loop", "mkfs.xfs", "mount", "umount")
	dir := t.TempDir()
	image, at := filepath.Join(dir, "image"), filepath.Join(dir, "mnt")
	f, err := os.Create(image)
	must(t, err)
	must(t, errors.Join(f.Truncate(320<<20), f.Close(), os.Mkdir(at, 0o700)))
	system(t, "mkfs.xfs", "-q", image)
	system(t, "mount", "-o", "loop", image, at)
	t.Cleanup(func() { system(t, "umount", at) })
	d, err := vfs.OS(at)
	must(t, err)
	t.Cleanup(func() { must(t, d.Close()) })
	return d
}

func system(t *testing.T, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(name, args...)
	if cmd.Err != nil {
		cmd = exec.Command("/sbin/"+name, args...)
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
}

// TestLockedOutlivesCrash: the flag is durable at once, set or taken back.
func TestLockedOutlivesCrash(t *testing.T) {
	m := skeleton(t)
	must(t, vfs.WriteFile(m, "d/a", []byte("A")))
	for _, on := range []bool{true, false} {
		must(t, m.SetLocked("d/a", on))
		for _, opt := range vfs.Crashes(1) {
			c := m.CrashClone(opt)
			got, err := c.Locked("d/a")
			must(t, err)
			same(t, opt.String(), got, on)
			must(t, c.SetLocked("d/a", !on)) // the clone's own
		}
		got, err := m.Locked("d/a")
		must(t, err)
		same(t, "the original", got, on)
	}
}

// TestLockedFaults: to ask is an operation that changes nothing.
func TestLockedFaults(t *testing.T) {
	f := vfs.NewFaulty(skeleton(t))
	synced(t, f, "d/a", "A")
	n := f.Count()
	_, err := f.Locked("d/a")
	must(t, err)
	same(t, "operations counted", f.Count()-n, 0)
	f.CountReads()
	f.FailAt(n, os.ErrInvalid)
	must(t, vfstest.SetLocked(f, "d/a", true))
	locked, err := f.Locked("d/a")
	wants(t, "locked", err, os.ErrInvalid)
	same(t, "answer beside the error", locked, false)
	same(t, "operation", f.Ops()[n].Kind, vfs.OpStat)
	f.CrashAt(n + 1)
	_, err = f.Locked("d/a")
	wants(t, "after a crash", err, vfs.ErrCrashed)
}
