package ext4

import (
	"bytes"
	"context"
	"fmt"

	"holdfast/fs"
)

// A directory is a file of blocks, and those are full of entries: inode, length
// of the entry, length of the name, type, name. An entry of inode 0 is free.
// With metadata_csum the last twelve bytes of a block look like a free entry
// and hold its checksum. The index of a large directory is in blocks that look
// free as a whole, and in the first behind "..".
const (
	maxName      = 255
	direntHeader = 8
	direntMin    = 12
	dirTailBytes = 12
	dirTailType  = 0xde
)

// dirent is an entry that is in use. The name is shared and must not be changed.
type dirent struct {
	ino      uint32
	fileType byte
	name     []byte
	off      uint64 // place in the directory, and that of the next entry
	next     uint64
}

// dir reads the inode of a directory whose names can be had.
func (f *FS) dir(ctx context.Context, id fs.ID) (inode, error) {
	in, err := f.get(ctx, id)
	if err != nil {
		return in, err
	}
	if typeOf(in.mode) != fs.TypeDir {
		return in, fmt.Errorf("inode %d is a %s: %w", in.ino, typeOf(in.mode), fs.ErrNotDir)
	}
	if f.dirBlocks(&in) > f.sb.blocks {
		return in, damaged("directory %d: %d bytes long", in.ino, in.size)
	}
	return in, in.readable()
}

// ReadDir has the meaning of fs.Tree. A cookie is the byte of the directory at
// which the next entry begins; what fast commits added comes last. Damage ends
// the directory, so that nobody takes what was read of it for all there is.
func (f *FS) ReadDir(ctx context.Context, id fs.ID, cookie uint64, fn func(fs.Entry) bool) error {
	in, err := f.dir(ctx, id)
	if err != nil {
		return err
	}
	changes := f.fast.dirs[in.ino]
	more := true
	err = f.eachEntry(ctx, &in, cookie, func(d dirent) bool {
		if changes.hides(d.name) {
			return true
		}
		more = fn(f.entry(d))
		return more
	})
	if err != nil || !more {
		return err
	}
	changes.eachAdded(cookie, func(d dirent) bool { return fn(f.entry(d)) })
	return nil
}

func (f *FS) entry(d dirent) fs.Entry {
	e := fs.Entry{Name: string(d.name), ID: fs.ID{Ino: uint64(d.ino)}, Cookie: d.next}
	if f.sb.has(incompatFiletype) && int(d.fileType) < len(fileTypes) {
		e.Type = fileTypes[d.fileType]
	}
	return e
}

var fileTypes = [...]fs.Type{fs.TypeUnknown, fs.TypeFile, fs.TypeDir, fs.TypeCharDevice, fs.TypeBlockDevice,
	fs.TypeFIFO, fs.TypeSocket, fs.TypeSymlink}

// eachEntry calls fn with the entries that begin at or behind a byte of a
// directory, without "." and "..", until it returns false.
func (f *FS) eachEntry(ctx context.Context, in *inode, from uint64, fn func(dirent) bool) error {
	visit := func(d dirent) bool { return d.off < from || isDot(d.name) || fn(d) }
	if in.has(flagInlineData) {
		if from >= madeEntries {
			return nil
		}
		return f.inlineEntries(in, visit)
	}
	more, err := true, error(nil)
	blocks := f.dirBlocks(in)
	for block := from >> f.sb.blockLog; block < blocks && more && err == nil; block++ {
		if err = ctx.Err(); err == nil {
			more, err = f.blockEntries(in, block, visit)
		}
	}
	return err
}

func isDot(name []byte) bool {
	return name[0] == '.' && (len(name) == 1 || (len(name) == 2 && name[1] == '.'))
}

// dirBlocks is how many blocks a directory has.
func (f *FS) dirBlocks(in *inode) uint64 {
	if c := f.fast.dirs[in.ino]; c != nil && c.made {
		return 0
	}
	return uint64(in.size) >> f.sb.blockLog
}

// blockEntries calls visit with the entries of one block.
func (f *FS) blockEntries(in *inode, block uint64, visit func(dirent) bool) (more bool, err error) {
	b, err := f.dirBlock(in, block)
	if err != nil {
		return false, err
	}
	more, err = f.parseEntries(b, block<<f.sb.blockLog, visit)
	if err != nil {
		err = fmt.Errorf("directory %d: %w", in.ino, err)
	}
	return more, err
}

