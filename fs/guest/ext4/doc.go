// Package ext4 reads ext2, ext3 and ext4 as an fs.Tree. It never writes: what
// lies in the journal of a file system that was not unmounted is laid over the
// disk in memory, so that the tree is the one Linux shows after its replay.
//
// # The format
//
// All numbers are little-endian, but those of the journal. The disk is cut into
// blocks of 1 to 64 KiB and those into groups; block 0 is at byte 0.
//
//	super block          1,024 bytes at byte 1024, copies at the start of some groups
//	group descriptors    32 or 64 bytes a group, behind the super block, or with
//	                     meta_bg in the first, second and last of some groups
//	inode tables         inodes of 128 bytes to a block, numbered from 1
//	directory            a file of entries; the index, if any, hides in deleted ones
//	journal              a file, usually inode 8
//
// A file's blocks are named by a tree of extents or of 32-bit block numbers, or
// its bytes stand in the inode. With metadata_csum everything but data bears a
// CRC-32C that begins with the file system's UUID and, where it belongs to an
// inode, that inode's number and generation. Whatever fails its checksum, or
// contradicts the format, gives fs.ErrDamaged, for that object alone if it can.
//
// # What is not there
//
// Encrypted inodes have attributes but no names, no targets and no bytes
// (fs.ErrUnsupported). Names in directories that fold case are as they were
// written, and looked up as such. Free blocks, quotas and the bitmaps are not
// looked at. A journal on another device can't be replayed: with one, only a
// file system that was unmounted opens.
//
// Source: Linux, Documentation/filesystems/ext4; for the journal
// Documentation/filesystems/ext4/journal.rst, and for what is not written down
// there the behaviour of the drivers in fs/ext4 and fs/jbd2.
package ext4
