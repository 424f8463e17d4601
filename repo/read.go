package repo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"log/slog"
	"sync"
	"sync/atomic"

	"holdfast/repo/blockmap"
	"holdfast/repo/chunk"
	"holdfast/repo/index"
	"holdfast/repo/pack"
	"holdfast/repo/seal"
	"holdfast/repo/vfs"
)

// A store reads records: it finds them through the index, verifies what it
// reads, and heals it from parity or another copy when it must. It is shared by
// all readers and runs of one open repository and safe for concurrent use.
type store struct {
	fsys     vfs.FS
	settings Settings
	hasher   *chunk.Hasher
	keys     *seal.Keys   // nil when plain
	index    *index.Index // asked through withIndex
	packs    *packCache
	decoder  *seal.Decoder
	frames   *FrameCache
	leaves   *leafCache
	limit    chan struct{} // chunks being read at once, beside the callers' own
	damage   damaged       // what is known to be

	// indexMu is held for reading while the index is used and for writing while
	// it is made anew. It comes before Repository.mu.
	indexMu   sync.RWMutex
	indexMade int          // how often that was done; guarded by indexMu, as is indexLost
	indexLost error        // damage that the index was not made anew for
	fill      func() error // replaces what is in the index

	background sync.WaitGroup // reading ahead
	fetched    atomic.Int64   // bytes of records read from packs, but for healing
	log        *slog.Logger

	// refresh looks for packs and index files that came after the index was
	// opened. nil for the owner, who makes them.
	refresh func() error
}

// A damagedRecord is the reason why one copy of a record could not be used.
type damagedRecord struct {
	Path string
	Off  int64
	Err  error
}

func (e *damagedRecord) Error() string {
	return fmt.Sprintf("%s at %d: %v", e.Path, e.Off, e.Err)
}

func (e *damagedRecord) Unwrap() error { return e.Err }

var (
	errDigest     = errors.New("bytes do not match their digest")
	errNotIndexed = errors.New("not in the index")
	errOtherID    = errors.New("another record than the index says")
	errNoBase     = errors.New("what it is based on is gone")
)

// keyless reports whether the records are sealed and there is no key: then only
// what is stored can be verified, and not what it says.
func (s *store) keyless() bool { return s.settings.Sealed && s.keys == nil }

// locations returns where a record may lie, best first, what is known to be
// damaged last. A reader that finds nothing looks once whether the index has
// moved on.
func (s *store) locations(id chunk.ID) ([]index.Location, error) {
	locs, err := s.lookup(id)
	if err == nil && len(locs) == 0 && s.refresh != nil {
		if err = s.refresh(); err == nil {
			locs, err = s.lookup(id)
		}
	}
	if err == nil && len(locs) == 0 {
		err = fmt.Errorf("record %s: %w", id.Short(), errNotIndexed)
	}
	return s.soundFirst(locs), err
}

// readAt fills p from a pack. A pack that was deleted since the index was read
// is fs.ErrNotExist.
func (s *store) readAt(kind pack.Kind, name pack.Name, p []byte, off int64) error {
	f, err := s.packs.acquire(kind, name)
	if err != nil {
		return err
	}
	defer s.packs.release(f)
	s.fetched.Add(int64(len(p)))
	if n, err := f.file.ReadAt(p, off); n < len(p) {
		if err == nil || errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return &damagedRecord{f.path, off, err}
	}
	return nil
}

// heal returns the bytes of a stretch of a pack as parity says they were.
func (s *store) heal(kind pack.Kind, loc index.Location) ([]byte, error) {
	f, err := s.packs.acquire(kind, loc.Pack)
	if err != nil {
		return nil, err
	}
	defer s.packs.release(f)
	size, err := f.file.Size()
	if err != nil {
		return nil, err
	}
	pf, err := pack.Open(f.file, size)
	if err != nil {
		return nil, &damagedRecord{f.path, int64(loc.Off), err}
	}
	b, err := pf.Heal(int64(loc.Off), int(loc.Len))
	if err != nil {
		return nil, &damagedRecord{f.path, int64(loc.Off), err}
	}
	return b, nil
}

// packKind is where records of a kind lie.
func packKind(k pack.RecordKind) pack.Kind {
	if k == pack.Node {
		return pack.Meta
	}
	return pack.Data
}

