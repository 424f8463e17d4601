package content_test

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"holdfast/fs"
	"holdfast/fs/content"
	"holdfast/fs/guest"
	"holdfast/repo"
	"holdfast/repo/chunk"
	"holdfast/repo/repotest"
	"holdfast/repo/vfs"
)

// A world is a repository, in memory or not, and its owner.
type world struct {
	t       *testing.T
	mem     vfs.FS // the repository
	state   vfs.FS
	clock   atomic.Int64 // seconds
	owner   *repo.Owner
	options repo.Options
}

var epoch = time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC)

func newWorld(t *testing.T) *world {
	t.Helper()
	return newWorldIn(t, vfs.NewMem(), vfs.NewMem())
}

func newWorldIn(t *testing.T, mem, state vfs.FS) *world {
	t.Helper()
	w := &world{t: t, mem: mem, state: state}
	_, err := repo.Create(t.Context(), w.mem, repo.CreateOptions{
		Geometry: chunk.Geometry{ChunkBytes: 256 << 10, FrameBytes: 64 << 10}, PackBytes: repo.MinPackBytes,
		Compression: "s2", ReserveBytes: 8192, State: w.state, Now: w.now,
	})
	must(t, err)
	w.options = repo.Options{State: w.state, Now: w.now, FrameCacheBytes: 4 << 20, NodeCacheBytes: 1 << 20, IndexCacheBytes: 1 << 16}
	w.owner, err = repo.Own(t.Context(), w.mem, w.options, 0)
	must(t, err)
	t.Cleanup(func() { w.owner.Close() })
	return w
}

func (w *world) now() time.Time { return epoch.Add(time.Duration(w.clock.Load()) * time.Second) }

// backup makes a point at a second after epoch.
func (w *world) backup(at int64, machine string, disks ...repotest.NamedDisk) repo.Point {
	w.t.Helper()
	w.clock.Store(at)
	run, err := w.owner.Backup(w.t.Context(), repo.BackupOptions{Machine: machine, Disks: repotest.NewPoint(machine, disks...).Sources()})
	must(w.t, err)
	return run.Point
}

func (w *world) expire(id repo.PointID) {
	w.t.Helper()
	_, err := w.owner.Expire(w.t.Context(), id, "test")
	must(w.t, err)
}

// reader opens the repository as another process would.
func (w *world) reader() *repo.Repository {
	w.t.Helper()
	r, err := repo.Open(w.t.Context(), w.mem, w.options)
	must(w.t, err)
	w.t.Cleanup(func() { r.Close() })
	return r
}

func (w *world) tree(opt content.Options) *content.Tree {
	w.t.Helper()
	tree := content.New(w.reader(), opt)
	w.t.Cleanup(func() { tree.Close() })
	return tree
}

func dense(seed uint64, size int64) *repotest.Disk {
	return repotest.New(rand.New(rand.NewPCG(seed, 0)), repotest.Dense, size)
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

var background = context.Background()

func direct(context.Context) (guest.Reader, error) { return guest.Direct{}, nil }

var repoSweep repo.SweepOptions

// must1 is must for a value and an error.
func must1[V any](v V, err error) func(testing.TB) V {
	return func(tb testing.TB) V {
		tb.Helper()
		must(tb, err)
		return v
	}
}

// names lists a directory.
func names(t *testing.T, tree fs.Tree, path string) []string {
	t.Helper()
	var list []string
	must(t, tree.ReadDir(background, resolve(t, tree, path).ID, 0, func(e fs.Entry) bool {
		list = append(list, e.Name)
		return true
	}))
	slices.Sort(list)
	return list
}
