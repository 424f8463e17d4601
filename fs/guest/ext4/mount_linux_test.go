package ext4

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"holdfast/internal/testreq"
)

// mounted is an image that the kernel has mounted, but nowhere: dir leads there
// through the descriptor alone. A mount in the tree would be copied into every
// namespace that another process makes meanwhile, and stay mounted there.
type mounted struct {
	tb   testing.TB
	dir  string
	fd   int
	loop int
}

// mount mounts an image. Options are as in fstab.
func mount(tb testing.TB, image, options string) *mounted {
	tb.Helper()
	testreq.Need(tb, "loop")
	loop, device, err := attach(image)
	if err != nil {
		tb.Fatalf("loop device for %s: %v", image, err)
	}
	defer device.Close() // it goes once the file system does
	fd, err := mountDevice(device.Name(), options)
	if err != nil {
		tb.Fatalf("mount %s: %v", options, err)
	}
	m := &mounted{tb: tb, dir: fmt.Sprintf("/proc/self/fd/%d/.", fd), fd: fd, loop: loop}
	tb.Cleanup(func() {
		if m.fd >= 0 {
			_ = unix.Close(m.fd)
		}
	})
	return m
}

// attach makes a loop device of an image.
func attach(image string) (int, *os.File, error) {
	file, err := os.OpenFile(image, os.O_RDWR, 0)
	if err != nil {
		return 0, nil, err
	}
	defer file.Close()
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return 0, nil, err
	}
	defer control.Close()
	for {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return 0, nil, err
		}
		device, err := os.OpenFile(fmt.Sprintf("/dev/loop%d", n), os.O_RDWR, 0)
		if err != nil {
			return 0, nil, err
		}
		config := unix.LoopConfig{Fd: uint32(file.Fd()), Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_AUTOCLEAR}}
		err = unix.IoctlLoopConfigure(int(device.Fd()), &config)
		if err == nil {
			return n, device, nil
		}
		_ = device.Close()
		if err != unix.EBUSY { // somebody else was faster
			return 0, nil, err
		}
	}
}

func mountDevice(device, options string) (int, error) {
	fsfd, err := unix.Fsopen("ext4", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, err
	}
	defer unix.Close(fsfd)
	attributes := 0
	err = unix.FsconfigSetString(fsfd, "source", device)
	for _, option := range strings.Split(options, ",") {
		key, value, isPair := strings.Cut(option, "=")
		switch {
		case err != nil:
		case option == "noatime":
			attributes |= unix.MOUNT_ATTR_NOATIME
		case isPair:
			err = unix.FsconfigSetString(fsfd, key, value)
		default:
			err = unix.FsconfigSetFlag(fsfd, key)
		}
		if err != nil {
			return -1, fmt.Errorf("%s: %w", option, err)
		}
	}
	if err := unix.FsconfigCreate(fsfd); err != nil {
		return -1, err
	}
	return unix.Fsmount(fsfd, unix.FSMOUNT_CLOEXEC, attributes)
}

// unmount returns when the file system is off the image. A program that another
// test is about to start has our descriptors until it begins.
func (m *mounted) unmount() {
	m.tb.Helper()
	if err := unix.Close(m.fd); err != nil {
		m.tb.Fatal(err)
	}
	m.fd = -1
	backing := fmt.Sprintf("/sys/block/loop%d/loop/backing_file", m.loop)
	was, err := os.ReadFile(backing)
	for try := 0; err == nil; try++ {
		if try == 2000 {
			m.tb.Fatal("still mounted after 20 s")
		}
		time.Sleep(10 * time.Millisecond)
		var is []byte
		if is, err = os.ReadFile(backing); err == nil && string(is) != string(was) {
			return // it has another image by now
		}
	}
}
