package ntfs

import (
	"strings"

	"holdfast/fs"
)

// The beginnings of Interix' special files, which are small system files.
const (
	interixLink  = "IntxLNK\x01"
	interixChar  = "IntxCHR\x00"
	interixBlock = "IntxBLK\x00"
)

// loadInterix finds out whether n is a special file of Interix.
func (f *FS) loadInterix(n *node) error {
	a := n.data()
	if n.attribs&attribSystem == 0 || n.attr.Type != fs.TypeFile || n.tag != 0 || a == nil {
		return nil
	}
	if a.flags&flagEncrypted != 0 || a.bytes() <= 8 || a.bytes() > maxSmall {
		return nil
	}
	magic := make([]byte, 8)
	if err := f.readPart(a, magic, 0); err != nil {
		return err
	}
	switch string(magic) {
	case interixLink:
		b, err := f.readWhole(a, maxSmall)
		if err != nil {
			return err
		}
		n.interix = decodeName(b[8:])
		n.attr.Type, n.attr.Perm = fs.TypeSymlink, 0o777
	case interixChar, interixBlock:
		if a.bytes() != 24 {
			return nil
		}
		b, err := f.readWhole(a, maxSmall)
		if err != nil {
			return err
		}
		n.attr.Type = fs.TypeCharDevice
		if string(magic) == interixBlock {
			n.attr.Type = fs.TypeBlockDevice
		}
		n.attr.Major, n.attr.Minor, n.attr.Size = le.Uint32(b[8:]), le.Uint32(b[16:]), 0
	}
	return nil
}

// loadWSL gives n what WSL says of it in extended attributes.
func (f *FS) loadWSL(n *node) error {
	a := n.find(typeEA, "")
	if a == nil {
		return nil
	}
	b, err := f.readWhole(a, maxSmall)
	if err != nil {
		return err
	}
	eachEA(b, func(name string, value []byte) {
		if len(value) < 4 {
			return
		}
		v := le.Uint32(value)
		switch strings.ToUpper(name) {
		case "$LXUID":
			n.attr.UID = v
		case "$LXGID":
			n.attr.GID = v
		case "$LXMOD":
			n.attr.Perm = uint16(v & 0o7777)
		case "$LXDEV":
			if len(value) >= 8 && (n.tag == tagLXChar || n.tag == tagLXBlock) {
				n.attr.Major, n.attr.Minor = v, le.Uint32(value[4:])
			}
		}
	})
	return nil
}

// eachEA calls fn for extended attributes until they end or make no sense. What
// programs keep there is no reason not to show a file. Source: [MS-FSCC] 2.4.16.
func eachEA(b []byte, fn func(name string, value []byte)) {
	for len(b) >= 8 {
		next, nameBytes, valueBytes := int(le.Uint32(b)), int(b[5]), int(le.Uint16(b[6:]))
		if 8+nameBytes+1+valueBytes > len(b) {
			return
		}
		fn(string(b[8:8+nameBytes]), b[9+nameBytes:9+nameBytes+valueBytes])
		if next < 8 || next > len(b) {
			return
		}
		b = b[next:]
	}
}
