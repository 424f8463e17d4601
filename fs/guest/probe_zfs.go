package guest

import "strconv"

// zfs recognises a member of a ZFS pool: two labels of 256 KiB at its beginning
// and two at its end, the second half of each a ring of uberblocks.
//
// Source: Sun Microsystems, "ZFS On-Disk Specification", chapters 1 and 3.
func zfs(w *window) (found, bool) {
	const label, ring, slot = 256 << 10, 128 << 10, 1 << 10
	for _, off := range []int64{0, label, w.size&^(label-1) - 2*label, w.size&^(label-1) - label} {
		if off < 0 {
			continue
		}
		for at := range int64(ring / slot) {
			b := w.at(off+ring+at*slot, 8)
			if b == nil || (le.Uint64(b) != 0x00bab10c && be.Uint64(b) != 0x00bab10c) {
				continue
			}
			f := found{format: "zfs"}
			f.label, f.uuid = zfsPool(w.at(off+16<<10, 112<<10))
			return f, true
		}
	}
	return found{}, false
}

// zfsPool finds the pool's name and number in the list of names and values of a
// label: XDR, each with its length and that of its name before it.
func zfsPool(list []byte) (name, id string) {
	if len(list) < 12 || list[0] != 1 {
		return "", ""
	}
	const number, str = 8, 9
	for list = list[12:]; len(list) >= 12; {
		size, nameLen := int(be.Uint32(list)), int(be.Uint32(list[8:]))
		if size < 24 || size > len(list) || nameLen < 1 || nameLen > size-24 {
			break
		}
		key := string(list[12 : 12+nameLen])
		value := list[12+(nameLen+3)&^3 : size]
		if len(value) >= 16 {
			switch kind := be.Uint32(value); {
			case key == "pool_guid" && kind == number:
				id = strconv.FormatUint(be.Uint64(value[8:]), 10)
			case key == "name" && kind == str:
				name = text(value[12:min(len(value), 12+int(be.Uint32(value[8:])&0xffff))])
			}
		}
		list = list[size:]
	}
	return name, id
}
