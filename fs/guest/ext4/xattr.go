package ext4

import (
	"context"
	"fmt"

	"holdfast/fs"
)

// Attributes lie behind the fields of the inode and in a block of their own. In
// both, entries of 16 bytes and a name, padded to four, grow from the front
// until one of four zeros; values lie at the end. A value of its own size may
// be in an inode instead (ea_inode).
const (
	xattrMagic      = 0xea020000
	xattrBlockStart = 32 // behind the header of a block
	xattrMaxBytes   = 64 << 10
)

// Name indexes: the beginning of a name.
const (
	xattrUser       = 1
	xattrACLAccess  = 2
	xattrACLDefault = 3
	xattrTrusted    = 4
	xattrSecurity   = 6
	xattrSystem     = 7
	xattrHurd       = 10
)

var xattrPrefix = map[byte]string{
	xattrUser:       "user.",
	xattrACLAccess:  "system.posix_acl_access",
	xattrACLDefault: "system.posix_acl_default",
	xattrTrusted:    "trusted.",
	xattrSecurity:   "security.",
	xattrHurd:       "gnu.",
}

// xattr is an entry. Its value is in place unless it has an inode.
type xattr struct {
	index     byte
	name      []byte
	value     []byte
	valueIno  uint32
	valueSize uint32
}

// fullName is the name in Linux; ok is false for those it does not show.
func (a *xattr) fullName() (name string, ok bool) {
	prefix, ok := xattrPrefix[a.index]
	acl := a.index == xattrACLAccess || a.index == xattrACLDefault
	if !ok || acl != (len(a.name) == 0) {
		return "", false
	}
	return prefix + string(a.name), true
}

// parseXattrs reads the entries at the beginning of b. Values are counted from
// byte base of b on.
func parseXattrs(b []byte, values []byte) ([]xattr, error) {
	var list []xattr
	for len(b) >= 4 && le.Uint32(b) != 0 {
		if len(b) < 16 {
			return nil, damaged("attribute cut off")
		}
		nameLen := int(b[0])
		a := xattr{index: b[1], valueIno: le.Uint32(b[4:]), valueSize: le.Uint32(b[8:])}
		padded := (16 + nameLen + 3) &^ 3
		if padded > len(b) {
			return nil, damaged("attribute with a name of %d bytes", nameLen)
		}
		a.name = b[16 : 16+nameLen]
		if a.valueIno == 0 {
			off := uint64(le.Uint16(b[2:]))
			if off+uint64(a.valueSize) > uint64(len(values)) {
				return nil, damaged("attribute with a value of %d bytes at %d", a.valueSize, off)
			}
			a.value = values[off:][:a.valueSize]
		} else if a.valueSize > xattrMaxBytes {
			return nil, damaged("attribute with a value of %d bytes", a.valueSize)
		}
		list = append(list, a)
		b = b[padded:]
	}
	if len(b) < 4 {
		return nil, damaged("attributes without end")
	}
	return list, nil
}

// attributes returns those in the inode itself.
func (in *inode) attributes() ([]xattr, error) {
	start := inodeOldBytes + in.extra
	if in.extra == 0 || start+4 > len(in.raw) {
		return nil, nil
	}
	b := in.raw[start:]
	if le.Uint32(b) != xattrMagic {
		return nil, nil
	}
	list, err := parseXattrs(b[4:], b[4:])
	if err != nil {
		return nil, fmt.Errorf("inode %d: %w", in.ino, err)
	}
	return list, nil
}

// xattrBlock is the number of the block with attributes, or 0.
func (in *inode) xattrBlock(wide bool) uint64 {
	at := uint64(le.Uint32(in.raw[104:]))
	if wide {
		at |= uint64(le.Uint16(in.raw[118:])) << 32
	}
	return at
}

// blockAttributes returns those in a block, which other inodes may share.
func (f *FS) blockAttributes(in *inode) ([]xattr, error) {
	at := in.xattrBlock(f.sb.has(incompat64bit))
	if at == 0 {
		return nil, nil
	}
	b, err := f.block(at)
	if err != nil {
		return nil, fmt.Errorf("inode %d: attributes: %w", in.ino, err)
	}
	if le.Uint32(b) != xattrMagic || le.Uint32(b[8:]) != 1 {
		return nil, damaged("inode %d: block %d has no attributes", in.ino, at)
	}
	if f.sb.csum() {
		c := crc32cLE(f.sb.seed, uint32(at))
		c = crc32cLE(c, uint32(at>>32))
		c = crc32c(c, b[:16])
		c = crc32c(c, zeroes[:4])
		c = crc32c(c, b[20:])
		if want := le.Uint32(b[16:]); c != want {
			return nil, damaged("inode %d: attributes in block %d: checksum %08x, want %08x", in.ino, at, c, want)
		}
	}
	list, err := parseXattrs(b[xattrBlockStart:], b)
	if err != nil {
		return nil, fmt.Errorf("inode %d: block %d: %w", in.ino, at, err)
	}
	return list, nil
}

