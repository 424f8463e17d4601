package fat

import (
	"context"
	"fmt"
	"io"

	"holdfast/fs"
)

// file is a regular file that is being read.
type file struct {
	fs    *FS
	size  int64
	chain *chain // nil of an empty one
}

// open finds a regular file and its chain.
func (f *FS) open(ctx context.Context, id fs.ID) (*file, error) {
	if id == f.Root() {
		return nil, fs.ErrIsDir
	}
	slot, err := f.dirs.slot(ctx, id)
	switch {
	case err != nil:
		return nil, err
	case slot[11]&attrDir != 0:
		return nil, fs.ErrIsDir
	}
	o := &file{fs: f, size: int64(le.Uint32(slot[28:]))}
	if o.size > 0 {
		o.chain, err = f.files.get(ctx, f.g.cluster(slot))
	}
	return o, err
}

// at finds the stretch of the device that has the bytes of the file from off,
// which is before its end: where it is, and how long.
func (o *file) at(off int64) (dev, n int64, err error) {
	g := o.fs.g
	k := off >> g.shift()
	if k >= int64(o.chain.clusters) {
		if o.chain.err != nil {
			return 0, 0, o.chain.err
		}
		return 0, 0, fmt.Errorf("%d bytes, but its chain ends after %d clusters of %d: %w", o.size, o.chain.clusters, g.clusterBytes, fs.ErrDamaged)
	}
	r, err := o.fs.table.locate(o.chain, uint32(k))
	if err != nil {
		return 0, 0, err
	}
	in := off - k<<g.shift()
	dev = g.off(r.cluster) + in
	n = min(int64(r.n)<<g.shift()-in, o.size-off)
	if n = min(n, o.fs.size-dev); n <= 0 {
		return 0, 0, fmt.Errorf("cluster %d is behind the end of the volume: %w", r.cluster, fs.ErrDamaged)
	}
	return dev, n, nil
}

func (f *FS) ReadAt(ctx context.Context, id fs.ID, p []byte, off int64) (int, error) {
	o, err := f.open(ctx, id)
	if err != nil {
		return 0, fmt.Errorf("read file %d: %w", id.Ino, err)
	}
	if off < 0 {
		return 0, fmt.Errorf("read file %d at %d: %w", id.Ino, off, fs.ErrInvalid)
	}
	done := 0
	for done < len(p) {
		if err := ctx.Err(); err != nil {
			return done, err
		}
		if off >= o.size {
			return done, io.EOF
		}
		at, n, err := o.at(off)
		if err == nil {
			n = min(n, int64(len(p)-done))
			err = readFull(f.dev, p[done:][:n], at)
		}
		if err != nil {
			return done, fmt.Errorf("read file %d at %d: %w", id.Ino, off, err)
		}
		done, off = done+int(n), off+n
	}
	return done, nil
}

// Extents gives Stored extents only: FAT has no holes.
func (f *FS) Extents(ctx context.Context, id fs.ID, off int64, n int) ([]fs.Extent, error) {
	o, err := f.open(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("extents of file %d: %w", id.Ino, err)
	}
	switch {
	case off < 0 || n < 1:
		return nil, fmt.Errorf("%d extents of file %d from %d: %w", n, id.Ino, off, fs.ErrInvalid)
	case off >= o.size:
		return nil, io.EOF
	}
	var list []fs.Extent
	for off < o.size && len(list) < n && ctx.Err() == nil {
		at, length, err := o.at(off)
		if err != nil && len(list) > 0 {
			break // the next call, which begins here, tells
		}
		if err != nil {
			return nil, fmt.Errorf("extents of file %d at %d: %w", id.Ino, off, err)
		}
		list = append(list, fs.Extent{Off: off, Len: length, Kind: fs.Stored, At: at})
		off += length
	}
	return list, ctx.Err()
}

// readFull reads all of p from off of a device that should have it.
func readFull(dev io.ReaderAt, p []byte, off int64) error {
	n, err := dev.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == io.EOF {
		return fmt.Errorf("the volume ends at byte %d: %w", off+int64(n), fs.ErrDamaged)
	}
	return err
}
