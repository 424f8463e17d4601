package repo_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"holdfast/repo"
	"holdfast/repo/repotest"
)

// A yearTask is a machine to be backed up.
type yearTask struct {
	machine *repotest.FleetMachine
	job     string
	slot    string
	how     how
	failAt  int64
	point   repotest.Point // what it makes
	done    bool
}

// how a machine is backed up.
type how int

const (
	compares how = iota
	lists        // with a list of what has changed
	fulls
	fails   // the source can't be read, and there is no retry
	retries // the same, and again
	cancels // and again
	twice   // though the first succeeds
	misses  // the schedule passes it by
)

// chance decides how a run goes.
func (y *year) chance() how {
	switch n := y.rng.IntN(100); {
	case n < 2:
		return misses
	case n < 4:
		return fails
	case n < 7:
		return retries
	case n < 9:
		return cancels
	case n < 11:
		return twice
	case n < 13:
		return fulls
	case n < 50:
		return lists
	}
	return compares
}

// tasks is what is to be backed up today, for each machine one after the other.
func (y *year) tasks() [][]*yearTask {
	var all [][]*yearTask
	slot := y.first.AddDate(0, 0, y.today).Format("2006-01-02")
	for i, m := range y.fleet.Machines {
		var list []*yearTask
		add := func(job, slot string, h how) {
			t := &yearTask{machine: m, job: job, slot: slot, how: h, failAt: 1 + y.rng.Int64N(600<<10)}
			if y.plan.serial {
				t.failAt = 1
			}
			if h != misses {
				list = append(list, t)
			}
			if h == retries || h == cancels || h == twice {
				again := *t
				again.how = compares
				list = append(list, &again)
			}
		}
		add("nightly", slot+"T22:30", y.chance())
		if i%3 == 0 && y.today%2 == 0 {
			add("noon", slot+"T12:00", y.chance())
		}
		if y.rng.IntN(20) == 0 {
			add("manual", "", compares)
		}
		if y.rng.IntN(30) == 0 {
			add("nightly", "", lists) // by hand, under the job's name
		}
		all = append(all, list)
	}
	return all
}

// backups makes the runs that were not made yet, several machines' at once, and
// beside them a sweep.
func (y *year) backups(all [][]*yearTask) error {
	var g errgroup.Group
	if y.plan.serial {
		g.SetLimit(1)
	} else {
		g.SetLimit(4)
	}
	for i, list := range all {
		g.Go(func() error {
			for _, task := range list {
				if task.done {
					continue
				}
				if err := y.backup(task); err != nil {
					return fmt.Errorf("%s of %s: %w", task.job, task.machine.Name, err)
				}
			}
			return nil
		})
		if i == len(all)/2 && !y.plan.serial {
			g.Go(y.sweep)
		}
	}
	return g.Wait()
}

// backup makes one run.
func (y *year) backup(task *yearTask) error {
	y.tick()
	m := task.machine
	task.point = repotest.NewPoint(m.Name, m.Disks...)
	opt := repo.BackupOptions{
		Machine: m.Name, MachineID: "id of " + m.Name, Job: task.job, Slot: task.slot, Actor: "year", Disks: task.point.Sources(), Full: task.how == fulls,
	}
	ctx, cancel := context.WithCancel(y.ctx)
	defer cancel()
	y.mu.Lock()
	last := y.latest[m.Name]
	y.coming[m.Name] = task
	y.mu.Unlock()
	for i := range opt.Disks {
		d := &opt.Disks[i]
		src := d.Source.(*repotest.Source)
		switch task.how {
		case fails, retries:
			src.FailAt = task.failAt
		case cancels:
			src.OnRead = func(off int64) {
				if off+1 >= task.failAt {
					cancel()
				}
			}
		case lists:
			if last != nil && hasDisk(last.Point, d.Name) {
				d.Changes = &repo.Changes{Base: string(last.ID), SizeBytes: src.Size(), Ranges: m.ChangesOf(m.Disks[i])}
			}
		}
	}
	run, err := y.owner.Backup(ctx, opt)
	if err != nil && y.dead() {
		return err // and it may be there all the same
	}
	y.mu.Lock()
	defer y.mu.Unlock()
	delete(y.coming, m.Name)
	wanted := (task.how == fails || task.how == retries) && errors.Is(err, repotest.ErrSource) ||
		task.how == cancels && errors.Is(err, context.Canceled)
	switch {
	case wanted:
		y.sum.failed++
		task.done = true
		return nil
	case err != nil:
		return err
	}
	y.made(task, run.Point)
	if err := counted(run); err != nil {
		return err
	}
	for i, d := range run.Disks {
		if opt.Disks[i].Changes != nil && d.Mode != repo.ReadChanged {
			return fmt.Errorf("disk %s was read as %s: %s", d.Name, d.Mode, d.Reason)
		}
	}
	return nil
}

// fullVolume fills the volume: runs fail, and retention and sweep succeed though
// not a byte is free.
func (y *year) fullVolume() {
	sources := y.fleet.Machines
	var tasks [][]*yearTask
	for _, m := range sources {
		// Bytes that were nowhere before.
		m.Disks = slices.Clone(m.Disks)
		for i := range m.Disks {
			m.Disks[i].Disk = repotest.Scramble(m.Disks[i].Disk, 64<<10)
		}
		m.Changed = make(map[string][]repo.Range)
		tasks = append(tasks, []*yearTask{{machine: m, job: "nightly", slot: "full", how: compares}})
	}
	y.mem.SetCapacity(y.mem.Used() + 300<<10)
	for i := range tasks {
		if i == len(tasks)/2 {
			y.mem.SetCapacity(y.mem.Used())
		}
		before := len(y.kept)
		err := y.backup(tasks[i][0])
		if err == nil && i >= len(tasks)/2 || err != nil && !errors.Is(err, syscall.ENOSPC) {
			y.errorf("backup on a full volume: %v", err)
		}
		if err != nil && len(y.kept) != before {
			y.errorf("a run that failed made a point")
		}
	}
	expired := y.sum.expired
	y.mem.SetCapacity(y.mem.Used())
	if free, err := y.mem.Free(); free != 0 || err != nil {
		y.errorf("%d bytes are free, %v", free, err)
	}
	y.setClock(y.today, 22*time.Hour)
	y.must(y.retain())
	if y.sum.expired == expired {
		y.errorf("nothing expired on the full volume")
	}
	y.must(y.sweep())
	y.mem.SetCapacity(1 << 50)
	y.sum.fulls++
	y.must(y.backups(tasks))
}

// commits tells whether a name is that of what makes a point, or takes it away.
func commits(name string) bool {
	return strings.HasPrefix(name, "ledger/") || strings.HasPrefix(name, "points/")
}
