package ntfs

import (
	"fmt"

	"holdfast/fs"
)

const (
	typeStandard   = 0x10
	typeList       = 0x20
	typeFileName   = 0x30
	typeObjectID   = 0x40
	typeSecurity   = 0x50
	typeVolumeName = 0x60
	typeVolumeInfo = 0x70
	typeData       = 0x80
	typeIndexRoot  = 0x90
	typeIndexAlloc = 0xa0
	typeBitmap     = 0xb0
	typeReparse    = 0xc0
	typeEA         = 0xe0
	typeEnd        = 0xffffffff
)

const (
	flagCompressed = 0x00ff // any method; 1 is LZNT1
	flagEncrypted  = 0x4000
	flagSparse     = 0x8000
)

// attribute is one attribute of a file. A large one that is not resident may be
// told in pieces, by records of their own.
type attribute struct {
	typ   uint32
	name  string // UTF-16, little endian
	flags uint16
	id    uint16 // in its record; not always another than its neighbours'
	rec   uint64 // of it, or of its first piece
	at    int    // where in that, which tells apart what damage gave one name and id
	owner ref    // whose it is

	resident bool
	value    []byte // of a resident one

	// Of one that is not resident.
	size      int64 // in bytes
	valid     int64 // bytes that were ever written; zeros behind
	allocated int64 // bytes of the volume that it has
	unit      uint8 // compressed: log2 of the clusters of a compression unit
	pieces    []piece
}

// piece maps some of the clusters of an attribute.
type piece struct {
	first, last int64 // clusters of the file; last is known only with the pairs
	rec         uint64
	at          int // in the record; 0: still to be found there
	id          uint16
	pairs       []byte // nil: still in the record
}

func (a *attribute) bytes() int64 {
	if a.resident {
		return int64(len(a.value))
	}
	return a.size
}

// eachAttribute calls fn for the attributes of one record, in its order.
func (r record) eachAttribute(fn func(a attribute) error) error {
	for at := r.first; ; {
		if at+4 > len(r.b) {
			return fmt.Errorf("file record %d: attributes without an end: %w", r.num, fs.ErrDamaged)
		}
		if le.Uint32(r.b[at:]) == typeEnd {
			return nil
		}
		a, n, err := parseAttribute(r.b[at:])
		if err != nil {
			return fmt.Errorf("file record %d: attribute at %d: %w", r.num, at, err)
		}
		a.rec, a.at, a.owner = r.num, at, r.owner()
		for i := range a.pieces {
			a.pieces[i].rec, a.pieces[i].at = r.num, at
		}
		if err := fn(a); err != nil {
			return err
		}
		at += n
	}
}

// parseAttribute parses the attribute that b begins with and returns its length.
// Source: Linux-NTFS documentation, "Attribute Headers".
func parseAttribute(b []byte) (attribute, int, error) {
	bad := func(what string, value int64) (attribute, int, error) {
		return attribute{}, 0, fmt.Errorf("%s %d: %w", what, value, fs.ErrDamaged)
	}
	if len(b) < 24 {
		return bad("bytes", int64(len(b)))
	}
	n := le.Uint32(b[4:])
	if n < 24 || n%8 != 0 || int64(n) > int64(len(b)) {
		return bad("length", int64(n))
	}
	b = b[:n:n]
	a := attribute{typ: le.Uint32(b), flags: le.Uint16(b[12:]), id: le.Uint16(b[14:]), resident: b[8] == 0}
	nameAt, nameEnd := int(le.Uint16(b[10:])), int(le.Uint16(b[10:]))+2*int(b[9])
	if nameEnd > len(b) {
		return bad("name up to", int64(nameEnd))
	}
	a.name = string(b[nameAt:nameEnd])
	if a.resident {
		size, at := int64(le.Uint32(b[16:])), int64(le.Uint16(b[20:]))
		if at+size > int64(len(b)) {
			return bad("value up to", at+size)
		}
		a.value = b[at : at+size]
		return a, int(n), nil
	}
	if n < 64 {
		return bad("length of one that is not resident", int64(n))
	}
	p := piece{first: int64(le.Uint64(b[16:])), last: int64(le.Uint64(b[24:])), id: a.id}
	if p.first < 0 || p.last < p.first-1 || p.last >= 1<<52 {
		return bad("last cluster", p.last)
	}
	pairs := int(le.Uint16(b[32:]))
	if pairs > len(b) {
		return bad("mapping pairs at", int64(pairs))
	}
	p.pairs = b[pairs:]
	a.pieces = []piece{p}
	if p.first > 0 {
		return a, int(n), nil // the sizes stand in the first piece
	}
	a.unit = b[34]
	a.allocated, a.size, a.valid = int64(le.Uint64(b[40:])), int64(le.Uint64(b[48:])), int64(le.Uint64(b[56:]))
	if a.size < 0 || a.size > maxBytes || a.valid < 0 || a.valid > a.size {
		return bad("size", a.size)
	}
	if a.flags&(flagCompressed|flagSparse) != 0 && n >= 72 && a.unit != 0 {
		a.allocated = int64(le.Uint64(b[64:]))
	}
	if a.allocated < 0 || a.allocated > maxBytes {
		return bad("allocated size", a.allocated)
	}
	return a, int(n), nil
}
