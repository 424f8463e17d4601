package ext4

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"holdfast/fs"
	"holdfast/fs/treetest"
)

// run runs a program that makes or changes images.
func run(tb testing.TB, name string, args ...string) {
	tb.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/sbin:/usr/sbin", "MKE2FS_CONFIG=/dev/null")
	if path, err := lookSbin(name); err == nil {
		cmd.Path, cmd.Err = path, nil
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		tb.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
}

func lookSbin(name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	path := filepath.Join("/sbin", name)
	_, err := os.Stat(path)
	return path, err
}

// debugfs runs commands of debugfs that write.
func debugfs(tb testing.TB, image string, commands ...string) {
	tb.Helper()
	script := filepath.Join(tb.TempDir(), "commands")
	var text bytes.Buffer
	for _, c := range commands {
		fmt.Fprintln(&text, c)
	}
	if err := os.WriteFile(script, text.Bytes(), 0o600); err != nil {
		tb.Fatal(err)
	}
	run(tb, "debugfs", "-w", "-f", script, image)
}

// tempDir is where images are: in memory if there is room, for what is written
// through costs most of the time that these tests take.
func tempDir(tb testing.TB) string {
	tb.Helper()
	const memory = "/dev/shm"
	var st unix.Statfs_t
	if unix.Statfs(memory, &st) != nil || int64(st.Bavail)*st.Bsize < 4<<30 {
		return tb.TempDir()
	}
	dir, err := os.MkdirTemp(memory, "holdfast-ext4-")
	if err != nil {
		return tb.TempDir()
	}
	tb.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// makeImage makes an empty file system of some MiB. Features and sizes are as
// told and nothing else, whatever the machine's defaults are.
func makeImage(tb testing.TB, mib int, args ...string) string {
	tb.Helper()
	image := filepath.Join(tempDir(tb), "image")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		tb.Fatal(err)
	}
	if err := os.Truncate(image, int64(mib)<<20); err != nil {
		tb.Fatal(err)
	}
	run(tb, "mke2fs", append(append([]string{"-q", "-F"}, args...), image)...)
	return image
}

// kernelView is what the kernel shows of an image, which it may change.
func kernelView(tb testing.TB, image, options string) *treetest.Snapshot {
	tb.Helper()
	m := mount(tb, image, options)
	s := treetest.SnapHost(tb, m.dir)
	m.unmount()
	return s
}

// copyImage copies an image as it is on the device at this moment, with its
// holes.
func copyImage(tb testing.TB, from string) string {
	tb.Helper()
	to := filepath.Join(tempDir(tb), "copy")
	run(tb, "cp", "--sparse=always", from, to)
	return to
}

// openImage opens an image with the reader under test.
func openImage(tb testing.TB, image string) (*FS, *os.File) {
	tb.Helper()
	file, err := os.Open(image)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = file.Close() })
	info, err := file.Stat()
	if err != nil {
		tb.Fatal(err)
	}
	f, err := Open(file, info.Size())
	if err != nil {
		tb.Fatalf("Open: %v", err)
	}
	return f, file
}

// compare fails the test for each difference between what the kernel shows and
// what we show.
func compare(tb testing.TB, want, got *treetest.Snapshot, ignore treetest.Fields) {
	tb.Helper()
	if len(want.Nodes) < 2 {
		tb.Fatalf("the kernel shows %d paths: nothing to compare", len(want.Nodes))
	}
	diff := treetest.Diff(want, got, ignore)
	for i, line := range diff {
		if i == 30 {
			tb.Errorf("and %d more", len(diff)-i)
			break
		}
		tb.Error(line)
	}
}

func syncFS(tb testing.TB, path string) {
	tb.Helper()
	file, err := os.Open(path)
	if err != nil {
		tb.Fatal(err)
	}
	defer file.Close()
	if err := unix.Syncfs(int(file.Fd())); err != nil {
		tb.Fatal(err)
	}
}

func reopener(file *os.File, size int64) func() (fs.Tree, error) {
	return func() (fs.Tree, error) { return Open(file, size) }
}
