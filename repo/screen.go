package repo

import (
	"bytes"
	"errors"
	"iter"

	"holdfast/repo/index"
	"holdfast/repo/pack"
	"holdfast/repo/refcount"
)

// screen takes the marks off packs of which every record is referenced and has
// no other copy: nothing in them is dead. For a repository that is counted for
// the first time that is nearly all of them. Index and counts lie in the same
// order, so one pass over both tells, where asking for each record would go all
// over the two.
func (w *weigher) screen() error {
	var known, doubtful map[pack.Name]bool
	err := w.store.withIndex(func(x *index.Index) error {
		known, doubtful = make(map[pack.Name]bool), make(map[pack.Name]bool)
		counts := countsInOrder(w.refs.table)
		defer counts.stop()
		var last index.Entry
		return x.Walk(func(n uint64, e index.Entry) error {
			known[e.Pack] = true
			if count, err := counts.of(e.Prefix); err != nil {
				return err
			} else if count == 0 {
				doubtful[e.Pack] = true
			}
			if n > 0 && last.Prefix == e.Prefix {
				doubtful[last.Pack], doubtful[e.Pack] = true, true
			}
			last = e
			return nil
		})
	})
	if err != nil {
		return err
	}
	for k := range w.dirty {
		if known[k.name] && !doubtful[k.name] {
			delete(w.dirty, k)
		}
	}
	return nil
}

// countReader gives counts to whoever asks in the order of ids.
type countReader struct {
	next func() (prefix, int64, bool)
	stop func()
	err  error // that ended the walk

	at    prefix
	count int64
	more  bool
}

var errEnough = errors.New("enough")

// countsInOrder begins at the lowest id. Whoever asks for more must call stop.
func countsInOrder(t *refcount.Table) *countReader {
	r := new(countReader)
	r.next, r.stop = iter.Pull2(func(yield func(prefix, int64) bool) {
		r.err = t.Walk(func(p [refcount.PrefixBytes]byte, n int64) error {
			if !yield(p, n) {
				return errEnough
			}
			return nil
		})
	})
	r.at, r.count, r.more = r.next()
	return r
}

// of returns the count of an id, which must not be lower than the one before.
func (r *countReader) of(p prefix) (int64, error) {
	for r.more && bytes.Compare(r.at[:], p[:]) < 0 {
		r.at, r.count, r.more = r.next()
	}
	switch {
	case r.more && r.at == p:
		return r.count, nil
	case !r.more && r.err != nil:
		return 0, r.err
	}
	return 0, nil
}