// record returns a whole record whose use accepts it: parsed, of the right id,
// its body matching its CRC, and use(header, record) nil. Each copy is tried as
// it lies, then healed. What use rejects counts as damage.
func (s *store) record(ctx context.Context, id chunk.ID, use func(h *pack.Header, rec []byte) error) error {
	var errs []error
	for attempt := range 2 {
		locs, err := s.locations(id)
		if err != nil {
			return errors.Join(append(errs, err)...)
		}
		gone := false
		for _, loc := range locs {
			if err := ctx.Err(); err != nil {
				return err
			}
			err := s.copyOf(id, loc, use)
			if err == nil {
				return nil
			}
			errs = append(errs, err)
			gone = gone || errors.Is(err, fs.ErrNotExist)
		}
		// A pack may have been compacted away between the look-up and the read.
		if !gone || attempt > 0 || s.refresh == nil {
			break
		}
		if err := s.refresh(); err != nil {
			return errors.Join(append(errs, err)...)
		}
	}
	return errors.Join(errs...)
}

func (s *store) copyOf(id chunk.ID, loc index.Location, use func(*pack.Header, []byte) error) error {
	kind := packKind(pack.RecordKind(loc.Kind))
	try := func(rec []byte) error {
		h, n, err := pack.ParseHeader(rec)
		switch {
		case err != nil:
			return err
		case h.ID != id:
			return errOtherID
		case h.RecordBytes() != len(rec):
			return fmt.Errorf("%w: %d bytes where the index says %d", pack.ErrFormat, h.RecordBytes(), len(rec))
		}
		if crc32.Checksum(rec[n:], castagnoli) != h.BodyCRC {
			return fmt.Errorf("record %s: body fails its checksum", id.Short())
		}
		return use(&h, rec)
	}
	rec := make([]byte, loc.Len)
	err := s.readAt(kind, loc.Pack, rec, int64(loc.Off))
	if err == nil {
		err = try(rec)
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fs.ErrNotExist):
		return &damagedRecord{loc.Pack.Path(kind), int64(loc.Off), err}
	}
	healed, herr := s.heal(kind, loc)
	if herr == nil && !bytes.Equal(healed, rec) {
		if herr = try(healed); herr == nil {
			s.log.Warn("healed damaged bytes from parity", "pack", loc.Pack.Path(kind), "offset", loc.Off, "bytes", loc.Len)
			return nil
		}
	}
	return &damagedRecord{loc.Pack.Path(kind), int64(loc.Off), errors.Join(err, herr)}
}

// entry returns a chunk's frame entries as its record's header has them, for
// when the leaf's frame table has none or a wrong one.
func (s *store) entry(ctx context.Context, id chunk.ID) (*blockmap.Entry, error) {
	var e *blockmap.Entry
	err := s.header(ctx, id, func(h *pack.Header) error {
		if h.Kind != pack.Chunk && h.Kind != pack.Patch {
			return fmt.Errorf("%w: a %v where a chunk belongs", ErrFormat, h.Kind)
		}
		got := &blockmap.Entry{Patch: h.Kind == pack.Patch, Salt: h.Salt, Base: h.Base, Frames: h.Frames}
		if err := s.checkEntry(id, got); err != nil {
			return err
		}
		e = got
		if !got.Patch {
			return nil
		}
		// Another copy may be whole, or have a base that is there.
		locs, err := s.locations(got.Base)
		if errors.Is(err, errNotIndexed) || err == nil && len(s.sound(locs)) == 0 {
			err = errNoBase
		}
		return err
	})
	if err != nil && (e == nil || !errors.Is(err, errNoBase)) {
		return nil, err
	}
	if e.Patch && s.keys != nil {
		err = s.header(ctx, e.Base, func(h *pack.Header) error {
			e.BaseSalt = h.Salt
			return nil
		})
	}
	return e, err
}

// header reads a record's header alone, and the whole record when that fails.
func (s *store) header(ctx context.Context, id chunk.ID, use func(h *pack.Header) error) error {
	locs, err := s.locations(id)
	if err != nil {
		return err
	}
	for _, loc := range locs {
		n := min(int(loc.Len), pack.HeaderBytes(s.settings.Geometry.Frames()))
		b := make([]byte, n)
		if err := s.readAt(packKind(pack.RecordKind(loc.Kind)), loc.Pack, b, int64(loc.Off)); err != nil {
			continue
		}
		if h, _, err := pack.ParseHeader(b); err == nil && h.ID == id && use(&h) == nil {
			return nil
		}
	}
	return s.record(ctx, id, func(h *pack.Header, _ []byte) error { return use(h) })
}

