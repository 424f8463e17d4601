package guest

import (
	"io"

	"holdfast/fs"
	"holdfast/fs/guest/ext4"
	"holdfast/fs/guest/fat"
	"holdfast/fs/guest/ntfs"
)

// format is what we know of a format beside how it is recognised.
type format struct {
	title string
	open  func(dev io.ReaderAt, size int64) (fs.Tree, error) // nil: not readable yet
}

// formats is the table of everything the probe can name.
var formats = map[string]format{
	"ext2":      {title: "ext2", open: opener(ext4.Open)},
	"ext3":      {title: "ext3", open: opener(ext4.Open)},
	"ext4":      {title: "ext4", open: opener(ext4.Open)},
	"ntfs":      {title: "NTFS", open: opener(ntfs.Open)},
	"fat12":     {title: "FAT12", open: opener(fat.Open)},
	"fat16":     {title: "FAT16", open: opener(fat.Open)},
	"fat32":     {title: "FAT32", open: opener(fat.Open)},
	"xfs":       {title: "XFS"},
	"btrfs":     {title: "Btrfs"},
	"exfat":     {title: "exFAT"},
	"iso9660":   {title: "ISO 9660"},
	"udf":       {title: "UDF"},
	"lvm2":      {title: "LVM2 physical volume"},
	"mdraid":    {title: "Linux RAID member"},
	"luks":      {title: "LUKS, encrypted"},
	"bitlocker": {title: "BitLocker, encrypted"},
	"swap":      {title: "swap space"},
	"squashfs":  {title: "SquashFS"},
	"zfs":       {title: "ZFS pool member"},
	"refs":      {title: "ReFS"},
	"hfs+":      {title: "HFS+"},
	"apfs":      {title: "APFS"},
	"vmfs":      {title: "VMFS"},
	"f2fs":      {title: "F2FS"},
	"jfs":       {title: "JFS"},
	"reiserfs":  {title: "ReiserFS"},
	"hfs":       {title: "HFS"},
	"bcache":    {title: "bcache member"},
	"erofs":     {title: "EROFS"},
	"nilfs2":    {title: "NILFS2"},
	"ufs":       {title: "UFS"},
	"gfs2":      {title: "GFS2"},
	"ocfs2":     {title: "OCFS2"},
	"reiser4":   {title: "Reiser4"},
	"vdo":       {title: "VDO volume"},
	"bluestore": {title: "Ceph BlueStore device"},
	"ldm":       {title: "Windows dynamic disk (LDM)"},
}

// opener fits the Open of a reader's package to the table. (A nil pointer of a
// concrete type must not become a Tree.)
func opener[T fs.Tree](open func(io.ReaderAt, int64) (T, error)) func(io.ReaderAt, int64) (fs.Tree, error) {
	return func(dev io.ReaderAt, size int64) (fs.Tree, error) {
		t, err := open(dev, size)
		if err != nil {
			return nil, err
		}
		return t, nil
	}
}
