package guest

import (
	"fmt"

	"holdfast/fs/guest/fat"
)

// fatBoot recognises FAT12, FAT16 and FAT32. Their boot sector has no magic
// that others don't have, so this comes behind those that have one.
func fatBoot(w *window) (found, bool) {
	s, ok := fat.Probe(w.dev, w.size)
	return found{format: s.Format, label: s.Label, uuid: s.UUID, bytes: s.Bytes}, ok
}

// bitlocker recognises a volume that BitLocker encrypted; one of a removable
// disk has the boot sector of a FAT32 and a GUID in it.
func bitlocker(w *window) (found, bool) {
	toGo := w.is(0x1a8, "\x3b\xd6\x67\x49\x29\x2e\xd8\x4a\x83\x99\xf6\xa3\x39\xe3\xd0\x01")
	return found{format: "bitlocker"}, w.is(3, "-FVE-FS-") || toGo
}

// ntfsBoot recognises NTFS, by its name and by fields that must be as they are.
//
// Source: Linux fs/ntfs3/ntfs.h, NTFS_BOOT.
func ntfsBoot(w *window) (found, bool) { return ntfsSector(w, w.at(0, 512)) }

// ntfsCopy recognises an NTFS whose boot sector was overwritten, by the copy of
// it in the last sector.
func ntfsCopy(w *window) (found, bool) {
	for _, sector := range []int64{512, 4096} {
		if f, ok := ntfsSector(w, w.at(w.size&^511-sector, 512)); ok {
			return f, true
		}
	}
	return found{}, false
}

func ntfsSector(w *window, b []byte) (found, bool) {
	if b == nil || string(b[3:11]) != "NTFS    " {
		return found{}, false
	}
	sector := int64(le.Uint16(b[11:]))
	cluster := ntfsUnit(b[13], sector)
	sectors := le.Uint64(b[0x28:])
	switch {
	case sector < 256 || sector > 4096 || sector&(sector-1) != 0, cluster == 0,
		le.Uint16(b[14:]) != 0 || b[16] != 0 || le.Uint16(b[17:]) != 0 || le.Uint16(b[19:]) != 0 || le.Uint32(b[0x20:]) != 0:
		return found{}, false
	}
	f := found{format: "ntfs", uuid: fmt.Sprintf("%016X", le.Uint64(b[0x48:]))}
	if sectors < 1<<50/uint64(sector) {
		f.bytes = int64(sectors+1) * sector // and the copy of the boot sector behind
	}
	record := cluster * int64(b[0x40])
	if b[0x40] >= 0x80 {
		record = 1 << min(16, 256-int(b[0x40]))
	}
	if mft := le.Uint64(b[0x30:]); mft < 1<<40 && record >= 512 && record <= 64<<10 {
		f.label = ntfsLabel(w.at(int64(mft)*cluster+3*record, int(record)))
	}
	return f, true
}

// ntfsUnit is how long a cluster is: so many sectors, or, from 0x80 on, a power
// of two of them.
func ntfsUnit(b byte, sector int64) int64 {
	n := int64(b)
	if b > 0x80 {
		n = 1 << min(16, 256-int(b))
	}
	if n&(n-1) != 0 || n*sector > 2<<20 {
		return 0
	}
	return n * sector
}

// ntfsLabel finds the volume's name in the record of $Volume.
func ntfsLabel(record []byte) string {
	if len(record) < 512 || string(record[:4]) != "FILE" {
		return ""
	}
	b := append([]byte(nil), record...)
	// The last two bytes of each 512 are kept in the fix-up array instead.
	at, n := int(le.Uint16(b[4:])), int(le.Uint16(b[6:]))
	for i := 1; i < n && at+2*i+2 <= len(b) && i*512 <= len(b); i++ {
		copy(b[i*512-2:i*512], b[at+2*i:])
	}
	for at := int(le.Uint16(b[20:])); at+24 <= len(b); {
		length := int(le.Uint32(b[at+4:]))
		if length < 24 || length > len(b)-at {
			return ""
		}
		const volumeName = 0x60
		if le.Uint32(b[at:]) == volumeName && b[at+8] == 0 {
			from, n := int(le.Uint16(b[at+20:])), int(le.Uint32(b[at+16:]))
			if n < 0 || n > length || from+n > length {
				return ""
			}
			return utf16Text(b[at+from:][:n])
		}
		at += length
	}
	return ""
}

// exfat recognises exFAT.
//
// Source: Microsoft, "exFAT file system specification", 3.1.
func exfat(w *window) (found, bool) {
	b := w.at(0, 512)
	if b == nil || string(b[3:11]) != "EXFAT   " || b[108] < 9 || b[108] > 12 || int(b[108])+int(b[109]) > 25 {
		return found{}, false
	}
	serial := le.Uint32(b[100:])
	f := found{format: "exfat", uuid: fmt.Sprintf("%04X-%04X", serial>>16, serial&0xffff)}
	f.bytes = int64(min(le.Uint64(b[72:]), 1<<50)) << b[108]
	heap, root := int64(le.Uint32(b[88:])), int64(le.Uint32(b[96:]))
	off := heap<<b[108] + (root-2)<<(b[108]+b[109])
	n := min(4096, 1<<(b[108]+b[109]))
	for dir := w.at(off, n); len(dir) >= 32 && dir[0] != 0; dir = dir[32:] {
		if count := int(dir[1]); dir[0] == 0x83 && count <= 11 {
			f.label = utf16Text(dir[2 : 2+2*count])
		}
	}
	return f, true
}

// refs recognises ReFS.
func refs(w *window) (found, bool) {
	b := w.at(0, 64)
	if b == nil || string(b[:8]) != "\x00\x00\x00ReFS\x00" {
		return found{}, false
	}
	return found{format: "refs", uuid: fmt.Sprintf("%016X", le.Uint64(b[0x38:]))}, true
}
