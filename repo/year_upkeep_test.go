package repo_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"holdfast/repo"
	"holdfast/repo/repotest"
	"holdfast/repo/vfs"
)

// A yearSum is what happened.
type yearSum struct {
	points, failed                        int
	logical                               int64
	expired, retired, recalled            int
	swept                                 repo.SweepResult
	sweeps, compactions, evacuations      int
	moved                                 int64
	synthesized                           int
	killed, lost                          int // processes killed, power cuts
	damaged, healedPacks, healedFiles     int
	fulls, leases, pins, copied, retained int
	compared                              int64 // points, byte for byte
}

func (s *yearSum) String() string {
	const mib = 1 << 20
	return fmt.Sprintf("%d points of %d MiB made, %d runs failed; %d expired (%d retired, %d recalled) in %d retentions; "+
		"%d packs, %d MiB swept in %d sweeps; %d compactions and %d evacuations moved %d MiB; %d synthetic fulls; "+
		"%d kills, %d power cuts; %d files damaged, %d packs and %d files repaired; %d full volumes; %d leases, %d pins; "+
		"%d points copied; %d points compared",
		s.points, s.logical/mib, s.failed, s.expired, s.retired, s.recalled, s.retained,
		s.swept.Packs, s.swept.Bytes/mib, s.sweeps, s.compactions, s.evacuations, s.moved/mib, s.synthesized,
		s.killed, s.lost, s.damaged, s.healedPacks, s.healedFiles, s.fulls, s.leases, s.pins,
		s.copied, s.compared)
}

// retain applies each job's rule, and holds what it decides to the oracle.
func (y *year) retain() error {
	for _, job := range yearJobs {
		series := make(map[string][]*yearPoint)
		for _, p := range y.kept {
			if p.info.Job == job.name {
				series[p.Machine] = append(series[p.Machine], p)
			}
		}
		if len(series) == 0 {
			continue
		}
		now := y.now()
		goes := make(map[repo.PointID]bool)
		for _, list := range series {
			for id := range y.expires(list, &job.rule, now) {
				goes[id] = true
			}
		}
		y.expiring = nil
		for id := range goes {
			y.expiring = append(y.expiring, id)
		}
		res, err := y.owner.Retain(y.ctx, repo.RetainOptions{Rule: job.rule, Job: job.name, Zone: yearZone})
		if err != nil {
			return err
		}
		for _, d := range res.Decisions {
			if id := repo.PointID(d.ID); d.Keep == goes[id] {
				return fmt.Errorf("point %s of %s, slot %q: kept %v (%s), and it should be the other way", id, d.Machine, d.Slot, d.Keep, d.Reasons)
			}
			fmt.Fprintln(y.digest, "decided", d.ID, d.Keep, d.Reasons)
		}
		if len(res.Expired) != len(goes) {
			return fmt.Errorf("%d points of %s expired, want %d", len(res.Expired), job.name, len(goes))
		}
		y.expiring = nil
		for _, id := range res.Expired {
			y.gone(id, slices.Contains(res.Retired, id))
		}
		y.sum.retained++
	}
	return nil
}

// gone takes an expired point from those that are kept.
func (y *year) gone(id repo.PointID, retired bool) {
	p := y.point(id)
	y.kept = slices.DeleteFunc(y.kept, func(q *yearPoint) bool { return q == p })
	y.sum.expired++
	if locked := y.locks["points/"+string(id)] > y.today; locked != retired {
		y.errorf("point %s expired, its manifest locked %v, retired %v", id, locked, retired)
	}
	if retired {
		y.retired[id] = p
		y.sum.retired++
	}
}

func (y *year) sweep() error {
	res, err := y.owner.Sweep(y.ctx, repo.SweepOptions{})
	y.swept(res)
	y.sum.sweeps++
	return err
}

