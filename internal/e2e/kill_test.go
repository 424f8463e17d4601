//go:build linux

package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"holdfast/repo/repotest"
)

// killsPerSite keeps the work that each kill brings from growing: all points
// are compared again and again.
const killsPerSite = 100

// TestKillBackup kills backups at random moments.
func TestKillBackup(t *testing.T) {
	begin(t)
	kills := count(t, "KILLS", 200)
	each := min(killsPerSite, (kills+1)/2)
	for i := 0; i*each < kills; i++ {
		name, sealed := "plain", i%2 == 1
		if sealed {
			name = "sealed"
		}
		t.Run(name, func(t *testing.T) { killBackups(t, sealed, each) })
	}
}

func killBackups(t *testing.T, sealed bool, kills int) {
	rng := random(t)
	s := newSite(t, rng, filepath.Join(t.TempDir(), "repository"), t.TempDir(), sealed)
	s.addMachines()
	var killed, between, appeared int
	for i := 0; killed < kills; i++ {
		m := s.machines[rng.IntN(len(s.machines))]
		if rng.IntN(4) > 0 {
			m.change(t, rng)
		}
		if i%6 == 5 {
			s.finished(m)
			continue
		}
		segments := s.segments()
		a := s.backup(m)
		s.atRandom(a, m)
		a.signal(syscall.SIGKILL)
		o := a.wait()
		if o.code > 0 {
			t.Fatalf("backup of %s: %s", m.name, o)
		}
		if point := s.settle(a, o); o.code < 0 {
			killed++
			if point {
				appeared++
			} else if s.segments() > segments {
				between++
			}
		}
		if i%10 == 9 {
			s.account()
			s.restoreSome(2)
		}
		if i%40 == 39 {
			s.compare()
		}
	}
	for _, m := range s.machines {
		s.finished(m)
	}
	s.account()
	s.compare()
	s.restoreSome(len(s.model.Points()))
	t.Logf("%d kills, %d of them between ledger segment and manifest, %d with the point complete; %d points; %d points compared, %d disks restored",
		killed, between, appeared, len(s.model.Points()), s.compared, s.restored)
	if between+appeared == 0 && kills >= 50 {
		t.Error("no kill met the commit")
	}
}

// TestKillInit kills init at random moments: then there is a repository, or
// init makes one.
func TestKillInit(t *testing.T) {
	begin(t)
	rng := random(t)
	kills := (count(t, "KILLS", 200) + 3) / 4
	took := 200 * time.Millisecond
	var killed, made int
	for i := 0; killed < kills; i++ {
		s := &site{t: t, rng: rng, scratch: t.TempDir(), program: program{state: t.TempDir()}}
		s.dir = filepath.Join(s.scratch, "repository")
		init := s.initArgs(i%2 == 1)
		for kill := true; ; kill = rng.IntN(2) == 0 {
			pr := s.program.start(t, init...)
			if kill {
				pr.sleep(upTo(rng, took*11/10))
				pr.signal(syscall.SIGKILL)
			}
			o := pr.wait()
			points := s.program.run(t, "repo", "points", s.dir)
			switch {
			case o.code > 0 || points.code != 0 && (points.code != 6 || o.code == 0):
				t.Fatalf("init: %s\nthen points: %s", o, points)
			case o.code == 0:
				took = o.took
			default:
				killed++
			}
			if points.code == 0 {
				if o.code < 0 {
					made++
				}
				break
			}
		}
		m := s.addMachine("m", false, s.newDisk("m", "root", repotest.Text, 1<<20))
		s.finished(m)
		s.account()
		s.compare()
		os.RemoveAll(s.scratch)
	}
	t.Logf("%d kills, %d of them with the repository complete", killed, made)
}

