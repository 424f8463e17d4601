package repo

import (
	"context"
	"fmt"

	"holdfast/repo/index"
)

// ReindexReport says what an index was made from.
type ReindexReport struct {
	Packs    int      // whose records are in the index
	Records  uint64   // in the index
	Missing  []string // packs that the ledger has and that can't be indexed
	Orphans  []string // files in packs/ that nothing names
	Segments uint64   // of the ledger
}

// Reindex makes the index anew from the packs and the ledger, and forgets what
// was verified and what is damaged, but for the packs it can't read. It needs no key.
// Whoever asks the index meanwhile waits, so runs and readers of this process
// stand still.
func (o *Owner) Reindex(ctx context.Context) (*ReindexReport, error) {
	o.upkeep.Lock()
	defer o.upkeep.Unlock()
	rep, err := o.reindex(ctx)
	if err != nil {
		return rep, fmt.Errorf("reindex: %w", readOnly(err))
	}
	return rep, nil
}

// reindex is Reindex for those who hold upkeep.
func (o *Owner) reindex(ctx context.Context) (*ReindexReport, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := o.store.remakeIndex(o.store.timesMade(), errReindex); err != nil {
		return nil, err
	}
	if err := o.flushIndex(); err != nil {
		return nil, err
	}
	if err := verifiedFiles(o.fsys).clear(); err != nil {
		return nil, fmt.Errorf("forget what was verified: %w", err)
	}
	inv, err := o.inventory(ctx)
	if err != nil {
		return nil, err
	}
	rep := &ReindexReport{Segments: inv.last}
	d := &damageList{at: o.now().UTC()}
	err = o.store.withIndex(func(x *index.Index) error {
		*rep, d.packs = ReindexReport{Segments: inv.last, Records: x.Count()}, nil
		for i := range inv.packs {
			p := &inv.packs[i]
			has, err := x.HasPack(p.Name)
			if err != nil {
				return err
			}
			if has {
				rep.Packs++
				continue
			}
			if p.unfinished {
				continue // a run may have named it this moment, and adds it next
			}
			rep.Missing = append(rep.Missing, p.Name.Path(p.Kind))
			d.packs = append(d.packs, knownBad{name: p.Name, kind: p.Kind, fault: FaultMissing})
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if err := o.store.saveDamage(d); err != nil {
		return nil, err
	}
	rep.Orphans, err = o.orphans(ctx, inv)
	return rep, err
}