func (y *year) swept(res repo.SweepResult) {
	y.mu.Lock()
	defer y.mu.Unlock()
	y.sum.swept.Packs += res.Packs
	y.sum.swept.Bytes += res.Bytes
}

func (y *year) compact(opt repo.CompactOptions) error {
	res, err := y.owner.Compact(y.ctx, opt)
	y.swept(res.Swept)
	y.sum.compactions++
	y.sum.moved += res.MovedBytes
	return err
}

func (y *year) evacuate() error {
	res, err := y.owner.Evacuate(y.ctx, repo.CompactOptions{})
	y.swept(res.Swept)
	y.sum.evacuations++
	y.sum.moved += res.MovedBytes
	return err
}

func (y *year) synthesize() error {
	name := y.fleet.Machines[y.today%len(y.fleet.Machines)].Name
	p := y.latest[name]
	if p == nil {
		return nil
	}
	y.sum.synthesized++
	_, err := y.owner.Synthesize(y.ctx, p.ID, repo.SynthesizeOptions{})
	return err
}

// files lists the files below a directory.
func files(fsys vfs.FS, dir string) (list []string, err error) {
	err = vfs.Walk(fsys, dir, func(name string, info vfs.Info) error {
		if !info.Dir && info.Size > 0 {
			list = append(list, name)
		}
		return nil
	})
	return list, err
}

// lockNew locks what came since yesterday, and lets the locks end whose time has
// come.
func (y *year) lockNew() {
	if !y.plan.locked {
		return
	}
	for _, dir := range []string{"packs", "points"} {
		list, err := files(y.mem, dir)
		y.must(err)
		for _, name := range list {
			if _, known := y.locks[name]; !known {
				y.locks[name] = y.today + lockDays
				y.must(y.mem.SetLocked(name, true))
			}
		}
	}
}

// unlock ends the locks whose day has come.
func (y *year) unlock() {
	for name, until := range y.locks {
		if until > y.today {
			continue
		}
		if err := y.mem.SetLocked(name, false); err != nil && !isNotExist(err) {
			y.must(err)
		}
	}
}

// damage harms some files, as much as can be healed: blocks of packs up to their
// parity, one of two twins.
func (y *year) damage() {
	open := func(dirs ...string) (open []string) {
		for _, dir := range dirs {
			list, err := files(y.mem, dir)
			y.must(err)
			for _, name := range list {
				// What is locked is repaired all the same, but seen till its lock ends.
				until, known := y.locks[name]
				if !y.plan.locked || dir == "ledger" || dir == "keys" || known && until <= y.today {
					open = append(open, name)
				}
			}
		}
		return open
	}
	packs, twins := open("packs"), open("ledger", "points", "keys")
	if len(packs) == 0 || len(twins) == 0 {
		return
	}
	hit := make(map[string]bool) // packs and pairs of twins
	harm := func(name, group string, from, to int64, bytes int) {
		if hit[group] {
			return
		}
		hit[group] = true
		for range bytes {
			y.must(y.mem.Corrupt(name, from+y.rng.Int64N(to-from), 1<<y.rng.IntN(8)))
		}
		y.sum.damaged++
		y.hurt = true
	}
	for range 1 + y.rng.IntN(4) {
		name := packs[y.rng.IntN(len(packs))]
		info, err := y.mem.Stat(name)
		y.must(err)
		if y.rng.IntN(2) == 0 {
			harm(name, name, 0, info.Size, 1)
		} else {
			harm(name, name, 0, info.Size/3, 3)
		}
	}
	for range y.rng.IntN(4) {
		name := twins[y.rng.IntN(len(twins))]
		info, err := y.mem.Stat(name)
		y.must(err)
		harm(name, strings.TrimSuffix(name, ".twin"), 0, info.Size, 2)
	}
}

