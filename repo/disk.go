package repo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"
	"sync/atomic"

	"holdfast/repo/blockmap"
	"holdfast/repo/chunk"
)

// A Disk is one disk of a restore point, as it stood. It is safe for concurrent
// use and stays open as long as its Reader.
type Disk struct {
	store *store
	tree  blockmap.Tree
	info  DiskInfo
	point PointID

	nextOff atomic.Int64 // where a sequential reader would go on
	ahead   readAhead
}

// Info describes the disk.
func (d *Disk) Info() DiskInfo { return d.info }

// Size is the disk's length in bytes.
func (d *Disk) Size() int64 { return d.info.SizeBytes }

// ReadAt reads len(p) bytes of the disk as it stood at the restore point, from
// byte offset off. Holes read as zeros. n < len(p) only at the end, with
// io.EOF. What is damaged beyond healing gives a *CorruptError.
func (d *Disk) ReadAt(p []byte, off int64) (int, error) {
	return d.ReadAtContext(context.Background(), p, off)
}

// ReadAtContext is ReadAt for callers that may lose interest.
func (d *Disk) ReadAtContext(ctx context.Context, p []byte, off int64) (int, error) {
	n, err := d.clip(off, len(p))
	if err != nil && err != io.EOF || n == 0 {
		return 0, err
	}
	if rerr := d.read(ctx, p[:n], off); rerr != nil {
		return 0, rerr
	}
	d.passed(off, n)
	return n, err
}

// clip returns how many of n bytes from off on the disk has, with io.EOF if
// those are not all.
func (d *Disk) clip(off int64, n int) (int, error) {
	switch {
	case off < 0:
		return 0, fmt.Errorf("read disk %s: negative offset %d", d.info.Name, off)
	case off >= d.Size():
		return 0, io.EOF
	case int64(n) > d.Size()-off:
		return int(d.Size() - off), io.EOF
	}
	return n, nil
}

// passed notes that n bytes from off on were read, and reads ahead of those who
// read one after the other.
func (d *Disk) passed(off int64, n int) {
	end := off + int64(n)
	if d.nextOff.Swap(end) == off && off > 0 {
		d.ahead.start(d, end)
	}
}

// read fills p, which lies within the disk. Chunks are read at once when there
// are several.
func (d *Disk) read(ctx context.Context, p []byte, off int64) error {
	size := int64(d.store.settings.Geometry.ChunkBytes)
	if off/size == (off+int64(len(p))-1)/size {
		return d.readChunk(ctx, p, off)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex // guards errs
	var errs []error
	for len(p) > 0 {
		n := min(int64(len(p)), size-off%size)
		part, at := p[:n], off
		if d.Cached(at, int(n)) { // copied sooner than handed to somebody
			if err := d.readChunk(ctx, part, at); err != nil {
				mu.Lock()
				errs = append(errs, err)
				mu.Unlock()
			}
			p, off = p[n:], off+n
			continue
		}
		select {
		case d.store.limit <- struct{}{}:
		case <-ctx.Done():
			wg.Wait()
			return ctx.Err()
		}
		wg.Go(func() {
			defer func() { <-d.store.limit }()
			if err := d.readChunk(ctx, part, at); err != nil {
				mu.Lock()
				errs = append(errs, err)
				mu.Unlock()
			}
		})
		p, off = p[n:], off+n
	}
	wg.Wait()
	return errors.Join(errs...)
}

// readChunk fills p from within one chunk.
func (d *Disk) readChunk(ctx context.Context, p []byte, off int64) error {
	geo := d.store.settings.Geometry
	no := off / int64(geo.ChunkBytes)
	id, err := d.chunkID(ctx, no)
	if err != nil {
		return d.corrupt(ctx, off, len(p), err)
	}
	if id.IsNull() {
		clear(p)
		return nil
	}
	for len(p) > 0 {
		in := int(off - no*int64(geo.ChunkBytes))
		frame, skip := in/geo.FrameBytes, in%geo.FrameBytes
		e, err := d.frame(ctx, id, no, frame)
		if err != nil {
			return d.corrupt(ctx, off, min(len(p), geo.FrameBytes-skip), err)
		}
		n := copy(p, e.data[skip:])
		d.store.frames.giveBack(e)
		p, off = p[n:], off+int64(n)
	}
	return nil
}

// frame borrows a frame of chunk no, whose id is given, for a reader.
func (d *Disk) frame(ctx context.Context, id chunk.ID, no int64, frame int) (*frameEntry, error) {
	key := frameKey{id, frame}
	if e := d.store.frames.have(key); e != nil {
		return e, nil
	}
	return d.store.frames.borrow(ctx, key, d.store.settings.Geometry.FrameBytes, true, d.filling(ctx, key, no))
}

// filling returns what reads a frame of chunk no from the packs.
func (d *Disk) filling(ctx context.Context, key frameKey, no int64) func([]byte) error {
	return func(b []byte) error {
		_, entry, err := d.chunk(ctx, no)
		if err != nil {
			return err
		}
		return d.store.readFrames(ctx, key.id, entry, key.frame, [][]byte{b})
	}
}

// chunkID returns the id of a chunk.
func (d *Disk) chunkID(ctx context.Context, no int64) (chunk.ID, error) {
	return blockmap.NewCursor(d.store, d.tree).ID(ctx, no)
}

// chunk returns the id and frame entries of a chunk; the entries may be nil.
func (d *Disk) chunk(ctx context.Context, no int64) (chunk.ID, *blockmap.Entry, error) {
	return blockmap.Find(ctx, d.store, d.tree, no)
}

// corrupt says where on the disk an error struck, unless it is the caller's.
func (d *Disk) corrupt(ctx context.Context, off int64, n int, err error) error {
	if ctx.Err() != nil {
		return err
	}
	if errors.Is(err, fs.ErrClosed) {
		return fmt.Errorf("disk %s of point %s: %w: %w", d.info.Name, d.point, ErrClosed, err)
	}
	c := &CorruptError{Point: d.point, Disk: d.info.Name, Off: off, Len: min(int64(n), d.Size()-off), Err: err, Missing: mayPass(err)}
	var dr *damagedRecord
	if errors.As(err, &dr) {
		c.Pack = dr.Path
	}
	return c
}

// maxStretch is the most chunks that one NextData goes over to find an end.
const maxStretch = 4 * blockmap.Fanout

// NextData finds the first stretch of the disk at or after off that may hold
// data: from start up to end, in whole chunks but for the disk's end. Between
// off and start all is zeros. io.EOF when there is none. A long stretch is
// told in parts: another may begin where it ends.
func (d *Disk) NextData(off int64) (start, end int64, err error) {
	ctx := context.Background()
	size := int64(d.store.settings.Geometry.ChunkBytes)
	if off < 0 || off >= d.Size() {
		return 0, 0, io.EOF
	}
	first, err := blockmap.NextData(ctx, d.store, d.tree, off/size)
	if err != nil {
		return 0, 0, d.nextError(ctx, off, err)
	}
	last := first + 1
	for c := blockmap.NewCursor(d.store, d.tree); last < min(first+maxStretch, d.tree.Chunks); last++ {
		id, err := c.ID(ctx, last)
		if err != nil {
			return 0, 0, d.nextError(ctx, off, err)
		}
		if id.IsNull() {
			break
		}
	}
	return max(off, first*size), min(last*size, d.Size()), nil
}

func (d *Disk) nextError(ctx context.Context, off int64, err error) error {
	if errors.Is(err, io.EOF) {
		return err
	}
	return d.corrupt(ctx, off, int(min(d.Size()-off, 1<<30)), err)
}
