package ext4

import (
	"context"
	"fmt"
	"io"

	"holdfast/fs"
)

// file reads the inode of a regular file whose bytes can be had.
func (f *FS) file(ctx context.Context, id fs.ID) (inode, error) {
	in, err := f.get(ctx, id)
	if err != nil {
		return in, err
	}
	switch typeOf(in.mode) {
	case fs.TypeFile:
		return in, in.readable()
	case fs.TypeDir:
		return in, fmt.Errorf("inode %d: %w", in.ino, fs.ErrIsDir)
	}
	return in, fmt.Errorf("inode %d is a %s: %w", in.ino, typeOf(in.mode), fs.ErrInvalid)
}

// readable refuses an inode whose data we can't make sense of.
func (in *inode) readable() error {
	switch {
	case in.has(flagEncrypted):
		return unsupported("inode %d: encrypted, which", in.ino)
	case in.has(flagCompressed) && !in.has(flagExtents):
		return unsupported("inode %d: compressed, which", in.ino)
	}
	return nil
}

// ReadAt has the meaning of fs.Tree. What is on the device as it is goes
// straight into p.
func (f *FS) ReadAt(ctx context.Context, id fs.ID, p []byte, off int64) (int, error) {
	in, err := f.file(ctx, id)
	if err != nil {
		return 0, err
	}
	if off < 0 {
		return 0, fmt.Errorf("inode %d: read at %d: %w", in.ino, off, fs.ErrInvalid)
	}
	if off >= in.size {
		if len(p) == 0 {
			return 0, nil
		}
		return 0, io.EOF
	}
	short := int64(len(p)) > in.size-off
	if short {
		p = p[:in.size-off]
	}
	n, err := f.readData(ctx, &in, p, off)
	if err == nil && short {
		err = io.EOF
	}
	return n, err
}

// readData fills p with what an inode holds from off on, within its size.
func (f *FS) readData(ctx context.Context, in *inode, p []byte, off int64) (n int, err error) {
	if len(p) == 0 {
		return 0, nil
	}
	if in.has(flagInlineData) {
		data, err := f.inlineData(in)
		if err != nil {
			return 0, err
		}
		return copy(p, data[off:]), nil
	}
	log := f.sb.blockLog
	end := off + int64(len(p))
	// ahead is what of p is known to be on the device side by side, but not
	// read yet.
	var ahead struct {
		at uint64
		n  int
	}
	flush := func() {
		if ahead.n == 0 || err != nil {
			return
		}
		if err = ctx.Err(); err != nil {
			return
		}
		at := off + int64(n)
		if err = f.readBlocks(p[n:n+ahead.n], ahead.at, at&(1<<log-1)); err == nil {
			n += ahead.n
		}
		ahead.n = 0
	}
	merr := f.mapBlocks(in, uint64(off)>>log, uint64(end-1)>>log+1, func(e extent) bool {
		from := off + int64(n) + int64(ahead.n)
		stop := min(end, int64(e.end()<<log))
		if e.hole() {
			if flush(); err == nil {
				clear(p[n : stop-off])
				n = int(stop - off)
			}
			return err == nil && stop < end
		}
		at := e.from(uint64(from) >> log).at
		if ahead.n > 0 && at != ahead.at+(uint64(from)>>log-uint64(off+int64(n))>>log) {
			flush()
		}
		if ahead.n == 0 {
			ahead.at = at
		}
		ahead.n += int(stop - from)
		return err == nil && stop < end
	})
	flush()
	if err == nil {
		err = merr
	}
	if err != nil {
		return n, fmt.Errorf("inode %d at %d: %w", in.ino, off+int64(n), err)
	}
	return n, nil
}

// Extents has the meaning of fs.Tree.
func (f *FS) Extents(ctx context.Context, id fs.ID, off int64, n int) ([]fs.Extent, error) {
	in, err := f.file(ctx, id)
	if err != nil {
		return nil, err
	}
	if off < 0 || n < 1 {
		return nil, fmt.Errorf("inode %d: %d extents at %d: %w", in.ino, n, off, fs.ErrInvalid)
	}
	if off >= in.size {
		return nil, io.EOF
	}
	if in.has(flagInlineData) {
		return []fs.Extent{{Off: off, Len: in.size - off, Kind: fs.Made}}, nil
	}
	log := f.sb.blockLog
	l := extentList{max: n}
	err = f.mapBlocks(&in, uint64(off)>>log, uint64(in.size-1)>>log+1, func(e extent) bool {
		return f.addExtents(&l, e, off, in.size)
	})
	if len(l.list) == 0 {
		return nil, err
	}
	// What was found before the damage is right, and the next call, which begins
	// at the damage, will say so.
	return l.list, nil
}

// addExtents adds what an extent has between byte off and size, parted where
// the replay changed blocks.
func (f *FS) addExtents(l *extentList, e extent, off, size int64) bool {
	log := f.sb.blockLog
	start, end := max(off, int64(e.first<<log)), min(size, int64(e.end()<<log))
	if e.hole() {
		return l.add(fs.Extent{Off: start, Len: end - start})
	}
	shift := int64(e.at<<log) - int64(e.first<<log) // from a place in the file to one on the device
	for start < end {
		stop := end
		x := fs.Extent{Off: start, Kind: fs.Stored, At: start + shift}
		o, ok := f.overlay.next(uint64(start+shift)>>log, uint64(end-1+shift)>>log)
		if ok {
			at := int64(o.block<<log) - shift
			if at <= start {
				x.Kind, x.At = fs.Made, 0
				at += 1 << log
			}
			stop = min(end, at)
		}
		x.Len = stop - start
		if !l.add(x) {
			return false
		}
		start = stop
	}
	return true
}

// extentList joins extents that touch, up to a number.
type extentList struct {
	list []fs.Extent
	max  int
	seen int // pieces that went into list
}

// maxPieces is how many pieces one call of Extents looks at. Many may join, and
// in what is hostile be worth nothing.
const maxPieces = 1 << 16

// add says whether there may be room for more.
func (l *extentList) add(x fs.Extent) bool {
	if l.seen++; l.seen > maxPieces {
		return false
	}
	if n := len(l.list); n > 0 {
		last := &l.list[n-1]
		if last.Kind == x.Kind && (x.Kind != fs.Stored || last.At+last.Len == x.At) {
			last.Len += x.Len
			return true
		}
		if n == l.max {
			return false
		}
	}
	l.list = append(l.list, x)
	return true
}
