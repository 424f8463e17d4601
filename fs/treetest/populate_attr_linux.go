package treetest

import (
	"encoding/binary"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

func (p *populator) xattrs() error {
	sizes := []int{0, 1, 3, 4, 5, 40, 200, 900, p.XattrBytes / 2, p.XattrBytes}
	set := func(rel, name string, size int) error {
		err := unix.Lsetxattr(p.path(rel), name, p.content(int64(size)), 0)
		if err == unix.ENOSPC || err == unix.E2BIG || err == unix.ERANGE { // a file system's own limit
			return nil
		}
		if err != nil {
			return fmt.Errorf("%s of %q: %w", name, rel, err)
		}
		return nil
	}
	for i := range 60 {
		rel := p.plain[p.r.IntN(len(p.plain))]
		if i%4 == 0 {
			rel = p.dirs[p.r.IntN(len(p.dirs))]
		}
		for k := range 1 + p.r.IntN(4) {
			if err := set(rel, fmt.Sprintf("user.a%d.%s", k, strings.Repeat("n", p.r.IntN(40))), sizes[p.r.IntN(len(sizes))]); err != nil {
				return err
			}
		}
		if p.root && i%5 == 0 {
			if err := set(rel, "trusted.holdfast", 20); err != nil {
				return err
			}
		}
	}
	for k := range 50 {
		if err := set(p.plain[0], fmt.Sprintf("user.many-%d", k), k); err != nil {
			return err
		}
	}
	if p.root && len(p.other) > 0 {
		return set(p.other[0], "trusted.of-a-link", 30)
	}
	return nil
}

// acls gives a file and a directory access lists: version 2, then entries of
// tag, permission and number, as Linux passes them.
func (p *populator) acls() error {
	acl := binary.LittleEndian.AppendUint32(nil, 2)
	for _, e := range []struct {
		tag, perm uint16
		id        uint32
	}{{1, 6, 1<<32 - 1}, {2, 5, 1000}, {2, 0, 70000}, {4, 4, 1<<32 - 1}, {8, 7, 50}, {0x10, 5, 1<<32 - 1}, {0x20, 4, 1<<32 - 1}} {
		acl = binary.LittleEndian.AppendUint16(acl, e.tag)
		acl = binary.LittleEndian.AppendUint16(acl, e.perm)
		acl = binary.LittleEndian.AppendUint32(acl, e.id)
	}
	if err := unix.Lsetxattr(p.path(p.plain[0]), "system.posix_acl_access", acl, 0); err != nil {
		return err
	}
	if err := unix.Lsetxattr(p.path(p.dirs[0]), "system.posix_acl_access", acl, 0); err != nil {
		return err
	}
	return unix.Lsetxattr(p.path(p.dirs[0]), "system.posix_acl_default", acl, 0)
}

// finish sets what later steps would have changed: owners before modes, which
// lose set-user by it, and the times last, of directories after what they hold.
func (p *populator) finish() error {
	all := append(append(append([]string{}, p.dirs...), p.plain...), p.other...)
	for i := len(all) - 1; i >= 0; i-- {
		rel := all[i]
		isLink := i >= len(p.dirs)+len(p.plain) && strings.HasPrefix(rel, "symlinks/")
		if p.Owners {
			ids := []int{0, 0, 1000, 65534, 65536, 100_000, 1 << 31, 1<<32 - 2}
			if err := os.Lchown(p.path(rel), ids[p.r.IntN(len(ids))], ids[p.r.IntN(len(ids))]); err != nil {
				return err
			}
		}
		if p.Modes && !isLink {
			if err := unix.Chmod(p.path(rel), p.mode(i < len(p.dirs))); err != nil {
				return fmt.Errorf("chmod %q: %w", rel, err)
			}
		}
	}
	all = append(all, p.many...)
	for i := len(all) - 1; i >= 0; i-- {
		ts := []unix.Timespec{p.time(), p.time()}
		if err := unix.UtimesNanoAt(unix.AT_FDCWD, p.path(all[i]), ts, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return fmt.Errorf("times of %q: %w", all[i], err)
		}
	}
	return nil
}

func (p *populator) mode(isDir bool) uint32 {
	mode := uint32(p.r.IntN(0o1000))
	if p.r.IntN(4) == 0 {
		mode |= uint32(p.r.IntN(8)) << 9
	}
	if !p.root { // or the test itself could not look
		mode |= 0o400
		if isDir {
			mode |= 0o700
		}
	}
	return mode
}

func (p *populator) time() unix.Timespec {
	sec := 946_684_800 + p.r.Int64N(800_000_000)
	if p.WideTimes && p.r.IntN(3) == 0 {
		sec = wideTimes[p.r.IntN(len(wideTimes))]
	}
	nsec := int64(0)
	if p.r.IntN(4) > 0 {
		nsec = p.r.Int64N(1_000_000_000)
	}
	return unix.Timespec{Sec: sec, Nsec: nsec}
}
