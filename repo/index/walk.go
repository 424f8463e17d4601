package index

import (
	"context"
	"errors"
	"io"

	"holdfast/repo/pack"
)

// Entry is one entry as Walk shows it.
type Entry struct {
	Prefix [PrefixBytes]byte // of the id
	Location
}

// Walk calls fn for every entry that Lookup could return, so each record once,
// in the order of ids and for one id the newest first, with its ordinal: 0, 1, 2
// and so on. Ordinals
// are those of this moment; a change of the index gives others. What is added
// or removed during the walk is not seen by it. It stops at fn's first error
// and returns it.
//
// It reads past the block cache and needs 4 bytes for each pack. fn may use the
// index.
func (x *Index) Walk(fn func(ordinal uint64, e Entry) error) error {
	v, srcs, err := x.sources()
	if err != nil {
		return err
	}
	return errors.Join(walk(srcs, fn), v.release())
}

// EachPack calls fn for every pack that HasPack knows, once and in the order of
// names. What is added or removed meanwhile is not seen by it. It stops at fn's
// first error and returns it. fn may use the index.
func (x *Index) EachPack(fn func(pack.Name) error) error {
	v, srcs, err := x.sources()
	if err != nil {
		return err
	}
	_, err = mergeNames(srcs, fn)
	return errors.Join(err, v.release())
}

// sources returns all there is to look in, the newest first, and a reference to
// the view it is of.
func (x *Index) sources() (*view, []source, error) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if x.view == nil {
		return nil, nil, x.closed()
	}
	v := x.view.acquire()
	deltas := append([]*delta{x.delta.without(nil)}, reversed(x.frozen)...)
	return v, newSources(v, v.files, deltas), nil
}

func walk(srcs []source, fn func(uint64, Entry) error) error {
	places, err := mergeNames(srcs, func(pack.Name) error { return nil })
	if err != nil {
		return err
	}
	m, err := newMerger(srcs, places)
	if err != nil {
		return err
	}
	for ordinal := uint64(0); ; {
		e, src, ord, err := m.next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if e.size&dependentBit != 0 {
			continue
		}
		name, err := srcs[src].packName(ord)
		if err != nil {
			return err
		}
		if err := fn(ordinal, Entry{e.prefix(), location(name, e.off, e.size)}); err != nil {
			return err
		}
		ordinal++
	}
}

// Verify reads every byte of every file. The first that is not what was written
// gives a *DamageError.
func (x *Index) Verify(ctx context.Context) error {
	v, err := x.snapshot()
	if err != nil {
		return err
	}
	for _, f := range v.files {
		if err = f.verify(ctx); err != nil {
			break
		}
	}
	return errors.Join(err, v.release())
}