// headerAt reads the header of the record at a place, healed if need be.
func (s *store) headerAt(loc *index.Location) (pack.Header, error) {
	kind := packKind(loc.Kind)
	b := make([]byte, min(int(loc.Len), pack.HeaderBytes(pack.MaxFrames)))
	err := s.readAt(kind, loc.Pack, b, int64(loc.Off))
	if errors.Is(err, fs.ErrNotExist) {
		return pack.Header{}, err
	}
	if err == nil {
		if h, _, err := pack.ParseHeader(b); err == nil {
			return h, nil
		}
	}
	healed, err := s.heal(kind, *loc)
	if err != nil {
		return pack.Header{}, err
	}
	h, _, err := pack.ParseHeader(healed)
	return h, err
}

// checkEntry verifies that frame digests are those of the chunk id.
func (s *store) checkEntry(id chunk.ID, e *blockmap.Entry) error {
	if len(e.Frames) != s.settings.Geometry.Frames() {
		return fmt.Errorf("%w: chunk %s with %d frames", ErrFormat, id.Short(), len(e.Frames))
	}
	var buf [pack.MaxFrames]chunk.Digest
	digests := buf[:len(e.Frames)]
	for i := range e.Frames {
		digests[i] = e.Frames[i].Digest
	}
	if s.hasher.Chunk(digests) != id {
		return fmt.Errorf("chunk %s: %w", id.Short(), errDigest)
	}
	return nil
}

// readFrames decodes frames first, first+1, … of a chunk into dst, one slice of
// a frame's length each; nil slices are passed over. e may be nil. Everything
// returned has been verified against id.
func (s *store) readFrames(ctx context.Context, id chunk.ID, e *blockmap.Entry, first int, dst [][]byte) error {
	if e == nil || s.checkEntry(id, e) != nil {
		var err error
		if e, err = s.entry(ctx, id); err != nil {
			return err
		}
	}
	for i := 0; i < len(dst); {
		n := s.stretch(e, first+i, dst[i:])
		if n == 0 {
			if err := s.zeroFrame(ctx, id, e, first+i, dst[i]); err != nil {
				return err
			}
			i++
			continue
		}
		if err := s.readStretch(ctx, id, e, first+i, dst[i:i+n]); err != nil {
			return err
		}
		i += n
	}
	return nil
}

// zeroFrame clears dst, unless it is nil, for a frame that e calls one of
// zeros. A table that lies there has another digest than that of zeros.
func (s *store) zeroFrame(ctx context.Context, id chunk.ID, e *blockmap.Entry, n int, dst []byte) error {
	switch {
	case dst == nil:
		return nil
	case e.Frames[n].Digest == s.hasher.ZeroFrame():
		clear(dst)
		return nil
	}
	return s.rescueFrame(ctx, id, id, n, e.Frames[n].Digest, dst)
}

// readChunk is readFrames for a whole chunk. It returns the stored bytes of the
// frames that it read.
func (s *store) readChunk(ctx context.Context, id chunk.ID, e *blockmap.Entry, dst [][]byte) (stored int64, err error) {
	if e == nil || s.checkEntry(id, e) != nil {
		if e, err = s.entry(ctx, id); err != nil {
			return 0, err
		}
	}
	for i := range e.Frames {
		stored += int64(e.Frames[i].Stored)
	}
	return stored, s.readFrames(ctx, id, e, 0, dst)
}

// stretch counts the frames from i on that stand back to back in one record,
// so that one read fetches them.
func (s *store) stretch(e *blockmap.Entry, i int, dst [][]byte) int {
	n := 0
	for n < len(dst) && dst[n] != nil {
		f := &e.Frames[i+n]
		if f.Codec == seal.Zero {
			break
		}
		if n > 0 {
			before := &e.Frames[i+n-1]
			if f.InBase != before.InBase || f.Off != before.Off+before.Stored {
				break
			}
		}
		n++
	}
	return n
}

