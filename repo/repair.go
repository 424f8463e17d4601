package repo

import (
	"context"
	"fmt"

	"holdfast/repo/ledger"
	"holdfast/repo/pack"
)

// RepairOptions say how to repair.
type RepairOptions struct {
	// From is another repository that may have what is lost here: a copy of this
	// one, or one that holds the same restore points. nil: none.
	From *Repository `json:"-"`

	// Known repairs the damage that is known, without a scrub before.
	Known bool

	// Scrub is how the scrub before is done. Sample, OlderThan and Restart may
	// leave out packs: their damage, if known, is repaired all the same.
	Scrub ScrubOptions
}

// RepairReport says what was repaired, and what could not be.
type RepairReport struct {
	Scrub *ScrubReport   // nil when none was asked for
	Files []RepairedFile // that are whole again
	Left  []DamagedFile  // that are not
	Packs []RepairedPack
	Lost  []Lost // what of the restore points still can't be had
}

// Whole reports whether nothing is left that anybody misses.
func (r *RepairReport) Whole() bool {
	if len(r.Left) > 0 || len(r.Lost) > 0 {
		return false
	}
	for _, p := range r.Packs {
		if p.Unfinished || !p.Removed && p.Lost > 0 {
			return false
		}
	}
	return true
}

// RepairedFile is a file that has its bytes again.
type RepairedFile struct {
	Path    string
	Problem string // what was wrong with it
	By      string // what had the bytes
}

// RepairedPack is a damaged pack and what became of what was in it.
type RepairedPack struct {
	Path       string
	Bytes      int64
	Fault      PackFault
	By         []string // paths of the packs that hold its records now
	Copied     int      // records found in it, or healed by its parity
	Elsewhere  int      // records of which there was another copy here
	FromOther  int      // records that the other repository had
	Lost       int      // records that could not be had
	Removed    bool     // the damaged file is gone
	Locked     bool     // it stays till its lock ends; nothing needs it
	Unfinished bool     // it is of a run that is not committed, whose next one stores it again
}

// Repair makes whole again what a scrub finds damaged, from parity, twins, other
// copies and opt.From, writing new files in place of damaged ones. What is lost
// all the same is named in the report, and asked for by the next runs. It may be
// interrupted at any moment, and runs beside backups and readers; a second one waits.
// Without a key it heals what can be healed by stored bytes.
func (o *Owner) Repair(ctx context.Context, opt RepairOptions) (*RepairReport, error) {
	o.upkeep.Lock()
	defer o.upkeep.Unlock()
	r := &repairer{Owner: o, opt: opt, report: new(RepairReport)}
	if err := r.run(ctx); err != nil {
		return r.report, fmt.Errorf("repair: %w", readOnly(err))
	}
	return r.report, nil
}

// repairer is one repair under way.
type repairer struct {
	*Owner
	opt    RepairOptions
	report *RepairReport
	inv    *inventory
	mover  *mover

	packs []*brokenPack
}

// brokenPack is a damaged pack that the ledger has.
type brokenPack struct {
	ledger.PackRef
	known  knownBad
	result RepairedPack
	lost   []badRecord // of which there is no sound copy yet
	stored []pack.Name // in its place
}

func (r *repairer) run(ctx context.Context) (err error) {
	if !r.opt.Known {
		if r.report.Scrub, err = r.Scrub(ctx, r.opt.Scrub); err != nil {
			return err
		}
	}
	if r.inv, err = r.inventory(ctx); err != nil {
		return err
	}
	if err := r.repairFiles(ctx); err != nil {
		return err
	}
	if err := r.repairPacks(ctx); err != nil {
		return err
	}
	return r.settleDamage(ctx)
}
