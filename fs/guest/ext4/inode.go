package ext4

import (
	"fmt"

	"holdfast/fs"
)

// Bits of i_flags.
const (
	flagCompressed = 0x4
	flagEncrypted  = 0x800
	flagIndex      = 0x1000
	flagHugeFile   = 0x40000
	flagExtents    = 0x80000
	flagEAInode    = 0x200000
	flagInlineData = 0x10000000
	flagCasefold   = 0x40000000
)

// Places in the inode on disk.
const (
	inodeBlockAt  = 40 // i_block: the map of blocks, or what stands in its place
	inodeBlockLen = 60
	inodeOldBytes = 128 // where what i_extra_isize counts begins
)

// inode is an inode as it was read and found in order.
type inode struct {
	ino   uint32
	raw   []byte // shared, not to be changed
	mode  uint16
	links uint16
	flags uint32
	size  int64
	extra int    // bytes that fields take behind the first 128
	seed  uint32 // of the checksums of what belongs to it

	// extents take the place of the map if fast commits changed it.
	extents []extent
	mapped  bool // by extents
}

func (in *inode) has(flag uint32) bool { return in.flags&flag != 0 }

// iblock is the map of blocks.
func (in *inode) iblock() []byte { return in.raw[inodeBlockAt : inodeBlockAt+inodeBlockLen] }

// inode reads an inode that is in use. ErrStale for others.
func (f *FS) inode(ino uint64) (inode, error) {
	if ino != rootIno && (ino < uint64(f.sb.firstIno) || ino > uint64(f.sb.inodes)) {
		return inode{}, fmt.Errorf("inode %d: %w", ino, fs.ErrStale)
	}
	in, err := f.anyInode(uint32(ino))
	if err != nil {
		return inode{}, err
	}
	if in.links == 0 || in.has(flagEAInode) {
		return inode{}, fmt.Errorf("inode %d: %w", ino, fs.ErrStale)
	}
	if typeOf(in.mode) == fs.TypeUnknown {
		return inode{}, damaged("inode %d: mode %#o", ino, in.mode)
	}
	return in, nil
}

// anyInode reads an inode, be it in use, reserved or deleted.
func (f *FS) anyInode(ino uint32) (inode, error) {
	if c := f.fast.inode(ino); c != nil {
		if c.err != nil {
			return inode{}, c.err
		}
		in, err := f.decodeInode(ino, c.raw)
		in.extents, in.mapped = c.extents, c.mapped
		return in, err
	}
	raw, err := f.rawInode(ino)
	if err != nil {
		return inode{}, err
	}
	if f.sb.csum() {
		if err := f.checkInode(ino, raw); err != nil {
			return inode{}, err
		}
	}
	return f.decodeInode(ino, raw)
}

// rawInode returns the bytes of an inode, which must not be changed.
func (f *FS) rawInode(ino uint32) ([]byte, error) {
	if ino == 0 || ino > f.sb.inodes {
		return nil, damaged("inode %d: there are %d", ino, f.sb.inodes)
	}
	group, index := (ino-1)/f.sb.groupInodes, (ino-1)%f.sb.groupInodes
	table, err := f.inodeTable(group)
	if err != nil {
		return nil, fmt.Errorf("inode %d: %w", ino, err)
	}
	at := uint64(index) * uint64(f.sb.inodeBytes)
	b, err := f.block(table + at>>f.sb.blockLog)
	if err != nil {
		return nil, fmt.Errorf("inode %d: %w", ino, err)
	}
	return b[at&uint64(f.sb.blockBytes()-1):][:f.sb.inodeBytes], nil
}

func (f *FS) inodeSeed(ino uint32, raw []byte) uint32 {
	return crc32c(crc32cLE(f.sb.seed, ino), raw[100:104]) // i_generation
}

func (f *FS) checkInode(ino uint32, raw []byte) error {
	c := f.inodeSeed(ino, raw)
	c = crc32c(c, raw[:124])
	c = crc32c(c, zeroes[:2])
	c = crc32c(c, raw[126:inodeOldBytes])
	want, mask := uint32(le.Uint16(raw[124:])), uint32(0xffff)
	if tail := raw[inodeOldBytes:]; len(tail) > 0 {
		if le.Uint16(tail) >= 4 {
			want, mask = want|uint32(le.Uint16(tail[2:]))<<16, ^uint32(0)
			c = crc32c(c, tail[:2])
			c = crc32c(c, zeroes[:2])
			tail = tail[4:]
		}
		c = crc32c(c, tail)
	}
	if c&mask != want {
		return damaged("inode %d: checksum %08x, want %08x", ino, c&mask, want)
	}
	return nil
}