// readStretch reads frames that stand back to back. When the quick way fails
// for a frame, that frame is read again through its whole record.
func (s *store) readStretch(ctx context.Context, id chunk.ID, e *blockmap.Entry, first int, dst [][]byte) error {
	rec, salt := id, e.Salt
	if e.Frames[first].InBase {
		rec, salt = e.Base, e.BaseSalt
	}
	var loc index.Location // zero: the table names a base that is nowhere
	if locs, err := s.locations(rec); err == nil {
		loc = locs[0]
	}
	off := e.Frames[first].Off
	length := 0
	for i := range dst {
		length += int(e.Frames[first+i].Stored)
	}
	// A table that lies may name more than the record has.
	quick := int64(off)+int64(length) <= int64(loc.Len)
	if !quick {
		length = 0
	}
	buf := getBuffer(length)
	defer putBuffer(buf)
	quick = quick && s.readAt(pack.Data, loc.Pack, *buf, int64(loc.Off)+int64(off)) == nil
	var key *seal.RecordKey
	if s.keys != nil {
		key = s.keys.Record(salt)
	}
	for i := range dst {
		f := &e.Frames[first+i]
		if quick {
			stored := (*buf)[f.Off-off : f.Off-off+f.Stored]
			if s.decodeFrame(dst[i], stored, f, key, rec, first+i) == nil {
				continue
			}
		}
		if err := s.rescueFrame(ctx, id, rec, first+i, f.Digest, dst[i]); err != nil {
			return err
		}
	}
	return nil
}

// decodeFrame opens, decompresses and verifies one frame into dst, when it is
// its turn.
func (s *store) decodeFrame(dst, stored []byte, f *pack.Frame, key *seal.RecordKey, rec chunk.ID, n int) error {
	s.frames.decoding.enter()
	defer s.frames.decoding.leave()
	if key != nil {
		plain, err := key.Open(stored[:0], stored, rec, n, len(dst), f.Codec)
		if err != nil {
			return err
		}
		stored = plain
	}
	out, err := s.decoder.Decode(dst[:0:len(dst)], stored, f.Codec, len(dst))
	if err != nil {
		return err
	}
	if s.hasher.Frame(out) != f.Digest {
		return errDigest
	}
	return nil
}

// rescueFrame reads one frame of chunk id the long way, first from record rec,
// where the frame table says it is, then from the chunk's own record and the
// base that this one names. want is the frame's digest.
func (s *store) rescueFrame(ctx context.Context, id, rec chunk.ID, n int, want chunk.Digest, dst []byte) error {
	err := s.frameIn(ctx, rec, n, want, dst)
	if err == nil || ctx.Err() != nil {
		return err
	}
	errs := []error{err}
	if rec != id {
		if err = s.frameIn(ctx, id, n, want, dst); err == nil {
			return nil
		}
		errs = append(errs, err)
	}
	e, err := s.entry(ctx, id)
	if err == nil && e.Frames[n].InBase && e.Base != rec {
		if err = s.frameIn(ctx, e.Base, n, want, dst); err == nil {
			return nil
		}
	}
	return errors.Join(append(errs, err)...)
}

// frameIn reads one frame from a record by the record's own header, from any
// copy of it, healed where necessary.
func (s *store) frameIn(ctx context.Context, rec chunk.ID, n int, want chunk.Digest, dst []byte) error {
	return s.record(ctx, rec, func(h *pack.Header, b []byte) error {
		if n >= len(h.Frames) || h.Frames[n].InBase || h.Frames[n].Digest != want {
			return fmt.Errorf("frame %d: %w", n, errDigest)
		}
		f := h.Frames[n]
		var key *seal.RecordKey
		if h.Flags&pack.Sealed != 0 {
			if s.keys == nil {
				return ErrNeedKey
			}
			key = s.keys.Record(h.Salt)
		}
		if f.Codec == seal.Zero {
			clear(dst)
			if want != s.hasher.ZeroFrame() {
				return fmt.Errorf("frame %d: %w", n, errDigest)
			}
			return nil
		}
		// Opening works in place; a copy keeps the record for another try.
		stored := append([]byte(nil), b[f.Off:f.Off+f.Stored]...)
		return s.decodeFrame(dst, stored, &f, key, rec, n)
	})
}
