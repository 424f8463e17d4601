package recovery

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"holdfast/fs"
	"holdfast/image/redirect"
	"holdfast/repo"
	"holdfast/repo/chunk"
	"holdfast/repo/repotest"
	"holdfast/repo/vfs"
)

// A world is a repository with a machine, and where sessions of it go.
type world struct {
	repo, keys, state, redirect vfs.FS
	targets                     vfs.FS // nil: files of the machine
	disks                       []*repotest.Disk
	point                       repo.PointID
	log                         *slog.Logger
	retry                       time.Duration
}

var (
	worldFiles = []repo.MachineFile{
		{Name: "web1.vmx", Data: []byte("memSize = \"4\"\nscsi0.present = \"TRUE\"\nscsi0:0.present = \"TRUE\"\nscsi0:0.fileName = \"root.vmdk\"\n" +
			"scsi0:1.present = \"TRUE\"\nscsi0:1.fileName = \"data.vmdk\"\nctkEnabled = \"TRUE\"\n")},
		{Name: "web1.nvram", Data: bytes.Repeat([]byte("nvram"), 5000)},
	}
	worldNames  = []string{"root.vmdk", "data"}
	worldOption = redirect.Options{WALBytes: 256 << 10, ReserveBytes: 256 << 10}
)

// newWorld backs up a machine of two disks, the second of no whole sectors.
func newWorld(t testing.TB, fsys func(name string) vfs.FS) *world {
	t.Helper()
	w := &world{repo: fsys("repo"), keys: fsys("keys"), state: fsys("state"), redirect: fsys("redirect"), log: slog.New(slog.DiscardHandler), retry: time.Hour}
	if os.Getenv("HOLDFAST_TEST_LOG") != "" {
		w.log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	_, err := repo.Create(t.Context(), w.repo, repo.CreateOptions{
		State: w.keys, ReserveBytes: -1, PackBytes: 1 << 20, Geometry: chunk.Geometry{ChunkBytes: 256 << 10, FrameBytes: 64 << 10}})
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	w.disks = []*repotest.Disk{repotest.New(rng, repotest.Dense, 3<<20), repotest.New(rng, repotest.Dense, 700<<10+100)}
	w.point = w.backup(t, "web1", w.disks, worldFiles)
	return w
}

// inMemory is the file systems of a world that can lose power.
func inMemory(string) vfs.FS { return vfs.NewMem() }

// onDisk are directories.
func onDisk(t testing.TB) func(string) vfs.FS {
	return func(string) vfs.FS {
		d, err := vfs.OS(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { d.Close() })
		return d
	}
}

func (w *world) backup(t testing.TB, machine string, disks []*repotest.Disk, files []repo.MachineFile) repo.PointID {
	t.Helper()
	opt := repo.BackupOptions{Machine: machine, Files: files}
	for i, d := range disks {
		opt.Disks = append(opt.Disks, repo.SourceDisk{Name: worldNames[i], Source: repotest.NewSource(d), Path: "/dev/" + worldNames[i]})
	}
	run, err := repo.PerformBackup(t.Context(), w.repo, repo.Options{State: w.keys}, 0, opt)
	if err != nil {
		t.Fatal(err)
	}
	return run.Point.ID
}

func (w *world) options() Options {
	opt := Options{
		State: w.state, Redirect: w.redirect, Actor: "tester", Log: w.log, Retry: w.retry, redirect: worldOption,
		Repositories: []Repository{{Path: "/srv/backup", FS: w.repo, Options: repo.Options{State: w.keys}}},
	}
	if w.targets != nil {
		opt.targets = memTargets{w.targets}
	}
	return opt
}

// open opens a manager whose sessions are all there, or offline.
func (w *world) open(t testing.TB) *Manager {
	t.Helper()
	m, err := Open(t.Context(), w.options())
	if err == nil {
		err = m.Wait(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// opened is open, and closes it with the test.
func (w *world) opened(t testing.TB) *Manager {
	m := w.open(t)
	t.Cleanup(func() {
		if err := m.Close(); err != nil && !errors.Is(err, ErrClosed) {
			t.Error(err)
		}
	})
	return m
}

// repository opens the world's repository for reading.
func (w *world) repository(t testing.TB) *repo.Repository {
	t.Helper()
	r, err := repo.Open(t.Context(), w.repo, repo.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// publish publishes the world's point.
func publish(t testing.TB, m *Manager, w *world, opt PublishOptions) Session {
	t.Helper()
	opt.NoSwapRoom = true
	s, err := m.Publish(t.Context(), string(w.point), opt)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// file finds a file of a session.
func file(t testing.TB, m *Manager, session, name string) fs.Attr {
	t.Helper()
	dir, err := m.store.Lookup(t.Context(), m.store.Root(), session)
	if err != nil {
		t.Fatal(err)
	}
	a, err := m.store.Lookup(t.Context(), dir.ID, name)
	if err != nil {
		t.Fatalf("%s/%s: %v", session, name, err)
	}
	return a
}

// bytesOf reads a file of a session.
func bytesOf(t testing.TB, m *Manager, session, name string) []byte {
	t.Helper()
	a := file(t, m, session, name)
	p := make([]byte, a.Size)
	if n, err := m.store.ReadAt(t.Context(), a.ID, p, 0); n < len(p) && err != nil {
		t.Fatalf("%s/%s: %d of %d, %v", session, name, n, len(p), err)
	}
	return p
}

// write writes durably to a file of a session.
func write(t testing.TB, m *Manager, session, name string, p []byte, off int64) {
	t.Helper()
	if _, err := m.store.WriteAt(t.Context(), file(t, m, session, name).ID, p, off, true); err != nil {
		t.Fatalf("%s/%s at %d: %v", session, name, off, err)
	}
}

// flat is what a flat file of an untouched disk has.
func flat(d *repotest.Disk) []byte {
	p := make([]byte, (d.Size()+511)/512*512)
	if _, err := d.ReadAt(p, 0); err != nil && !errors.Is(err, io.EOF) {
		panic(err)
	}
	return p
}

// pinned lists the pins of the world's point.
func pinned(t testing.TB, w *world) []string {
	t.Helper()
	pins, err := w.repository(t).Pins(w.point)
	if err != nil {
		t.Fatal(err)
	}
	return pins
}

// left fails the test for what a world has of sessions though there are none.
func left(t testing.TB, w *world) {
	t.Helper()
	if pins := pinned(t, w); len(pins) > 0 {
		t.Errorf("pins are left: %q", pins)
	}
	if list, err := w.state.ReadDir(recordsDir); err != nil || len(list) > 0 {
		t.Errorf("records are left: %v, %v", list, err)
	}
	list, err := w.redirect.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		if strings.HasPrefix(e.Name, "session-") {
			t.Errorf("%s is left", e.Name)
		}
	}
}

func sameBytes(t testing.TB, what string, got, want []byte) {
	t.Helper()
	if bytes.Equal(got, want) {
		return
	}
	for i := range min(len(got), len(want)) {
		if got[i] != want[i] {
			t.Errorf("%s: other bytes from %d on", what, i)
			return
		}
	}
	t.Errorf("%s: %d bytes, want %d", what, len(got), len(want))
}

// diskOf reads a disk of a restore point.
func diskOf(t testing.TB, w *world, id repo.PointID, name string) []byte {
	t.Helper()
	p, err := w.repository(t).OpenPoint(id)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	d, err := p.Disk(name)
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, d.Size())
	if _, err := d.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	return b
}
