package mount

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// fsName is the name of the file system: its type is "fuse.holdfast".
const fsName = "holdfast"

const directFlags = unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV

// A mountInfo is a line of /proc/self/mountinfo.
type mountInfo struct {
	device string // major:minor of its st_dev
	fstype string // "" for none
}

func (m mountInfo) ours() bool { return m.fstype == "fuse."+fsName }

// mountedAt returns the topmost mount on a directory, without touching it.
func mountedAt(dir string) (top mountInfo, err error) {
	err = eachMount(func(on string, m mountInfo) {
		if on == dir {
			top = m // later ones are on top
		}
	})
	return top, err
}

// stillMounted says whether a device is mounted anywhere in our namespace.
func stillMounted(device string) (found bool, err error) {
	err = eachMount(func(_ string, m mountInfo) { found = found || m.device == device })
	return found, err
}

// eachMount calls fn for each mount, with the directory that it is on.
func eachMount(fn func(on string, m mountInfo)) error {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		// ID PARENT MAJOR:MINOR ROOT MOUNTPOINT OPTIONS [TAG…] - TYPE SOURCE OPTIONS
		before, after, ok := strings.Cut(s.Text(), " - ")
		fields := strings.Fields(before)
		if !ok || len(fields) < 5 {
			continue
		}
		fstype, _, _ := strings.Cut(after, " ")
		fn(unescape(fields[4]), mountInfo{device: fields[2], fstype: fstype})
	}
	return s.Err()
}

// unescape undoes the octal escapes of spaces and their like in mountinfo.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// detachDead takes away whatever mounts of ours at dir have no server any more.
// Mounts of others stay as they are.
func detachDead(dir string) error {
	for {
		m, err := mountedAt(dir)
		if err != nil || !m.ours() || !dead(dir) {
			return err
		}
		if err := unmount(dir, true); err != nil {
			return fmt.Errorf("detach the dead mount at %s: %w", dir, err)
		}
	}
}

// dead says whether the server of the mount at dir is gone. Attributes may be
// answered from the kernel's cache even then; this question is always passed on.
func dead(dir string) bool {
	var st unix.Statfs_t
	for {
		err := unix.Statfs(dir, &st)
		if err != unix.EINTR {
			return err == unix.ENOTCONN || err == unix.ECONNABORTED
		}
	}
}

// unmount unmounts what is on top at dir. ErrBusy if that is in use; by force
// nobody's use counts, and all requests under way fail.
func unmount(dir string, force bool) error {
	if os.Geteuid() == 0 {
		flags := unix.UMOUNT_NOFOLLOW
		if force {
			flags |= unix.MNT_FORCE | unix.MNT_DETACH
		}
		err := unix.Unmount(dir, flags)
		if errors.Is(err, unix.EBUSY) {
			return ErrBusy
		}
		return err
	}
	arg := "-u"
	if force {
		arg = "-uz"
	}
	out, err := exec.Command("fusermount3", arg, "--", dir).CombinedOutput()
	switch {
	case err == nil:
		return nil
	case bytes.Contains(out, []byte("busy")):
		return ErrBusy
	}
	return fmt.Errorf("fusermount3 %s: %w: %s", arg, err, bytes.TrimSpace(out))
}

// readAheadKiB is how far the kernel reads ahead in a file that is read from
// front to back: two requests of readBytes, so that one is being answered
// while another is copied. Linux begins with 128 KiB.
const readAheadKiB = 2 * readBytes >> 10

// raiseReadAhead lets the kernel read ahead in large requests; only root can.
func raiseReadAhead(device string) error {
	return os.WriteFile("/sys/class/bdi/"+device+"/read_ahead_kb", []byte(strconv.Itoa(readAheadKiB)), 0)
}

// until waits until cond holds, for at most limit.
func until(limit time.Duration, cond func() bool) bool {
	for deadline := time.Now().Add(limit); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			return false
		}
	}
	return true
}
