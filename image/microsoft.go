package image

import (
	"errors"

	"holdfast/image/vhd"
	"holdfast/image/vhdx"
)

// A differencing disk of Microsoft's is checked against its parent, so the
// parent has to be seen as what it is and not as a Disk.

type vhdFile struct {
	*vhd.Disk
	file *file
}

func (v vhdFile) Close() error { return errors.Join(v.Disk.Close(), v.file.Close()) }

func openVHD(w *where, f *file) (Disk, error) {
	d, err := vhd.Open(f, f.size, func(name string) (vhd.Parent, error) {
		p, err := w.parent(name, "vhd")
		if err != nil {
			return nil, err
		}
		return p.(vhdFile), nil
	})
	if err != nil {
		return nil, err
	}
	return vhdFile{d, f}, nil
}

type vhdxFile struct {
	*vhdx.Disk
	file *file
}

func (v vhdxFile) Close() error { return errors.Join(v.Disk.Close(), v.file.Close()) }

func openVHDX(w *where, f *file) (Disk, error) {
	d, err := vhdx.Open(f, f.size, func(name string) (vhdx.Parent, error) {
		p, err := w.parent(name, "vhdx")
		if err != nil {
			return nil, err
		}
		return p.(vhdxFile), nil
	})
	if err != nil {
		return nil, err
	}
	return vhdxFile{d, f}, nil
}
