package ntfs_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"holdfast/fs/guest/ntfs"
	"holdfast/internal/testreq"
)

// volume is an NTFS volume in a file, made by mkntfs and filled through ntfs-3g.
type volume struct {
	tb   testing.TB
	path string
	dir  string // where it is mounted
}

func format(tb testing.TB, size int64, args ...string) *volume {
	tb.Helper()
	testreq.Need(tb, "root", "mkntfs", "ntfs-3g")
	v := &volume{tb: tb, path: filepath.Join(tb.TempDir(), "volume"), dir: tb.TempDir()}
	if err := os.WriteFile(v.path, nil, 0o600); err != nil {
		tb.Fatal(err)
	}
	if err := os.Truncate(v.path, size); err != nil {
		tb.Fatal(err)
	}
	run(tb, "mkntfs", append(append([]string{"-q", "-F", "-Q", "-p", "0", "-H", "16", "-S", "63"}, args...), v.path)...)
	return v
}

func run(tb testing.TB, name string, args ...string) string {
	tb.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	if path, err := exec.LookPath("/usr/sbin/" + name); err == nil && cmd.Err != nil {
		cmd.Path, cmd.Err = path, nil
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		tb.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// mounted calls fn while ntfs-3g shows the volume in v.dir.
func (v *volume) mounted(options string, fn func(dir string)) {
	v.tb.Helper()
	if options != "" {
		options = "," + options
	}
	// In the foreground, since after umount it still has to write.
	cmd := exec.Command("ntfs-3g", "-o", "no_detach,big_writes"+options, v.path, v.dir)
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8")
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		v.tb.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	ended := false
	defer func() {
		if !ended {
			_ = unix.Unmount(v.dir, unix.MNT_DETACH)
			_ = cmd.Process.Kill()
			<-done
		}
	}()
	before, err := os.Stat(filepath.Dir(v.dir))
	if err != nil {
		v.tb.Fatal(err)
	}
	for start := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		select {
		case err := <-done:
			done <- err
			v.tb.Fatalf("ntfs-3g: %v\n%s", err, &said)
		default:
		}
		if st, err := os.Stat(v.dir); err == nil && st.Sys().(*syscall.Stat_t).Dev != before.Sys().(*syscall.Stat_t).Dev {
			break
		}
		if time.Since(start) > 30*time.Second {
			v.tb.Fatalf("ntfs-3g does not mount:\n%s", &said)
		}
	}
	fn(v.dir)
	if err := unix.Unmount(v.dir, 0); err != nil {
		v.tb.Fatalf("unmount: %v", err)
	}
	if err := <-done; err != nil {
		ended = true
		v.tb.Fatalf("ntfs-3g: %v\n%s", err, &said)
	}
	ended = true
}

// open opens the volume with the reader under test.
func (v *volume) open() (*ntfs.FS, *os.File) {
	v.tb.Helper()
	dev, err := os.Open(v.path)
	if err != nil {
		v.tb.Fatal(err)
	}
	v.tb.Cleanup(func() { dev.Close() })
	st, err := dev.Stat()
	if err != nil {
		v.tb.Fatal(err)
	}
	f, err := ntfs.Open(dev, st.Size())
	if err != nil {
		v.tb.Fatalf("open: %v", err)
	}
	return f, dev
}
