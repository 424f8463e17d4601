package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"holdfast/repo"
	"holdfast/repo/chunk"
)

// device is a block device that becomes the disk. Holes become zeros.
type device struct {
	f    *os.File
	head []byte // the first bytes of the disk, which are written by place
}

// deviceHead is how much of a device is zeros until all the rest is on it:
// partition tables, volume labels and superblocks lie there, so nobody takes a
// half-written disk for one.
const deviceHead = 1 << 20

// newDevice opens a block device for this process alone: the kernel refuses
// when it, a part of it or something made of it is mounted or in use.
func newDevice(path string, size int64) (target, error) {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_EXCL, 0)
	if errors.Is(err, unix.EBUSY) {
		return nil, fmt.Errorf("%s is in use%s", path, mountedAt(path))
	}
	if err != nil {
		return nil, err
	}
	room, err := f.Seek(0, io.SeekEnd)
	if err == nil && room < size {
		err = fmt.Errorf("%s has %d bytes (%s), the disk %d (%s)", path, room, formatSize(room), size, formatSize(size))
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &device{f: f, head: make([]byte, min(size, deviceHead))}, nil
}

// mountedAt says where a device is mounted, as far as that can be told.
func mountedAt(path string) string {
	var st unix.Stat_t
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || unix.Stat(path, &st) != nil {
		return ""
	}
	dev := fmt.Sprintf("%d:%d", unix.Major(uint64(st.Rdev)), unix.Minor(uint64(st.Rdev)))
	for line := range strings.Lines(string(mounts)) {
		// Fields by proc_pid_mountinfo(5): id, parent, device, root, mount point.
		if f := strings.Fields(line); len(f) > 4 && f[2] == dev {
			return ": it is mounted at " + f[4]
		}
	}
	return ""
}

func (t *device) restore(ctx context.Context, d *repo.Disk, show func(int64)) (repo.RestoreResult, error) {
	if _, err := t.f.WriteAt(make([]byte, len(t.head)), 0); err != nil {
		return repo.RestoreResult{}, err
	}
	if err := t.f.Sync(); err != nil {
		return repo.RestoreResult{}, err
	}
	res, err := d.Restore(ctx, t, repo.RestoreOptions{WriteZeros: true, Progress: func(done, _ int64) { show(done) }})
	if err != nil {
		return res, err
	}
	return res, t.f.Sync()
}

// WriteAt writes what lies behind the head and keeps the rest of p. Several
// goroutines write at once, no two to the same bytes.
func (t *device) WriteAt(p []byte, off int64) (int, error) {
	kept := 0
	if off < int64(len(t.head)) {
		kept = copy(t.head[off:], p)
	}
	if kept == len(p) {
		return kept, nil
	}
	rest, at := p[kept:], off+int64(kept)
	if chunk.IsZero(rest) && zeroOut(t.f, at, int64(len(rest))) == nil {
		return len(p), nil
	}
	n, err := t.f.WriteAt(rest, at)
	return kept + n, err
}

// zeroOut makes a range of a device zeros without sending them, where the
// device can do that. The range must consist of whole pages.
func zeroOut(f *os.File, off, n int64) error {
	const page = 4096
	if off%page != 0 || n%page != 0 {
		return unix.EINVAL
	}
	r := [2]uint64{uint64(off), uint64(n)}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), unix.BLKZEROOUT, uintptr(unsafe.Pointer(&r)))
	if errno != 0 {
		return errno
	}
	return nil
}

func (t *device) place() error {
	_, err := t.f.WriteAt(t.head, 0)
	if err == nil {
		err = t.f.Sync()
	}
	return errors.Join(err, t.f.Close())
}

// discard leaves the device without a head.
func (t *device) discard() error { return t.f.Close() }
