package index

import (
	"errors"
	"math"
	"slices"

	"holdfast/repo/chunk"
	"holdfast/repo/pack"
)

// A record with a base has a second row, its dependent's row: the same place
// under the base's key with all bits inverted, and dependentBit set. So it lies
// in another part of the file than the rows of the base itself, and looking up
// a base that thousands of records need stays one block.
const dependentBit = 0x80 << lengthBits

// dependentsKey is the key of the rows of a base's dependents. That of the null
// id is for records whose base is not known.
func dependentsKey(base chunk.ID) key {
	k := keyOf(base[:])
	return key{^k.hi, ^k.lo}
}

// rows calls fn for the rows of a record.
func rows(e *pack.Entry, fn func(k key, size uint32)) {
	size := e.Len | uint32(e.Kind)<<lengthBits
	fn(keyOf(e.ID[:]), size)
	if e.Flags&pack.HasBase != 0 || !e.Base.IsNull() {
		fn(dependentsKey(e.Base), size|dependentBit)
	}
}

// Dependents returns every place of a record whose base is the one given: of
// patches of a chunk, and of leaves with frames in the record of another. Order,
// limit, damage and what is compared are those of Lookup. The null id stands for
// the records of which nobody knows the base, see pack.ErrBase.
func (x *Index) Dependents(base chunk.ID) ([]Location, error) {
	return x.find(query{key: dependentsKey(base), dependents: true, limit: maxCandidates})
}

// AllDependents is Dependents without a limit: all who are hurt when a base is
// lost.
func (x *Index) AllDependents(base chunk.ID) ([]Location, error) {
	return x.find(query{key: dependentsKey(base), dependents: true, limit: math.MaxInt32})
}

// HasDependents reports whether Dependents without a limit would return a place
// in a pack that skip, if it is not nil, does not pass over. skip may use the
// index. With an error, false says nothing.
func (x *Index) HasDependents(base chunk.ID, skip func(pack.Name) bool) (bool, error) {
	q := query{key: dependentsKey(base), dependents: true, limit: math.MaxInt32}
	v, hits, age, err := x.begin(q, nil)
	if err != nil {
		return false, err
	}
	// skip may wait for who waits for the delta, and so is not called under mu.
	if q.skip = skip; skip != nil {
		hits = slices.DeleteFunc(hits, func(h found) bool { return skip(h.Pack) })
	}
	if len(hits) == 0 {
		q.limit = 1
		hits, err = v.find(q, hits, age)
	}
	return len(hits) > 0, errors.Join(err, v.release())
}

// query is what is looked for in deltas and files.
type query struct {
	key
	dependents bool                 // their rows, else those of records themselves
	limit      int                  // most hits in one of them
	skip       func(pack.Name) bool // packs of files that are passed over; nil: none
}

// wants reports whether a row of the key is of the kind that is sought.
func (q *query) wants(size uint32) bool { return (size&dependentBit != 0) == q.dependents }

func (q *query) skips(name pack.Name) bool { return q.skip != nil && q.skip(name) }
