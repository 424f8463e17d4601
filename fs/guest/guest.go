// Package guest finds the file systems inside a backed-up disk and opens them.
//
// A Disk has a Layout: its partition table and a Volume for each partition, or
// one volume that is the whole disk. The probe looks at superblocks and names
// what a volume holds, also what can't be read yet: nothing is passed over in
// silence, and every refusal says what was found. The readers themselves are
// the packages below this one, each an fs.Tree.
//
// Whoever made the disk is not trusted. Direct reads it in this process, for
// tests and for disks of one's own; package child does the same in a process
// that can harm nothing.
package guest

import (
	"context"
	"io"

	"holdfast/fs"
)

// Disk is a disk to be looked at. ReadAt may be called by several goroutines at
// once.
type Disk interface {
	io.ReaderAt
	Size() int64 // in bytes; does not change
}

// Layout is what was found on a disk.
type Layout struct {
	Table       string   // "gpt", "mbr", or "none" for a disk that is one volume
	SectorBytes int      // the unit that the table counts in; 512 without one
	Volumes     []Volume // by number
	Notes       []string // for people: a damaged header, partitions that overlap
}

// Volume is a stretch of a disk that holds, or should hold, a file system.
type Volume struct {
	// Name is a path element: the number that Linux gives the partition, "1",
	// "2" …, or "whole" for a disk without a partition table.
	Name string

	Off, Size int64 // in bytes on the disk

	// Format is what the probe found: "ext4", "ext3", "ext2", "ntfs", "fat12",
	// "fat16", "fat32", "xfs", "btrfs", "exfat", "iso9660", "udf", "lvm2",
	// "mdraid", "luks", "bitlocker", "swap", "squashfs", "zfs", "refs", "hfs+",
	// "apfs", "vmfs", "f2fs", "jfs", "reiserfs", "ldm" and some rarer ones; "" when
	// nothing is known.
	Format string

	Label, UUID string // of the file system, written as blkid writes them
	PartName    string // of the partition, in a GPT
	PartType    string // of the partition: a GUID in lower case, or "0x83" in an MBR

	// Why is empty for a volume that Reader.Open can be tried on, and says
	// otherwise why not, for people: "XFS, not readable yet".
	Why string
}

// Reader finds and opens what is on disks. All methods may be called by several
// goroutines at once; none after Close, which also ends the trees it opened.
type Reader interface {
	// Layout finds the volumes of a disk. A partition table that is there but
	// damaged beyond use gives fs.ErrDamaged; a disk without one, or with nothing
	// on it at all, is a Layout like another.
	Layout(ctx context.Context, d Disk) (Layout, error)

	// Open opens the file system of a volume that Layout told of. The tree's
	// device is the volume: an fs.Extent's At counts from Volume.Off, and
	// whoever reads it from the disk adds that. d must stay readable until the
	// tree is closed. A volume with a Why gives fs.ErrUnsupported.
	Open(ctx context.Context, d Disk, v Volume) (fs.Tree, error)

	Close() error
}
