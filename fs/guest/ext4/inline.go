package ext4

import "fmt"

// inlineParts returns what an inode with inline data holds: 60 bytes in place
// of the block map and, if there is more, the value of the attribute
// system.data in the inode.
func (f *FS) inlineParts(in *inode) (head, tail []byte, err error) {
	list, err := in.attributes()
	if err != nil {
		return nil, nil, err
	}
	for _, a := range list {
		if a.index == xattrSystem && string(a.name) == "data" {
			if a.valueIno != 0 {
				return nil, nil, damaged("inode %d: inline data in inode %d", in.ino, a.valueIno)
			}
			return in.iblock(), a.value, nil
		}
	}
	return in.iblock(), nil, nil
}

// inlineData returns the bytes of a file or of a symbolic link in its inode.
func (f *FS) inlineData(in *inode) ([]byte, error) {
	if in.size > int64(len(in.raw)) {
		return nil, damaged("inode %d: %d bytes in the inode", in.ino, in.size)
	}
	head, tail, err := f.inlineParts(in)
	if err != nil {
		return nil, fmt.Errorf("inline data: %w", err)
	}
	data := make([]byte, in.size) // what is behind both parts reads as zeros
	copy(data[copy(data, head):], tail)
	return data, nil
}
