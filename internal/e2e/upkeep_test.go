//go:build linux

package e2e

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"holdfast/repo"
	"holdfast/repo/repotest"
	"holdfast/repo/vfs"
)

// killsPerRest is how often something is killed before all is put in order and
// looked at.
const killsPerRest = 20

// TestKillUpkeep kills what keeps a repository in order, at random moments, while
// several processes work on it at once: the first owns it, others ask it through
// its socket or wait for it, and one reads.
func TestKillUpkeep(t *testing.T) {
	begin(t, "loop", "losetup", "mkfs.xfs", "mkfs.ext4")
	kills := (count(t, "KILLS", 200) + 1) / 2
	for i, at := range []struct {
		fs     string
		sealed bool
	}{{"xfs", false}, {"ext4", true}, {"xfs", true}, {"ext4", false}} {
		name := at.fs + " plain"
		if at.sealed {
			name = at.fs + " sealed"
		}
		t.Run(name, func(t *testing.T) { killUpkeep(t, at.fs, at.sealed, kills*(i+1)/4-kills*i/4) })
	}
}

func killUpkeep(t *testing.T, fs string, sealed bool, kills int) {
	u := newUpkeep(t, random(t), newVolume(t, fs, 2<<30), t.TempDir(), sealed)
	killed := make(map[string]int)
	total, effects, lost, rests := 0, 0, 0, 0
	for total < kills {
		tasks := u.start()
		u.atMoment(tasks[0])
		victims := u.victims(tasks)
		for _, tk := range victims {
			tk.signal(syscall.SIGKILL)
		}
		outcomes := u.wait(tasks, len(victims) > 0)
		took := u.settle(tasks, outcomes)
		for i, tk := range tasks {
			if o := outcomes[i]; o.code < 0 {
				killed[tk.verb]++
				total++
				if took[tk] {
					effects++
				}
			} else if o.code > 0 && lostOwner(o) {
				lost++
			}
		}
		u.verify()
		if u.rng.IntN(3) == 0 {
			u.restoreSome(1)
		}
		if total/killsPerRest > rests {
			rests++
			u.rest()
		}
	}
	u.rest()
	t.Logf("%d kills (%s), %d of them with the work done, %d asked an owner that was killed; %d rounds, %d reads beside them; %d files damaged, %d locked, %d runs abandoned; "+
		"%d times swept and compacted to 0 dead bytes; %d points; %d points compared, %d disks restored",
		total, counted(killed), effects, lost, u.rounds, u.reads, u.hurt, u.lockings, u.abandoned, rests+1, len(u.model.Points()), u.compared, u.restored)
}

// counted prints how often what happened.
func counted(of map[string]int) string {
	var words []string
	for _, what := range slices.Sorted(maps.Keys(of)) {
		words = append(words, fmt.Sprintf("%s %d", what, of[what]))
	}
	return strings.Join(words, ", ")
}

// upkeep is a site whose repository is kept in order.
type upkeep struct {
	*site
	from    *site            // another repository, from which points are copied
	there   []repotest.Point // its points, each of another machine
	keys    []key            // that were added, if it is sealed
	damaged map[string]bool  // files below dir that are, or were until they went
	locked  map[string]bool  // packs and manifests
	pinned  map[repo.PointID]bool
	head    string   // of the ledger, as last printed
	verbs   []string // to choose from
	locks   bool     // packs are locked now and then
	took    map[string]time.Duration

	rounds, reads, hurt, lockings, abandoned int
}

// A key is an age identity that may have been added.
type key struct {
	file, recipient string
	there           bool
}

// newUpkeep makes a repository with a few points on a volume, and one to copy
// from elsewhere.
func newUpkeep(t *testing.T, rng *rand.Rand, v *volume, state string, sealed bool) *upkeep {
	t.Helper()
	u := &upkeep{
		site:    newSite(t, rng, filepath.Join(v.dir, "repository"), state, sealed),
		from:    newSite(t, rng, filepath.Join(t.TempDir(), "other"), t.TempDir(), false),
		damaged: make(map[string]bool), locked: make(map[string]bool), pinned: make(map[repo.PointID]bool), took: make(map[string]time.Duration), verbs: allVerbs, locks: true,
	}
	t.Cleanup(u.unlock)
	u.addMachine("web", false, u.newDisk("web", "root", repotest.Text, 12<<20))
	u.addMachine("db", false, u.newDisk("db", "system", repotest.Dense, 8<<20), u.newDisk("db", "data", repotest.Sparse, 16<<20))
	u.addMachine("files", true, u.newDisk("files", "share", repotest.Zeros, 24<<20))
	for i := range 3 {
		name := fmt.Sprintf("branch%d", i)
		m := u.from.addMachine(name, false, u.from.newDisk(name, "root", repotest.Text, 6<<20))
		m.disks[0].now.Write([]byte(name), 0)
		if err := m.disks[0].write([]repo.Range{{Off: 0, Len: 4096}}); err != nil {
			t.Fatal(err)
		}
		u.from.finished(m)
	}
	u.there = u.from.model.Points()
	for range 2 {
		for _, m := range u.machines {
			m.change(t, rng)
			u.finished(m)
		}
	}
	return u
}