// repair scrubs and heals what was damaged.
func (y *year) repair() {
	y.step("repair", func() error {
		report, err := y.owner.Repair(y.ctx, repo.RepairOptions{Scrub: repo.ScrubOptions{Restart: true}})
		if err != nil {
			return err
		}
		for _, p := range report.Packs {
			if p.Removed {
				y.sum.healedPacks++
			}
			if p.Lost > 0 {
				return fmt.Errorf("pack %s has lost %d records for good: %v", p.Path, p.Lost, p.Fault)
			}
		}
		y.sum.healedFiles += len(report.Files)
		if !report.Whole() && !slices.ContainsFunc(report.Packs, func(p repo.RepairedPack) bool { return p.Unfinished }) {
			return fmt.Errorf("not everything is whole: left %v, lost %v, packs %+v", report.Left, report.Lost, report.Packs)
		}
		return nil
	})
	y.hurt = false
}

// revive is what comes after a kill: another process opens the repository, after
// a power cut in what is left of it.
func (y *year) revive() {
	_ = y.owner.Close() // of a dead process
	if crash := y.rng.IntN(4); crash > 0 {
		y.closeReaders()
		opt := []vfs.CrashOptions{{}, keepAll, {Data: vfs.KeepSome, Sizes: vfs.KeepSome, Names: vfs.KeepSome, Torn: true, Seed: y.rng.Uint64()}}[crash-1]
		if y.plan.serial {
			opt = vfs.CrashOptions{} // how much is on its way may depend on chance
		}
		y.mem, y.state = y.mem.CrashClone(opt), y.state.CrashClone(opt)
		y.sum.lost++
	} else {
		y.sum.killed++ // readers live on
	}
	y.mount()
	y.opened = 0
	y.open()
	y.adopt()
	if !y.hurt && (!long || y.today%8 == 0) {
		y.account()
		y.open()
	}
}

// adopt takes the points that are there for those that were being made, and
// misses those that were to expire.
func (y *year) adopt() {
	got, err := y.owner.Points(y.ctx)
	y.must(err)
	y.mu.Lock()
	defer y.mu.Unlock()
	there := make(map[repo.PointID]bool)
	for _, info := range got {
		there[info.ID] = true
		if y.point(info.ID) != nil {
			continue
		}
		task := y.coming[info.Machine]
		if task == nil {
			y.errorf("point %s of %s appeared", info.ID, info.Machine)
			continue
		}
		delete(y.coming, info.Machine)
		y.made(task, info)
	}
	clear(y.coming)
	n := 0
	for _, id := range y.expiring {
		if !there[id] {
			n++
		}
	}
	if n > 0 {
		if n < len(y.expiring) {
			y.errorf("%d of %d points expired, want all or none", n, len(y.expiring))
		}
		for _, id := range y.expiring {
			y.gone(id, y.locks["points/"+string(id)] > y.today)
		}
	}
	y.expiring = nil
	for _, p := range y.kept {
		if !there[p.ID] {
			y.errorf("point %s of %s of %v is lost", p.ID, p.Machine, p.info.Time)
		}
	}
}

// syncCopy keeps the second repository like the first one, killed now and then,
// and compares all of it if asked to.
func (y *year) syncCopy(all bool) {
	c := y.copy
	try := func(kill int) error {
		if kill > 0 {
			c.disk.CrashAt(c.disk.Count() + kill)
		}
		src, err := repo.Open(y.ctx, y.disk, y.options())
		y.must(err)
		opt := c.options()
		opt.Now = y.now
		o, err := repo.Own(y.ctx, c.disk, opt, 0)
		if err != nil {
			return errors.Join(err, src.Close())
		}
		report, err := o.Sync(y.ctx, src, repo.SyncOptions{Expire: true, Actor: "year"})
		y.sum.copied += len(report.Copied)
		if err == nil {
			_, err = o.Compact(y.ctx, repo.CompactOptions{})
		}
		if err == nil && all {
			err = repotest.Compare(y.ctx, o.Repository, y.model())
			y.sum.compared += int64(len(y.kept))
		}
		return errors.Join(err, o.Close(), src.Close())
	}
	if y.rng.IntN(2) == 0 {
		if err := try(1 + y.rng.IntN(100)); err != nil {
			if !errors.Is(err, vfs.ErrCrashed) {
				y.must(err)
			}
			c.mem, c.state = c.mem.CrashClone(vfs.CrashOptions{}), c.state.CrashClone(vfs.CrashOptions{})
			c.mount()
			y.sum.lost++
		}
		c.disk.Heal()
	}
	y.must(try(0))
	if all {
		y.must(repotest.Account(c.disk))
		y.must(whole(c.disk))
	}
	c.mount()
}

