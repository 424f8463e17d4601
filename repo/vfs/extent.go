package vfs

// FirstByte returns where on its device the file's first byte lies, so that
// many files can be read in the order of the disk. ok is false where that can't
// be known: not a real file, none that has a place of its own, or a file
// system that does not tell.
func FirstByte(f File) (physical uint64, ok bool) {
	d, isFile := f.(interface{ Fd() uintptr })
	if !isFile {
		return 0, false
	}
	return firstByte(d.Fd())
}