// atMoment waits for the moment of a kill: anywhere in the time that such a task
// takes, or just after it has changed one of the directories.
func (u *upkeep) atMoment(tk *task) {
	if u.rng.IntN(2) == 0 {
		took := u.took[tk.verb]
		if took == 0 {
			took = time.Second
		}
		tk.sleep(upTo(u.rng, took*11/10))
		return
	}
	dirs := []string{"tmp", "ledger", "points", "index", "index/refs", "runs", "keys"}
	dir := filepath.Join(u.dir, dirs[u.rng.IntN(len(dirs))])
	before := changed(dir)
	if tk.waitFor(func() bool { return changed(dir) != before }) {
		tk.sleep(upTo(u.rng, 12*time.Millisecond))
	}
}

// changed returns when something was last named in a directory, or removed.
func changed(dir string) time.Time {
	info, err := os.Stat(dir)
	if err != nil {
		return time.Time{}
	}
	return info.ModTime()
}

// victims chooses who is killed: mostly the first, sometimes another one, or two.
func (u *upkeep) victims(tasks []*task) (list []*task) {
	for _, i := range u.rng.Perm(len(tasks)) {
		if !tasks[i].over() && (i == 0 || u.rng.IntN(4) == 0) {
			list = append(list, tasks[i])
		}
	}
	return list
}

// wait waits for all tasks and looks at how they ended. If violent, an owner
// may have been killed.
func (u *upkeep) wait(tasks []*task, violent bool) []outcome {
	u.t.Helper()
	var list []outcome
	for _, tk := range tasks {
		o := tk.process.wait()
		list = append(list, o)
		switch {
		case o.code <= 0:
		case violent && lostOwner(o):
		case tk.verb == "scrub" && o.code == 2 && len(u.damaged) > 0: // it has found some
		case tk.verb == "repair" && o.code == 2 && len(u.damaged) > 0: // in the pack of an unfinished run
		case (tk.verb == "scrub" || tk.verb == "repair") && o.code == 4 && len(tasks) > 1: // one at a time
		case tk.verb == "restore" && o.code == 3 && u.concerned(tasks, tk.read.ID):
		default:
			u.t.Fatalf("%s: %s", strings.Join(tk.cmd.Args[1:], " "), o)
		}
		if o.code == 0 {
			u.took[tk.verb] = (u.took[tk.verb] + o.took) / 2
		}
	}
	return list
}

// lostOwner tells whether a task had asked an owner that went away.
func lostOwner(o outcome) bool {
	return o.code == 1 && strings.Contains(o.err, "the owner went away before it had answered")
}

// concerned tells whether a task may have let a point expire.
func (u *upkeep) concerned(tasks []*task, id repo.PointID) bool {
	return slices.ContainsFunc(tasks, func(tk *task) bool { return slices.Contains(tk.gone, id) })
}

// settle takes note of what the tasks did. Of those that did not end well it is
// all or nothing; of which it is all, the result is true.
func (u *upkeep) settle(tasks []*task, outcomes []outcome) map[*task]bool {
	u.t.Helper()
	done := make(map[*task]bool)
	listed := make(map[repo.PointID]string) // → machine
	pinned := make(map[repo.PointID]bool)
	for _, p := range decode[listing](u.t, u.program.must(u.t, "repo", "points", u.dir, "--json")).Points {
		listed[repo.PointID(p.ID)] = p.Machine
		if len(p.Pins) > 0 {
			pinned[repo.PointID(p.ID)] = true
		}
	}
	for i, tk := range tasks {
		o := outcomes[i]
		if o.code == 0 {
			done[tk] = true
		}
		switch {
		case tk.verb == "restore":
			u.readBack(tk, o)
		case tk.copies != nil:
			there := slices.DeleteFunc(slices.Clone(tk.copies), func(p repotest.Point) bool { return listed[p.ID] == "" && o.code != 0 })
			done[tk] = len(there) == len(tk.copies)
			for _, p := range there {
				u.model.Add(p)
			}
		case tk.back != nil:
			if listed[tk.back.ID] != "" || o.code == 0 {
				done[tk] = true
				u.model.Recall(tk.back.ID)
			}
		case tk.pin != "":
			if done[tk] = pinned[tk.pin] == (tk.verb == "pin"); o.code == 0 && !done[tk] {
				u.t.Fatalf("%s of %s: %s; it is pinned: %v", tk.verb, tk.pin, o, pinned[tk.pin])
			}
			if pinned[tk.pin] {
				u.pinned[tk.pin] = true
			} else {
				delete(u.pinned, tk.pin)
			}
		case tk.verb == "backup":
			id := ""
			if o.code == 0 {
				id = decode[runListing](u.t, o).Point.ID
			} else if id = u.newOf(listed, tk.made.Machine); id != "" {
				done[tk] = true
			}
			if id != "" {
				u.finish(*tk.made, id)
				u.machineNamed(tk.made.Machine).took = o.took
			}
		case len(tk.gone) > 0:
			still := slices.DeleteFunc(slices.Clone(tk.gone), func(id repo.PointID) bool { _, there := listed[id]; return !there })
			if n := len(still); n > 0 && n < len(tk.gone) {
				u.t.Fatalf("%s: of %s there are still %s", tk.verb, tk.gone, still)
			} else if n == 0 || o.code == 0 {
				done[tk] = true
				for _, id := range tk.gone {
					u.model.Expire(id)
				}
			}
		}
	}
	if !maps.Equal(pinned, u.pinned) {
		u.t.Fatalf("pinned are %v, want %v", pinned, u.pinned)
	}
	for _, p := range u.model.Points() {
		if listed[p.ID] != p.Machine {
			u.t.Fatalf("point %s of %s is not listed any more", p.ID, p.Machine)
		}
		delete(listed, p.ID)
	}
	for id, machine := range listed {
		u.t.Fatalf("point %s of %s is listed and should not be", id, machine)
	}
	for i, tk := range tasks {
		if tk.key != nil || tk.old != nil {
			done[tk] = u.settleKey(tk, outcomes[i])
		}
	}
	return done
}

