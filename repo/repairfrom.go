package repo

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"holdfast/repo/blockmap"
	"holdfast/repo/chunk"
	"holdfast/repo/index"
	"holdfast/repo/pack"
	"holdfast/repo/seal"
)

// sameIDs reports whether two repositories name the same content alike, and can
// open each other's records.
func sameIDs(a, b *Repository) bool {
	if a.store.keyless() || b.store.keyless() {
		return a.settings.ID == b.settings.ID // keys are derived from it
	}
	return alike(a.store, b.store)
}

// recordFrom takes a record from the other repository, if that names it alike. What
// it gives is verified with our key, if there is one.
func (r *repairer) recordFrom(ctx context.Context, key [index.PrefixBytes]byte) (h pack.Header, rec []byte, err error) {
	from := r.opt.From
	if from == nil || !sameIDs(r.Repository, from) {
		return h, nil, errLost
	}
	locs, err := from.store.lookup(idOf(key))
	if err != nil {
		return h, nil, err
	}
	for _, loc := range from.store.soundFirst(locs) {
		if h, rec, err = from.store.copyAt(loc, key); err != nil {
			continue
		}
		if !r.store.keyless() {
			if err = newRecordDecoder(from.store).check(ctx, &h, rec); err != nil {
				continue
			}
		}
		if err = r.baseFrom(ctx, &h); err == nil {
			return h, rec, nil
		}
	}
	return h, nil, errors.Join(err, errLost)
}

// baseFrom sees to it that the base of a record from elsewhere is here as well.
func (r *repairer) baseFrom(ctx context.Context, h *pack.Header) error {
	if h.Kind != pack.Patch {
		return nil // a leaf's base is a hint
	}
	locs, err := r.store.lookup(h.Base)
	if err != nil {
		return err
	}
	if len(r.store.sound(locs)) > 0 {
		return nil
	}
	if _, done := r.mover.data.has(h.Base); done {
		return nil
	}
	b, rec, err := r.recordFrom(ctx, keyOf(h.Base))
	if err != nil {
		return err
	}
	return r.mover.data.add(b.ID, rec, nil)
}

// fillFrom reads what is still lost from the same restore points of the other
// repository, as a run would read it from its source.
func (r *repairer) fillFrom(ctx context.Context) error {
	if r.opt.From == nil || r.store.keyless() {
		return nil
	}
	if err := errors.Join(r.mover.data.finish(), r.mover.meta.finish()); err != nil {
		return err
	}
	d := r.store.damage.Load()
	g, err := newGone(r.store, d, len(r.inv.noSegments) > 0)
	if err != nil || g.nothing() {
		return err
	}
	miss, err := r.missing(ctx, g)
	if err != nil {
		return err
	}
	done := make(map[string]bool)
	for _, l := range miss.ranges {
		if key := string(l.Point) + "/" + l.Disk; !done[key] {
			done[key] = true
			if err := r.fillDisk(ctx, g, l, miss.ranges); err != nil {
				return fmt.Errorf("point %s, disk %s: %w", l.Point, l.Disk, err)
			}
		}
	}
	return nil
}

// fillDisk stores again what is lost of one disk. Of chunks that are lost it
// reads those; where nodes are, the whole disk, and makes its map anew.
func (r *repairer) fillDisk(ctx context.Context, g *gone, of Lost, all []Lost) error {
	reader, err := r.opt.From.OpenPoint(of.Point)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		r.log.Warn("the other repository can't help with a point", "point", of.Point, "err", err)
		return nil
	}
	defer reader.Close() //nolint:errcheck // a lock that is given up in any case
	src, err := reader.Disk(of.Disk)
	if err != nil {
		return nil // it has other disks
	}
	ours, err := r.OpenPoint(of.Point)
	if err != nil {
		return err
	}
	defer ours.Close() //nolint:errcheck // as above
	disk, err := ours.Disk(of.Disk)
	if err != nil || disk.Size() != src.Size() {
		return err
	}
	var ranges []Range
	size := int64(r.settings.Geometry.ChunkBytes)
	for _, l := range all {
		if l.Point == of.Point && l.Disk == of.Disk {
			ranges = append(ranges, widen([]Range{{l.Off, l.Len}}, size, disk.tree.Chunks)...)
		}
	}
	err = r.fillChunks(ctx, g, disk, src, mergeRanges(ranges))
	var node *blockmap.NodeError
	if errors.As(err, &node) {
		err = r.fillMap(ctx, of, disk, src)
	}
	if err != nil && ctx.Err() == nil {
		var damage *CorruptError
		if errors.As(err, &damage) {
			r.log.Warn("the other repository can't help with a disk", "point", of.Point, "disk", of.Disk, "err", err)
			return nil
		}
	}
	return err
}

// fillChunks stores the lost chunks of some ranges. What the source has there is
// ours if its id is. A block map that can't be read is a *blockmap.NodeError.
func (r *repairer) fillChunks(ctx context.Context, g *gone, disk, src *Disk, ranges []Range) error {
	enc, err := newEncoder(r.store, r.settings.Compression, r.rand)
	if err != nil {
		return err
	}
	size := int64(r.settings.Geometry.ChunkBytes)
	cursor := blockmap.NewCursor(r.store, disk.tree)
	data := make([]byte, size)
	for _, rg := range ranges {
		for n := rg.Off; n < rg.Off+rg.Len; n++ {
			id, err := cursor.ID(ctx, n)
			if err != nil {
				return err
			}
			if _, lost, err := g.where(id); err != nil {
				return err
			} else if _, done := r.mover.data.has(id); done || !lost || id.IsNull() {
				continue
			}
			part := data[:min(size, src.Size()-n*size)]
			clear(data[len(part):])
			if err := readFull(src, part, n*size); err != nil {
				return err
			}
			if enc.digest(data) != id {
				r.log.Warn("the other repository has other bytes", "point", disk.point, "disk", disk.info.Name, "offset", n*size)
				continue
			}
			rec, entry, err := enc.record(nil, data, id, nil)
			if err != nil {
				return err
			}
			if err := r.mover.data.add(id, rec, entry); err != nil {
				return err
			}
			r.took(id)
		}
	}
	return nil
}

// took counts a record that the other repository had.
func (r *repairer) took(id chunk.ID) {
	for _, p := range r.packs {
		if slices.ContainsFunc(p.lost, func(row badRecord) bool { return row.key == keyOf(id) }) {
			p.result.FromOther++
		}
	}
}

// fillMap reads the whole disk, as the first run of a machine would, and stores
// what is not here: chunks and the nodes above them. If the source has the same
// content, that is the same map.
func (r *repairer) fillMap(ctx context.Context, of Lost, disk, src *Disk) error {
	enc, err := seal.NewEncoder(seal.Auto)
	if err != nil {
		return err
	}
	opt := &BackupOptions{Machine: of.Machine, Full: true, Compression: r.settings.Compression}
	run := &run{
		owner: r.Owner, store: r.store, rand: r.rand, log: r.log, opt: opt, id: r.mover.id,
		record: r.mover.record, data: r.mover.data, meta: r.mover.meta, pins: r.mover.pins,
	}
	run.nodes = &nodeWriter{store: r.store, known: run.known, knownBase: run.isKnownBase, data: run.data, out: run.meta, rand: r.rand, enc: enc}
	run.result.Disks = make([]DiskRun, 1)
	root, err := run.backupDisk(ctx, 0, SourceDisk{Name: of.Disk, Source: src})
	if err != nil {
		return err
	}
	if root != disk.info.Root {
		r.log.Warn("the other repository has other bytes", "point", of.Point, "disk", of.Disk)
	}
	return nil
}
