package content

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"

	"holdfast/fs"
	"holdfast/image/qcow2"
	"holdfast/image/vhdx"
	"holdfast/image/vmdk"
	"holdfast/repo"
)

// A view is a form in which a disk is shown in disks/.
type view struct {
	suffix string // behind the disk's name

	// size tells the length of the file called name without opening the disk,
	// where that can be; nil: it can't.
	size func(d repo.DiskInfo, name string) int64

	// fits says whether a disk of that length can have this form.
	fits func(diskBytes int64) bool

	// open makes the file called name of a disk.
	open func(d *repo.Disk, name string) (contents, error)
}

// contents are the bytes of a file that are not in memory. ReadAt and NextData
// are as those of image.Disk.
type contents interface {
	io.ReaderAt
	Size() int64
	NextData(off int64) (start, end int64, err error)
}

// views is the table of forms. The number of a view is part of its inode's:
// new ones go to the end.
var views = []view{
	{
		suffix: ".raw",
		size:   func(d repo.DiskInfo, _ string) int64 { return d.SizeBytes },
		fits:   always,
		open:   func(d *repo.Disk, _ string) (contents, error) { return d, nil },
	},
	{
		suffix: ".vmdk",
		size:   func(d repo.DiskInfo, name string) int64 { text, _ := descriptor(d, name); return int64(len(text)) },
		fits:   fitsVMDK,
		open: func(d *repo.Disk, name string) (contents, error) {
			text, err := descriptor(d.Info(), name)
			return inMemory{bytes.NewReader(text)}, err
		},
	},
	{
		suffix: "-flat.vmdk",
		size:   func(d repo.DiskInfo, _ string) int64 { return vmdk.FlatExtentBytes(d.SizeBytes) },
		fits:   fitsVMDK,
		open: func(d *repo.Disk, _ string) (contents, error) {
			if vmdk.FlatExtentBytes(d.Size()) == d.Size() {
				return d, nil
			}
			return vmdk.FlatView{Source: d}, nil
		},
	},
	{
		suffix: "-stream.vmdk",
		fits:   fitsVMDK,
		open: func(d *repo.Disk, name string) (contents, error) {
			return vmdk.NewStreamView(d, name, contentID(d.Info()))
		},
	},
	{
		suffix: ".qcow2",
		size:   func(d repo.DiskInfo, _ string) int64 { return qcow2Size(d.SizeBytes) },
		fits:   func(diskBytes int64) bool { return qcow2Size(diskBytes) > 0 },
		open:   func(d *repo.Disk, _ string) (contents, error) { return qcow2.NewView(d) },
	},
	{
		suffix: ".vhdx",
		size:   func(d repo.DiskInfo, _ string) int64 { return vhdxSize(d.SizeBytes) },
		fits:   func(diskBytes int64) bool { return vhdxSize(diskBytes) > 0 },
		open: func(d *repo.Disk, _ string) (contents, error) {
			return vhdx.NewView(d, vhdx.ViewOptions{Identity: vhdxIdentity(d.Info())})
		},
	},
}

func always(int64) bool { return true }

func fitsVMDK(diskBytes int64) bool {
	_, err := vmdk.FlatDescriptor("disk.vmdk", diskBytes, 1)
	return err == nil
}

// contentID is the number by which a VMDK names the content of its disk: the
// same for the same content, and never the one that means "no parent".
func contentID(d repo.DiskInfo) uint32 { return min(binary.BigEndian.Uint32(d.Root[:]), 0xfffffffe) }

func descriptor(d repo.DiskInfo, name string) ([]byte, error) {
	return vmdk.FlatDescriptor(name, d.SizeBytes, contentID(d))
}

// qcow2Size is how long a disk of so many bytes is as a qcow2 file, which
// depends on nothing else; 0: it can't be one.
func qcow2Size(diskBytes int64) int64 {
	v, err := qcow2.NewView(holes(diskBytes))
	if err != nil {
		return 0
	}
	return v.Size()
}

// vhdxSize is the same for a VHDX.
func vhdxSize(diskBytes int64) int64 {
	v, err := vhdx.NewView(holes(diskBytes), vhdx.ViewOptions{})
	if err != nil {
		return 0
	}
	return v.Size()
}

func vhdxIdentity(d repo.DiskInfo) string { return fmt.Sprintf("%s %d", d.Root, d.SizeBytes) }

// holes is a disk of which only the size counts.
type holes int64

func (h holes) Size() int64                           { return int64(h) }
func (h holes) ReadAt(p []byte, _ int64) (int, error) { clear(p); return len(p), nil }
func (h holes) NextData(int64) (int64, int64, error)  { return 0, 0, io.EOF }

// inMemory is contents that are in memory after all.
type inMemory struct{ *bytes.Reader }

func (t inMemory) NextData(off int64) (start, end int64, err error) {
	if off >= t.Size() {
		return 0, 0, io.EOF
	}
	return off, t.Size(), nil
}

// readContents is ReadAt for a caller that may lose interest, where that is
// possible.
func readContents(ctx context.Context, c contents, p []byte, off int64) (int, error) {
	if c, ok := c.(interface {
		ReadAtContext(context.Context, []byte, int64) (int, error)
	}); ok {
		return c.ReadAtContext(ctx, p, off)
	}
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	return c.ReadAt(p, off)
}

// extents tells where contents have data, as fs.Tree.Extents has it.
func extents(c contents, off int64, n int) ([]fs.Extent, error) {
	size := c.Size()
	if off < 0 {
		return nil, fmt.Errorf("extents from %d: %w", off, fs.ErrInvalid)
	}
	if off >= size {
		return nil, io.EOF
	}
	var list []fs.Extent
	for calls := 0; off < size && (calls < n || len(list) == 0); calls++ {
		start, end, err := c.NextData(off)
		switch {
		case err == io.EOF:
			start, end = size, size
		case err != nil && len(list) > 0:
			return list, nil // whoever asks on from there will be told
		case err != nil:
			return nil, err
		}
		if start > off {
			list = append(list, fs.Extent{Off: off, Len: start - off, Kind: fs.Hole})
		}
		if last := len(list) - 1; start < end && last >= 0 && list[last].Kind == fs.Made {
			list[last].Len += end - start // a long stretch is told in parts
		} else if start < end {
			list = append(list, fs.Extent{Off: start, Len: end - start, Kind: fs.Made})
		}
		off = end
	}
	return list[:min(len(list), max(1, n))], nil
}
