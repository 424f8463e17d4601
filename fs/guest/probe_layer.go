package guest

import (
	"fmt"
	"slices"
	"strings"
)

// luks recognises LUKS 1 and 2.
//
// Sources: "LUKS1 On-Disk Format Specification" 1.2.3 and "LUKS2 On-Disk Format
// Specification" 1.1.
func luks(w *window) (found, bool) {
	b := w.at(0, 512)
	if b == nil || string(b[:6]) != "LUKS\xba\xbe" {
		return found{}, false
	}
	f := found{format: "luks", uuid: text(b[168:208])}
	version := be.Uint16(b[6:])
	if version == 2 {
		f.label = text(b[24:72])
	}
	f.why = fmt.Sprintf("LUKS %d, encrypted, not readable yet", version)
	return f, true
}

// lvm2 recognises a physical volume: a label in one of the first four sectors.
//
// Source: LVM2, lib/format_text/layout.h and lib/label/label.h.
func lvm2(w *window) (found, bool) {
	for sector := range int64(4) {
		b := w.at(sector*512, 512)
		if b == nil || string(b[:8]) != "LABELONE" || string(b[24:32]) != "LVM2 001" {
			continue
		}
		f := found{format: "lvm2"}
		if at := le.Uint32(b[20:]); at >= 32 && at <= 512-32 {
			f.uuid = dashes(text(b[at:at+32]), 6, 4, 4, 4, 4, 4, 6)
		}
		return f, true
	}
	return found{}, false
}

// dashes cuts s into parts of the given lengths.
func dashes(s string, lengths ...int) string {
	var parts []string
	for _, n := range lengths {
		if len(s) < n {
			return ""
		}
		parts, s = append(parts, s[:n]), s[n:]
	}
	return strings.Join(parts, "-")
}

// mdraid recognises a member of a Linux software RAID: superblocks of version
// 1.1 and 1.2 at the beginning, 1.0 and 0.90 at the end.
//
// Source: Linux include/uapi/linux/raid/md_p.h.
func mdraid(w *window) (found, bool) {
	for _, off := range []int64{0, 4096, (w.size - 8<<10) &^ 4095} {
		b := w.at(off, 256)
		if b == nil || le.Uint32(b) != mdMagic || le.Uint32(b[4:]) != 1 || le.Uint64(b[144:]) != uint64(off)/512 {
			continue
		}
		return found{format: "mdraid", uuid: uuid(b[16:32]), label: text(b[32:64]), why: mdWhy(int32(le.Uint32(b[72:])))}, true
	}
	b := w.at(w.size&^(64<<10-1)-64<<10, 4096)
	if b == nil || le.Uint32(b) != mdMagic || le.Uint32(b[4:]) != 0 || le.Uint32(b[8:]) < 90 {
		return found{}, false
	}
	id := append(b[0x14:0x18:0x18], b[0x34:0x40]...)
	for i := 0; i < len(id); i += 4 { // four numbers, shown as such
		slices.Reverse(id[i : i+4])
	}
	return found{format: "mdraid", uuid: uuid(id), why: mdWhy(int32(le.Uint32(b[0x1c:])))}, true
}

const mdMagic = 0xa92b4efc

func mdWhy(level int32) string {
	switch level {
	case -1:
		return "member of a Linux RAID (linear), not readable yet"
	case 0, 1, 4, 5, 6, 10:
		return fmt.Sprintf("member of a Linux RAID %d, not readable yet", level)
	}
	return "member of a Linux RAID, not readable yet"
}

// bcache recognises a backing or caching device.
//
// Source: Linux drivers/md/bcache/bcache_ondisk.h.
func bcache(w *window) (found, bool) {
	b := w.at(4096, 128)
	if b == nil || string(b[24:40]) != "\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81" {
		return found{}, false
	}
	return found{format: "bcache", uuid: uuid(b[40:56]), label: text(b[72:104])}, true
}

// vmfs recognises VMFS by the volume around it, which begins at 1 MiB.
func vmfs(w *window) (found, bool) {
	return found{format: "vmfs"}, w.is(1<<20, "\x0d\xd0\x01\xc0")
}
