package vfs_test

import (
	"bufio"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"holdfast/repo/vfs"
)

func openDir(t *testing.T) (*vfs.Dir, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "root")
	must(t, os.Mkdir(path, 0o700))
	d, err := vfs.OS(path)
	must(t, err)
	t.Cleanup(func() { must(t, d.Close()) })
	return d, path
}

func TestDirMissing(t *testing.T) {
	_, err := vfs.OS(filepath.Join(t.TempDir(), "no"))
	wants(t, "open", err, fs.ErrNotExist)
}

func TestDirStaysInside(t *testing.T) {
	d, path := openDir(t)
	outside := filepath.Dir(path)
	must(t, os.WriteFile(outside+"/secret", []byte("s"), 0o600))
	must(t, os.Symlink("../secret", path+"/relative"))
	must(t, os.Symlink(outside+"/secret", path+"/absolute"))
	must(t, os.Symlink("..", path+"/up"))
	_, lockErr := d.Lock("up/lock", vfs.Shared)
	_, listErr := d.ReadDir("up")
	errs := map[string]error{"lock": lockErr, "list": listErr, "sync": d.SyncDir("up"), "remove": d.Remove("up/secret"), "mkdir": d.Mkdir("up/d")}
	for _, name := range []string{"relative", "absolute", "up/secret"} {
		_, errs["open "+name] = d.Open(name)
		_, errs["write "+name] = d.OpenWrite(name)
		_, errs["stat "+name] = d.Stat(name)
	}
	for what, err := range errs {
		if err == nil {
			t.Errorf("%s through a link: no error", what)
		}
	}
	_, err := d.Create("relative")
	wants(t, "create where a link is", err, fs.ErrExist)
}

func TestDirSpecialFiles(t *testing.T) {
	d, path := openDir(t)
	must(t, syscall.Mkfifo(path+"/pipe", 0o600))
	for _, open := range []func(string) (vfs.File, error){d.Open, d.OpenWrite} {
		if _, err := open("pipe"); err == nil || !strings.Contains(err.Error(), "regular") {
			t.Errorf("open a pipe: got error %v", err)
		}
	}
}

func TestDirFollowsARename(t *testing.T) {
	d, path := openDir(t)
	must(t, os.Rename(path, path+"2"))
	must(t, os.Mkdir(path, 0o700))
	synced(t, d, "a", "A")
	data, err := os.ReadFile(path + "2/a")
	must(t, err)
	same(t, "content", string(data), "A")
	data, err = os.ReadFile(fmt.Sprintf("/proc/self/fd/%d/a", d.Fd()))
	must(t, err)
	same(t, "content by descriptor", string(data), "A")
}

func TestDirErrorsNameThePath(t *testing.T) {
	d, path := openDir(t)
	_, err := d.Open("x/y")
	same(t, "error", err.Error(), "open "+path+"/x/y: no such file or directory")
	same(t, "error", d.Rename("x", "z").Error(), "rename "+path+"/x z: no such file or directory")
}

func TestDirPreallocates(t *testing.T) {
	d, path := openDir(t)
	f := create(t, d, "reserve", "")
	must(t, f.Preallocate(1<<20))
	must(t, f.Close())
	var st syscall.Stat_t
	must(t, syscall.Stat(path+"/reserve", &st))
	if st.Size != 1<<20 || st.Blocks*512 < 1<<20 {
		t.Errorf("size %d, allocated %d, want 1 MiB of each", st.Size, st.Blocks*512)
	}
}

// TestDirLockDiesWithItsHolder takes the lock in another process and kills it.
func TestDirLockDiesWithItsHolder(t *testing.T) {
	if dir := os.Getenv("VFS_TEST_HOLD"); dir != "" {
		d, err := vfs.OS(dir)
		must(t, err)
		_, err = d.Lock("lock", vfs.Exclusive)
		must(t, err)
		fmt.Println("held")
		select {}
	}
	d, path := openDir(t)
	cmd := exec.Command(os.Args[0], "-test.run=^TestDirLockDiesWithItsHolder$")
	cmd.Env = append(os.Environ(), "VFS_TEST_HOLD="+path)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	line, _ := bufio.NewReader(out).ReadString('\n')
	same(t, "the other process", line, "held\n")
	_, err = d.Lock("lock", vfs.Shared)
	wants(t, "lock while it lives", err, vfs.ErrLocked)
	must(t, cmd.Process.Kill())
	if err := cmd.Wait(); err == nil {
		t.Error("the other process ended by itself")
	}
	l, err := d.Lock("lock", vfs.Exclusive)
	must(t, err)
	must(t, l.Unlock())
}

// TestDirUnlockWhileAProgramStarts: a process between fork and exec has copies
// of all descriptors. Unlocked is unlocked all the same.
func TestDirUnlockWhileAProgramStarts(t *testing.T) {
	d, path := openDir(t)
	l, err := d.Lock("lock", vfs.Exclusive)
	must(t, err)
	var held []int // descriptors of the lock; found before there are copies
	entries, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	for _, e := range entries {
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err != nil || to != filepath.Join(path, "lock") {
			continue
		}
		fd, err := strconv.Atoi(e.Name())
		must(t, err)
		held = append(held, fd)
	}
	same(t, "descriptors of the lock", len(held), 1)
	dup, err := syscall.Dup(held[0])
	must(t, err)
	t.Cleanup(func() { syscall.Close(dup) })
	must(t, l.Unlock())
	l, err = d.Lock("lock", vfs.Exclusive)
	must(t, err)
	must(t, l.Unlock())
}
