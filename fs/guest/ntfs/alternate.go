package ntfs

import (
	"context"
	"fmt"
	"strings"

	"holdfast/fs"
)

// nameWOF is the stream in which Windows keeps what it compressed: a part of the
// file, not beside it.
var nameWOF = string(encodeASCII("WofCompressedData"))

func encodeASCII(s string) []byte {
	b := make([]byte, 0, 2*len(s))
	for i := range len(s) {
		b = append(b, s[i], 0)
	}
	return b
}

// streams returns the alternate streams of n.
func (n *node) streams() []*attribute {
	var list []*attribute
	for i := range n.attrs {
		a := &n.attrs[i]
		if a.typ == typeData && a.name != "" && !(n.wof != nil && a.name == nameWOF) {
			list = append(list, a)
		}
	}
	return list
}

// Streams lists the alternate streams of a file or directory.
func (f *FS) Streams(ctx context.Context, id fs.ID) ([]fs.Stream, error) {
	n, stream, err := f.at(ctx, id)
	if err != nil || stream != nil {
		return nil, err
	}
	var list []fs.Stream
	for i, a := range n.streams() {
		name := decodeName([]byte(a.name))
		if strings.ContainsAny(name, "/\x00") || i >= 0xfffe {
			return list, fmt.Errorf("file record %d: stream %d named %q: %w", n.num, i+1, name, fs.ErrDamaged)
		}
		list = append(list, fs.Stream{Name: name, ID: streamID(n, i), Size: a.bytes()})
	}
	return list, nil
}

// streamAttr describes a stream of n: a file with the owner and times of n.
func streamAttr(n *node, a *attribute, id fs.ID) fs.Attr {
	attr := n.attr
	attr.ID, attr.Type, attr.Size, attr.Used = id, fs.TypeFile, a.bytes(), a.allocated
	if n.attr.Type != fs.TypeFile {
		attr.Perm = 0o644
	}
	return attr
}
