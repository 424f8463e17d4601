//go:build linux

package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"holdfast/repo/repotest"
)

// TestPowerCut takes the power from file systems while a backup, an init or what
// keeps a repository in order goes on, and just after one has ended. Nobody calls
// sync for the program.
func TestPowerCut(t *testing.T) {
	for _, fs := range []string{"xfs", "ext4"} {
		t.Run(fs, func(t *testing.T) {
			begin(t, "loop", "losetup", "mkfs."+fs)
			t.Run("backup", func(t *testing.T) { cutBackups(t, fs) })
			t.Run("init", func(t *testing.T) { cutInits(t, fs) })
			t.Run("upkeep", func(t *testing.T) { cutUpkeep(t, fs) })
		})
	}
}

func cutBackups(t *testing.T, fs string) {
	rng := random(t)
	v := newVolume(t, fs, 3<<30)
	s := newSite(t, rng, filepath.Join(v.dir, "repository"), filepath.Join(v.dir, "state"), rng.IntN(2) == 0)
	v.cut()
	v.remount()
	s.check(nil)

	s.addMachines()
	cuts := count(t, "POWERCUTS", 20)
	var after, between, appeared int
	for i := range cuts {
		m := s.machines[rng.IntN(len(s.machines))]
		if rng.IntN(4) > 0 {
			m.change(t, rng)
		}
		segments := s.segments()
		a := s.backup(m)
		if i%4 == 3 {
			<-a.ended
		} else {
			s.atRandom(a, m)
		}
		v.cut()
		o := a.wait()
		if o.code < 0 || strings.Contains(o.err, "panic") {
			t.Fatalf("backup of %s: %s", m.name, o)
		}
		v.remount()
		switch point := s.settle(a, o); {
		case o.code == 0:
			after++
		case point:
			appeared++
		case s.segments() > segments:
			between++
		}
		s.restoreSome(1)
		if i%3 == 1 {
			s.account()
		}
		if i%3 == 2 {
			s.finished(s.machines[rng.IntN(len(s.machines))])
		}
		if i%10 == 9 {
			s.compare()
		}
	}
	for _, m := range s.machines {
		s.finished(m)
	}
	v.cut()
	v.remount()
	s.account()
	s.compare()
	t.Logf("%s: %d cuts, %d of them after the end of a run, %d between ledger segment and manifest, %d with the point complete; %d points; %d points compared, %d disks restored",
		fs, cuts+2, after, between, appeared, len(s.model.Points()), s.compared, s.restored)
}

// cutInits takes the power during init. Its state directory is on the same
// file system, so that the signing key must last as long as the repository.
func cutInits(t *testing.T, fs string) {
	rng := random(t)
	v := newVolume(t, fs, 2<<30)
	cuts := (count(t, "POWERCUTS", 20) + 1) / 2
	took := 500 * time.Millisecond
	made := 0
	for i := range cuts {
		top := filepath.Join(v.dir, "site")
		if err := os.Mkdir(top, 0o700); err != nil {
			t.Fatal(err)
		}
		tool(t, "sync", "-f", top)
		s := &site{t: t, rng: rng, scratch: t.TempDir(), program: program{state: filepath.Join(top, "state")}}
		s.dir = filepath.Join(top, "repository")
		init := s.initArgs(i%2 == 1)
		pr := s.program.start(t, init...)
		if i%4 == 3 {
			<-pr.ended
		} else {
			pr.sleep(upTo(rng, took))
		}
		v.cut()
		o := pr.wait()
		if o.code < 0 || strings.Contains(o.err, "panic") {
			t.Fatalf("init: %s", o)
		}
		if o.code == 0 {
			took = o.took
		}
		v.remount()
		switch o2 := s.program.run(t, "repo", "points", s.dir); {
		case o2.code == 0:
			made++
		case o2.code == 6 && o.code != 0:
			s.program.must(t, init...)
		default:
			t.Fatalf("init ended with %d; then points: %s", o.code, o2)
		}
		m := s.addMachine("m", false, s.newDisk("m", "root", repotest.Text, 1<<20))
		s.finished(m)
		v.cut()
		v.remount()
		s.check(nil)
		s.account()
		s.compare()
		if err := os.RemoveAll(top); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%s: %d cuts during init, %d after a backup; %d repositories were made by the first init", fs, cuts, cuts, made)
}

// cutUpkeep takes the power while points expire and room is made, several at
// once, backups beside them.
func cutUpkeep(t *testing.T, fs string) {
	rng := random(t)
	v := newVolume(t, fs, 3<<30)
	u := newUpkeep(t, rng, v, filepath.Join(v.dir, "state"), rng.IntN(2) == 0)
	u.locks = false // nobody makes flags durable
	u.verbs = []string{"backup", "expire", "expire", "retain", "sweep", "sweep", "sweep", "compact", "compact", "synthesize", "copy"}
	cuts := count(t, "POWERCUTS", 20)
	met := make(map[string]int)
	after, effects := 0, 0
	for i := range cuts {
		tasks := u.start()
		if i%4 == 3 {
			for _, tk := range tasks {
				<-tk.ended
			}
		} else {
			u.atMoment(tasks[0])
		}
		for _, tk := range tasks {
			if tk.over() {
				after++
			} else {
				met[tk.verb]++
			}
		}
		v.cut()
		outcomes := make([]outcome, len(tasks))
		for i, tk := range tasks {
			outcomes[i] = tk.process.wait()
			if o := outcomes[i]; o.code < 0 || strings.Contains(o.err, "panic") {
				t.Fatalf("%s: %s", tk.verb, o)
			}
		}
		v.remount()
		done := u.settle(tasks, outcomes)
		for i, tk := range tasks {
			if done[tk] && outcomes[i].code != 0 {
				effects++
			}
		}
		u.verify()
		u.restoreSome(1)
		if i%10 == 9 {
			u.rest()
		}
	}
	u.rest()
	v.cut()
	v.remount()
	u.account()
	u.compare()
	t.Logf("%s: %d cuts during %s, %d of them with the work done, after the end of %d; %d points; %d points compared, %d disks restored",
		fs, cuts+1, counted(met), effects, after, len(u.model.Points()), u.compared, u.restored)
}
