//go:build linux

package e2e

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"holdfast/repo"
	"holdfast/repo/repotest"
)

// A task is a call under way that may change what points there are.
type task struct {
	*process
	verb   string
	made   *repotest.Point  // that it makes
	copies []repotest.Point // that it makes, any of them
	gone   []repo.PointID   // that it lets expire, all or none
	back   *repotest.Point  // that it recalls
	pin    repo.PointID     // that it pins or unpins
	key    *key             // that it adds or removes
	old    *key             // that it replaces by that
	read   repotest.Point   // that it restores
	to     string           // where to
}

// touched is what the tasks of a round concern, so that no two of them concern
// the same.
type touched struct {
	points   map[repo.PointID]bool
	machines map[string]bool
	keys     bool
}

// start starts one to three tasks and perhaps a reader.
func (u *upkeep) start() []*task {
	u.t.Helper()
	u.rounds++
	if u.locks && u.rng.IntN(4) == 0 {
		u.lockSome()
	}
	at := &touched{points: make(map[repo.PointID]bool), machines: make(map[string]bool)}
	var tasks []*task
	for n := 1 + u.rng.IntN(3); len(tasks) < n; {
		tk := u.begin(at)
		if tk == nil {
			continue
		}
		tasks = append(tasks, tk)
		if len(tasks) == 1 {
			// It owns the repository, mostly, when the others come.
			tk.waitFor(func() bool { _, err := os.Lstat(filepath.Join(u.dir, ".sock")); return err == nil })
		}
		tk.sleep(upTo(u.rng, 30*time.Millisecond))
	}
	if points := u.model.Points(); u.rng.IntN(3) == 0 && len(points) > 0 {
		p := points[u.rng.IntN(len(points))]
		to := filepath.Join(u.scratch, fmt.Sprintf("read%d", u.rounds))
		if err := os.Mkdir(to, 0o700); err != nil {
			u.t.Fatal(err)
		}
		tasks = append(tasks, &task{process: u.program.start(u.t, "repo", "restore", u.dir, string(p.ID), "--to", to), verb: "restore", read: p, to: to})
		u.reads++
	}
	return tasks
}

// allVerbs are what is done, some of it more often.
var allVerbs = []string{
	"backup", "backup", "backup", "expire", "expire", "retain", "retain", "sweep", "sweep", "compact", "compact", "synthesize", "evacuate",
	"scrub", "repair", "repair", "reindex", "copy", "copy", "sync", "pin", "recall", "key",
}

// begin starts a task by chance, nil if there is nothing for it to do.
func (u *upkeep) begin(at *touched) *task {
	u.t.Helper()
	verb := u.verbs[u.rng.IntN(len(u.verbs))]
	tk := &task{verb: verb}
	args := []string{"repo", verb, u.dir}
	switch verb {
	case "backup":
		m := u.machines[u.rng.IntN(len(u.machines))]
		if at.machines[m.name] {
			return nil
		}
		at.machines[m.name] = true
		if u.rng.IntN(4) > 0 {
			m.change(u.t, u.rng)
		}
		a := u.backup(m, "--wait", "2m")
		tk.process, tk.made = a.process, &a.point
		return tk
	case "expire":
		points := u.free(at, "")
		if len(points) < 6 {
			return nil
		}
		for _, i := range u.rng.Perm(len(points))[:1+u.rng.IntN(2)] {
			tk.gone = append(tk.gone, points[i])
			args = append(args, string(points[i]))
		}
	case "retain":
		m := u.machines[u.rng.IntN(len(u.machines))].name
		points := u.free(at, m)
		keep := 1 + u.rng.IntN(3)
		if at.machines[m] || len(points) <= keep || len(points) < u.ofMachine(m) {
			return nil
		}
		at.machines[m] = true
		tk.gone = points[:len(points)-keep]
		args = append(args, "--machine", m, "--keep-last", fmt.Sprint(keep))
	case "synthesize":
		points := u.free(at, "")
		if len(points) == 0 {
			return nil
		}
		p := points[u.rng.IntN(len(points))]
		at.points[p] = true
		args = append(args, string(p))
	case "compact":
		args = append(args, "--dead", []string{"0", "25%"}[u.rng.IntN(2)])
	case "scrub", "repair":
		u.damage()
	case "copy", "sync":
		tk.copies = u.missing(at)
		if len(tk.copies) == 0 || verb == "sync" && len(tk.copies) < 2 {
			return nil
		}
		args = []string{"repo", verb, u.from.dir, u.dir}
		if verb == "copy" {
			tk.copies = tk.copies[:1]
			args = append(args, string(tk.copies[0].ID))
		}
		for _, p := range u.there {
			at.machines[p.Machine] = true
		}
	case "pin":
		if args = u.changePin(at, tk); args == nil {
			return nil
		}
		tk.process = u.program.start(u.t, args...)
		return tk
	case "recall":
		if args = u.retireOne(at, tk); args == nil {
			return nil
		}
	case "key":
		if args = u.changeKey(at, tk); args == nil {
			return nil
		}
	}
	for _, p := range tk.gone {
		at.points[p] = true
	}
	tk.process = u.program.start(u.t, append(args, "--wait", "2m")...)
	return tk
}

