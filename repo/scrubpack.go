package repo

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"slices"
	"strings"
	"time"

	"holdfast/repo/chunk"
	"holdfast/repo/index"
	"holdfast/repo/pack"
	"holdfast/repo/vfs"
)

// A packReader verifies one pack after the other. One goroutine has one.
type packReader struct {
	*scrubber
	buf []byte
	sha hash.Hash
	dec *recordDecoder // nil unless records are decoded
}

const (
	scrubRead = 1 << 20 // bytes at once; they stay in a core's cache for hashing
	dropEvery = 8 << 20 // bytes after which the page cache lets go of them
)

func newPackReader(s *scrubber) *packReader {
	w := &packReader{scrubber: s, buf: make([]byte, scrubRead), sha: sha256.New()}
	if !s.store.keyless() {
		w.dec = newRecordDecoder(s.store)
	}
	return w
}

// A foundPack is a pack that is not as it was written.
type foundPack struct {
	p     storedPack
	bad   knownBad
	block int             // bad blocks
	all   bool            // nothing in it is what was there
	part  bool            // the list of its records is lost, too: the index may know more
	seen  map[uint32]bool // offsets of the records it listed itself
}

// verify reads one pack and notes what came of it.
func (w *packReader) verify(ctx context.Context, p *storedPack) error {
	f, err := w.fsys.Open(p.Name.Path(p.Kind))
	if err != nil {
		if cerr := ctx.Err(); cerr != nil {
			return cerr
		}
		fault := FaultUnreadable
		if errors.Is(err, fs.ErrNotExist) {
			fault = FaultMissing
		}
		w.advance(p.Bytes)
		return w.note(p, 0, 0, &foundPack{p: *p, bad: knownBad{name: p.Name, kind: p.Kind, fault: fault}, all: true, part: true})
	}
	defer f.Close() //nolint:errcheck // nothing was written
	read, right, rerr := w.digest(ctx, f, p)
	if err := ctx.Err(); err != nil {
		return err
	}
	how := verifiedBytes
	var bad *foundPack
	if !right {
		bad, err = w.examine(ctx, f, p, rerr)
	} else if w.opt.Deep {
		how = verifiedRecords
		bad, err = w.decode(ctx, f, p)
	}
	if err != nil {
		return err
	}
	_ = f.DropCache(0, 0) // it is not read again soon; if that can't be asked, nothing is lost
	return w.note(p, read, how, bad)
}

// digest reads the whole file and reports whether it is the one recorded.
func (w *packReader) digest(ctx context.Context, f vfs.File, p *storedPack) (read int64, right bool, err error) {
	w.sha.Reset()
	dropped := int64(0)
	for {
		start := time.Now()
		n, err := f.ReadAt(w.buf, read)
		took := time.Since(start)
		w.sha.Write(w.buf[:n])
		read += int64(n)
		if read <= p.Bytes {
			w.advance(int64(n))
		}
		// decode reads the pack again; the disk shall not have to.
		if !w.opt.Deep && read-dropped >= dropEvery {
			_ = f.DropCache(dropped, read-dropped)
			dropped = read
		}
		if cerr := w.budget.spend(ctx, n, took); cerr != nil {
			return read, false, cerr
		}
		if err == nil && read <= p.Bytes {
			continue
		}
		w.advance(max(0, p.Bytes-read))
		if err != nil && !errors.Is(err, io.EOF) {
			return read, false, err
		}
		return read, read == p.Bytes && [sha256.Size]byte(w.sha.Sum(nil)) == p.SHA256, nil
	}
}

// examine says what is wrong with a pack whose digest is, and what of it can be
// had all the same. readErr is the error of reading it, if there was one.
func (w *packReader) examine(ctx context.Context, f vfs.File, p *storedPack, readErr error) (*foundPack, error) {
	found := &foundPack{p: *p, bad: knownBad{name: p.Name, kind: p.Kind, fault: FaultBytes}, seen: make(map[uint32]bool)}
	if readErr != nil {
		found.bad.fault = FaultUnreadable
	}
	size, err := f.Size()
	if err != nil {
		found.all, found.part = true, true
		return found, nil
	}
	pf, err := pack.Open(f, size)
	switch {
	case err != nil:
		found.part = true
		return found, nil
	case pf.Name() != p.Name || pf.Kind() != p.Kind:
		found.bad.fault, found.all, found.part = FaultForeign, true, true
		return found, nil
	}
	d, err := pf.Check(ctx)
	if err != nil {
		return nil, err
	}
	found.block = len(d.Bad)
	if d.Healable() {
		h := sha256.New()
		if pf.Rebuild(ctx, h) == nil && [sha256.Size]byte(h.Sum(nil)) == p.SHA256 {
			found.bad.healable = true
			return found, nil
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		// Every block has the checksum that stands beside it, and the file is
		// another one: only the digests within can be trusted.
		found.bad.fault = FaultForeign
	}
	return found, w.salvage(ctx, pf, found)
}

// salvage finds out which records of a damaged pack are whole.
func (w *packReader) salvage(ctx context.Context, pf *pack.File, found *foundPack) error {
	entries, err := pf.Records()
	// Without its base's name a record is whole for those who know it.
	found.part = err != nil && !onlyBases(err)
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return err
		}
		found.seen[e.Off] = true
		h, rec, err := pf.ReadRecord(e)
		if err == nil && found.bad.fault == FaultForeign {
			if w.dec == nil {
				err = ErrNeedKey
			} else {
				err = w.dec.check(ctx, &h, rec)
			}
		}
		if err == nil {
			continue
		}
		found.bad.records = append(found.bad.records, badRecord{key: keyOf(e.ID), off: e.Off, len: e.Len, kind: e.Kind})
	}
	return nil
}

