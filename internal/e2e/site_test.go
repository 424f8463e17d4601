//go:build linux

package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"filippo.io/age"

	"holdfast/repo"
	"holdfast/repo/repotest"
	"holdfast/repo/vfs"
)

// A site is a repository, the machines that are backed up into it, and what it
// must hold.
type site struct {
	t        *testing.T
	rng      *rand.Rand
	dir      string // of the repository
	scratch  string // for whatever is not the repository's
	program  program
	ids      []age.Identity // what opens it, if it is sealed
	machines []*machine
	model    repotest.Model

	compared int // points that were read in full
	restored int // disks that were restored by the program
}

// newSite makes a repository of small packs in dir, with state beside it. A
// sealed one opens by an age identity, since a passphrase is slow by design.
func newSite(t *testing.T, rng *rand.Rand, dir, state string, sealed bool) *site {
	t.Helper()
	s := &site{t: t, rng: rng, dir: dir, scratch: t.TempDir(), program: program{state: state}}
	s.program.must(t, s.initArgs(sealed)...)
	return s
}

// initArgs is the command line that makes the repository.
func (s *site) initArgs(sealed bool) []string {
	s.t.Helper()
	args := []string{"repo", "init", s.dir, "--chunk", "256K", "--frame", "64K", "--pack", "1M"}
	if !sealed {
		return args
	}
	id, err := age.GenerateX25519Identity()
	if err != nil {
		s.t.Fatal(err)
	}
	file := filepath.Join(s.scratch, "identity")
	if err := os.WriteFile(file, []byte(id.String()+"\n"), 0o600); err != nil {
		s.t.Fatal(err)
	}
	s.ids = []age.Identity{id}
	s.program.flags = []string{"--identity-file", file}
	return append(args, "--recipient", id.Recipient().String())
}

// opened runs fn with the repository's directory and the options to open it.
func (s *site) opened(fn func(vfs.FS, repo.Options) error) {
	s.t.Helper()
	if err := func() (err error) {
		d, err := vfs.OS(s.dir)
		if err != nil {
			return err
		}
		defer d.Close()
		state, err := vfs.OS(s.program.state)
		if err != nil {
			return err
		}
		defer state.Close()
		return fn(d, repo.Options{Identities: s.ids, State: state})
	}(); err != nil {
		s.t.Fatal(err)
	}
}

// compare reads all points and compares them with the model.
func (s *site) compare() {
	s.t.Helper()
	s.opened(func(fsys vfs.FS, opt repo.Options) error {
		return repotest.OpenAndCompare(context.Background(), fsys, opt, &s.model)
	})
	s.compared += len(s.model.Points())
}

// account lets an owner come and go, and looks for files that belong to nothing.
func (s *site) account() {
	s.t.Helper()
	s.opened(func(fsys vfs.FS, opt repo.Options) error {
		if err := repotest.Reopen(context.Background(), fsys, opt); err != nil {
			return err
		}
		return repotest.Account(fsys)
	})
}

// listing is a part of what "repo points --json" prints.
type listing struct {
	Points []struct {
		ID      string
		Machine string
		Pins    []string
	}
}

// check lists the points, which must be those of the model. One more may be
// there when it is of attempt and reads as that; it is then a point like any
// other, and check returns true.
func (s *site) check(attempt *repotest.Point) (appeared bool) {
	s.t.Helper()
	known := make(map[string]bool)
	for _, p := range s.model.Points() {
		known[string(p.ID)] = true
	}
	for _, p := range decode[listing](s.t, s.program.must(s.t, "repo", "points", s.dir, "--json")).Points {
		switch {
		case known[p.ID]:
			delete(known, p.ID)
		case attempt != nil && !appeared && p.Machine == attempt.Machine:
			appeared = true
			s.finish(*attempt, p.ID)
			s.opened(func(fsys vfs.FS, opt repo.Options) error {
				r, err := repo.Open(context.Background(), fsys, opt)
				if err != nil {
					return err
				}
				defer r.Close()
				return repotest.ComparePoint(context.Background(), r, attempt.WithID(repo.PointID(p.ID)))
			})
			s.compared++
		default:
			s.t.Fatalf("point %s of %s is listed; no run that made it ended well", p.ID, p.Machine)
		}
	}
	for id := range known {
		s.t.Fatalf("point %s is not listed any more", id)
	}
	return appeared
}

