package guest

import (
	"errors"
	"fmt"
	"io"

	"holdfast/fs"
)

// found is what the probe says of a volume.
type found struct {
	format, label, uuid string
	bytes               int64  // that the file system takes, as it says; 0: not known
	why                 string // why it can't be read, where that is not its format
}

// signature recognises one format, or a family of them.
type signature func(w *window) (found, bool)

// layers lie around a file system that may still be seen inside: they come
// first, wherever on the volume they have their mark.
var layers = []signature{luks, lvm2, mdraid, bitlocker, bcache}

// systems are tried in this order; the first that fits wins. Strong marks come
// before weak ones: FAT, with none but
// plausibility, is the last but for what has lost its own.
var systems = []signature{
	xfs, ntfsBoot, exfat, refs, squashfs, apfs, btrfs, extSuper, f2fs, jfs, reiserfs,
	disc, hfs, swap, vmfs, others, zfs, fatBoot, ntfsCopy,
}

// probe finds out what the size bytes of dev hold. The error is one of dev: if
// there is one, what was found may be wrong.
func probe(dev io.ReaderAt, size int64) (found, error) {
	w := &window{dev: dev, size: size}
	for _, list := range [][]signature{layers, systems} {
		for _, is := range list {
			if f, ok := is(w); ok {
				return f, nil
			}
		}
	}
	return found{}, w.err
}

// known says whether something that has its mark near the beginning begins at
// off of a disk. (What has it at the end may be that of the last partition.)
func known(d Disk, off, size int64) bool {
	size = min(size, d.Size()-off)
	if off < 0 || size <= 0 {
		return false
	}
	w := &window{dev: io.NewSectionReader(d, off, size), size: size}
	for _, is := range append([]signature{luks, lvm2, bitlocker}, systems...) {
		if _, ok := is(w); ok {
			return true
		}
	}
	return false
}

// probe names what v holds and says whether we can read it. The error is one
// that may not come again; damage becomes a Why.
func (v *Volume) probe(d Disk) (found, error) {
	got, err := probe(io.NewSectionReader(d, v.Off, v.Size), v.Size)
	if errors.Is(err, fs.ErrRetry) {
		return found{}, fmt.Errorf("read volume %s: %w", v.Name, err)
	}
	v.Format, v.Label, v.UUID = got.format, got.label, got.uuid
	f := formats[got.format]
	switch {
	case err != nil:
		v.Why = fmt.Sprintf("its beginning or end can't be read: %v", err)
	case got.why != "":
		v.Why = got.why
	case got.format == "":
		v.Why = "no file system that we know"
		if empty(d, v) {
			v.Why = "empty: it begins with zeros"
		}
	case f.open == nil:
		v.Why = fmt.Sprintf("%s, not readable yet", f.title)
	}
	return got, nil
}

// empty says whether the first bytes of v are zeros.
func empty(d Disk, v *Volume) bool {
	b := make([]byte, min(64<<10, v.Size))
	if n, _ := d.ReadAt(b, v.Off); n < len(b) {
		return false
	}
	for _, x := range b {
		if x != 0 {
			return false
		}
	}
	return true
}
