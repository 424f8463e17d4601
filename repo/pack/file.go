package pack

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
)

// A File is a pack that is there to be read. It is safe for concurrent use if
// its io.ReaderAt is. Errors of reading count as damage: what cannot be read
// is healed like what reads wrong.
type File struct {
	r    io.ReaderAt
	size int64
	kind Kind
	name Name
	tail *trailer // nil when both tails are lost

	mu    sync.Mutex // guards what follows
	sums  []byte     // the CRC table, once read
	coder *coder
}

// Open reads the tail and the header of a pack of size bytes, and finds the
// other tail when the last one is damaged or not at the end. A pack that lost
// its header, or both tails, opens all the same; ErrFormat when all three are
// gone (Scan may still find records), ErrVersion when they are of another
// version. That the name is the file's is for the caller to compare.
func Open(r io.ReaderAt, size int64) (*File, error) {
	f := &File{r: r, size: max(size, 0)}
	head := make([]byte, packHeaderBytes)
	readFull(r, head, 0)
	kind, name, headErr := parsePackHeader(head)
	if errors.Is(headErr, ErrVersion) {
		return nil, headErr
	}
	ours := func(t *trailer) bool { return headErr != nil || t.Kind == kind && t.Name == name }
	tail, err := findTrailer(r, f.size, ours)
	switch {
	case tail != nil:
		f.kind, f.name, f.tail = tail.Kind, tail.Name, tail
		f.coder = newCoder(tail.Parity)
	case headErr == nil:
		f.kind, f.name = kind, name
	default:
		return nil, errors.Join(headErr, err)
	}
	return f, nil
}

// trailerSearch is how many blocks are read at once in search of a trailer.
const trailerSearch = 64

// findTrailer returns the last trailer that is a tail's end and ours. It looks
// from the end: tails come behind all that a guest's bytes can be in.
func findTrailer(r io.ReaderAt, size int64, ours func(*trailer) bool) (*trailer, error) {
	err := fmt.Errorf("%w: no trailer", ErrFormat)
	end := min(size, MaxBytes) / BlockBytes
	// The usual case is the last block, so that one comes first and alone.
	var buf []byte
	for step := int64(1); end > 0; step = trailerSearch {
		start := max(end-step, 0)
		buf = slices.Grow(buf[:0], int(end-start)*BlockBytes)
		p := buf[:(end-start)*BlockBytes]
		readFull(r, p, start*BlockBytes)
		for b := end - 1; b >= start; b-- {
			t, e := parseTrailer(p[(b-start)*BlockBytes:][:BlockBytes], int(b))
			if e == nil && ours(&t) {
				return &t, nil
			}
			if errors.Is(e, ErrVersion) {
				err = e
			}
		}
		end = start
	}
	return nil, err
}

// Kind returns what the pack holds.
func (f *File) Kind() Kind { return f.kind }

// Name returns the name that stands in the pack.
func (f *File) Name() Name { return f.name }

// Layout returns which block is what. ok is false when both tails are lost.
func (f *File) Layout() (l Layout, ok bool) {
	if f.tail == nil {
		return Layout{}, false
	}
	return f.tail.Layout, true
}

func (f *File) corrupt(off int64, err error) error {
	return &CorruptError{Pack: f.name, Offset: off, Err: err}
}

// Records returns what the pack holds, in order: from the record table, healed
// if need be, else from a forward scan, healed where that is possible. Entries
// returned beside a *CorruptError are those that could be found; there may
// have been others. If all that is wrong is ErrBase, none is missing, but those
// that have a base and do not name it need one nobody knows.
func (f *File) Records() ([]Entry, error) {
	entries, err := f.list()
	return entries, errors.Join(err, f.fillBases(entries))
}

// list is Records, with the bases only where a scan met them.
func (f *File) list() ([]Entry, error) {
	if f.tail != nil {
		if entries, err := f.table(f.tail.Table, f.tail.Records); err == nil {
			return entries, nil
		}
	}
	var entries []Entry
	errMany := fmt.Errorf("%w: more than %d records", ErrFormat, MaxRecords)
	r, size := f.mended()
	table, err := scan(r, size, func(e Entry, _ *Header) error {
		if len(entries) == MaxRecords {
			return f.corrupt(int64(e.Off), errMany)
		}
		entries = append(entries, e)
		return nil
	})
	if err != nil {
		return entries, err
	}
	// The table where the records end lists those, too, that the scan missed.
	if table > 0 {
		p := make([]byte, 8)
		if _, err := r.ReadAt(p, table); err == nil {
			if all, err := f.table(table, tableCount(p)); err == nil {
				return all, nil
			}
		}
	}
	if f.tail != nil {
		table = f.tail.Table
		if len(entries) == f.tail.Records && fill(entries, table) {
			return entries, nil
		}
	}
	return entries, f.corrupt(table, fmt.Errorf("record table: %w", ErrDamaged))
}

// fill reports whether entries lie back to back from the pack's header to end.
func fill(entries []Entry, end int64) bool {
	next := int64(packHeaderBytes)
	for i := range entries {
		if int64(entries[i].Off) != next {
			return false
		}
		next += int64(entries[i].Len)
	}
	return next == end
}

// table reads the record table at off.
func (f *File) table(off int64, records int) ([]Entry, error) {
	if records > MaxRecords {
		return nil, f.corrupt(off, ErrFormat)
	}
	p := make([]byte, tableBytes(records))
	if _, err := f.r.ReadAt(p, off); err == nil {
		if entries, err := parseTable(p, off); err == nil {
			return entries, nil
		}
	}
	p, err := f.heal(off, len(p))
	if err != nil {
		return nil, err
	}
	return parseTable(p, off)
}

// ReadRecord returns the whole record at e and its header. Damage is healed; a
// record that is not the one e names, or not whole, gives *CorruptError.
func (f *File) ReadRecord(e Entry) (Header, []byte, error) {
	if e.Len > MaxRecordBytes {
		return Header{}, nil, f.corrupt(int64(e.Off), fmt.Errorf("%w: record of %d bytes", ErrFormat, e.Len))
	}
	p := make([]byte, e.Len)
	_, err := f.r.ReadAt(p, int64(e.Off))
	if err == nil || errors.Is(err, io.EOF) {
		var h Header
		if h, err = parseEntry(p, e); err == nil {
			return h, p, nil
		}
	}
	p, healErr := f.Heal(int64(e.Off), int(e.Len))
	if healErr != nil {
		return Header{}, nil, f.corrupt(int64(e.Off), fmt.Errorf("%w; %w", err, healErr))
	}
	h, err := parseEntry(p, e)
	if err != nil {
		return Header{}, nil, f.corrupt(int64(e.Off), err)
	}
	return h, p, nil
}

func parseEntry(p []byte, e Entry) (Header, error) {
	h, err := ParseRecord(p)
	if err == nil && (h.ID != e.ID || h.Kind != e.Kind || h.Flags != e.Flags) {
		err = fmt.Errorf("%w: %v %s where %v %s is listed", ErrFormat, h.Kind, h.ID.Short(), e.Kind, e.ID.Short())
	}
	return h, err
}
