package repo

import (
	"context"
	"errors"
	"fmt"

	"holdfast/repo/blockmap"
	"holdfast/repo/chunk"
	"holdfast/repo/pack"
	"holdfast/repo/seal"
)

// Copying between repositories that name chunks alike:
//
//	difference of two trees ──► workers (look up, read, verify) ──► packs, block map
//
// The source's tree is compared with that of a point here: what the two share is
// here, for the point is, and is neither read nor looked up. Every other chunk is
// asked for, one by one: that a node is stored proves nothing about what is below
// it. Nodes are made anew, because a leaf says where its chunks lie here; that the
// root becomes the source's root is the proof that nothing was left out.

// A recordSink counts the records that were stored as they are.
type recordSink struct {
	*diskSink
	asIs *int64
}

func (s recordSink) chunk(ctx context.Context, j *job) error {
	n := s.counters.Chunks + s.counters.Patches
	err := s.diskSink.chunk(ctx, j)
	if j.asIs {
		*s.asIs += s.counters.Chunks + s.counters.Patches - n
	}
	return err
}

// recordsOf copies the records that are missing of a disk.
func (c *copier) recordsOf(ctx context.Context, r *run, i int, d *Disk, parent *parentDisk, _ *Reader) (chunk.ID, error) {
	geo := r.store.settings.Geometry
	var old blockmap.Tree
	var parents *parentMap
	if parent != nil {
		old = parent.tree(geo)
		parents = &parentMap{cursor: blockmap.NewCursor(r.nodes, old), chunks: old.Chunks}
	}
	sink := &diskSink{
		run: r, disk: d.info.Name, counters: &r.result.Disks[i].Counters, size: d.Size(),
		editor: blockmap.NewEditor(r.nodes, r.store.layout(), old, d.tree.Chunks),
	}
	workers := make([]doer, pipelineWorkers())
	for i := range workers {
		w, err := c.newRecordCopier(r, d)
		if err != nil {
			return chunk.Null, err
		}
		workers[i] = w
	}
	// Whether the source or we failed to plan is for the caller to find out: by
	// trying again without a parent, it is the source.
	err := inOrder(ctx, func(ctx context.Context, emit func(*job) error) error {
		load := &bothStores{r: r, src: c.src.store}
		err := blockmap.Diff(ctx, load, old, d.tree, func(n int64, _, id chunk.ID) error {
			if n >= d.tree.Chunks {
				return nil // the disk is shorter now; the editor knows
			}
			j := &job{first: n, count: 1, hole: id.IsNull(), id: id}
			if !j.hole {
				if err := parents.lookup(ctx, j); err != nil {
					return err
				}
			}
			return emit(j)
		})
		var damage *blockmap.NodeError
		if parent == nil && errors.As(err, &damage) && ctx.Err() == nil {
			size := int64(geo.ChunkBytes)
			return d.corrupt(ctx, damage.First*size, int(min(damage.Chunks, d.tree.Chunks-damage.First)*size), err)
		}
		return err
	}, workers, recordSink{sink, &c.asIs})
	if err != nil {
		return chunk.Null, err
	}
	root, err := sink.editor.Finish(ctx)
	if err == nil && root != d.tree.Root {
		err = fmt.Errorf("%w: the block map in the source has the root %s, its chunks make %s", ErrFormat, d.tree.Root.Short(), root.Short())
		err = d.corrupt(ctx, 0, int(d.Size()), err)
	}
	return root, err
}

// bothStores gives nodes of either repository, without reading from the source
// what is here.
type bothStores struct {
	r   *run
	src *store
}

// Node implements blockmap.Loader.
func (b *bothStores) Node(ctx context.Context, id chunk.ID) (*blockmap.Node, error) {
	here, err := b.r.nodes.stored(id)
	if here && err == nil {
		var n *blockmap.Node
		if n, err = b.r.store.Node(ctx, id); err == nil {
			return n, nil
		}
	}
	n, serr := b.src.Node(ctx, id)
	if serr != nil {
		return nil, errors.Join(serr, err)
	}
	return n, nil
}

// Leaf implements blockmap.Loader.
func (b *bothStores) Leaf(ctx context.Context, id chunk.ID) (*blockmap.Leaf, error) {
	return b.src.Leaf(ctx, id)
}

// A recordCopier is the memory of one goroutine that copies records.
type recordCopier struct {
	run    *run
	src    *store
	disk   *Disk
	enc    *encoder
	data   []byte // a chunk
	frames [][]byte
	scrap  []byte // a stored frame
}

func (c *copier) newRecordCopier(r *run, d *Disk) (*recordCopier, error) {
	enc, err := newEncoder(r.store, r.opt.Compression, r.rand)
	if err != nil {
		return nil, err
	}
	geo := r.store.settings.Geometry
	w := &recordCopier{run: r, src: c.src.store, disk: d, enc: enc, data: make([]byte, geo.ChunkBytes)}
	for i := range geo.Frames() {
		w.frames = append(w.frames, w.data[i*geo.FrameBytes:(i+1)*geo.FrameBytes])
	}
	return w, nil
}

