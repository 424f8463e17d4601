package ntfs

import (
	"errors"
	"fmt"

	"holdfast/fs"
)

// maxListBytes is the most that an attribute list may have, by the format.
const maxListBytes = 256 << 10

// maxListed bounds the records that a list may make us keep at once, in about
// their bytes: all of the entries of a list may lead to large records of their
// own, though a list of that length has a few attributes in each.
const (
	maxListed      = 32 << 20
	attributeBytes = 256
)

// listed is an entry of an attribute list.
type listed struct {
	typ   uint32
	name  string
	first int64
	in    ref
	id    uint16
}

// attributes returns all attributes of the file that base is the base record of.
func (f *FS) attributes(base record) ([]attribute, error) {
	var own []attribute
	var list *attribute
	err := base.eachAttribute(func(a attribute) error {
		if own = append(own, a); a.typ == typeList {
			if list != nil {
				return fmt.Errorf("file record %d: two attribute lists: %w", base.num, fs.ErrDamaged)
			}
			list = &a
		}
		return nil
	})
	if err != nil || list == nil {
		return own, err
	}
	b, err := f.readWhole(list, maxListBytes)
	if err != nil {
		return nil, fmt.Errorf("file record %d: attribute list: %w", base.num, err)
	}
	l := lister{f: f, base: base, known: map[uint64][]attribute{base.num: own}}
	for len(b) > 0 {
		e, n, err := parseListed(b)
		if err == nil {
			err = l.add(e)
		}
		if err != nil {
			return nil, fmt.Errorf("file record %d: attribute list: %w", base.num, err)
		}
		b = b[n:]
	}
	return l.all, nil
}

// Source: Linux-NTFS documentation, "$ATTRIBUTE_LIST".
func parseListed(b []byte) (listed, int, error) {
	if len(b) < 26 {
		return listed{}, 0, fmt.Errorf("entry of %d bytes: %w", len(b), fs.ErrDamaged)
	}
	n, nameAt, nameBytes := int(le.Uint16(b[4:])), int(b[7]), 2*int(b[6])
	if n < 26 || n > len(b) || nameAt+nameBytes > n {
		return listed{}, 0, fmt.Errorf("entry of %d bytes with a name of %d: %w", n, nameBytes, fs.ErrDamaged)
	}
	return listed{
		typ:   le.Uint32(b),
		name:  string(b[nameAt : nameAt+nameBytes]),
		first: int64(le.Uint64(b[8:])),
		in:    ref(le.Uint64(b[16:])),
		id:    le.Uint16(b[24:]),
	}, n, nil
}

// lister gathers the attributes of a file by its list.
type lister struct {
	f     *FS
	base  record
	known map[uint64][]attribute // by record
	bytes int64                  // that known takes, about
	all   []attribute
}

// add adds what one entry names. The later pieces of an attribute stay in their
// records, to be read when their clusters are wanted.
func (l *lister) add(e listed) error {
	if e.first != 0 {
		n := len(l.all)
		if n == 0 || l.all[n-1].typ != e.typ || l.all[n-1].name != e.name || l.all[n-1].resident {
			return fmt.Errorf("clusters from %d on of type %#x in record %d without those before: %w", e.first, e.typ, e.in.num(), fs.ErrDamaged)
		}
		a := &l.all[n-1]
		if before := a.pieces[len(a.pieces)-1].first; e.first <= before {
			return fmt.Errorf("clusters from %d on behind those from %d on: %w", e.first, before, fs.ErrDamaged)
		}
		a.pieces = append(a.pieces, piece{first: e.first, last: -1, rec: e.in.num(), id: e.id})
		return nil
	}
	there, ok := l.known[e.in.num()]
	if !ok {
		var err error
		if there, err = l.f.extension(l.base, e.in); err != nil {
			return err
		}
		l.known[e.in.num()] = there
		if l.bytes += int64(l.f.recordBytes) + int64(len(there))*attributeBytes; l.bytes > maxListed {
			return fmt.Errorf("leads to records of more than %d bytes: %w", maxListed, fs.ErrDamaged)
		}
	}
	for _, a := range there {
		if a.typ == e.typ && a.id == e.id && a.name == e.name {
			if !a.resident && a.pieces[0].first != 0 {
				break
			}
			l.all = append(l.all, a)
			return nil
		}
	}
	return fmt.Errorf("type %#x, number %d is not in record %d: %w", e.typ, e.id, e.in.num(), fs.ErrDamaged)
}

// extension reads the attributes in a record that another one leads to.
func (f *FS) extension(base record, in ref) ([]attribute, error) {
	r, err := f.record(in.num())
	switch {
	case errors.Is(err, fs.ErrStale):
		return nil, fmt.Errorf("leads to %w: %w", err, fs.ErrDamaged)
	case err != nil:
		return nil, err
	case r.flags&recordInUse == 0 || r.owner() != base.owner() || r.seq != in.seq():
		return nil, fmt.Errorf("record %d belongs to another file: %w", in.num(), fs.ErrDamaged)
	}
	var list []attribute
	err = r.eachAttribute(func(a attribute) error {
		list = append(list, a)
		return nil
	})
	return list, err
}