// missing lists the points of the other repository that this one lacks, in random
// order; none if a task makes one of them already, or lets it go.
func (u *upkeep) missing(at *touched) (list []repotest.Point) {
	for _, i := range u.rng.Perm(len(u.there)) {
		p := u.there[i]
		if at.machines[p.Machine] || at.points[p.ID] {
			return nil
		}
		if !u.model.Has(p.ID) {
			list = append(list, p)
		}
	}
	return list
}

// changePin returns the command line that pins a point, or unpins one.
func (u *upkeep) changePin(at *touched, tk *task) []string {
	pinned := slices.DeleteFunc(slices.Sorted(maps.Keys(u.pinned)), func(id repo.PointID) bool { return at.points[id] })
	tk.verb = "unpin"
	if len(pinned) == 0 || u.rng.IntN(2) == 0 {
		tk.verb, pinned = "pin", u.free(at, "")
	}
	if len(pinned) == 0 {
		return nil
	}
	tk.pin = pinned[u.rng.IntN(len(pinned))]
	at.points[tk.pin] = true
	return []string{"repo", tk.verb, u.dir, string(tk.pin), "--name", "kept"}
}

// retireOne lets a point expire whose manifest is locked, and returns the command
// line that recalls it.
func (u *upkeep) retireOne(at *touched, tk *task) []string {
	u.t.Helper()
	points := u.free(at, "")
	if !u.locks || len(points) < 6 {
		return nil
	}
	id := points[u.rng.IntN(len(points))]
	for _, name := range []string{"points/" + string(id), "points/" + string(id) + ".twin"} {
		if u.damaged[name] {
			return nil
		}
		if err := u.setLocked(name, true); err != nil {
			u.t.Fatal(err)
		}
		u.locked[name] = true
		u.lockings++
	}
	for _, p := range u.model.Points() {
		if p.ID == id {
			tk.back = &p
		}
	}
	at.points[id] = true
	u.must("expire", string(id), "--wait", "2m")
	u.model.Expire(id)
	return []string{"repo", "recall", u.dir, string(id)}
}

// free lists the points of a machine, or of all, that no task concerns yet and no
// pin keeps.
func (u *upkeep) free(at *touched, machine string) (list []repo.PointID) {
	for _, p := range u.model.Points() {
		if (machine == "" || p.Machine == machine) && !at.points[p.ID] && !at.machines[p.Machine] && !u.pinned[p.ID] {
			list = append(list, p.ID)
		}
	}
	return list
}

func (u *upkeep) ofMachine(name string) (n int) {
	for _, p := range u.model.Points() {
		if p.Machine == name {
			n++
		}
	}
	return n
}