// newOf returns the point of a machine that nobody knows yet.
func (u *upkeep) newOf(listed map[repo.PointID]string, machine string) string {
	for id, of := range listed {
		if of == machine && !u.model.Has(id) {
			return string(id)
		}
	}
	return ""
}

func (u *upkeep) machineNamed(name string) *machine {
	i := slices.IndexFunc(u.machines, func(m *machine) bool { return m.name == name })
	return u.machines[i]
}

// readBack compares what a reader beside the others has restored.
func (u *upkeep) readBack(tk *task, o outcome) {
	u.t.Helper()
	defer os.RemoveAll(tk.to)
	if o.code != 0 {
		return
	}
	for _, d := range tk.read.Disks {
		if sumFile(u.t, filepath.Join(tk.to, d.Name+".raw")) != sumDisk(u.t, d.Disk) {
			u.t.Fatalf("point %s, disk %s: what was restored beside others is not the disk", tk.read.ID, d.Name)
		}
		u.restored++
	}
}

// verification is a part of what "repo ledger verify --json" prints.
type verification struct {
	LedgerHead struct {
		Number uint64
		SHA256 string
	}
	Problems []struct{ Kind, File, Problem string }
}

// verify verifies the ledger, which must go on from where it was.
func (u *upkeep) verify(flags ...string) {
	u.t.Helper()
	args := append([]string{"repo", "ledger", "verify", u.dir, "--json"}, flags...)
	if u.head != "" {
		args = append(args, "--head", u.head)
	}
	o := u.program.run(u.t, args...)
	v := decode[verification](u.t, o)
	for _, p := range v.Problems {
		if !u.damaged[p.File] {
			u.t.Fatalf("%s: %s", strings.Join(args, " "), o)
		}
	}
	if len(v.Problems) == 0 && o.code != 0 {
		u.t.Fatalf("%s: %s", strings.Join(args, " "), o)
	}
	u.head = fmt.Sprintf("%d %s", v.LedgerHead.Number, v.LedgerHead.SHA256)
}

// rest puts all in order: damage is repaired, unfinished runs are finished, and
// what no point needs is freed to the last byte. Then it looks at everything.
func (u *upkeep) rest() {
	u.t.Helper()
	u.unlock()
	for id := range u.pinned {
		u.must("unpin", string(id), "--name", "kept")
	}
	clear(u.pinned)
	u.must("repair")
	clear(u.damaged)
	for _, m := range u.machines {
		u.finished(m)
	}
	for _, p := range u.there {
		if !u.model.Has(p.ID) {
			u.program.must(u.t, "repo", "copy", u.from.dir, u.dir, string(p.ID))
			u.model.Add(p)
		}
	}
	// A machine whose points have all expired begins anew, under a new id, and so
	// nobody else finishes what was interrupted under the old one.
	for _, run := range decode[struct{ Runs []struct{ MachineID string } }](u.t, u.must("runs", "--json")).Runs {
		u.must("abandon", run.MachineID)
		u.abandoned++
	}
	u.must("sweep")
	u.must("compact", "--dead", "0")
	u.opened(func(fsys vfs.FS, opt repo.Options) error {
		r, err := repotest.Reachable(fsys)
		if err == nil && len(r.Missing) > 0 || r.DeadBytes > 0 || r.DeadPacks > 0 {
			err = fmt.Errorf("after sweep and compact %d dead bytes are left and %d dead packs, and %d records are missing", r.DeadBytes, r.DeadPacks, len(r.Missing))
		}
		return err
	})
	u.must("scrub", "--restart")
	u.account()
	u.verify("--packs")
	u.compare()
	u.restoreSome(2)
	// So that there is something to copy again.
	for _, p := range u.there[1:] {
		u.must("expire", string(p.ID))
		u.model.Expire(p.ID)
	}
}

// must runs a verb on the repository that has to succeed.
func (u *upkeep) must(verb string, args ...string) outcome {
	u.t.Helper()
	return u.program.must(u.t, append([]string{"repo", verb, u.dir}, args...)...)
}
