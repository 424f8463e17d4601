package ntfs

import (
	"context"
	"fmt"

	"holdfast/fs"
)

// xattrs is what a file may have beside its contents, under ntfs-3g's names.
// get returns nil where there is none.
var xattrs = []struct {
	name string
	get  func(f *FS, n *node) ([]byte, error)
}{
	{"system.ntfs_acl", (*FS).security},
	{"system.ntfs_attrib", func(_ *FS, n *node) ([]byte, error) {
		attribs := n.attribs &^ attribIndexed
		if n.dir {
			attribs |= attribDir
		}
		return le.AppendUint32(nil, attribs), nil
	}},
	{"system.ntfs_ea", whole(typeEA)},
	{"system.ntfs_object_id", whole(typeObjectID)},
	{"system.ntfs_reparse_data", whole(typeReparse)},
}

// whole gets the value of the attribute without a name that has the type.
func whole(typ uint32) func(f *FS, n *node) ([]byte, error) {
	return func(f *FS, n *node) ([]byte, error) {
		a := n.find(typ, "")
		if a == nil {
			return nil, nil
		}
		return f.readWhole(a, maxSmall)
	}
}

// Xattrs lists what Xattr has for an inode. Streams are not among them.
func (f *FS) Xattrs(ctx context.Context, id fs.ID) ([]string, error) {
	n, stream, err := f.at(ctx, id)
	if err != nil || stream != nil {
		return nil, err
	}
	var list []string
	for _, x := range xattrs {
		v, err := x.get(f, n)
		if err != nil {
			return nil, fmt.Errorf("%s of file record %d: %w", x.name, n.num, err)
		}
		if v != nil {
			list = append(list, x.name)
		}
	}
	return list, nil
}

// Xattr returns the value that ntfs-3g gives under the same name.
func (f *FS) Xattr(ctx context.Context, id fs.ID, name string) ([]byte, error) {
	n, stream, err := f.at(ctx, id)
	if err != nil {
		return nil, err
	}
	for _, x := range xattrs {
		if x.name != name || stream != nil {
			continue
		}
		v, err := x.get(f, n)
		if err != nil {
			return nil, fmt.Errorf("%s of file record %d: %w", name, n.num, err)
		}
		if v != nil {
			return append([]byte(nil), v...), nil
		}
	}
	return nil, fmt.Errorf("%q of file record %d: %w", name, n.num, fs.ErrNoXattr)
}
