//go:build linux

package e2e

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"holdfast/repo/repotest"
)

// TestFullDisk backs up into a file system until it is full.
func TestFullDisk(t *testing.T) {
	for _, fs := range []string{"xfs", "ext4"} {
		t.Run(fs, func(t *testing.T) { fullDisk(t, fs) })
	}
}

func fullDisk(t *testing.T, fs string) {
	begin(t, "loop", "losetup", "mkfs."+fs)
	rng := random(t)
	v := newVolume(t, fs, 512<<20) // XFS takes no less than 300 MiB
	filler := filepath.Join(v.dir, "filler")
	s := &site{t: t, rng: rng, dir: filepath.Join(v.dir, "repository"), scratch: t.TempDir(), program: program{state: t.TempDir()}}

	// Not even room to set the reserve aside.
	fillUp(t, filler, 8<<20)
	init := s.initArgs(false)
	s.program.fails(t, 1, []string{"repo init: ", "no space left"}, init...)
	s.program.fails(t, 6, []string{"not a holdfast repository"}, "repo", "points", s.dir)
	shrink(t, filler, 128<<20)
	s.program.must(t, init...)

	small := s.addMachine("small", false, s.newDisk("small", "root", repotest.Text, 24<<20))
	s.finished(small)
	large := s.addMachine("large", false, s.newDisk("large", "root", repotest.Dense, 200<<20))
	full := 0
	for range 3 {
		// Each time some of it is stored, until there is no room for anything.
		a := s.backup(large)
		o := a.wait()
		if o.code == 0 {
			t.Fatalf("200 MiB that do not compress went into 128 MiB")
		}
		lines := strings.Split(strings.TrimSpace(o.err), "\n")
		for i, line := range lines {
			var object struct{ Code int }
			err := json.Unmarshal([]byte(line), &object)
			if last := i == len(lines)-1; err != nil || last && object.Code != 1 {
				t.Errorf("want objects and in the last the code 1, got %s: %v", o, err)
			}
		}
		if o.code != 1 || !strings.Contains(o.err, "no space left") {
			t.Fatalf("want exit code 1 and what is wrong: %s", o)
		}
		t.Log(strings.TrimSpace(o.err))
		if s.settle(a, o) {
			t.Fatal("a failed run has made a point")
		}
		full++
		s.compare()
		s.restoreSome(1)
	}
	s.program.fails(t, 1, []string{"no space left"}, "repo", "backup", s.dir, "--machine", "large", large.disks[0].path)

	// With no byte and no inode free, nothing gets worse, and a point can be read
	// that nobody has read before.
	leases, err := filepath.Glob(filepath.Join(s.dir, "leases", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range leases {
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
	fillUp(t, filler, 0)
	noMoreFiles(t, filepath.Join(v.dir, "files"))
	s.restoreSome(1)
	small.change(t, rng)
	a := s.backup(small)
	if o := a.wait(); o.code != 1 || s.settle(a, o) {
		t.Fatalf("want exit code 1 and no point: %s", o)
	}
	s.compare()

	if err := errors.Join(os.Remove(filler), os.RemoveAll(filepath.Join(v.dir, "files"))); err != nil {
		t.Fatal(err)
	}
	s.finished(small)
	run := s.finished(large)
	if run.Point.Counters.KnownBytes < 1<<20 {
		t.Errorf("after the failures %d bytes are known, want what they stored", run.Point.Counters.KnownBytes)
	}
	s.account()
	s.compare()
	s.restoreSome(len(s.model.Points()))
	t.Logf("%s: full %d times; then %d MiB of 200 were stored already; %d points compared, %d disks restored",
		fs, full+3, run.Point.Counters.KnownBytes>>20, s.compared, s.restored)
}

// TestExpireFull lets points go where not a byte is free, and goes on backing up
// when there is room.
func TestExpireFull(t *testing.T) {
	for _, fs := range []string{"xfs", "ext4"} {
		t.Run(fs, func(t *testing.T) { expireFull(t, fs) })
	}
}

func expireFull(t *testing.T, fs string) {
	begin(t, "loop", "losetup", "mkfs."+fs)
	rng := random(t)
	v := newVolume(t, fs, 512<<20)
	filler := filepath.Join(v.dir, "filler")
	s := &site{t: t, rng: rng, dir: filepath.Join(v.dir, "repository"), scratch: t.TempDir(), program: program{state: t.TempDir()}}
	s.program.must(t, s.initArgs(false)...)
	m := s.addMachine("m", false, s.newDisk("m", "root", repotest.Dense, 8<<20))
	for range 3 {
		s.finished(m)
		m.change(t, rng)
	}
	for range 2 {
		fillUp(t, filler, 0)
		p := s.model.Points()[0]
		s.program.must(t, "repo", "expire", s.dir, string(p.ID))
		s.model.Expire(p.ID)
		s.compare()
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	s.finished(m)
	s.account()
	s.compare()
	// And once more: the reserve was set aside again.
	fillUp(t, filler, 0)
	p := s.model.Points()[0]
	s.program.must(t, "repo", "expire", s.dir, string(p.ID))
	s.model.Expire(p.ID)
	s.compare()
}

// fillUp makes or extends a file until only about left bytes are free.
func fillUp(t *testing.T, name string, left int64) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		t.Fatal(err)
	}
	for step := int64(1 << 20); step >= 512; {
		var st unix.Statfs_t
		if err := unix.Fstatfs(int(f.Fd()), &st); err != nil {
			t.Fatal(err)
		}
		if free := int64(st.Bavail) * st.Bsize; left > 0 && free <= left+step {
			break
		}
		// Not by writing: XFS reserves more for that and gives it back later.
		switch err := unix.Fallocate(int(f.Fd()), 0, end, step); {
		case err == nil:
			end += step
		case errors.Is(err, unix.ENOSPC):
			step /= 2
		default:
			t.Fatal(err)
		}
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
}

// noMoreFiles makes empty files in a new directory, until there is room for none
// anywhere.
func noMoreFiles(t *testing.T, dir string) {
	t.Helper()
	err := os.Mkdir(dir, 0o700)
	for i := 0; err == nil; i++ {
		var f *os.File
		if f, err = os.Create(filepath.Join(dir, strconv.Itoa(i))); err == nil {
			err = f.Close()
		}
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
}

// shrink gives back n bytes of a file.
func shrink(t *testing.T, name string, n int64) {
	t.Helper()
	info, err := os.Stat(name)
	if err == nil {
		err = os.Truncate(name, info.Size()-n)
	}
	if err != nil {
		t.Fatal(err)
	}
	tool(t, "sync", "-f", name)
}

// TestReadOnly lists and restores from a read-only mount.
func TestReadOnly(t *testing.T) {
	for _, fs := range []string{"xfs", "ext4"} {
		t.Run(fs, func(t *testing.T) {
			begin(t, "loop", "losetup", "mkfs."+fs)
			rng := random(t)
			v := newVolume(t, fs, 512<<20)
			s := newSite(t, rng, filepath.Join(v.dir, "repository"), t.TempDir(), false)
			m := s.addMachine("m", false, s.newDisk("m", "root", repotest.Text, 16<<20))
			s.finished(m)
			v.unmount()
			v.mount(unix.MS_RDONLY)

			if o := s.program.must(t, "repo", "points", s.dir); strings.Count(o.err, "\n") > 1 {
				t.Errorf("points warns more than once: %s", o)
			}
			to := filepath.Join(s.scratch, "warned")
			o := s.program.must(t, "repo", "restore", s.dir, "m@latest", "--to", to)
			if strings.Count(o.err, "\n") != 1 || !strings.Contains(strings.ToLower(o.err), "warn") {
				t.Errorf("want one warning of restore: %s", o)
			}
			t.Log(strings.TrimSpace(o.err))
			s.check(nil)
			s.restoreSome(1)
			s.compare()
			s.program.fails(t, 1, []string{"read-only"}, "repo", "backup", s.dir, "--machine", "m", m.disks[0].path)
			s.program.fails(t, 1, []string{"read-only"}, "repo", "init", filepath.Join(v.dir, "other"))

			v.unmount()
			v.mount(0)
			m.change(t, rng)
			s.finished(m)
			s.account()
			s.compare()
		})
	}
}
