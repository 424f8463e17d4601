//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// An xfsVolume is a file system of its own on a loop device, so that what is
// written and flushed there is nobody else's.
type xfsVolume struct {
	dir, image, device string
}

// newXFS makes one. It takes root.
func (b *runner) newXFS(ctx context.Context) (v *xfsVolume, err error) {
	v = &xfsVolume{dir: filepath.Join(b.opt.work, "out", "xfs"), image: filepath.Join(b.opt.work, "out", "xfs.img")}
	if err := os.MkdirAll(v.dir, 0o755); err != nil {
		return nil, err
	}
	f, err := os.Create(v.image)
	if err != nil {
		return nil, err
	}
	const volumeBytes = 8 << 30
	if err := errors.Join(f.Truncate(volumeBytes), f.Close()); err != nil {
		return nil, err
	}
	_, out, err := command{args: []string{"losetup", "--find", "--show", v.image}}.run(ctx)
	if err != nil {
		return nil, err
	}
	v.device = strings.TrimSpace(string(out))
	for _, args := range [][]string{{"mkfs.xfs", "-q", "-f", v.device}, {"mount", v.device, v.dir}} {
		if _, _, err := (command{args: args}).run(ctx); err != nil {
			return nil, errors.Join(err, v.detach())
		}
	}
	return v, nil
}

// flushes is how many flushes the device has done so far.
func (v *xfsVolume) flushes() (int64, error) {
	p, err := os.ReadFile(filepath.Join("/sys/block", filepath.Base(v.device), "stat"))
	if err != nil {
		return 0, err
	}
	// Source: Documentation/block/stat.rst of Linux.
	const flushIOs = 15
	fields := strings.Fields(string(p))
	if len(fields) <= flushIOs {
		return 0, fmt.Errorf("%s: the kernel counts no flushes", v.device)
	}
	return strconv.ParseInt(fields[flushIOs], 10, 64)
}

func (v *xfsVolume) detach() error {
	_, _, err := command{args: []string{"losetup", "--detach", v.device}}.run(context.Background())
	return err
}

// remove unmounts and removes the volume.
func (v *xfsVolume) remove() error {
	return errors.Join(unix.Unmount(v.dir, 0), v.detach(), os.Remove(v.image))
}

// pin locks a file into the page cache until unpin is called.
func pin(name string) (unpin func(), err error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	m, err := unix.Mmap(int(f.Fd()), 0, int(info.Size()), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map %s: %w", name, err)
	}
	if err := unix.Mlock(m); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s into memory: %w", name, err), unix.Munmap(m))
	}
	return func() { _ = unix.Munmap(m) }, nil
}
