// Package image gives the blocks of a virtual disk, whatever file it lies in.
//
// Open looks at the content of a file or block device, never at its name,
// finds the format in one table (formats.go) and returns a Disk. Raw files,
// block devices, VMDK, qcow2, VHD and VHDX can be read; formats that are known
// but not read are refused by name rather than taken for raw bytes.
//
// # What a source may make us open
//
// A VMDK names its extents and its parent, and a qcow2, VHD or VHDX its parent,
// so whoever wrote the image, perhaps a guest, chooses names. They are opened
// only when they are ordinary files below the directory of the file given to
// Open: an absolute name, a ".." or a symbolic link that leads outside gives
// ErrOutside. Names are relative to the file that holds them. At most 64 files
// deep, and no file among its own ancestors (ErrCycle). A backing file whose
// format is not said may be raw by its content or a disk that names no further
// file; otherwise the image must say the format (ErrUntold).
//
// # Detection and trust
//
// The first bytes of a raw disk belong to the guest, who can write a qcow2
// header there. A block device is therefore always taken as raw unless
// Options.Format says otherwise, and a file with the magic of a format but a
// header that does not hold is an error, neither that format nor raw. Whoever
// knows that a file is raw should say so in Options.Format; detection is for
// people at a prompt.
package image

import (
	"errors"
	"fmt"
	"io"

	"holdfast/image/internal/fault"
)

// What can be wrong with a source. The errors of Open and of a Disk wrap these
// and name the file.
var (
	ErrTruncated   = fault.ErrTruncated   // a file ends before the place its header points to
	ErrDamaged     = fault.ErrDamaged     // a header, a table or a block contradicts the format
	ErrUnsupported = fault.ErrUnsupported // known by name, not readable
	ErrOutside     = fault.ErrOutside     // names a file it may not choose
	ErrUntold      = fault.ErrUntold      // a parent's format is not said and must be
	ErrCycle       = fault.ErrCycle       // its own ancestor, or more than 64 deep
)

// Disk is a virtual disk as a row of bytes. All methods but Close may be called
// by several goroutines at once; after Close none may be called.
type Disk interface {
	// ReadAt reads len(p) bytes from byte off. Holes read as zeros. n < len(p)
	// only at the end, with io.EOF, or with the error that stopped it.
	io.ReaderAt

	// Size is the length of the disk in bytes; it does not change.
	Size() int64

	// NextData returns the next extent [start, end) that may hold data and
	// does not end before off: off <= start < end <= Size. Everything from off
	// to start reads as zeros. An extent may be cut short, so that the next
	// one begins where it ends. io.EOF: no data from off to Size.
	NextData(off int64) (start, end int64, err error)

	io.Closer
}

// Options say how to open a source. The zero value detects the format.
type Options struct {
	// Format is one of Formats, and replaces detection. It holds for the named
	// file only, not for the parents and extents that this file names.
	Format string

	// DropCache gives the pages of every range back to the kernel once it is
	// read, so that a backup does not push a machine's own working set out of
	// memory. Pages that somebody else had brought in go as well.
	DropCache bool
}

// Open opens the disk in the file or block device at path for reading.
func Open(path string, opt Options) (Disk, error) {
	d, err := open(path, opt)
	if err != nil {
		return nil, fmt.Errorf("open disk %s: %w", path, err)
	}
	return d, nil
}

// FormatOf returns the format, one of Formats, that Open found or was told, and
// "" for a Disk that Open did not make.
func FormatOf(d Disk) string {
	if o, ok := d.(*opened); ok {
		return o.format
	}
	return ""
}

// opened is what Open returns: the disk, its file and its name in errors.
type opened struct {
	Disk
	path   string
	format string
}

func (o *opened) ReadAt(p []byte, off int64) (int, error) {
	n, err := o.Disk.ReadAt(p, off)
	if err != nil && err != io.EOF {
		err = fmt.Errorf("read disk %s at %d: %w", o.path, off, err)
	}
	return n, err
}

func (o *opened) NextData(off int64) (start, end int64, err error) {
	start, end, err = o.Disk.NextData(off)
	if err != nil && err != io.EOF {
		err = fmt.Errorf("read the block tables of disk %s from %d: %w", o.path, off, err)
	}
	return start, end, err
}

// contained is a disk in a format of its own together with the file it lies in.
type contained struct {
	Disk
	file *file
}

func (c contained) Close() error { return errors.Join(c.Disk.Close(), c.file.Close()) }
