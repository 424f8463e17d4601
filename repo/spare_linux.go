package repo

import (
	"golang.org/x/sys/unix"

	"holdfast/repo/vfs"
)

// fixedFiles reports whether a file system can have a certain number of files
// only. ext2 and ext3 give the magic number of ext4.
func fixedFiles(fsys vfs.FS) bool {
	d, ok := fsys.(fdHolder)
	if !ok {
		return false
	}
	var st unix.Statfs_t
	return unix.Fstatfs(d.Fd(), &st) == nil && st.Type == unix.EXT4_SUPER_MAGIC
}
