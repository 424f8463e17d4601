package repo

import (
	"context"
	"errors"
	"fmt"

	"holdfast/repo/chunk"
	"holdfast/repo/index"
	"holdfast/repo/ledger"
)

// The index says nothing that the packs don't. When it turns out damaged it is
// made anew from them, by the owner for good, by a reader in its own memory:
// it never keeps anybody from reading or backing up.

// withIndex lets do ask or change the index. When the index turns out damaged,
// it is made anew and do runs once more.
func (s *store) withIndex(do func(x *index.Index) error) error {
	s.indexMu.RLock()
	made, err := s.indexMade, s.indexLost
	if err == nil {
		err = do(s.index)
	}
	s.indexMu.RUnlock()
	if !errors.Is(err, index.ErrDamaged) {
		return err
	}
	if err := s.remakeIndex(made, err); err != nil {
		return err
	}
	s.indexMu.RLock()
	defer s.indexMu.RUnlock()
	if s.indexLost != nil {
		return s.indexLost
	}
	return do(s.index)
}

// lookup returns every place of a record that the index knows.
func (s *store) lookup(id chunk.ID) (locs []index.Location, err error) {
	err = s.withIndex(func(x *index.Index) (err error) {
		locs, err = x.Lookup(id)
		return err
	})
	return locs, err
}

// timesMade says how often the index was made anew, for remakeIndex.
func (s *store) timesMade() int {
	s.indexMu.RLock()
	defer s.indexMu.RUnlock()
	return s.indexMade
}

// errReindex is the cause when nothing is wrong with the index. If it can't be
// made anew then, it is as good as damaged.
var errReindex = fmt.Errorf("%w: a new one was asked for", index.ErrDamaged)

// loseIndex notes that the index must be made anew before it is used again.
func (s *store) loseIndex(cause error) {
	s.indexMu.Lock()
	defer s.indexMu.Unlock()
	s.indexLost = cause
}

// remakeIndex makes the index anew because of the damage in cause, unless that
// was done since it had been made the given number of times. Whoever asks the
// index meanwhile waits: half an index would say that chunks are missing.
func (s *store) remakeIndex(made int, cause error) error {
	s.indexMu.Lock()
	defer s.indexMu.Unlock()
	if s.indexMade != made {
		return nil
	}
	if cause != errReindex {
		s.log.Warn("index is damaged and made anew from the packs", "err", cause)
	}
	s.indexLost = cause
	if err := s.fill(); err != nil {
		return fmt.Errorf("make the index anew: %w", errors.Join(err, cause))
	}
	s.indexMade, s.indexLost = s.indexMade+1, nil
	return nil
}

// fillIndex replaces a reader's index by all packs that the ledger names. From
// then on the index files are not looked at: only what the ledger says anew.
func (r *Repository) fillIndex() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.store.index.Reset(); err != nil {
		return err
	}
	r.seen, r.byLedger = 0, true
	return r.addPacks(context.Background())
}

// fillIndex replaces the owner's index by all packs of the ledger that were not
// swept, and of runs that are not in it, which may be going on.
func (o *Owner) fillIndex() error {
	x := o.store.index
	if err := x.Reset(); err != nil {
		return err
	}
	// A run's pack that is not there may never have been: the index knows nothing
	// now.
	inv, err := o.takeInventory(context.Background(), func(storedPack) (bool, error) { return false, nil })
	if err == nil {
		err = errors.Join(inv.noSegments...)
	}
	if err != nil {
		return err
	}
	o.lacking.Store(0)
	for _, p := range inv.packs {
		if err := indexPack(o.fsys, x, p.Pack); err != nil {
			o.lackPack(p.Pack, p.segment, err)
		}
	}
	return nil
}

// lackPack notes that a pack of a segment can't be indexed. What needs it will
// say so, the rest can be read, and the next owner tries again.
func (o *Owner) lackPack(p ledger.Pack, segment uint64, err error) {
	o.log.Error("pack can't be indexed", "pack", p.Name.Path(p.Kind), "err", err)
	o.lackFrom(segment)
}

// lackFrom keeps the index from claiming to go as far as a segment.
func (o *Owner) lackFrom(segment uint64) {
	if first := o.lacking.Load(); first == 0 || segment < first {
		o.lacking.Store(segment)
	}
}

// flushIndex makes durable what the index has got, and that it has every pack
// of the ledger up to the first that it lacks.
func (o *Owner) flushIndex() error {
	head := o.state.Head().Number
	return o.store.withIndex(func(x *index.Index) error {
		if lacking := o.lacking.Load(); lacking != 0 {
			return x.Flush(min(head, lacking-1))
		}
		return x.Flush(head)
	})
}
