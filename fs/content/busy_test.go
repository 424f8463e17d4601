package content_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"time"

	"holdfast/fs"
	"holdfast/fs/content"
	"holdfast/repo"
	"holdfast/repo/repotest"
	"holdfast/repo/vfs"
)

// TestBusy reads while the owner backs up, expires, sweeps and compacts: what is
// read is what the point has, and what has expired is not listed any more.
func TestBusy(t *testing.T) {
	mem, state, lasts := vfs.FS(vfs.NewMem()), vfs.FS(vfs.NewMem()), 1500*time.Millisecond
	if os.Getenv("HOLDFAST_LONG") != "" { // as make e2e has it
		mem, state, lasts = must1(vfs.OS(t.TempDir()))(t), must1(vfs.OS(t.TempDir()))(t), time.Minute
	}
	b := &busy{w: newWorldIn(t, mem, state), disks: make(map[repo.PointID]*repotest.Disk), going: make(map[repo.PointID]bool), gone: make(map[repo.PointID]time.Time)}
	b.add(t, repotest.New(rand.New(rand.NewPCG(1, 1)), repotest.Text, 2<<20))
	b.tree = b.w.tree(content.Options{Refresh: refresh, Idle: 20 * time.Millisecond, Points: 3})
	ctx, stop := context.WithTimeout(t.Context(), lasts+time.Minute) // on a machine that has no time
	defer stop()
	time.AfterFunc(lasts, func() {
		for !b.enough() && ctx.Err() == nil {
			time.Sleep(10 * time.Millisecond)
		}
		stop()
	})
	var wg sync.WaitGroup
	wg.Go(func() { b.own(ctx, t) })
	for i := range 4 {
		wg.Go(func() { b.read(ctx, t, uint64(i)) })
	}
	wg.Wait()
	if !b.enough() {
		t.Error("too little happened")
	}
	t.Logf("%d points came, %d went, %d reads, %d of them too late", b.points, len(b.gone), b.reads, b.late)
}

// enough says whether it was worth it.
func (b *busy) enough() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.points > 6 && len(b.gone) > 2 && b.reads > 50
}

// refresh is how old the list of points may be.
const refresh = 10 * time.Millisecond

type busy struct {
	w    *world
	tree *content.Tree

	mu     sync.Mutex // guards the rest
	disks  map[repo.PointID]*repotest.Disk
	going  map[repo.PointID]bool      // about to expire, or gone
	gone   map[repo.PointID]time.Time // since when
	points int
	reads  int
	late   int // of points that had gone
}

func (b *busy) add(t *testing.T, d *repotest.Disk) {
	b.mu.Lock()
	at := b.points
	b.mu.Unlock()
	p := b.w.backup(int64(at), "m", repotest.NamedDisk{Name: "d", Disk: d})
	b.mu.Lock()
	defer b.mu.Unlock()
	b.disks[p.ID] = d
	b.points++
}

// own does what an owner does, over and over.
func (b *busy) own(ctx context.Context, t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 2))
	last := b.disks[must1(b.w.owner.Points(background))(t)[0].ID]
	for round := 0; ctx.Err() == nil; round++ {
		last, _ = repotest.Change(rng, last)
		if last.Size() > 8<<20 {
			last.Resize(2 << 20)
		}
		b.add(t, last)
		points := must1(b.w.owner.Points(background))(t)
		for len(points) > 4 {
			p := points[0]
			if rng.IntN(3) == 0 {
				p = points[1+rng.IntN(2)]
			}
			b.mu.Lock()
			b.going[p.ID] = true
			b.mu.Unlock()
			b.w.expire(p.ID)
			b.mu.Lock()
			b.gone[p.ID] = time.Now()
			b.mu.Unlock()
			points = must1(b.w.owner.Points(background))(t)
		}
		must1(b.w.owner.Sweep(background, repo.SweepOptions{}))(t)
		if round%3 == 0 {
			must1(b.w.owner.Compact(background, repo.CompactOptions{AnyDead: true}))(t)
		}
	}
}

// read reads whatever it finds.
func (b *busy) read(ctx context.Context, t *testing.T, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 3))
	for ctx.Err() == nil {
		begun := time.Now()
		err := b.readOne(rng, begun)
		b.mu.Lock()
		b.reads++
		if errors.Is(err, errLate) {
			b.late++
			err = nil
		}
		b.mu.Unlock()
		if err != nil {
			t.Error(err)
			return
		}
	}
}

// errLate says that a point went while it was looked at.
var errLate = errors.New("too late")

func (b *busy) readOne(rng *rand.Rand, begun time.Time) error {
	tree := b.tree
	m, err := tree.Lookup(background, tree.Root(), "m")
	if err != nil {
		return err
	}
	var list []fs.Entry
	if err := tree.ReadDir(background, m.ID, 0, func(e fs.Entry) bool {
		if e.Name != "latest" {
			list = append(list, e)
		}
		return true
	}); err != nil {
		return err
	}
	if len(list) == 0 {
		return errors.New("the machine has no points")
	}
	e := list[rng.IntN(len(list))]
	at := func(path string) (fs.Attr, error) { return fs.Resolve(background, tree, e.ID, path, false) }
	info, err := at("machine.json")
	if err != nil {
		return b.excuse(e.Name, "", err)
	}
	text, err := io.ReadAll(fs.File(background, tree, info))
	if err != nil {
		return b.excuse(e.Name, "", err)
	}
	var is struct{ Point repo.PointID }
	if err := json.Unmarshal(text, &is); err != nil {
		return err
	}
	b.mu.Lock()
	since, gone := b.gone[is.Point]
	want := b.disks[is.Point]
	b.mu.Unlock()
	// The list was no older than it may be when the directory was found.
	if gone && since.Before(begun.Add(-refresh)) {
		return fmt.Errorf("%s is listed %v after it expired", e.Name, begun.Sub(since))
	}
	if want == nil {
		return errLate // a point whose backup has not returned
	}
	raw, err := at("disks/d.raw")
	if err != nil {
		return b.excuse(e.Name, is.Point, err)
	}
	if raw.Size != want.Size() {
		return fmt.Errorf("%s has %d bytes, want %d", e.Name, raw.Size, want.Size())
	}
	for range 10 {
		p := make([]byte, 1+rng.IntN(300<<10))
		off := rng.Int64N(raw.Size)
		n, err := tree.ReadAt(background, raw.ID, p, off)
		if err != nil && err != io.EOF {
			return b.excuse(e.Name, is.Point, err)
		}
		q := make([]byte, n)
		if m, err := want.ReadAt(q, off); m != n || !bytes.Equal(p[:n], q) {
			return fmt.Errorf("%s: %d bytes from %d are not those of the point (%d, %v)", e.Name, n, off, m, err)
		}
	}
	return nil
}

// excuse turns the error of a point that has gone into errLate.
func (b *busy) excuse(name string, id repo.PointID, err error) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if errors.Is(err, fs.ErrStale) && (b.going[id] || id == "" && len(b.going) > 0) {
		return errLate
	}
	return fmt.Errorf("%s: %w", name, err)
}