// dirBlock returns the part of a block with entries, or none if it belongs to
// the index, once its checksum is found right.
func (f *FS) dirBlock(in *inode, n uint64) ([]byte, error) {
	b, at, err := f.fileBlock(in, n)
	if err != nil {
		return nil, fmt.Errorf("directory: %w", err)
	}
	index := f.indexed(in) && (n == 0 || f.indexNode(b))
	if !f.sb.csum() {
		if index && n > 0 {
			return nil, nil
		}
		return b, nil
	}
	if index {
		if err := f.checkIndexBlock(in, b, n, at); err != nil || n > 0 {
			return nil, err
		}
		return b, nil
	}
	tail := b[len(b)-dirTailBytes:]
	if le.Uint32(tail) != 0 || le.Uint16(tail[4:]) != dirTailBytes || tail[6] != 0 || tail[7] != dirTailType {
		return nil, damaged("directory %d: block %d has no checksum", in.ino, at)
	}
	b = b[:len(b)-dirTailBytes]
	if got, want := crc32c(in.seed, b), le.Uint32(tail[8:]); got != want {
		return nil, damaged("directory %d: block %d: checksum %08x, want %08x", in.ino, at, got, want)
	}
	return b, nil
}

// parseEntries calls visit with the entries in b, which begins at a byte of the
// directory. It checks what Linux checks, and names as its readdir does.
func (f *FS) parseEntries(b []byte, base uint64, visit func(dirent) bool) (more bool, err error) {
	for at := 0; at < len(b); {
		d := b[at:]
		if len(d) < direntHeader {
			return false, damaged("entry at %d cut off", base+uint64(at))
		}
		length := f.recordLength(le.Uint16(d[4:]))
		nameLen := int(d[6])
		if !f.sb.has(incompatFiletype) {
			nameLen = int(le.Uint16(d[6:]))
		}
		ino := le.Uint32(d)
		if length < direntMin || length%4 != 0 || length < direntHeader+nameLen || length > len(d) ||
			ino > f.sb.inodes {
			return false, damaged("entry at %d: inode %d, %d bytes, name of %d", base+uint64(at), ino, length, nameLen)
		}
		if ino != 0 {
			e := dirent{
				ino:      ino,
				fileType: d[7],
				name:     d[direntHeader : direntHeader+nameLen],
				off:      base + uint64(at),
				next:     base + uint64(at+length),
			}
			if nameLen == 0 || nameLen > maxName || bytes.IndexByte(e.name, '/') >= 0 || bytes.IndexByte(e.name, 0) >= 0 {
				return false, damaged("entry at %d: the name %q", e.off, e.name)
			}
			if !visit(e) {
				return false, nil
			}
		}
		at += length
	}
	return true, nil
}

// recordLength decodes the length of an entry: with blocks of 64 KiB, which 16
// bits can't tell, the two lowest bits are the two highest.
func (f *FS) recordLength(v uint16) int {
	if f.sb.blockLog < 16 {
		return int(v)
	}
	if v == 0 || v == 1<<16-1 {
		return 1 << f.sb.blockLog
	}
	return int(v&^3) | int(v&3)<<16
}

// inlineEntries calls visit with the entries of a directory in its inode. They
// follow four bytes that are the parent, and go on in the attribute.
func (f *FS) inlineEntries(in *inode, visit func(dirent) bool) error {
	head, tail, err := f.inlineParts(in)
	if err != nil {
		return fmt.Errorf("directory: %w", err)
	}
	more, err := f.parseEntries(head[4:], 4, visit)
	if err == nil && more {
		_, err = f.parseEntries(tail, inodeBlockLen, visit)
	}
	if err != nil {
		return fmt.Errorf("directory %d: %w", in.ino, err)
	}
	return nil
}

// parent returns the inode of "..".
func (f *FS) parent(in *inode) (uint32, error) {
	if in.ino == rootIno {
		return rootIno, nil
	}
	if c := f.fast.dirs[in.ino]; c != nil && c.parent != 0 {
		return c.parent, nil
	}
	if in.has(flagInlineData) {
		return le.Uint32(in.iblock()), nil
	}
	var up uint32
	_, err := f.blockEntries(in, 0, func(d dirent) bool {
		if string(d.name) == ".." {
			up = d.ino
		}
		return up == 0
	})
	if err == nil && up == 0 {
		err = damaged("directory %d has no parent", in.ino)
	}
	return up, err
}
