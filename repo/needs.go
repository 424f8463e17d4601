package repo

import (
	"errors"
	"io/fs"
	"slices"

	"holdfast/repo/chunk"
	"holdfast/repo/index"
	"holdfast/repo/pack"
	"holdfast/repo/refcount"
)

// needs tells which of the stored records are needed: those that points
// reference, by the tally, and those that such records lean on; and of several
// copies, which ones serve. It is a function of these and of what is indexed:
// asked again it says the same, whatever else was found not to be needed.
type needs struct {
	store *store
	tally tally
	packs standing

	// unknownBase is set while some record's base isn't known, for its header is
	// lost: any record could be it.
	unknownBase bool
}

// standing tells which packs stay. The owner's *guard does, and for readers what
// the ledger says.
type standing interface {
	lasts(pack.Name) bool       // a copy in it may stand for others
	isCondemned(pack.Name) bool // it is going to be removed, or was
}

// standing is what a reader knows of packs: those that no segment of the ledger
// names stand for nothing.
func (inv *inventory) standing() standing {
	s := recorded{loose: make(map[pack.Name]bool), gone: make(map[pack.Name]bool)}
	for i := range inv.packs {
		if inv.packs[i].unfinished {
			s.loose[inv.packs[i].Name] = true
		}
	}
	for _, p := range inv.gone {
		s.gone[p.Name] = true
	}
	return s
}

type recorded struct{ loose, gone map[pack.Name]bool }

func (s recorded) lasts(name pack.Name) bool       { return !s.loose[name] && !s.gone[name] }
func (s recorded) isCondemned(name pack.Name) bool { return s.gone[name] }

// serving are the copies of a record that stay.
type serving struct {
	best  *index.Location // the newest; nil when the index has none
	whole *index.Location // of a base, the newest that has no base itself
}

// has reports whether the record at a place stays. One that the index has lost
// does.
func (s serving) has(in pack.Name, off uint32) bool {
	this := func(loc *index.Location) bool { return loc != nil && loc.Pack == in && loc.Off == off }
	return s.best == nil || this(s.best) || this(s.whole)
}

// places lists the copies, each once.
func (s serving) places() []index.Location {
	var list []index.Location
	if s.best != nil {
		list = append(list, *s.best)
	}
	if s.whole != nil && (s.whole.Pack != s.best.Pack || s.whole.Off != s.best.Off) {
		list = append(list, *s.whole)
	}
	return list
}

// alive reports whether a record is needed: by a point or by a record that has
// it as its base, and if no other copy of it serves.
func (q *needs) alive(in pack.Name, e *pack.Entry) (bool, error) {
	s, needed, err := q.copies(e.ID)
	return err == nil && needed && s.has(in, e.Off), err
}

// copies returns the copies of a record that serve, if it is needed. Of the id
// it looks at no more than the index does.
func (q *needs) copies(id chunk.ID) (s serving, needed bool, err error) {
	needed, leaned, err := q.needed(id)
	if err != nil || !needed {
		return s, false, err
	}
	locs, err := q.store.lookup(id)
	if err != nil {
		return s, false, err
	}
	s, err = q.serving(id, locs, leaned)
	return s, true, err
}

// needed reports whether a record is needed, and whether as a base.
func (q *needs) needed(id chunk.ID) (needed, leaned bool, err error) {
	n, err := q.tally.Count(id)
	if err != nil {
		return false, false, err
	}
	leaned, err = q.leanedOn(id)
	return n > 0 || leaned, leaned, err
}

// leanedOn reports whether some record that is needed has this one as its base,
// or may have.
func (q *needs) leanedOn(id chunk.ID) (bool, error) {
	if q.unknownBase {
		return true, nil
	}
	on, err := q.store.dependents(id)
	if err != nil {
		return false, err
	}
	for i := range on {
		if leans, err := q.leans(&on[i]); err != nil || leans {
			return leans, err
		}
	}
	return false, nil
}

