package repo

import (
	"context"
	"fmt"
	"slices"

	"holdfast/repo/blockmap"
	"holdfast/repo/index"
	"holdfast/repo/pack"
	"holdfast/repo/seal"
)

// A recordDecoder proves records by their digests. One goroutine has one.
type recordDecoder struct {
	s     *store
	frame []byte
	open  []byte // stored bytes, which opening overwrites
}

func newRecordDecoder(s *store) *recordDecoder {
	return &recordDecoder{s: s, frame: make([]byte, s.settings.Geometry.FrameBytes)}
}

// check decodes a whole record and compares everything in it with its id. Of a
// frame that lies in a base, it compares what the base says of it; the base's own bytes
// are checked with the base.
func (d *recordDecoder) check(ctx context.Context, h *pack.Header, rec []byte) error {
	switch h.Kind {
	case pack.Node:
		return d.node(h, rec)
	case pack.Chunk, pack.Patch:
		return d.chunk(ctx, h, rec)
	}
	return nil // reserved kinds mean nothing here
}

func (d *recordDecoder) node(h *pack.Header, rec []byte) error {
	payload := rec[h.Frames[0].Off : h.Frames[0].Off+h.Frames[0].Stored]
	if d.s.hasher.Node(payload) != h.ID {
		return fmt.Errorf("node %s: %w", h.ID.Short(), errDigest)
	}
	n, err := blockmap.ParseNode(payload)
	if err != nil || n.Level > 0 {
		return err
	}
	table, err := d.s.frameTable(h, rec, h.ID)
	if err == nil {
		_, err = blockmap.NewLeaf(n, table, h.Base)
	}
	return err
}

func (d *recordDecoder) chunk(ctx context.Context, h *pack.Header, rec []byte) error {
	if err := d.s.checkEntry(h.ID, &blockmap.Entry{Frames: h.Frames}); err != nil {
		return err
	}
	var key *seal.RecordKey
	if h.Flags&pack.Sealed != 0 {
		key = d.s.keys.Record(h.Salt)
	}
	for i := range h.Frames {
		f := &h.Frames[i]
		switch {
		case f.InBase:
		case f.Codec == seal.Zero && f.Digest != d.s.hasher.ZeroFrame():
			return fmt.Errorf("frame %d: %w", i, errDigest)
		case f.Codec == seal.Zero:
		default:
			d.open = append(d.open[:0], rec[f.Off:f.Off+f.Stored]...)
			if err := d.s.decodeFrame(d.frame, d.open, f, key, h.ID, i); err != nil {
				return fmt.Errorf("frame %d: %w", i, err)
			}
		}
	}
	if h.Base.IsNull() {
		return nil
	}
	return d.s.header(ctx, h.Base, func(b *pack.Header) error {
		for i, f := range h.Frames {
			// Where in the base it lies, and how compressed, is another matter: the base may
			// be stored twice, and readers ask the copy that there is.
			if f.InBase && (i >= len(b.Frames) || b.Frames[i].InBase || b.Frames[i].Digest != f.Digest) {
				return fmt.Errorf("frame %d: %w: its base has another", i, errDigest)
			}
		}
		return nil
	})
}

// copyAt returns the record at a place, if it is whole, or healed, and its id
// begins with key.
func (s *store) copyAt(loc index.Location, key [index.PrefixBytes]byte) (h pack.Header, rec []byte, err error) {
	try := func(p []byte) error {
		if h, err = pack.ParseRecord(p); err == nil && keyOf(h.ID) != key {
			err = errOtherID
		}
		return err
	}
	rec = make([]byte, loc.Len)
	kind := packKind(loc.Kind)
	if err = s.readAt(kind, loc.Pack, rec, int64(loc.Off)); err == nil && try(rec) == nil {
		return h, rec, nil
	}
	healed, herr := s.heal(kind, loc)
	if herr == nil && try(healed) == nil {
		return h, healed, nil
	}
	return pack.Header{}, nil, &damagedRecord{loc.Pack.Path(kind), int64(loc.Off), err}
}

// addDependents adds the patches whose base is lost: whole as they are, they are
// of no use. The list is sorted before and after.
func (s *store) addDependents(d *damageList) error {
	more := make(map[pack.Name]*knownBad)
	for i := range d.packs {
		for _, r := range d.packs[i].records {
			if r.kind != pack.Chunk || r.base {
				continue
			}
			deps, err := s.dependentsOf(d, r.key)
			if err != nil {
				return err
			}
			for _, loc := range deps {
				k := more[loc.Pack]
				if k == nil {
					k = &knownBad{name: loc.Pack, kind: packKind(loc.Kind)}
					more[loc.Pack] = k
				}
				h, err := s.headerAt(&loc)
				if err != nil || slices.ContainsFunc(k.records, func(r badRecord) bool { return r.off == loc.Off }) {
					continue // lost itself, or there already
				}
				k.records = append(k.records, badRecord{key: keyOf(h.ID), off: loc.Off, len: loc.Len, kind: loc.Kind, base: true})
			}
		}
	}
	for name, k := range more {
		if have := d.pack(name); have != nil {
			have.records = append(have.records, k.records...)
			delete(more, name)
		}
	}
	for _, k := range more {
		d.packs = append(d.packs, *k)
	}
	d.sort()
	return nil
}

// dependentsOf returns the sound places of patches of a chunk of which no sound
// copy is left.
func (s *store) dependentsOf(d *damageList, key [index.PrefixBytes]byte) (deps []index.Location, err error) {
	left, err := s.lookup(idOf(key))
	if err != nil || slices.ContainsFunc(left, func(l index.Location) bool { return !d.bad(&l) }) {
		return nil, err
	}
	err = s.withIndex(func(x *index.Index) error {
		deps, err = x.AllDependents(idOf(key))
		return err
	})
	return slices.DeleteFunc(deps, func(l index.Location) bool { return l.Kind != pack.Patch || d.bad(&l) }), err
}
