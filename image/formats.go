package image

import (
	"fmt"
	"io"

	"holdfast/image/internal/fault"
	"holdfast/image/qcow2"
	"holdfast/image/vhd"
	"holdfast/image/vhdx"
	"holdfast/image/vmdk"
)

// format is a line of the table: a name, how to tell it, and how to read it. A
// format without open is refused by its name.
type format struct {
	name  string
	title string
	is    func(ra io.ReaderAt, size int64) bool
	open  func(w *where, f *file) (Disk, error)
}

// formats is the table of every format we can tell. The first that matches
// wins, and a file that matches none is raw, the last line. (A function, because
// a format with parents comes back to the table.)
func formats() []format {
	return []format{
		{"qcow2", "qcow2", qcow2.Detect, openQcow2},
		{"vmdk", "VMDK", vmdk.Detect, openVMDK},
		{"vhdx", "VHDX", vhdx.Detect, openVHDX},
		{"vhd", "VHD", vhd.Detect, openVHD},
		{"vdi", "VDI", magicAt(0x40, "\x7f\x10\xda\xbe"), nil},
		{"raw", "raw", nil, openRaw},
	}
}

// Formats lists the formats that Open reads, as Options.Format names them.
func Formats() []string {
	var names []string
	for _, f := range formats() {
		if f.open != nil {
			names = append(names, f.name)
		}
	}
	return names
}

// detect returns the format of f by its content. What a block device holds was
// put there by its user, so it is raw.
func detect(f *file) format {
	for _, ft := range formats() {
		if ft.name == "raw" || (!f.device && ft.is(f, f.size)) {
			return ft
		}
	}
	panic("image: the last format is not raw")
}

// named returns the format that a person or an image calls by name.
func named(name string) (format, error) {
	if name == "vpc" {
		name = "vhd" // as QEMU calls it
	}
	for _, ft := range formats() {
		if ft.name == name {
			return ft, nil
		}
	}
	return format{}, fmt.Errorf("format %q is unknown", name)
}

func (ft format) read(w *where, f *file) (Disk, error) {
	if ft.open == nil {
		return nil, fmt.Errorf("%s is %w", ft.title, fault.ErrUnsupported)
	}
	return ft.open(w, f)
}

func openRaw(_ *where, f *file) (Disk, error) { return f, nil }

func openQcow2(w *where, f *file) (Disk, error) {
	d, err := qcow2.Open(f, f.size, func(name, format string) (qcow2.Backing, error) { return w.parent(name, format) })
	if err != nil {
		return nil, err
	}
	return contained{d, f}, nil
}

func magicAt(off int64, magic string) func(io.ReaderAt, int64) bool {
	return func(ra io.ReaderAt, size int64) bool {
		b := make([]byte, len(magic))
		n, _ := ra.ReadAt(b, off)
		return string(b[:n]) == magic
	}
}
