//go:build linux

package e2e

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A volume is a file system in a file, mounted through a loop device.
type volume struct {
	t      *testing.T
	fs     string
	device string
	dir    string // where it is mounted
	at     bool   // it is mounted
}

// newVolume makes and mounts a file system of size bytes. It goes with the test.
func newVolume(t *testing.T, fs string, size int64) *volume {
	t.Helper()
	image := filepath.Join(t.TempDir(), fs+".img")
	v := &volume{t: t, fs: fs, device: loop(t, image, size), dir: filepath.Join(filepath.Dir(image), "mnt")}
	args := map[string][]string{
		"xfs":  {"-q", "-m", "reflink=1", v.device},
		"ext4": {"-q", "-F", "-m", "0", "-i", "65536", "-E", "lazy_itable_init=0,lazy_journal_init=0", v.device},
	}[fs]
	tool(t, "mkfs."+fs, args...)
	if err := os.Mkdir(v.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.drop)
	v.mount(0)
	return v
}

// loop gives a sparse file of size bytes, which it makes, a loop device that
// goes with the test.
func loop(t *testing.T, image string, size int64) string {
	t.Helper()
	f, err := os.OpenFile(image, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Truncate(size), f.Close()); err != nil {
		t.Fatal(err)
	}
	device := tool(t, "losetup", "--find", "--show", image)
	t.Cleanup(func() { tool(t, "losetup", "--detach", device) })
	return device
}

// tool runs a program of the system and returns what it prints.
func tool(t *testing.T, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	if cmd.Err != nil {
		cmd = exec.Command("/sbin/"+name, args...)
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
	return strings.TrimSpace(string(out))
}

func (v *volume) mount(flags uintptr) {
	v.t.Helper()
	if err := unix.Mount(v.device, v.dir, v.fs, flags, ""); err != nil {
		v.t.Fatalf("mount %s: %v", v.fs, err)
	}
	v.at = true
}

// unmount takes the file system away, which nothing may use any more.
func (v *volume) unmount() {
	v.t.Helper()
	err := unix.Unmount(v.dir, 0)
	for range 40 {
		if !errors.Is(err, unix.EBUSY) {
			break
		}
		time.Sleep(50 * time.Millisecond)
		err = unix.Unmount(v.dir, 0)
	}
	if err != nil {
		v.t.Fatalf("unmount %s: %v", v.fs, err)
	}
	v.at = false
}

// drop is unmount for the end, whatever still uses it.
func (v *volume) drop() {
	if !v.at {
		return
	}
	if unix.Unmount(v.dir, 0) != nil {
		if err := unix.Unmount(v.dir, unix.MNT_DETACH); err != nil {
			v.t.Errorf("unmount %s: %v", v.fs, err)
		}
	}
}

// The shutdown ioctl, _IOR('X', 125, __u32), which XFS and ext4 share, and its
// flag for not even writing out the log.
// Source: Linux, XFS_IOC_GOINGDOWN and EXT4_IOC_SHUTDOWN.
const (
	iocShutdown       = 0x8004587d
	shutdownNoLogging = 2
)

// cut stops the file system where it is: what is not on the device yet never
// gets there.
func (v *volume) cut() {
	v.t.Helper()
	d, err := os.Open(v.dir)
	if err != nil {
		v.t.Fatal(err)
	}
	err = unix.IoctlSetPointerInt(int(d.Fd()), iocShutdown, shutdownNoLogging)
	if err := errors.Join(err, d.Close()); err != nil {
		v.t.Fatalf("shut %s down: %v", v.fs, err)
	}
}

// remount brings the file system back after a cut, which replays its log.
func (v *volume) remount() {
	v.t.Helper()
	v.unmount()
	v.mount(0)
}