func (f *FS) decodeInode(ino uint32, raw []byte) (inode, error) {
	in := inode{
		ino:   ino,
		raw:   raw,
		mode:  le.Uint16(raw[0:]),
		links: le.Uint16(raw[26:]),
		flags: le.Uint32(raw[32:]),
	}
	if f.sb.csum() {
		in.seed = f.inodeSeed(ino, raw)
	}
	if len(raw) > inodeOldBytes {
		in.extra = int(le.Uint16(raw[inodeOldBytes:]))
		if in.extra > len(raw)-inodeOldBytes || in.extra%4 != 0 {
			if in.links == 0 {
				in.extra = 0 // never used
			} else {
				return inode{}, damaged("inode %d: %d bytes of extra fields", ino, in.extra)
			}
		}
	}
	size := uint64(le.Uint32(raw[4:]))
	if typeOf(in.mode) == fs.TypeFile || f.sb.has(incompatLargedir) {
		size |= uint64(le.Uint32(raw[108:])) << 32
	}
	if size > 1<<(32+f.sb.blockLog) { // as many blocks as a map can name
		return inode{}, damaged("inode %d: %d bytes long", ino, size)
	}
	in.size = int64(size)
	if in.has(flagInlineData) && (in.has(flagExtents) || !f.sb.has(incompatInlineData)) {
		return inode{}, damaged("inode %d: data in the inode, against its flags", ino)
	}
	return in, nil
}

// attr describes an inode.
func (f *FS) attr(in *inode) fs.Attr {
	raw := in.raw
	a := fs.Attr{
		ID:    fs.ID{Ino: uint64(in.ino)},
		Type:  typeOf(in.mode),
		Perm:  in.mode & 0o7777,
		Nlink: uint32(in.links),
		UID:   uint32(le.Uint16(raw[2:])) | uint32(le.Uint16(raw[120:]))<<16,
		GID:   uint32(le.Uint16(raw[24:])) | uint32(le.Uint16(raw[122:]))<<16,
		Size:  in.size,
		Used:  f.used(in),
		Ctime: in.time(12, 132),
		Mtime: in.time(16, 136),
		Atime: in.time(8, 140),
		Fixed: true,
	}
	if in.holds(148) {
		a.Btime = in.time(144, 148)
	}
	if a.Type == fs.TypeCharDevice || a.Type == fs.TypeBlockDevice {
		a.Major, a.Minor = device(in.iblock())
	}
	return a
}

// used is how many bytes of the device an inode takes.
func (f *FS) used(in *inode) int64 {
	n := int64(le.Uint32(in.raw[28:])) | int64(le.Uint16(in.raw[116:]))<<32
	if in.has(flagHugeFile) {
		if n > 1<<48>>f.sb.blockLog {
			return 0 // more than there can be
		}
		return n << f.sb.blockLog
	}
	if in.has(flagInlineData) && typeOf(in.mode) == fs.TypeFile {
		n += (in.size + 511) >> 9 // which Linux counts too, lest a file look empty
	}
	return n << 9
}

// holds says whether the extra fields reach behind the four bytes at a place.
func (in *inode) holds(at int) bool {
	return inodeOldBytes+in.extra >= at+4 && len(in.raw) >= at+4
}

// time returns the seconds at a place in the inode with the two further bits
// and the nanoseconds at another, if there are.
func (in *inode) time(at, extraAt int) fs.Time {
	t := fs.Time{Sec: int64(int32(le.Uint32(in.raw[at:])))}
	if in.holds(extraAt) {
		x := le.Uint32(in.raw[extraAt:])
		t.Sec += int64(x&3) << 32
		t.Nsec = min(x>>2, 999_999_999)
	}
	return t
}

// device decodes a device number: the old 16 bits, or else the new 32.
func device(iblock []byte) (major, minor uint32) {
	if d := le.Uint32(iblock); d != 0 {
		return d >> 8 & 0xff, d & 0xff
	}
	d := le.Uint32(iblock[4:])
	return d >> 8 & 0xfff, d&0xff | d>>12&0xfff00
}

func typeOf(mode uint16) fs.Type {
	switch mode >> 12 {
	case 0x1:
		return fs.TypeFIFO
	case 0x2:
		return fs.TypeCharDevice
	case 0x4:
		return fs.TypeDir
	case 0x6:
		return fs.TypeBlockDevice
	case 0x8:
		return fs.TypeFile
	case 0xa:
		return fs.TypeSymlink
	case 0xc:
		return fs.TypeSocket
	}
	return fs.TypeUnknown
}
