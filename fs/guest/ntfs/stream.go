package ntfs

import (
	"errors"
	"fmt"
	"io"
	"sort"

	"holdfast/fs"
)

const (
	runsBudget = 8 << 20

	// maxBytes is the most that an attribute may have, so that two such numbers
	// may be added.
	maxBytes = 1 << 62
)

// pieceKey names a piece of an attribute on the volume.
type pieceKey struct {
	rec   uint64
	at    int
	id    uint16
	typ   uint32
	name  string
	first int64
}

// runsOf returns the runs of a piece of a.
func (f *FS) runsOf(a *attribute, p piece) ([]run, error) {
	key := pieceKey{p.rec, p.at, p.id, a.typ, a.name, p.first}
	if list, ok := f.runs.get(key); ok {
		return list, nil
	}
	if p.pairs == nil {
		var err error
		if p, err = f.readPiece(a, p); err != nil {
			return nil, err
		}
	}
	// Holes may be larger than any volume, but offsets in them must be numbers.
	if p.last >= maxBytes/f.clusterBytes {
		return nil, fmt.Errorf("clusters up to %d of %d bytes: %w", p.last, f.clusterBytes, fs.ErrDamaged)
	}
	list, err := decodeRuns(p.pairs, p.first, p.last, f.clusters)
	if err != nil {
		return nil, fmt.Errorf("clusters from %d on: %w", p.first, err)
	}
	f.runs.put(key, list, int64(len(list))*24+256)
	return list, nil
}

// readPiece finds the mapping pairs of a piece in its record.
func (f *FS) readPiece(a *attribute, p piece) (piece, error) {
	r, err := f.record(p.rec)
	if errors.Is(err, fs.ErrStale) {
		err = fmt.Errorf("%w: %w", err, fs.ErrDamaged)
	}
	if err != nil {
		return p, err
	}
	// Another file's record would bring in another file's bytes.
	if r.owner() != a.owner || r.flags&recordInUse == 0 {
		return p, fmt.Errorf("file record %d belongs to another file: %w", r.num, fs.ErrDamaged)
	}
	err = r.eachAttribute(func(b attribute) error {
		if p.pairs == nil && b.typ == a.typ && b.id == p.id && b.name == a.name && !b.resident && b.pieces[0].first == p.first {
			p = b.pieces[0]
		}
		return nil
	})
	if err == nil && p.pairs == nil {
		err = fmt.Errorf("clusters from %d on are not in file record %d: %w", p.first, p.rec, fs.ErrDamaged)
	}
	return p, err
}

// runAt returns the run that a cluster of a, which is not resident, lies in.
func (f *FS) runAt(a *attribute, at int64) (run, error) {
	i := sort.Search(len(a.pieces), func(i int) bool { return a.pieces[i].first > at }) - 1
	if i >= 0 {
		list, err := f.runsOf(a, a.pieces[i])
		if err != nil {
			return run{}, err
		}
		if r, ok := findRun(list, at); ok {
			if i+1 < len(a.pieces) && r.end() > a.pieces[i+1].first {
				return run{}, fmt.Errorf("cluster %d is mapped twice: %w", a.pieces[i+1].first, fs.ErrDamaged)
			}
			return r, nil
		}
	}
	return run{}, fmt.Errorf("cluster %d of the file is mapped nowhere: %w", at, fs.ErrDamaged)
}

// stretch describes the bytes of a from off, which lies in it, up to where they
// are no longer alike or cease to lie together.
func (f *FS) stretch(a *attribute, off int64) (fs.Extent, error) {
	switch {
	case a.resident:
		return fs.Extent{Off: off, Len: int64(len(a.value)) - off, Kind: fs.Made}, nil
	case off >= a.valid:
		return fs.Extent{Off: off, Len: a.size - off, Kind: fs.Hole}, nil
	case a.flags&flagCompressed != 0:
		return f.stretchCompressed(a, off)
	}
	r, err := f.runAt(a, off/f.clusterBytes)
	if err != nil {
		return fs.Extent{}, err
	}
	return f.within(a, r, off, r.end()*f.clusterBytes)
}

// within is the stretch of a from off to end in the run r.
func (f *FS) within(a *attribute, r run, off, end int64) (fs.Extent, error) {
	e := fs.Extent{Off: off, Len: min(end, a.valid) - off, Kind: fs.Hole}
	if r.cluster < 0 {
		// A run that lost its place looks like a hole. Who makes one says so.
		if a.flags&(flagSparse|flagCompressed) == 0 {
			return e, fmt.Errorf("cluster %d is nowhere in an attribute without holes: %w", r.at, fs.ErrDamaged)
		}
		return e, nil
	}
	e.Kind, e.At = fs.Stored, r.cluster*f.clusterBytes+off-r.at*f.clusterBytes
	return e, f.dev.check(e.At, e.Len)
}

// readAttribute fills p from byte off of a, all of which lies in a. read gets at
// the device.
func (f *FS) readAttribute(a *attribute, p []byte, off int64, read func(p []byte, off int64) error) (int, error) {
	done := 0
	for done < len(p) {
		e, err := f.stretch(a, off)
		if err != nil {
			return done, err
		}
		part := p[done:min(int64(len(p)), int64(done)+e.Len)]
		switch {
		case e.Kind == fs.Hole:
			clear(part)
		case e.Kind == fs.Stored:
			err = read(part, e.At)
		case a.resident:
			copy(part, a.value[off:])
		default:
			err = f.readCompressed(a, part, off)
		}
		if err != nil {
			return done, err
		}
		done += len(part)
		off += int64(len(part))
	}
	return done, nil
}

// readPart fills p from byte off of an attribute that is metadata.
func (f *FS) readPart(a *attribute, p []byte, off int64) error {
	if off < 0 || off > a.bytes() || int64(len(p)) > a.bytes()-off {
		return fmt.Errorf("%d bytes at %d of %d: %w", len(p), off, a.bytes(), fs.ErrDamaged)
	}
	_, err := f.readAttribute(a, p, off, f.dev.readMeta)
	return err
}

// readWhole returns the value of an attribute that is metadata and may have up
// to limit bytes.
func (f *FS) readWhole(a *attribute, limit int64) ([]byte, error) {
	if a.resident {
		return a.value, nil
	}
	if a.size > limit || a.size > f.dev.size {
		return nil, fmt.Errorf("%d bytes where %d are the most: %w", a.size, min(limit, f.dev.size), fs.ErrDamaged)
	}
	b := make([]byte, a.size)
	return b, f.readPart(a, b, 0)
}

// readData is ReadAt for an attribute with data.
func (f *FS) readData(a *attribute, p []byte, off int64) (int, error) {
	size := a.bytes()
	if off >= size {
		return 0, io.EOF
	}
	want := min(int64(len(p)), size-off)
	n, err := f.readAttribute(a, p[:want], off, f.dev.read)
	if err == nil && n < len(p) {
		err = io.EOF
	}
	return n, err
}