// finish notes that an attempt has become a point.
func (s *site) finish(p repotest.Point, id string) {
	s.model.Add(p.WithID(repo.PointID(id)))
	for _, m := range s.machines {
		if m.name == p.Machine {
			m.base = id
			for _, d := range m.disks {
				d.changed, d.baseSize = nil, d.now.Size()
			}
		}
	}
}

// restore restores a point by the program and compares its files.
func (s *site) restore(p repotest.Point) {
	s.t.Helper()
	to := filepath.Join(s.scratch, "restored")
	defer os.RemoveAll(to)
	if err := os.Mkdir(to, 0o700); err != nil {
		s.t.Fatal(err)
	}
	s.program.must(s.t, "repo", "restore", s.dir, string(p.ID), "--to", to)
	for _, d := range p.Disks {
		got, want := sumFile(s.t, filepath.Join(to, d.Name+".raw")), sumDisk(s.t, d.Disk)
		if got != want {
			s.t.Fatalf("point %s, disk %s: restored bytes have the digest %x, want %x", p.ID, d.Name, got, want)
		}
		s.restored++
	}
}

// restoreSome restores the last point and some others by the program.
func (s *site) restoreSome(n int) {
	s.t.Helper()
	points := s.model.Points()
	for i := range min(n, len(points)) {
		p := points[len(points)-1]
		if i > 0 {
			p = points[s.rng.IntN(len(points))]
		}
		s.restore(p)
	}
}

// An attempt is a backup under way and what its point will hold.
type attempt struct {
	*process
	point repotest.Point
}

// backup starts to back up a machine as it is now.
func (s *site) backup(m *machine, flags ...string) attempt {
	s.t.Helper()
	args := append([]string{"repo", "backup", s.dir, "--machine", m.name, "--json"}, flags...)
	var disks []repotest.NamedDisk
	for _, d := range m.disks {
		args = append(args, d.name+"="+d.path)
		disks = append(disks, repotest.NamedDisk{Name: d.name, Disk: d.now})
	}
	if m.lists && m.base != "" {
		args = append(args, "--changed", m.writeList(s.t, s.scratch))
	}
	return attempt{s.program.start(s.t, args...), repotest.NewPoint(m.name, disks...)}
}

// runListing is a part of what "repo backup --json" prints.
type runListing struct {
	Point struct {
		ID       string
		Counters repo.Counters
	}
	Disks    []struct{ Mode, Reason string }
	Warnings []string
}

// settle takes note of how a backup ended and checks the list of points.
func (s *site) settle(a attempt, o outcome) (point bool) {
	s.t.Helper()
	if o.code != 0 {
		return s.check(&a.point)
	}
	s.finish(a.point, decode[runListing](s.t, o).Point.ID)
	s.check(nil)
	return true
}

// finished backs up a machine to the end, after which tmp is empty.
func (s *site) finished(m *machine) runListing {
	s.t.Helper()
	a := s.backup(m)
	o := a.wait()
	if o.code != 0 {
		s.t.Fatalf("backup of %s: %s", m.name, o)
	}
	m.took = o.took
	s.settle(a, o)
	if left, err := os.ReadDir(filepath.Join(s.dir, "tmp")); err != nil || len(left) > 0 {
		s.t.Fatalf("tmp holds %d files after a run that ended well (%v)", len(left), err)
	}
	return decode[runListing](s.t, o)
}

// segments counts the ledger's segments.
func (s *site) segments() int {
	s.t.Helper()
	list, err := os.ReadDir(filepath.Join(s.dir, "ledger"))
	if err != nil {
		s.t.Fatal(err)
	}
	return len(slices.DeleteFunc(list, func(e os.DirEntry) bool { return filepath.Ext(e.Name()) != "" }))
}

// segmentThere returns a test for the existence of the segment after those that
// there are.
func (s *site) segmentThere() func() bool {
	name := filepath.Join(s.dir, "ledger", fmt.Sprintf("%08d", s.segments()+1))
	return func() bool { _, err := os.Lstat(name); return err == nil }
}

// atRandom lets a backup go on until a random moment: mostly anywhere in the
// time that such a run takes, else somewhere around the commit.
func (s *site) atRandom(a attempt, m *machine) {
	if s.rng.IntN(3) > 0 {
		a.sleep(upTo(s.rng, m.took*11/10))
	} else if a.waitFor(s.segmentThere()) {
		a.sleep(upTo(s.rng, 12*time.Millisecond))
	}
}

// reopen returns what lets an owner come and go.
func reopen(t *testing.T) func(vfs.FS, repo.Options) error {
	return func(fsys vfs.FS, opt repo.Options) error { return repotest.Reopen(t.Context(), fsys, opt) }
}
