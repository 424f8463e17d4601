package ntfs

import (
	"bytes"
	"fmt"

	"holdfast/fs"
)

// Reparse tags. Source: [MS-FSCC] 2.1.2.1.
const (
	tagMicrosoft   = 0x80000000 // without it there is a GUID
	tagMount       = 0xa0000003
	tagSIS         = 0x80000007
	tagHSM         = 0xc0000004
	tagHSM2        = 0x80000006
	tagDedup       = 0x80000013
	tagNFS         = 0x80000014
	tagSymlink     = 0xa000000c
	tagWOF         = 0x80000017
	tagWCI         = 0x80000018
	tagWCI1        = 0x90001018
	tagCloud       = 0x9000001a // and 0x9000101a to 0x9000f01a
	tagAppExec     = 0x8000001b
	tagProjFS      = 0x9000001c
	tagStorageSync = 0x8000001e
	tagLXSymlink   = 0xa000001d
	tagAFUnix      = 0x80000023
	tagLXFIFO      = 0x80000024
	tagLXChar      = 0x80000025
	tagLXBlock     = 0x80000026
)

// elsewhere names what keeps the contents of files with a tag.
var elsewhere = map[uint32]string{
	tagSIS:         "deduplicated by Single Instance Storage",
	tagHSM:         "moved to other storage (HSM)",
	tagHSM2:        "moved to other storage (HSM)",
	tagDedup:       "deduplicated by Windows",
	tagNFS:         "special file of the NFS server",
	tagWCI:         "kept in a layer of a container",
	tagWCI1:        "kept in a layer of a container",
	tagProjFS:      "projected by a program (ProjFS)",
	tagCloud:       "kept in a cloud, such as OneDrive",
	tagStorageSync: "kept in a cloud by Azure File Sync",
}

// layered names what a directory with a tag is only the visible part of.
var layered = map[uint32]string{
	tagWCI:    "a container",
	tagWCI1:   "a container",
	tagProjFS: "a projection (ProjFS)",
}

// loadReparse reads the reparse point of n, if it has one, and what follows for
// its type.
func (f *FS) loadReparse(n *node) error {
	a := n.find(typeReparse, "")
	if a == nil {
		return nil
	}
	b, err := f.readWhole(a, maxSmall)
	if err != nil {
		return err
	}
	if len(b) < 8 || len(b) < 8+int(le.Uint16(b[4:])) {
		return fmt.Errorf("%d bytes: %w", len(b), fs.ErrDamaged)
	}
	n.tag, n.reparse = le.Uint32(b), b[8:8+le.Uint16(b[4:])]
	switch n.tag {
	case tagSymlink, tagMount, tagLXSymlink:
		n.attr.Type, n.attr.Perm = fs.TypeSymlink, 0o777
	case tagAFUnix:
		n.attr.Type = fs.TypeSocket
	case tagLXFIFO:
		n.attr.Type = fs.TypeFIFO
	case tagLXChar:
		n.attr.Type = fs.TypeCharDevice
	case tagLXBlock:
		n.attr.Type = fs.TypeBlockDevice
	case tagWOF:
		return n.loadWOF()
	}
	return nil
}

// here says whether a, of a file that a cloud has, is on the volume too: nothing
// is left out of it.
func here(a *attribute) bool {
	if a.resident {
		return len(bytes.Trim(a.value, "\x00")) > 0
	}
	return a.allocated >= a.size && a.valid == a.size
}

// readable says why the bytes of a are not to be had, if so.
func readable(n *node, a *attribute) error {
	if a.flags&flagEncrypted != 0 {
		return fmt.Errorf("encrypted by EFS: %w", fs.ErrUnsupported)
	}
	if n.tag == 0 || a.name != "" || a.bytes() == 0 || n.wof != nil || n.tag == tagAppExec {
		return nil
	}
	tag := n.tag
	if tag&^0xf000 == tagCloud {
		tag = tagCloud
	}
	if (tag == tagCloud || tag == tagStorageSync) && here(a) {
		return nil
	}
	what, ok := elsewhere[tag]
	if !ok {
		what = "of a kind we don't know"
	}
	return fmt.Errorf("%s (reparse tag %#08x): %w", what, n.tag, fs.ErrUnsupported)
}
