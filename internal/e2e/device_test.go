//go:build linux

package e2e

import (
	"crypto/sha256"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"holdfast/repo/repotest"
)

// TestBlockDevice backs up a block device and restores to others, which are
// full of something else.
func TestBlockDevice(t *testing.T) {
	begin(t, "loop", "losetup", "mkfs.ext4")
	rng := random(t)
	s := newSite(t, rng, filepath.Join(t.TempDir(), "repository"), t.TempDir(), false)
	const size = 48 << 20
	d := s.newDisk("m", "root", repotest.Zeros, size)
	source := loop(t, d.path, size)
	file := d.path
	d.path = source
	m := s.addMachine("m", false, d)
	for range 2 {
		s.finished(m)
		s.restoreSome(1)
		// Written through the device, as its machine would.
		d.now, _ = repotest.Change(rng, d.now)
		d.now.Resize(size)
		writeDevice(t, source, d.now)
	}
	s.finished(m)
	want := sumDisk(t, d.now)
	if sumFile(t, file) != want {
		t.Fatal("the file of the loop device is not what the test takes it for")
	}

	t.Run("as large", func(t *testing.T) {
		target, _ := garbage(t, rng, size)
		s.program.fails(t, 1, []string{target, "--force"}, "repo", "restore", s.dir, "m@latest", "--to", target)
		s.program.must(t, "repo", "restore", s.dir, "m@latest", "--to", target, "--force")
		if sumFile(t, target) != want {
			t.Error("the device is not the disk")
		}
	})
	t.Run("larger", func(t *testing.T) {
		const more = 8<<20 + 512
		target, before := garbage(t, rng, size+more)
		s.program.must(t, "repo", "restore", s.dir, "m@latest", "--to", target, "--force")
		if sumPart(t, target, 0, size) != want {
			t.Error("the device does not begin with the disk")
		}
		if sumPart(t, target, size, more) != sumPart(t, before, size, more) {
			t.Error("something was written behind the end of the disk")
		}
	})
	t.Run("too small", func(t *testing.T) {
		target, before := garbage(t, rng, size-512)
		s.program.fails(t, 1, []string{target, "50331136", "50331648"}, "repo", "restore", s.dir, "m@latest", "--to", target, "--force")
		if sumFile(t, target) != sumFile(t, before) {
			t.Error("something was written to a device that is too small")
		}
	})
	t.Run("mounted", func(t *testing.T) {
		v := newVolume(t, "ext4", 64<<20)
		kept := filepath.Join(v.dir, "kept")
		if err := os.WriteFile(kept, []byte("still here"), 0o600); err != nil {
			t.Fatal(err)
		}
		s.program.fails(t, 1, []string{v.device, "in use", "mounted at " + v.dir}, "repo", "restore", s.dir, "m@latest", "--to", v.device, "--force")
		v.remount()
		if p, err := os.ReadFile(kept); string(p) != "still here" {
			t.Errorf("the mounted file system has changed: %q, %v", p, err)
		}
	})
	t.Run("another format", func(t *testing.T) {
		target, before := garbage(t, rng, size)
		s.program.fails(t, 64, []string{target, "vmdk"}, "repo", "restore", s.dir, "m@latest", "--to", target, "--force", "--format", "vmdk")
		if sumFile(t, target) != sumFile(t, before) {
			t.Error("something was written to the device")
		}
	})
	s.account()
	s.compare()
}

// garbage returns a loop device full of random bytes, and a file with the same.
func garbage(t *testing.T, rng *rand.Rand, size int) (device, same string) {
	t.Helper()
	p := make([]byte, size)
	fill(rng, p)
	dir := t.TempDir()
	image, same := filepath.Join(dir, "image"), filepath.Join(dir, "same")
	for _, name := range []string{image, same} {
		if err := os.WriteFile(name, p, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return loop(t, image, int64(size)), same
}

// writeDevice writes a whole disk to a device.
func writeDevice(t *testing.T, name string, d *repotest.Disk) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err = io.Copy(f, io.NewSectionReader(d, 0, d.Size())); err == nil {
		err = f.Sync()
	}
	if err != nil {
		t.Fatal(err)
	}
}

func sumPart(t *testing.T, name string, off, n int64) [sha256.Size]byte {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	return sum(t, io.NewSectionReader(f, off, n))
}
