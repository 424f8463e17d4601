package guest

// extSuper recognises ext2, ext3 and ext4 as blkid does: a journal makes an
// ext3, a feature that ext3 does not know an ext4.
//
// Source: Linux kernel documentation, "ext4 Data Structures", The Super Block.
func extSuper(w *window) (found, bool) {
	s := w.at(1024, 1024)
	if s == nil || le.Uint16(s[0x38:]) != 0xef53 {
		return found{}, false
	}
	const (
		journal      = 0x4              // compatible
		journalDev   = 0x8              // incompatible
		wide         = 0x80             // incompatible: block numbers of 64 bits
		ext3Incompat = 0x2 | 0x4 | 0x10 // file types, recovery, meta_bg
		ext3ROCompat = 0x1 | 0x2 | 0x4  // sparse superblocks, large files, B-tree directories
	)
	compat, incompat, ro := le.Uint32(s[0x5c:]), le.Uint32(s[0x60:]), le.Uint32(s[0x64:])
	f := found{format: "ext2", uuid: uuid(s[0x68:0x78]), label: text(s[0x78:0x88])}
	logBlock := le.Uint32(s[0x18:])
	switch {
	case logBlock > 6:
		return found{}, false
	case incompat&journalDev != 0:
		f.format, f.why = "ext4", "journal of an ext4 that is elsewhere, no files in it"
	case incompat&^ext3Incompat != 0 || ro&^ext3ROCompat != 0:
		f.format = "ext4"
	case compat&journal != 0:
		f.format = "ext3"
	}
	blocks := int64(le.Uint32(s[4:]))
	if incompat&wide != 0 {
		blocks |= int64(le.Uint32(s[0x150:])) << 32
	}
	if f.bytes = blocks << (10 + logBlock); f.bytes>>(10+logBlock) != blocks || f.bytes < 0 {
		f.bytes = 0
	}
	return f, true
}
