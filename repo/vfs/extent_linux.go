package vfs

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// fiemap is struct fiemap with room for one extent.
// Source: linux/fiemap.h.
type fiemap struct {
	start, length uint64 // of the file, in bytes
	flags         uint32
	mapped        uint32 // extents filled in
	count         uint32 // extents there is room for
	_             uint32
	extent        struct {
		logical, physical, length uint64
		_                         [2]uint64
		flags                     uint32
		_                         [3]uint32
	}
}

const (
	fsIocFiemap = 0xC020660B

	// The bytes lie nowhere yet, or in the inode, or the file system has its own
	// idea of where.
	extentUnknown = 0x2 | 0x4 | 0x8 | 0x200
)

func firstByte(fd uintptr) (uint64, bool) {
	m := fiemap{length: 1, count: 1}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, fd, fsIocFiemap, uintptr(unsafe.Pointer(&m)))
	if errno != 0 || m.mapped == 0 || m.extent.flags&extentUnknown != 0 {
		return 0, false
	}
	return m.extent.physical, true
}