// onlyBases reports whether all that is wrong with a list of records is that the
// bases of some are not known.
func onlyBases(err error) bool {
	var many interface{ Unwrap() []error }
	if !errors.As(err, &many) || errors.As(err, new(*pack.CorruptError)) && len(many.Unwrap()) < 2 {
		return errors.Is(err, pack.ErrBase)
	}
	return !slices.ContainsFunc(many.Unwrap(), func(err error) bool { return !errors.Is(err, pack.ErrBase) })
}

// decode compares every record of a sound pack with its digests.
func (w *packReader) decode(ctx context.Context, f vfs.File, p *storedPack) (*foundPack, error) {
	pf, err := pack.Open(f, p.Bytes)
	if err != nil {
		return nil, err
	}
	entries, err := pf.Records()
	if err != nil {
		return nil, err
	}
	found := &foundPack{p: *p, bad: knownBad{name: p.Name, kind: p.Kind, fault: FaultForeign}}
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		start := time.Now()
		h, rec, err := pf.ReadRecord(e)
		took := time.Since(start)
		if err == nil {
			err = w.dec.check(ctx, &h, rec)
		}
		if err != nil {
			w.log.Error("record is not what its digests say", "pack", p.Name.Path(p.Kind), "offset", e.Off, "err", err)
			found.bad.records = append(found.bad.records, badRecord{key: keyOf(e.ID), off: e.Off, len: e.Len, kind: e.Kind})
		}
		// Its bytes came from the page cache and were paid for by digest.
		if err := w.budget.spend(ctx, 0, took); err != nil {
			return nil, err
		}
	}
	w.mu.Lock()
	w.report.Records += int64(len(entries))
	w.mu.Unlock()
	if len(found.bad.records) == 0 {
		return nil, nil
	}
	return found, nil
}

func keyOf(id chunk.ID) [index.PrefixBytes]byte { return [index.PrefixBytes]byte(id[:]) }

// idOf returns an id that the index takes for the one of that key.
func idOf(key [index.PrefixBytes]byte) (id chunk.ID) {
	copy(id[:], key[:])
	return id
}

// settle makes of what was found the list of all damage that is known now.
func (s *scrubber) settle(ctx context.Context) (*damageList, error) {
	d := &damageList{at: s.now().UTC().Truncate(time.Second)}
	found := s.found
	if len(found) > 0 || s.store.damage.Load() != nil {
		now, err := s.inventory(ctx)
		if err != nil {
			return nil, err
		}
		there := now.names()
		// A sweep may have removed it while it was to be read.
		found = slices.DeleteFunc(found, func(f foundPack) bool { return !there[f.p.Name] })
		if err := s.askIndex(ctx, found); err != nil {
			return nil, err
		}
		if old := s.store.damage.Load(); old != nil {
			for _, k := range old.packs {
				// What was not read this time is still damaged.
				if k.fault != FaultNone && there[k.name] && !s.read[k.name] {
					d.packs = append(d.packs, k)
				}
			}
		}
	}
	for _, f := range found {
		d.packs = append(d.packs, f.bad)
		s.report.Damage = append(s.report.Damage, DamagedPack{
			Path: f.p.Name.Path(f.p.Kind), Bytes: f.p.Bytes, Fault: f.bad.fault, BadBlocks: f.block,
			Healable: f.bad.healable, Lost: len(f.bad.records), Unfinished: f.p.unfinished,
		})
	}
	slices.SortFunc(s.report.Damage, func(a, b DamagedPack) int { return strings.Compare(a.Path, b.Path) })
	d.sort()
	return d, s.store.addDependents(d)
}

// askIndex learns from the index which records there were in packs that don't
// say so any more, and tries them one by one.
func (s *scrubber) askIndex(ctx context.Context, found []foundPack) error {
	want := make(map[pack.Name]*foundPack)
	for i := range found {
		if found[i].part {
			want[found[i].p.Name] = &found[i]
		}
	}
	if len(want) == 0 {
		return nil
	}
	more := make(map[pack.Name][]badRecord)
	err := s.store.withIndex(func(x *index.Index) error {
		clear(more) // a walk that met damage begins again
		return x.Walk(func(_ uint64, e index.Entry) error {
			if f := want[e.Pack]; f != nil && !f.seen[e.Off] {
				more[e.Pack] = append(more[e.Pack], badRecord{key: e.Prefix, off: e.Off, len: e.Len, kind: pack.RecordKind(e.Kind)})
			}
			return ctx.Err()
		})
	})
	if err != nil {
		return fmt.Errorf("ask the index for the records of damaged packs: %w", err)
	}
	for name, list := range more {
		f := want[name]
		for _, r := range list {
			if f.all || !s.readable(&f.p, r) {
				f.bad.records = append(f.bad.records, r)
			}
		}
	}
	return nil
}

// readable reports whether a record can be read from where it lies.
func (s *scrubber) readable(p *storedPack, r badRecord) bool {
	loc := index.Location{Pack: p.Name, Off: r.off, Len: r.len, Kind: r.kind}
	_, _, err := s.store.copyAt(loc, r.key)
	return err == nil
}
