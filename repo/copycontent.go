package repo

import (
	"context"
	"fmt"
	"io"

	"holdfast/repo/blockmap"
	"holdfast/repo/chunk"
)

// Copying between repositories that name chunks otherwise: the point in the
// source is a disk to back up, and what changed since a point that both have is
// its change list.

// contentOf reads what changed of a disk. parent is the disk here that it is
// compared with, and prev the same point in the source.
func (c *copier) contentOf(ctx context.Context, r *run, i int, d *Disk, parent *parentDisk, prev *Reader) (chunk.ID, error) {
	sd := r.opt.Disks[i]
	sd.Source = &pointSource{ctx: ctx, disk: d}
	plan := diskPlan{mode: ReadFull, reason: "no earlier point here"}
	if parent != nil {
		plan = c.planContent(ctx, r, &sd, d, parent, prev)
		lost, err := r.lostChunks(ctx, sd, parent)
		if err != nil {
			return chunk.Null, err
		}
		if plan.mode == ReadChanged {
			plan.read = mergeRanges(append(plan.read, lost...))
		}
	}
	return r.readDisk(ctx, &r.result.Disks[i], sd, parent, plan)
}

// planContent finds out what to read. If the source can't tell, all is read.
func (c *copier) planContent(ctx context.Context, r *run, sd *SourceDisk, d *Disk, parent *parentDisk, prev *Reader) diskPlan {
	was, err := prev.Disk(d.info.Name)
	list := &Changes{SizeBytes: d.Size()}
	if err == nil {
		err = c.src.Diff(ctx, was, d, func(off, n int64) error {
			if n = min(n, d.Size()-off); n > 0 {
				list.Ranges = append(list.Ranges, Range{off, n})
			}
			return nil
		})
	}
	if err != nil {
		return diskPlan{mode: ReadCompare, reason: fmt.Sprintf("the source can't tell what changed: %v", err)}
	}
	sd.Changes = list
	return diskPlan{mode: ReadChanged, reason: "difference in the source", read: r.chunksToRead(*sd, parent)}
}

// A pointSource is a disk of a point as a source. It reads chunks whole, where
// they are asked for whole, and leaves the source's cache of frames alone.
type pointSource struct {
	ctx  context.Context
	disk *Disk
}

// Size implements Source.
func (s *pointSource) Size() int64 { return s.disk.Size() }

// NextData implements Source.
func (s *pointSource) NextData(off int64) (start, end int64, err error) { return s.disk.NextData(off) }

// ReadAt implements Source.
func (s *pointSource) ReadAt(p []byte, off int64) (n int, err error) {
	d := s.disk
	size := int64(d.store.settings.Geometry.ChunkBytes)
	if rest := d.Size() - off; int64(len(p)) > rest {
		p, err = p[:max(0, rest)], io.EOF
	}
	for n < len(p) {
		at := off + int64(n)
		no := at / size
		part := p[n:min(len(p), n+int((no+1)*size-at))]
		if int64(len(part)) < min(size, d.Size()-no*size) {
			if err := d.readChunk(s.ctx, part, at); err != nil {
				return n, err
			}
		} else if err := s.chunk(part, no); err != nil {
			return n, d.corrupt(s.ctx, at, len(part), err)
		}
		n += len(part)
	}
	return n, err
}

// chunk reads chunk no, up to the disk's end.
func (s *pointSource) chunk(p []byte, no int64) error {
	d := s.disk
	id, entry, err := blockmap.Find(s.ctx, d.store, d.tree, no)
	if err != nil {
		return err
	}
	if id.IsNull() {
		clear(p)
		return nil
	}
	geo := d.store.settings.Geometry
	whole := p
	if len(p) < geo.ChunkBytes {
		buf := getBuffer(geo.ChunkBytes)
		defer putBuffer(buf)
		whole = *buf
	}
	frames := make([][]byte, geo.Frames())
	for i := range frames {
		frames[i] = whole[i*geo.FrameBytes : (i+1)*geo.FrameBytes]
	}
	if _, err := d.store.readChunk(s.ctx, id, entry, frames); err != nil {
		return err
	}
	if len(p) < len(whole) {
		copy(p, whole)
	}
	return nil
}
