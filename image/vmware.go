package image

import (
	"errors"

	"holdfast/image/vmdk"
)

// vmdkFile is a VMDK and the file of its descriptor. A snapshot is checked
// against its parent, so the parent has to be seen as what it is.
type vmdkFile struct {
	*vmdk.Disk
	file *file
}

func (v vmdkFile) Close() error { return errors.Join(v.Disk.Close(), v.file.Close()) }

func openVMDK(w *where, f *file) (Disk, error) {
	d, err := vmdk.Open(f, f.size, vmdk.Files{
		Extent: func(name string) (vmdk.Extent, error) { return w.extent(name) },
		Parent: func(name string) (vmdk.Parent, error) {
			p, err := w.parent(name, "vmdk")
			if err != nil {
				return nil, err
			}
			return p.(vmdkFile), nil
		},
	})
	if err != nil {
		return nil, err
	}
	return vmdkFile{d, f}, nil
}
