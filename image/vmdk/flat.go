package vmdk

import (
	"io"
	"io/fs"

	"holdfast/image/internal/layer"
)

// FlatView shows a disk as the extent of a monolithicFlat VMDK, the file that
// FlatDescriptor calls FlatExtentName: the disk as it is, with zeros up to a
// whole sector. Its methods have the meaning of image.Disk's and may be called
// by several goroutines at once, as far as those of Source may.
type FlatView struct{ Source }

// Size is the length of the file in bytes.
func (v FlatView) Size() int64 { return FlatExtentBytes(v.Source.Size()) }

// ReadAt reads bytes of the file.
func (v FlatView) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fs.ErrInvalid
	}
	n := int(max(0, min(int64(len(p)), v.Size()-off)))
	if err := readPadded(v.Source, p[:n], off); err != nil {
		return 0, err
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// NextData finds data of the disk.
func (v FlatView) NextData(off int64) (start, end int64, err error) {
	if off >= v.Source.Size() {
		return 0, 0, io.EOF
	}
	return v.Source.NextData(off)
}

// readPadded reads bytes of a disk, and zeros behind its end.
func readPadded(src Source, p []byte, off int64) error {
	n := max(0, min(int64(len(p)), src.Size()-off))
	clear(p[n:])
	if n == 0 {
		return nil
	}
	return layer.ReadFull(src, p[:n], off)
}