// do implements doer: it looks whether a chunk is here, and if not, brings its
// record.
func (w *recordCopier) do(ctx context.Context, j *job) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	known, err := w.run.isKnown(j.id)
	if err != nil {
		return err
	}
	if known {
		j.out = outKnown
		return nil
	}
	j.out = outNew
	rec, entry, err := w.fetch(ctx, j.id)
	if err != nil {
		return w.lost(ctx, j, err)
	}
	if entry.Patch {
		fits, err := w.fits(ctx, entry)
		if err != nil {
			return err
		}
		if !fits {
			return w.encode(ctx, j)
		}
	}
	j.rec, j.entry, j.asIs = rec, entry, true
	return nil
}

// lost says which part of the disk the source has lost.
func (w *recordCopier) lost(ctx context.Context, j *job, err error) error {
	off := j.first * int64(len(w.data))
	return w.disk.corrupt(ctx, off, len(w.data), err)
}

// fetch reads a chunk's record from the source, whichever copy of it verifies.
func (w *recordCopier) fetch(ctx context.Context, id chunk.ID) (rec []byte, e *blockmap.Entry, err error) {
	err = w.src.record(ctx, id, func(h *pack.Header, b []byte) error {
		if err := w.verify(h, b); err != nil {
			return err
		}
		rec = b
		e = &blockmap.Entry{Patch: h.Kind == pack.Patch, Salt: h.Salt, Base: h.Base, Frames: h.Frames}
		return nil
	})
	return rec, e, err
}

// verify proves every frame that is stored in a record, with our keys.
func (w *recordCopier) verify(h *pack.Header, b []byte) error {
	s := w.run.store
	if h.Kind != pack.Chunk && h.Kind != pack.Patch || h.LogicalBytes != uint32(len(w.data)) || (h.Flags&pack.Sealed != 0) != (s.keys != nil) {
		return fmt.Errorf("%w: a %v of %d bytes, flags %#x, where a chunk belongs", ErrFormat, h.Kind, h.LogicalBytes, h.Flags)
	}
	if err := s.checkEntry(h.ID, &blockmap.Entry{Frames: h.Frames}); err != nil {
		return err
	}
	var key *seal.RecordKey
	if s.keys != nil {
		key = s.keys.Record(h.Salt)
	}
	for i := range h.Frames {
		f := &h.Frames[i]
		switch {
		case f.InBase:
			continue
		case f.Codec == seal.Zero:
			if f.Digest != s.hasher.ZeroFrame() {
				return fmt.Errorf("frame %d: %w", i, errDigest)
			}
			continue
		}
		w.scrap = append(w.scrap[:0], b[f.Off:f.Off+f.Stored]...) // opening works in place
		if err := s.decodeFrame(w.frames[i], w.scrap, f, key, h.ID, i); err != nil {
			return fmt.Errorf("frame %d: %w", i, err)
		}
	}
	return nil
}

// fits reports whether a patch can be stored as it is: its base is here, and its
// record has the frames that the patch lacks where the patch says. It fills in
// what the leaf must know of the base.
func (w *recordCopier) fits(ctx context.Context, e *blockmap.Entry) (bool, error) {
	known, err := w.run.isKnownBase(e.Base)
	if !known || err != nil {
		return false, err
	}
	base, pending := w.run.data.has(e.Base)
	if !pending {
		if base, err = w.run.store.entry(ctx, e.Base); err != nil {
			return false, ctx.Err() // damaged here: as good as not being here
		}
	}
	if base.Patch {
		return false, nil
	}
	for i := range e.Frames {
		f := e.Frames[i]
		if f.InBase {
			f.InBase = false
			if f != base.Frames[i] {
				return false, nil
			}
		}
	}
	e.BaseSalt = base.Salt
	return true, nil
}

// encode reads a chunk whole and makes a record of it as a backup does. It is for
// patches whose base is not here, or is stored otherwise.
func (w *recordCopier) encode(ctx context.Context, j *job) error {
	_, err := w.src.readChunk(ctx, j.id, nil, w.frames)
	if err == nil && w.enc.digest(w.data) != j.id {
		err = errDigest
	}
	if err != nil {
		return w.lost(ctx, j, err)
	}
	if j.base != nil {
		known, err := w.run.isKnownBase(j.base.id)
		if err != nil {
			return err
		}
		if !known {
			j.base = nil
		}
	}
	j.rec, j.entry, err = w.enc.record(j.slot.rec, w.data, j.id, j.base)
	if err == nil {
		j.slot.rec = j.rec
	}
	return err
}
