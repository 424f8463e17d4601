package guest

import "math/bits"

// The superblocks below are as the file systems' own headers in Linux have
// them: fs/xfs/libxfs/xfs_format.h, include/uapi/linux/btrfs_tree.h,
// include/linux/f2fs_fs.h, fs/jfs/jfs_superblock.h, fs/reiserfs/reiserfs.h,
// fs/squashfs/squashfs_fs.h, include/linux/swap.h.

func xfs(w *window) (found, bool) {
	b := w.at(0, 256)
	if b == nil || string(b[:4]) != "XFSB" {
		return found{}, false
	}
	block := be.Uint32(b[4:])
	if bits.OnesCount32(block) != 1 || block < 512 || block > 64<<10 {
		return found{}, false
	}
	return found{format: "xfs", uuid: uuid(b[32:48]), label: text(b[108:120]), bytes: product(be.Uint64(b[8:]), block)}, true
}

func btrfs(w *window) (found, bool) {
	b := w.at(64<<10, 4096)
	if b == nil || string(b[64:72]) != "_BHRfS_M" {
		return found{}, false
	}
	return found{format: "btrfs", uuid: uuid(b[32:48]), label: text(b[0x12b : 0x12b+256])}, true
}

func f2fs(w *window) (found, bool) {
	b := w.at(1024, 2048)
	if b == nil || le.Uint32(b) != 0xf2f52010 {
		return found{}, false
	}
	return found{format: "f2fs", uuid: uuid(b[108:124]), label: utf16Text(b[124 : 124+1024])}, true
}

func jfs(w *window) (found, bool) {
	b := w.at(32<<10, 256)
	if b == nil || string(b[:4]) != "JFS1" {
		return found{}, false
	}
	return found{format: "jfs", uuid: uuid(b[136:152]), label: text(b[152:168])}, true
}

func reiserfs(w *window) (found, bool) {
	for _, off := range []int64{64 << 10, 8 << 10} {
		b := w.at(off, 128)
		if b == nil {
			continue
		}
		switch m := string(b[52:61]); {
		case m[:8] == "ReIsErFs", m == "ReIsEr2Fs", m == "ReIsEr3Fs":
			return found{format: "reiserfs", uuid: uuid(b[84:100]), label: text(b[100:116])}, true
		}
	}
	return found{}, false
}

func squashfs(w *window) (found, bool) {
	b := w.at(0, 96)
	if b == nil || string(b[:4]) != "hsqs" || le.Uint16(b[28:]) != 4 {
		return found{}, false
	}
	return found{format: "squashfs", bytes: product(le.Uint64(b[40:]), 1)}, true
}

// swap recognises swap space, which ends its first page with its mark: pages
// are of 4 KiB to 64 KiB. What a hibernated machine leaves there counts too.
func swap(w *window) (found, bool) {
	for page := int64(4096); page <= 64<<10; page *= 2 {
		mark := string(w.at(page-10, 10))
		f := found{format: "swap", why: "swap space, no files in it"}
		switch mark {
		case "SWAP-SPACE":
			return f, true
		case "SWAPSPACE2":
		case "S1SUSPEND\x00", "S2SUSPEND\x00", "ULSUSPEND\x00", "LINHIB0001":
			f.why = "swap space with the memory of a hibernated machine, no files in it"
		default:
			continue
		}
		if b := w.at(1024, 64); b != nil {
			f.uuid, f.label = uuid(b[12:28]), text(b[28:44])
		}
		return f, true
	}
	return found{}, false
}

// apfs recognises the container of APFS volumes.
//
// Source: Apple, "Apple File System Reference", nx_superblock_t.
func apfs(w *window) (found, bool) {
	b := w.at(0, 128)
	if b == nil || string(b[32:36]) != "NXSB" {
		return found{}, false
	}
	return found{format: "apfs", uuid: uuid(b[72:88]), bytes: product(le.Uint64(b[40:]), le.Uint32(b[36:]))}, true
}

// hfs recognises HFS+ and HFSX, also in the HFS volume that may be around them,
// and plain HFS.
//
// Source: Apple, Technical Note TN1150, "HFS Plus Volume Format".
func hfs(w *window) (found, bool) {
	b := w.at(1024, 512)
	if b == nil {
		return found{}, false
	}
	switch string(b[:2]) {
	case "H+", "HX":
		if version := be.Uint16(b[2:]); version == 4 || version == 5 {
			return found{format: "hfs+", bytes: product(uint64(be.Uint32(b[44:])), be.Uint32(b[40:]))}, true
		}
	case "BD":
		f := found{format: "hfs"}
		if n := int(b[36]); n > 0 && n <= 27 {
			f.label = text(b[37 : 37+n])
		}
		if m := string(b[124:126]); m == "H+" || m == "HX" {
			f.format = "hfs+"
		} else if size := be.Uint32(b[20:]); size == 0 || size%512 != 0 {
			return found{}, false
		}
		return f, true
	}
	return found{}, false
}

// product is a size in bytes, 0 if it is not one.
func product(n uint64, unit uint32) int64 {
	hi, lo := bits.Mul64(n, uint64(unit))
	if hi != 0 || lo >= 1<<62 {
		return 0
	}
	return int64(lo)
}

// rare are formats that are met, but of which nothing more is told.
var rare = []struct {
	format string
	off    int64
	magic  string
}{
	{"erofs", 1024, "\xe2\xe1\xf5\xe0"},
	{"nilfs2", 1024, "\x02\x00\x00\x00\x00\x00\x34\x34"}, // with its revision: two bytes stand in many a FAT
	{"ufs", 64<<10 + 1372, "\x19\x01\x54\x19"},
	{"ufs", 8<<10 + 1372, "\x19\x01\x54\x19"},
	{"ufs", 8<<10 + 1372, "\x54\x19\x01\x00"},
	{"gfs2", 64 << 10, "\x01\x16\x19\x70\x00\x00\x00\x01"},
	{"ocfs2", 2 << 10, "OCFSV2"},
	{"ocfs2", 4 << 10, "OCFSV2"},
	{"ocfs2", 8 << 10, "OCFSV2"},
	{"reiser4", 64 << 10, "ReIsEr4"},
	{"vdo", 0, "dmvdo001"},
	{"bluestore", 0, "bluestore block device"},
}

func others(w *window) (found, bool) {
	for _, r := range rare {
		if w.is(r.off, r.magic) {
			return found{format: r.format}, true
		}
	}
	return found{}, false
}
