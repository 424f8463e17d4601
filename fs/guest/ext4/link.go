package ext4

import (
	"bytes"
	"context"
	"fmt"

	"holdfast/fs"
)

// ReadLink has the meaning of fs.Tree.
func (f *FS) ReadLink(ctx context.Context, id fs.ID) (string, error) {
	in, err := f.get(ctx, id)
	if err != nil {
		return "", err
	}
	if typeOf(in.mode) != fs.TypeSymlink {
		return "", fmt.Errorf("inode %d is a %s: %w", in.ino, typeOf(in.mode), fs.ErrInvalid)
	}
	if err := in.readable(); err != nil {
		return "", err
	}
	if in.size == 0 || in.size > f.sb.blockBytes() {
		return "", damaged("inode %d: symbolic link of %d bytes", in.ino, in.size)
	}
	target := make([]byte, in.size)
	if f.fastLink(&in) {
		copy(target, in.iblock())
	} else if _, err := f.readData(ctx, &in, target, 0); err != nil {
		return "", err
	}
	if bytes.IndexByte(target, 0) >= 0 {
		return "", damaged("inode %d: symbolic link with a zero byte", in.ino)
	}
	return string(target), nil
}

// fastLink says whether a target stands in place of the block map. Nothing on
// disk says so plainly: it does if the inode has no blocks for it.
func (f *FS) fastLink(in *inode) bool {
	if in.size >= inodeBlockLen || in.has(flagExtents) || in.has(flagInlineData) {
		return false
	}
	if f.sb.has(incompatEAInode) {
		return true // whose blocks are counted too, but which all have extents
	}
	blocks := f.used(in)
	if in.xattrBlock(f.sb.has(incompat64bit)) != 0 {
		blocks -= 1 << f.sb.clusterLog
	}
	return blocks <= 0
}
