package image_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"holdfast/image"
	"holdfast/image/internal/disktest"
)

// TestDropCache asks the kernel, by a read that must not wait, whether what was
// read is still in memory.
func TestDropCache(t *testing.T) {
	path := write(t, filepath.Join(t.TempDir(), "disk"), disktest.Pattern(4<<20, 51))
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Sync(); err != nil { // dirty pages stay
		t.Fatal(err)
	}
	cached := func() bool {
		_, err := unix.Preadv2(int(f.Fd()), [][]byte{make([]byte, 4096)}, 1<<20, unix.RWF_NOWAIT)
		switch {
		case err == nil:
			return true
		case !errors.Is(err, unix.EAGAIN):
			t.Skipf("the file system of %s does not tell: %v", path, err)
		}
		return false
	}
	for _, drop := range []bool{false, true} {
		d := open(t, path, image.Options{DropCache: drop})
		if _, err := d.ReadAt(make([]byte, 4<<20), 0); err != nil {
			t.Fatal(err)
		}
		var fs unix.Statfs_t
		if err := unix.Statfs(path, &fs); err != nil {
			t.Fatal(err)
		}
		if fs.Type == unix.TMPFS_MAGIC {
			t.Skip("needs a temporary directory on a disk: tmpfs has nothing but cache")
		}
		if got := cached(); got == drop {
			t.Errorf("DropCache %t: what was read is cached: %t", drop, got)
		}
	}
}
