package mount

import (
	"fmt"
	"math/bits"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"holdfast/fs"
)

// validity is how long the kernel needn't ask again.
func validity(fixed bool) time.Duration {
	if fixed {
		return 10 * 365 * 24 * time.Hour
	}
	return time.Second
}

// inode is the st_ino of an inode. For inodes of the same file system it is a
// bijection, so that nothing there is ever taken for a hard link of another.
func inode(id fs.ID) uint64 {
	if id.FS == 0 {
		return id.Ino
	}
	return mix(id.FS) ^ mix(bits.RotateLeft64(id.FS, 32)^id.Ino)
}

// mix spreads what is in one bit over all, and is a bijection.
// Source: Steele, Lea, Flood: "Fast splittable pseudorandom number generators",
// the finalizer of SplitMix64.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// shown is inode without the numbers that look like none, or like the root of
// something.
func shown(id fs.ID) uint64 {
	ino := inode(id)
	if id.FS != 0 && reserved(ino) {
		return mix(ino)
	}
	return ino
}

// modes are the bits that Linux has for a type.
var modes = [...]uint32{
	fs.TypeFile:        syscall.S_IFREG,
	fs.TypeDir:         syscall.S_IFDIR,
	fs.TypeSymlink:     syscall.S_IFLNK,
	fs.TypeCharDevice:  syscall.S_IFCHR,
	fs.TypeBlockDevice: syscall.S_IFBLK,
	fs.TypeFIFO:        syscall.S_IFIFO,
	fs.TypeSocket:      syscall.S_IFSOCK,
}

// typeMode returns the bits for a type, 0 for one that is not known.
func typeMode(t fs.Type) uint32 {
	if int(t) < len(modes) {
		return modes[t]
	}
	return 0
}

// checkAttr refuses what the kernel would answer with an error that explains
// nothing.
func checkAttr(a fs.Attr) error {
	switch {
	case typeMode(a.Type) == 0:
		return fmt.Errorf("inode %d has no type that Linux has: %w", a.ID.Ino, fs.ErrDamaged)
	case a.Size < 0:
		return fmt.Errorf("inode %d has %d bytes: %w", a.ID.Ino, a.Size, fs.ErrDamaged)
	}
	return nil
}

const statBlock = 512 // the unit of st_blocks

func fillAttr(out *fuse.Attr, a fs.Attr) {
	*out = fuse.Attr{
		Ino:       shown(a.ID),
		Size:      uint64(a.Size),
		Blocks:    uint64(a.Used+statBlock-1) / statBlock,
		Atime:     uint64(a.Atime.Sec),
		Atimensec: a.Atime.Nsec,
		Mtime:     uint64(a.Mtime.Sec),
		Mtimensec: a.Mtime.Nsec,
		Ctime:     uint64(a.Ctime.Sec),
		Ctimensec: a.Ctime.Nsec,
		Mode:      typeMode(a.Type) | uint32(a.Perm&0o7777),
		Nlink:     a.Nlink,
		Owner:     fuse.Owner{Uid: a.UID, Gid: a.GID},
		Rdev:      device(a.Major, a.Minor),
	}
}

// device is a device number as the protocol has it: as in the kernel's
// new_encode_dev, 12 bits of major, 20 of minor.
func device(major, minor uint32) uint32 {
	return minor&0xff | major&0xfff<<8 | minor&^0xff<<12
}

func fillStatx(out *fuse.Statx, a fs.Attr) {
	out.Mask = unix.STATX_BASIC_STATS
	out.Ino = shown(a.ID)
	out.Size = uint64(a.Size)
	out.Blocks = uint64(a.Used+statBlock-1) / statBlock
	out.Mode = uint16(typeMode(a.Type)) | a.Perm&0o7777
	out.Nlink = a.Nlink
	out.Uid, out.Gid = a.UID, a.GID
	out.RdevMajor, out.RdevMinor = a.Major, a.Minor
	for _, t := range []struct {
		to   *fuse.SxTime
		from fs.Time
	}{{&out.Atime, a.Atime}, {&out.Mtime, a.Mtime}, {&out.Ctime, a.Ctime}, {&out.Btime, a.Btime}} {
		t.to.Sec, t.to.Nsec = uint64(t.from.Sec), t.from.Nsec
	}
	if !a.Btime.IsZero() {
		out.Mask |= unix.STATX_BTIME
	}
}

func fillStatfs(out *fuse.StatfsOut, st fs.StatFS) {
	block := max(st.BlockBytes, statBlock)
	out.Bsize, out.Frsize = uint32(block), uint32(block)
	out.Blocks = uint64(st.Bytes / block)
	out.Bfree = uint64(st.FreeBytes / block)
	out.Bavail = out.Bfree
	out.Files, out.Ffree = st.Files, st.FreeFiles
	out.NameLen = 255
	if st.NameBytes > 0 {
		out.NameLen = uint32(st.NameBytes)
	}
}
