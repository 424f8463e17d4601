//go:build linux

package e2e

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"holdfast/repo"
	"holdfast/repo/repotest"
	"holdfast/repo/vfs"
)

// TestTwoProcesses has several processes work on a repository at once. The
// directory's path is too long for the address of a socket.
func TestTwoProcesses(t *testing.T) {
	begin(t)
	rng := random(t)
	top := t.TempDir()
	for len(top) < 300 {
		top = filepath.Join(top, strings.Repeat("long", 15))
	}
	if err := os.MkdirAll(top, 0o700); err != nil {
		t.Fatal(err)
	}
	s := newSite(t, rng, filepath.Join(top, "repository"), t.TempDir(), false)
	large := s.addMachine("large", false, s.newDisk("large", "root", repotest.Dense, 100<<20))
	small := s.addMachine("small", false, s.newDisk("small", "root", repotest.Text, 8<<20))
	s.finished(small)

	t.Run("the owner answers", func(t *testing.T) {
		a := s.owning(t, large)
		s.opened(func(fsys vfs.FS, _ repo.Options) error {
			st, err := repo.AskOwner(fsys)
			if err == nil && (st.Holder.PID != a.pid() || st.Holder.Doing != "backup of large") {
				err = fmt.Errorf("the owner says that it is %+v, want process %d, backup of large", st.Holder, a.pid())
			}
			return err
		})
		a.signal(syscall.SIGINT)
		if o := a.wait(); o.code != 130 {
			t.Errorf("want exit code 130: %s", o)
		}
	})
	t.Run("a second backup is refused", func(t *testing.T) {
		a := s.paused(t, large)
		began := time.Now()
		s.program.fails(t, 4, []string{fmt.Sprintf("process %d ", a.pid()), "backup of large"},
			"repo", "backup", s.dir, "--machine", "small", small.disks[0].path)
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("that took %v", took)
		}
		s.program.fails(t, 4, []string{fmt.Sprintf("process %d ", a.pid())},
			"repo", "backup", s.dir, "--machine", "small", small.disks[0].path, "--wait", "1s")
		s.resume(t, a)
	})
	t.Run("a second backup waits", func(t *testing.T) {
		large.change(t, rng)
		a := s.paused(t, large)
		small.change(t, rng)
		b := s.backup(small, "--wait", "30s")
		b.sleep(time.Second)
		if b.over() {
			t.Fatalf("it did not wait: %s", b.wait())
		}
		a.signal(syscall.SIGCONT)
		ao, bo := a.wait(), b.wait()
		if ao.code != 0 || bo.code != 0 {
			t.Fatalf("first %s\nsecond %s", ao, bo)
		}
		s.finish(a.point, decode[runListing](t, ao).Point.ID)
		s.settle(b, bo)
		t.Logf("the second waited %v", bo.took.Round(time.Millisecond))
	})
	t.Run("readers during a backup", func(t *testing.T) {
		large.change(t, rng)
		a := s.paused(t, large)
		s.check(nil)
		s.restoreSome(2)
		s.resume(t, a)

		// And while it really goes on.
		for range 3 {
			large.change(t, rng)
			a := s.backup(large)
			s.compare()
			s.restoreSome(1)
			if o := a.wait(); o.code != 0 {
				t.Fatal(o)
			} else {
				s.settle(a, o)
			}
		}
	})
	t.Run("a dead owner's socket", func(t *testing.T) {
		large.change(t, rng)
		a := s.owning(t, large)
		a.signal(syscall.SIGKILL)
		s.settle(a, a.wait())
		if info, err := os.Lstat(filepath.Join(s.dir, ".sock")); err != nil || info.Mode()&fs.ModeSocket == 0 {
			t.Fatalf("it has left no socket (%v); the test has lost its point", err)
		}
		s.opened(func(fsys vfs.FS, _ repo.Options) error {
			if st, err := repo.AskOwner(fsys); !errors.Is(err, repo.ErrNotFound) {
				return fmt.Errorf("a dead owner answers %+v, %v", st, err)
			}
			return nil
		})
		s.check(nil)
		s.finished(small)
		if _, err := os.Lstat(filepath.Join(s.dir, ".sock")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the next owner left a socket: %v", err)
		}
	})
	s.finished(large)
	s.account()
	s.compare()
	t.Logf("%d bytes of path; %d points compared, %d disks restored", len(s.dir), s.compared, s.restored)
}

// owning starts a backup and returns once it owns the repository and stores.
func (s *site) owning(t *testing.T, m *machine) attempt {
	t.Helper()
	before := packs(t, s.dir)
	a := s.backup(m)
	if !a.waitFor(func() bool { return packs(t, s.dir) > before }) {
		t.Fatalf("ended too early: %s", a.wait())
	}
	return a
}

// paused starts a backup and stops it when it owns the repository.
func (s *site) paused(t *testing.T, m *machine) attempt {
	t.Helper()
	a := s.owning(t, m)
	a.signal(syscall.SIGSTOP)
	if a.over() {
		t.Fatal("the backup was over before it could be stopped")
	}
	return a
}

// resume lets a stopped backup come to its end.
func (s *site) resume(t *testing.T, a attempt) {
	t.Helper()
	a.signal(syscall.SIGCONT)
	o := a.wait()
	if o.code != 0 {
		t.Fatal(o)
	}
	s.settle(a, o)
}