// morning is what others do: readers come and go, points are pinned, and of
// those that are retired one is wanted back.
func (y *year) morning() {
	y.unlock()
	y.pinSome()
	y.readSome()
	if len(y.retired) > 0 && y.rng.IntN(7) == 0 {
		y.recall()
	}
}

// recall takes the expiry of a retired point back.
func (y *year) recall() {
	list, err := y.owner.Retired(y.ctx)
	y.must(err)
	if len(list) == 0 {
		return
	}
	p := y.retired[list[y.rng.IntN(len(list))].ID]
	_, err = y.owner.Recall(y.ctx, p.ID)
	y.must(err)
	delete(y.retired, p.ID)
	y.kept = append(y.kept, p)
	y.sum.recalled++
	y.must(repotest.ComparePoint(y.ctx, y.owner.Repository, p.Point))
}

// pinSome pins a point for a few days, and ends pins.
func (y *year) pinSome() {
	for id, until := range y.pinned {
		if until <= y.today {
			y.must(y.owner.Unpin(id, "year"))
			delete(y.pinned, id)
		}
	}
	if len(y.kept) > 0 && y.rng.IntN(5) == 0 {
		p := y.kept[y.rng.IntN(len(y.kept))]
		y.must(y.owner.Pin(p.ID, "year"))
		y.pinned[p.ID] = y.today + 1 + y.rng.IntN(30)
		y.sum.pins++
	}
}

// end brings the year to its end: locks, pins and leases have ended, everybody
// was backed up once more, and what is left is what the rules keep, to the byte.
func (y *year) end() {
	y.disk.Heal()
	y.closeReaders()
	y.today += lockDays
	y.setClock(y.today, 12*time.Hour)
	y.unlock()
	if y.hurt { // since the last scrub
		y.repair()
	}
	for id := range y.pinned {
		y.must(y.owner.Unpin(id, "year"))
	}
	clear(y.pinned)
	var tasks [][]*yearTask
	for _, m := range y.fleet.Machines {
		tasks = append(tasks, []*yearTask{{machine: m, job: "nightly", slot: "the last", how: compares}})
	}
	y.must(y.backups(tasks))
	y.must(y.retain())
	y.must(y.retain())
	unfinished, err := y.owner.UnfinishedRuns(y.ctx)
	y.must(err)
	for _, u := range unfinished {
		y.errorf("run %s of %s is unfinished though its machine has a later point", u.ID, u.Machine)
	}
	y.must(y.sweep())
	y.must(y.compact(repo.CompactOptions{AnyDead: true}))
	if r, err := repotest.Reachable(y.mem); err != nil || r.DeadBytes != 0 || len(r.Missing) > 0 || r.NeededBytes == 0 {
		y.errorf("at the end: %d bytes needed, %d by nothing, %d records missing, %v", r.NeededBytes, r.DeadBytes, len(r.Missing), err)
	}
	if list, err := y.owner.Retired(y.ctx); err != nil || len(list) > 0 {
		y.errorf("at the end: %d retired points, %v", len(list), err)
	}
	y.lastSlots()
	y.everything()
	y.account()
	y.must(repotest.OpenAndCompare(y.ctx, y.disk, y.options(), y.asModel()))
}
