package repo

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"holdfast/repo/index"
	"holdfast/repo/ledger"
	"holdfast/repo/pack"
)

// A storedPack is a pack that must be there.
type storedPack struct {
	ledger.Pack
	recorded   int64  // seconds since 1970 when the ledger, or the run, said so
	segment    uint64 // of the ledger; the one that is to come for a run's
	unfinished bool   // of a run that is not committed: no segment has it
}

// An inventory is what must be there, by the ledger and the records of runs.
type inventory struct {
	packs []storedPack // in the order of the ledger, those of runs last
	gone  []ledger.PackRef
	last  uint64 // the segment up to which it was read

	noSegments []error // segments that can't be read
}

// inventory reads the whole ledger: its packs, minus those that were swept,
// and the packs of unfinished runs. A segment that can't be read costs
// what it says. Memory is some 90 bytes for each pack.
func (r *Repository) inventory(ctx context.Context) (*inventory, error) {
	return r.takeInventory(ctx, r.wasIndexed)
}

// takeInventory is inventory with a way to tell of a run's pack that is not there
// whether it ever was.
func (r *Repository) takeInventory(ctx context.Context, was func(storedPack) (bool, error)) (*inventory, error) {
	inv := new(inventory)
	// Runs first: a pack stands in runs/ before it is stored, and in the ledger
	// before it goes from there, so none is missed.
	runs, err := r.runPacks()
	if err != nil {
		return nil, err
	}
	if inv.last, err = lastSegment(r.fsys); err != nil {
		return nil, err
	}
	swept := make(map[pack.Name]bool)
	for n := uint64(1); n <= inv.last; n++ {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		s, err := readSegment(r.fsys, n)
		if err != nil {
			inv.noSegments = append(inv.noSegments, err)
			continue
		}
		inv.add(s, swept, runs)
	}
	kept := inv.packs[:0]
	for _, p := range inv.packs {
		if !swept[p.Name] {
			kept = append(kept, p)
		}
	}
	inv.packs = kept
	for _, p := range runs {
		if _, err := r.fsys.Stat(p.Name.Path(p.Kind)); err != nil {
			if stored, err := was(p); err != nil {
				return nil, err
			} else if !stored {
				continue
			}
		}
		p.segment = inv.last + 1
		inv.packs = append(inv.packs, p)
	}
	return inv, nil
}

func (inv *inventory) add(s *ledger.Segment, swept map[pack.Name]bool, runs map[packKey]storedPack) {
	for _, p := range s.Packs {
		inv.packs = append(inv.packs, storedPack{Pack: p, recorded: s.Time.Unix(), segment: s.Number})
		delete(runs, packKey{p.Kind, p.Name})
	}
	for _, rec := range s.Records {
		if sw, ok := rec.(*ledger.Sweep); ok {
			for _, p := range sw.Packs {
				swept[p.Name] = true
			}
			inv.gone = append(inv.gone, sw.Packs...)
		}
	}
}

// runPacks returns what the records of runs name.
func (r *Repository) runPacks() (map[packKey]storedPack, error) {
	ids, err := listRuns(r.fsys)
	if err != nil {
		return nil, fmt.Errorf("list runs: %w", err)
	}
	runs := make(map[packKey]storedPack)
	for _, id := range ids {
		head, packs, err := readRunRecord(r.fsys, id)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			r.log.Error("record of an unfinished run is damaged", "run", id, "err", err)
		}
		for _, p := range packs {
			runs[packKey{p.Kind, p.Name}] = storedPack{Pack: p, recorded: head.Started.Unix(), unfinished: true}
		}
	}
	return runs, nil
}

// wasIndexed reports whether the index has a pack: one that was never stored is
// not in it.
func (r *Repository) wasIndexed(p storedPack) (has bool, err error) {
	err = r.store.withIndex(func(x *index.Index) error {
		has, err = x.HasPack(p.Name)
		return err
	})
	return has, err
}

// names is the set of the inventory's packs.
func (inv *inventory) names() map[pack.Name]bool {
	set := make(map[pack.Name]bool, len(inv.packs))
	for i := range inv.packs {
		set[inv.packs[i].Name] = true
	}
	return set
}

// orphans lists the files in the packs' directories that nothing names: neither the
// inventory nor a sweep that is not through, nor what was stored since.
func (r *Repository) orphans(ctx context.Context, inv *inventory) ([]string, error) {
	known := make(map[string]bool, len(inv.packs)+len(inv.gone))
	for i := range inv.packs {
		known[inv.packs[i].Name.Path(inv.packs[i].Kind)] = true
	}
	for _, p := range inv.gone {
		known[p.Name.Path(p.Kind)] = true
	}
	var strange []string
	for _, dir := range skeleton() {
		if !strings.HasPrefix(dir, packsDir+"/") {
			continue
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		infos, err := r.fsys.ReadDir(dir)
		if errors.Is(err, fs.ErrNotExist) {
			strange = append(strange, dir)
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list packs: %w", err)
		}
		for _, info := range infos {
			if name := dir + "/" + info.Name; !info.Dir && !known[name] {
				strange = append(strange, name)
			}
		}
	}
	if len(strange) == 0 {
		return nil, nil
	}
	// A run may have stored them meanwhile, and a sweep removed them.
	again, err := r.inventory(ctx)
	if err != nil {
		return nil, err
	}
	for i := range again.packs {
		known[again.packs[i].Name.Path(again.packs[i].Kind)] = true
	}
	for _, p := range again.gone {
		known[p.Name.Path(p.Kind)] = true
	}
	var left []string
	for _, name := range strange {
		if _, err := r.fsys.Stat(name); err == nil && !known[name] {
			left = append(left, name)
		}
	}
	return left, nil
}
