package repo

import (
	"context"
	"io"

	"holdfast/repo/blockmap"
	"holdfast/repo/chunk"
)

// zeros are what holes are lent as.
var zeros [chunk.MaxFrameBytes]byte

// Borrow is ReadAtContext of n bytes, n > 0, into the cache's own memory:
// segments one after another, none empty, verified as ReadAt's are. They do not
// change until release, which the caller calls exactly once, from any
// goroutine, also if there was io.EOF; after any other error there is nothing
// to release. pinned is how much memory can't be used otherwise until then:
// that of whole frames. Segments must not be written to.
func (d *Disk) Borrow(ctx context.Context, off int64, n int) (segments [][]byte, pinned int64, release func(), err error) {
	n, eof := d.clip(off, n)
	if eof != nil && eof != io.EOF || n == 0 {
		return nil, 0, func() {}, eof
	}
	l := loan{frames: d.store.frames}
	if err := d.lend(ctx, &l, off, n); err != nil {
		l.release()
		return nil, 0, nil, err
	}
	d.passed(off, n)
	return l.segments, l.pinned, l.release, eof
}

// A loan is what a Borrow has borrowed.
type loan struct {
	frames   *FrameCache
	segments [][]byte
	entries  []*frameEntry
	pinned   int64
}

func (l *loan) release() { l.frames.giveBack(l.entries...) }

// lend borrows n bytes, which the disk has.
func (d *Disk) lend(ctx context.Context, l *loan, off int64, n int) error {
	geo := d.store.settings.Geometry
	l.segments = make([][]byte, 0, n/geo.FrameBytes+2)
	var id chunk.ID
	no := int64(-1)
	for n > 0 {
		if at := off / int64(geo.ChunkBytes); at != no {
			var err error
			if id, err = d.chunkID(ctx, at); err != nil {
				return d.corrupt(ctx, off, n, err)
			}
			no = at
		}
		in := int(off - no*int64(geo.ChunkBytes))
		skip := in % geo.FrameBytes
		part := min(n, geo.FrameBytes-skip)
		data := zeros[:geo.FrameBytes]
		if !id.IsNull() {
			e, err := d.frame(ctx, id, no, in/geo.FrameBytes)
			if err != nil {
				return d.corrupt(ctx, off, part, err)
			}
			l.entries = append(l.entries, e)
			l.pinned += int64(len(e.data))
			data = e.data
		}
		l.segments = append(l.segments, data[skip:skip+part])
		off, n = off+int64(part), n-part
	}
	return nil
}

// Cached reports whether n bytes from off on would now be read from memory. It
// waits for nothing.
func (d *Disk) Cached(off int64, n int) bool {
	n, err := d.clip(off, n)
	if err != nil && err != io.EOF {
		return false
	}
	geo := d.store.settings.Geometry
	var id chunk.ID
	no := int64(-1)
	for n > 0 {
		if at := off / int64(geo.ChunkBytes); at != no {
			var ok bool
			if id, ok = d.knownID(at); !ok {
				return false
			}
			no = at
		}
		in := int(off - no*int64(geo.ChunkBytes))
		if !id.IsNull() && !d.store.frames.has(frameKey{id, in / geo.FrameBytes}) {
			return false
		}
		part := min(n, geo.FrameBytes-in%geo.FrameBytes)
		off, n = off+int64(part), n-part
	}
	return true
}

// knownID is chunkID of a chunk that the nodes in memory lead to.
func (d *Disk) knownID(no int64) (chunk.ID, bool) {
	id, err := blockmap.NewCursor(nodesInMemory{d.store.leaves}, d.tree).ID(context.Background(), no)
	return id, err == nil
}

// Warm brings the frame that byte off lies in into the cache for somebody who may
// want it. If it is not there, not on its way and off lies in no hole, may is
// asked whether a frame of so many bytes may be added to what the cache holds;
// Warm does nothing and returns false if it may not. What it brings counts as
// FrameStats.WarmBytes until somebody asks for it. may must not wait or use the
// cache.
func (d *Disk) Warm(ctx context.Context, off int64, may func(s FrameStats, frameBytes int64) bool) (bool, error) {
	if _, err := d.clip(off, 1); err != nil {
		return false, err
	}
	geo := d.store.settings.Geometry
	no := off / int64(geo.ChunkBytes)
	id, err := d.chunkID(ctx, no)
	if err != nil {
		return false, d.corrupt(ctx, off, 1, err)
	}
	if id.IsNull() {
		return true, nil
	}
	key := frameKey{id, int(off%int64(geo.ChunkBytes)) / geo.FrameBytes}
	e, there := d.store.frames.prepare(key, geo.FrameBytes, may)
	if e == nil {
		return there, nil
	}
	if err := d.store.frames.load(e, d.filling(ctx, key, no)); err != nil {
		return false, d.corrupt(ctx, off, 1, err)
	}
	d.store.frames.giveBack(e)
	return true, nil
}