// TestKillRestore kills restores: what has the name of the target is what was
// there before, or all of the disk.
func TestKillRestore(t *testing.T) {
	begin(t)
	rng := random(t)
	s := newSite(t, rng, filepath.Join(t.TempDir(), "repository"), t.TempDir(), false)
	m := s.addMachine("m", false, s.newDisk("m", "root", repotest.Dense, 100<<20))
	s.finished(m)
	want := sumDisk(t, m.disks[0].now)

	kills := (count(t, "KILLS", 200) + 9) / 10
	took := 2 * time.Second
	var killed, complete, partial int
	for i := 0; killed < kills; i++ {
		dir := filepath.Join(s.scratch, "to")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		to := filepath.Join(dir, "disk")
		args := []string{"repo", "restore", s.dir, "m@latest", "--to", to}
		old := i%2 == 1
		if old {
			if err := os.WriteFile(to, []byte("what was there before"), 0o600); err != nil {
				t.Fatal(err)
			}
			args = append(args, "--force")
		}
		if i%4 >= 2 {
			args = append(args, "--format", "vmdk-flat")
		}
		pr := s.program.start(t, args...)
		pr.sleep(upTo(rng, took*21/20))
		pr.signal(syscall.SIGKILL)
		if o := pr.wait(); o.code > 0 {
			t.Fatalf("restore: %s", o)
		} else if o.code == 0 {
			took = o.took
		} else {
			killed++
		}
		files, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			name := filepath.Join(dir, f.Name())
			text := head(t, name)
			switch {
			case strings.HasPrefix(f.Name(), ".disk") && strings.HasSuffix(f.Name(), ".partial"):
				partial++
			case old && text == "what was there before":
			case strings.HasPrefix(text, "# Disk DescriptorFile"):
				// The descriptor comes last, so the bytes are there.
				if got := sumFile(t, filepath.Join(dir, "disk-flat.vmdk")); got != want {
					t.Fatalf("a descriptor describes bytes that are not the disk's")
				}
				complete++
			case sumFile(t, name) != want:
				t.Fatalf("%s has the name of the target and is not the disk", f.Name())
			default:
				complete++
			}
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
	}
	s.account()
	t.Logf("%d kills, %d partial files left, %d complete ones", killed, partial, complete)
	if partial == 0 {
		t.Error("no kill met a restore under way")
	}
}

// head returns the first bytes of a file.
func head(t *testing.T, name string) string {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p := make([]byte, 21)
	n, _ := f.Read(p) // an empty file is none of those that are looked for
	return string(p[:n])
}

// TestInterrupt sends SIGINT: exit 130, no point, and the next run stores
// nothing twice.
func TestInterrupt(t *testing.T) {
	begin(t)
	rng := random(t)
	for name, sealed := range map[string]bool{"plain": false, "sealed": true} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, rng, filepath.Join(t.TempDir(), "repository"), t.TempDir(), sealed)
			m := s.addMachine("m", false, s.newDisk("m", "root", repotest.Dense, 100<<20))
			a := s.backup(m)
			if !a.waitFor(func() bool { return packs(t, s.dir) > 4 }) {
				t.Fatalf("ended before it had stored anything: %s", a.wait())
			}
			a.signal(syscall.SIGINT)
			o := a.wait()
			if o.code != 130 {
				t.Fatalf("want exit code 130: %s", o)
			}
			if s.settle(a, o) {
				t.Fatal("an interrupted run has made a point")
			}
			s.account()
			run := s.finished(m)
			c := run.Point.Counters
			if c.KnownBytes < 1<<20 || c.KnownBytes+c.NewBytes != 100<<20 {
				t.Errorf("known %d and new %d bytes, want more than 1 MiB known and %d in all", c.KnownBytes, c.NewBytes, 100<<20)
			}
			s.account()
			s.compare()
			t.Logf("interrupted after %v; the next run found %d MiB of 100 stored already", o.took.Round(time.Millisecond), c.KnownBytes>>20)
		})
	}
}

// packs counts the data packs of a repository.
func packs(t *testing.T, dir string) int {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(dir, "packs/data/*/*.pack"))
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}