// leans reports whether the record at a place, which has a base, is needed
// there. One that can't be read is taken to be.
func (q *needs) leans(at *index.Location) (bool, error) {
	if q.packs.isCondemned(at.Pack) {
		return false, nil
	}
	h, err := q.store.headerAt(at)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return true, nil
	}
	n, err := q.tally.Count(h.ID)
	if err != nil || n == 0 {
		return false, err
	}
	return q.servesAt(h.ID, at)
}

// servesAt reports whether the copy at a place of a record with a base serves.
// What has a base is nobody's base, so any newer copy stands for it.
func (q *needs) servesAt(id chunk.ID, at *index.Location) (bool, error) {
	locs, err := q.store.lookup(id)
	if err != nil {
		return false, err
	}
	s, err := q.serving(id, locs, false)
	return err == nil && s.has(at.Pack, at.Off), err
}

// dependents returns the place of every record with that base: of a base with a
// long history, those that are needed may be older than hundreds that are not.
func (s *store) dependents(base chunk.ID) (on []index.Location, err error) {
	err = s.withIndex(func(x *index.Index) (err error) {
		on, err = x.AllDependents(base)
		return err
	})
	return on, err
}

// serving chooses among the copies of a record: the newest, and for one that is
// a base also the newest that has no base itself. One whose own base is gone, freed
// when nothing needed the two, serves only where there is nothing else.
func (q *needs) serving(id chunk.ID, locs []index.Location, leaned bool) (s serving, err error) {
	locs = slices.DeleteFunc(slices.Clone(q.store.sound(locs)), func(l index.Location) bool { return !q.packs.lasts(l.Pack) })
	first := 0
	if len(locs) > 1 {
		for i := range locs {
			stands, err := q.stands(&locs[i])
			if err != nil {
				return s, err
			}
			if stands {
				first = i
				break
			}
		}
	}
	for i := first; i < len(locs); i++ {
		loc := &locs[i]
		if s.best == nil {
			s.best = loc
		}
		if !leaned {
			return s, nil
		}
		if based := q.hasBase(id, loc); !based {
			s.whole = loc
			return s, nil
		}
	}
	return s, nil
}

// stands reports whether a copy of a record has what it is based on. One that
// can't be read does not.
func (q *needs) stands(loc *index.Location) (bool, error) {
	if loc.Kind == pack.Chunk {
		return true, nil
	}
	h, err := q.store.headerAt(loc)
	if err != nil || h.Base.IsNull() {
		return err == nil, nil
	}
	return q.hasWhole(h.Base)
}

// hasWhole reports whether a base is stored, in a copy that has no base itself.
func (q *needs) hasWhole(base chunk.ID) (bool, error) {
	locs, err := q.store.lookup(base)
	if err != nil {
		return false, err
	}
	locs = q.store.sound(locs)
	for i := range locs {
		if !q.packs.isCondemned(locs[i].Pack) && !q.hasBase(base, &locs[i]) {
			return true, nil
		}
	}
	return false, nil
}

// hasBase reports whether a copy of a record has a base. One that can't be read
// is taken to have one, so that others are kept.
func (q *needs) hasBase(id chunk.ID, loc *index.Location) bool {
	switch loc.Kind {
	case pack.Chunk:
		return false
	case pack.Patch:
		return true
	}
	h, err := q.store.headerAt(loc)
	if err != nil || prefixOf(h.ID) != prefixOf(id) {
		return true
	}
	return h.Flags&pack.HasBase != 0
}

// hasUnknownBase reports whether the base of some record isn't known, for its
// header is lost.
func (s *store) hasUnknownBase() (is bool, err error) {
	err = s.withIndex(func(x *index.Index) (err error) {
		is, err = x.HasDependents(chunk.Null, nil)
		return err
	})
	return is, err
}

// prefix is what index and counts know of an id.
type prefix = [refcount.PrefixBytes]byte

func prefixOf(id chunk.ID) prefix { return prefix(id[:]) }

// prefixID is an id that index and counts take for every one with that prefix.
func prefixID(p prefix) (id chunk.ID) {
	copy(id[:], p[:])
	return id
}
