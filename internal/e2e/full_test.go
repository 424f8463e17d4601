//go:build linux

package e2e

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"holdfast/repo"
	"holdfast/repo/repotest"
)

// TestFullUpkeep has no byte and no inode free, and makes room by letting points
// go.
func TestFullUpkeep(t *testing.T) {
	for _, fs := range []string{"xfs", "ext4"} {
		t.Run(fs, func(t *testing.T) {
			begin(t, "loop", "losetup", "mkfs."+fs)
			fullUpkeep(t, fs)
		})
	}
}

// unique is what each point of the machine below holds alone.
const unique = 24 << 20

func fullUpkeep(t *testing.T, fs string) {
	rng := random(t)
	v := newVolume(t, fs, 640<<20)
	s := newSite(t, rng, filepath.Join(v.dir, "repository"), t.TempDir(), rng.IntN(2) == 0)
	m := s.addMachine("m", false, s.newDisk("m", "root", repotest.Dense, unique))
	reserve := filepath.Join(s.dir, "reserve")
	want := allocated(t, reserve)
	filler, files := filepath.Join(v.dir, "filler"), filepath.Join(v.dir, "files")
	more := func(points int) {
		for range points {
			d := m.disks[0]
			d.now = repotest.New(rng, repotest.Dense, unique)
			if err := d.write([]repo.Range{{Off: 0, Len: d.now.Size()}}); err != nil {
				t.Fatal(err)
			}
			s.finished(m)
		}
	}
	oldest := func() repo.PointID { return s.model.Points()[0].ID }
	expire := func() {
		s.program.must(t, "repo", "expire", s.dir, string(oldest()))
		s.model.Expire(oldest())
	}
	for _, c := range []struct {
		name         string
		before, when func() // it is full
	}{
		{"expire, then sweep", func() {}, expire},
		{"retain, then sweep", func() {}, func() {
			s.program.must(t, "repo", "retain", s.dir, "--keep-last", "3")
			for len(s.model.Points()) > 3 {
				s.model.Expire(oldest())
			}
		}},
		{"sweep", expire, func() {}},
	} {
		t.Run(c.name, func(t *testing.T) {
			more(7 - len(s.model.Points()))
			c.before()
			gone := int64(7 - len(s.model.Points()))
			useUp(t, fs, filler, files)
			var st unix.Statfs_t
			if err := unix.Statfs(v.dir, &st); err != nil {
				t.Fatal(err)
			}
			t.Logf("%d bytes free, %d inodes free", int64(st.Bavail)*st.Bsize, st.Ffree)

			c.when()
			gone = max(gone, int64(7-len(s.model.Points())))
			s.check(nil)
			s.restoreSome(1)
			o := s.program.must(t, "repo", "sweep", s.dir, "--json")
			t.Log(decode[swept](t, o))
			free := freeBytes(t, v.dir)
			if least := gone * unique / 2; free < least {
				t.Errorf("%d points gone: %d bytes are free, want at least %d", gone, free, least)
			}
			s.check(nil)
			s.opened(reopen(t))
			// Of what is free it takes a half at most, so that backups can go on.
			if got, least := allocated(t, reserve), min(want, free/3); got < least {
				t.Errorf("the reserve has %d bytes again, want at least %d", got, least)
			}
			if err := os.RemoveAll(files); err != nil {
				t.Fatal(err)
			}
			m.change(t, rng)
			s.finished(m)
			s.restoreSome(1)
			s.compare()
			if err := os.Remove(filler); err != nil {
				t.Fatal(err)
			}
			for i := 0; i < 100 && freeBytes(t, v.dir) < 3*want; i++ {
				time.Sleep(50 * time.Millisecond) // XFS frees a removed file's bytes a while later
			}
			s.account()
			if got := allocated(t, reserve); got < want {
				t.Errorf("the reserve has %d bytes in the end, want %d", got, want)
			}
		})
	}
	t.Logf("%s: %d points compared, %d disks restored", fs, s.compared, s.restored)
}

// useUp leaves no byte and no inode. XFS makes inodes while it has bytes; a
// directory of ext4 needs bytes to name them.
func useUp(t *testing.T, fs, filler, files string) {
	t.Helper()
	if err := os.WriteFile(filler, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if fs == "ext4" {
		noMoreFiles(t, files)
		fillUp(t, filler, 0)
		return
	}
	fillUp(t, filler, 0)
	noMoreFiles(t, files)
}

// allocated returns how many bytes a file takes on its disk.
func allocated(t *testing.T, name string) int64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(name, &st); err != nil {
		t.Fatal(err)
	}
	return st.Blocks * 512
}

// freeBytes returns how many bytes are free.
func freeBytes(t *testing.T, dir string) int64 {
	t.Helper()
	var st unix.Statfs_t
	f, err := os.Open(dir)
	if err == nil {
		err = errors.Join(unix.Syncfs(int(f.Fd())), unix.Fstatfs(int(f.Fd()), &st), f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	return int64(st.Bavail) * st.Bsize
}
