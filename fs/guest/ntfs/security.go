package ntfs

import (
	"cmp"
	"fmt"

	"holdfast/fs"
)

// security returns the security descriptor of a file: its own attribute, or the
// one in $Secure that its number stands for. There the index $SII leads from
// numbers to places in the stream $SDS. Source: Linux-NTFS documentation, "$Secure".
func (f *FS) security(n *node) ([]byte, error) {
	if a := n.find(typeSecurity, ""); a != nil {
		return f.readWhole(a, maxSmall)
	}
	if n.secID == 0 {
		return nil, nil
	}
	secure, err := f.node(fileSecure)
	if err != nil {
		return nil, err
	}
	x, err := f.openIndex(secure, nameSII)
	if err != nil {
		return nil, err
	}
	var place []byte
	err = x.search(func(key []byte) (int, error) {
		if len(key) < 4 {
			return 0, fmt.Errorf("key of %d bytes: %w", len(key), fs.ErrDamaged)
		}
		return cmp.Compare(n.secID, le.Uint32(key)), nil
	}, func(e indexEntry) bool {
		place = e.data
		return false
	})
	if err != nil {
		return nil, err
	}
	if place == nil {
		return nil, nil // the file has a number of none
	}
	return f.descriptor(secure.find(typeData, nameSDS), n.secID, place)
}

// descriptor reads a descriptor from its place: a header with hash, number,
// offset and length, which the index repeats, goes before it.
func (f *FS) descriptor(sds *attribute, id uint32, place []byte) ([]byte, error) {
	const header = 20
	if sds == nil || len(place) < header {
		return nil, fmt.Errorf("security descriptor %d: %w", id, fs.ErrDamaged)
	}
	off, size := int64(le.Uint64(place[8:])), int64(le.Uint32(place[16:]))
	if size < header || size > maxSmall+header {
		return nil, fmt.Errorf("security descriptor %d of %d bytes: %w", id, size, fs.ErrDamaged)
	}
	b := make([]byte, size)
	if err := f.readPart(sds, b, off); err != nil {
		return nil, fmt.Errorf("security descriptor %d: %w", id, err)
	}
	if le.Uint32(b[4:]) != id {
		return nil, fmt.Errorf("security descriptor %d is at the place of %d: %w", le.Uint32(b[4:]), id, fs.ErrDamaged)
	}
	return b[header:], nil
}