// allAttributes returns those of both places; of one name the first counts.
func (f *FS) allAttributes(ctx context.Context, id fs.ID) (inode, []xattr, error) {
	in, err := f.get(ctx, id)
	if err != nil {
		return in, nil, err
	}
	list, err := in.attributes()
	if err != nil {
		return in, nil, err
	}
	more, err := f.blockAttributes(&in)
	return in, append(list, more...), err
}

// Xattrs has the meaning of fs.XattrTree.
func (f *FS) Xattrs(ctx context.Context, id fs.ID) ([]string, error) {
	_, list, err := f.allAttributes(ctx, id)
	if err != nil {
		return nil, err
	}
	var names []string
	seen := make(map[string]bool, len(list))
	for _, a := range list {
		if name, ok := a.fullName(); ok && !seen[name] {
			seen[name] = true
			names = append(names, name)
		}
	}
	return names, nil
}

// Xattr has the meaning of fs.XattrTree. Access lists come in the form that
// getxattr gives them.
func (f *FS) Xattr(ctx context.Context, id fs.ID, name string) ([]byte, error) {
	in, list, err := f.allAttributes(ctx, id)
	if err != nil {
		return nil, err
	}
	for _, a := range list {
		if full, ok := a.fullName(); !ok || full != name {
			continue
		}
		value := append([]byte{}, a.value...)
		if a.valueIno != 0 {
			if value, err = f.xattrInode(ctx, &in, &a); err != nil {
				return nil, fmt.Errorf("inode %d: attribute %q: %w", in.ino, name, err)
			}
		}
		if a.index == xattrACLAccess || a.index == xattrACLDefault {
			if value, err = linuxACL(value); err != nil {
				return nil, fmt.Errorf("inode %d: %w", in.ino, err)
			}
		}
		return value, nil
	}
	return nil, fmt.Errorf("inode %d: %q: %w", in.ino, name, fs.ErrNoXattr)
}

// xattrInode reads a value from the inode it has to itself.
func (f *FS) xattrInode(ctx context.Context, in *inode, a *xattr) ([]byte, error) {
	ea, err := f.anyInode(a.valueIno)
	if err != nil {
		return nil, err
	}
	if !f.sb.has(incompatEAInode) || !ea.has(flagEAInode) || ea.size != int64(a.valueSize) {
		return nil, damaged("inode %d does not hold a value of %d bytes", ea.ino, a.valueSize)
	}
	value := make([]byte, a.valueSize)
	if _, err := f.readData(ctx, &ea, value, 0); err != nil {
		return nil, err
	}
	// The access time of such an inode is the hash of the value. In the first
	// such file systems the modification time was the inode it belongs to.
	if le.Uint32(ea.raw[16:]) == in.ino && string(ea.raw[100:104]) == string(in.raw[100:104]) {
		return value, nil
	}
	if got, want := crc32c(f.sb.seed, value), le.Uint32(ea.raw[8:]); got != want {
		return nil, damaged("inode %d: value with the hash %08x, want %08x", ea.ino, got, want)
	}
	return value, nil
}

// Tags of entries in access lists that are for a user or a group of their own.
const (
	aclUser  = 0x02
	aclGroup = 0x08
)

// linuxACL turns an access list from ext4's form, version 1 with an ID only
// where it means something, into that of the system call, version 2.
func linuxACL(b []byte) ([]byte, error) {
	if len(b) < 4 || le.Uint32(b) != 1 {
		return nil, damaged("access list of %d bytes", len(b))
	}
	out := le.AppendUint32(nil, 2)
	for b = b[4:]; len(b) > 0; {
		if len(b) < 4 {
			return nil, damaged("access list cut off")
		}
		out = append(out, b[:4]...)
		tag := le.Uint16(b)
		b = b[4:]
		if tag != aclUser && tag != aclGroup {
			out = le.AppendUint32(out, ^uint32(0))
			continue
		}
		if len(b) < 4 {
			return nil, damaged("access list cut off")
		}
		out = append(out, b[:4]...)
		b = b[4:]
	}
	return out, nil
}
