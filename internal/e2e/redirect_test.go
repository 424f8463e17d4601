//go:build linux

package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"holdfast/image/redirect"
	"holdfast/repo/vfs"
)

// TestRedirectPowerCut takes the power from the file system of a redirect
// session, again and again, while workers write sectors that share grains,
// grains and large pieces, synced and not, while layers are sealed and merged
// and a disk is migrated. Each time nothing that was promised is missing, and
// no grain is mixed that was written whole.
func TestRedirectPowerCut(t *testing.T) {
	for _, fs := range []string{"xfs", "ext4"} {
		t.Run(fs, func(t *testing.T) {
			begin(t, "loop", "losetup", "mkfs."+fs)
			r := &recovered{t: t, rng: random(t), v: newVolume(t, fs, 2<<30)}
			cuts := count(t, "POWERCUTS", 20)
			for i := range cuts {
				r.live(i%4 == 3)
			}
			if r.session != nil {
				t.Error("a session is left open")
			}
			t.Logf("%s: %d cuts, %d sessions, %d with a sealed layer, %d in a migration, %d after one; %d sectors looked at, %d of them newer than promised",
				fs, cuts, r.made, r.sealed, r.moving, r.moved, r.looked, r.newer)
			if cuts >= 10 && (r.sealed == 0 || r.moving == 0 || r.moved == 0) {
				t.Error("nothing to see")
			}
		})
	}
}

// recovered is a session on a volume that loses power, and what is known of it.
type recovered struct {
	t   *testing.T
	rng *rand.Rand
	v   *volume

	dir     string
	made    int // sessions
	age     int // cuts since the disk was switched
	model   [2]*sectors
	session *redirect.Session
	cutting atomic.Bool
	migrate atomic.Bool // under way

	// Of the first disk, as it was sealed: what was promised before, and what
	// was written by then. Written by one worker, read when it has ended.
	sealFirst, sealLast []sectorRange

	sealed, moving, moved, looked, newer int
}

// live opens the session, works until the power goes, and looks at what is left.
func (r *recovered) live(idle bool) {
	r.t.Helper()
	if r.dir == "" {
		r.begin()
	}
	fsys := r.open()
	ctx, cancel := context.WithCancel(r.t.Context())
	var g errgroup.Group
	for id := range owners + 3 { // those of the first disk, and three of the second
		rng := rand.New(rand.NewPCG(r.rng.Uint64(), uint64(id)))
		g.Go(func() error { return r.work(ctx, id/owners, id%owners, rng) })
	}
	g.Go(func() error { return r.change(ctx) })
	g.Go(func() error { return r.move(ctx) })
	time.Sleep(50*time.Millisecond + upTo(r.rng, 600*time.Millisecond))
	if idle {
		cancel()
		if err := g.Wait(); err != nil {
			r.t.Fatal(err)
		}
	}
	if r.migrate.Load() {
		r.moving++
	}
	r.cutting.Store(true)
	r.v.cut()
	cancel()
	if err := g.Wait(); err != nil {
		r.t.Fatal(err)
	}
	_ = r.session.Close() // its volume is gone
	r.session = nil
	if err := fsys.Close(); err != nil {
		r.t.Fatal(err)
	}
	r.v.remount()
	r.look()
}

// begin makes a session in a directory of its own.
func (r *recovered) begin() {
	r.t.Helper()
	r.made++
	r.dir = filepath.Join(r.v.dir, fmt.Sprint("session", r.made))
	r.model = [2]*sectors{newSectors(24<<20, 4<<20), newSectors(6<<20, 2<<20)}
	r.age = 0
	if err := os.Mkdir(r.dir, 0o700); err != nil {
		r.t.Fatal(err)
	}
	fsys, err := vfs.OS(r.dir)
	if err != nil {
		r.t.Fatal(err)
	}
	s, err := redirect.Create(fsys, r.specs(), redirect.Options{WALBytes: 4 << 20})
	if err == nil {
		err = errors.Join(s.Close(), r.newTarget(), fsys.SyncDir("."), fsys.Close())
	}
	if err != nil {
		r.t.Fatal(err)
	}
	tool(r.t, "sync", "-f", r.v.dir) // the name of the directory
}

func (r *recovered) specs() (list []redirect.DiskSpec) {
	for i, m := range r.model {
		list = append(list, redirect.DiskSpec{
			Name: fmt.Sprint("disk", i), Base: m, Identity: redirect.Identity{Repository: "r", Point: "p", Root: fmt.Sprint(i), Size: m.Size()},
		})
	}
	return list
}

func (r *recovered) open() *vfs.Dir {
	r.t.Helper()
	fsys, err := vfs.OS(r.dir)
	if err != nil {
		r.t.Fatal(err)
	}
	r.cutting.Store(false)
	r.session, err = redirect.Open(fsys, r.specs(), redirect.Options{DirtyBytes: 8 << 20, OpenTarget: func(_, name string) (redirect.Target, error) {
		return r.openTarget(name)
	}})
	if err != nil {
		r.t.Fatal(err)
	}
	return fsys
}

// slowTarget takes its time, so that the power goes in the middle more often.
type slowTarget struct{ *os.File }

func (f slowTarget) WriteAt(p []byte, off int64) (int, error) {
	time.Sleep(5 * time.Millisecond)
	return f.File.WriteAt(p, off)
}

func (r *recovered) newTarget() error {
	f, err := os.Create(filepath.Join(r.dir, "target"))
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(r.model[1].Size()), f.Sync(), f.Close())
}

func (r *recovered) openTarget(name string) (redirect.Target, error) {
	f, err := os.OpenFile(filepath.Join(r.dir, name), os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	return slowTarget{f}, nil
}

// ended turns the end of the work into nil: the power went, or it was told to
// stop.
func (r *recovered) ended(ctx context.Context, err error) error {
	if err != nil && (r.cutting.Load() || ctx.Err() != nil && errors.Is(err, ctx.Err())) {
		return nil
	}
	return err
}

// work is one worker of disk k: it writes what it owns and commits it.
func (r *recovered) work(ctx context.Context, k, owner int, rng *rand.Rand) error {
	m, d := r.model[k], r.session.Disks()[k]
	var open []piece // written, not promised
	for ctx.Err() == nil {
		pc := m.choose(owner, rng)
		durable := rng.IntN(2) == 0
		if _, err := d.Write(pc.bytes(), pc.off, durable); err != nil {
			return r.ended(ctx, err)
		}
		if durable {
			m.promise(pc)
		} else {
			open = append(open, pc)
		}
		if len(open) >= 4 {
			if err := d.Commit(); err != nil {
				return r.ended(ctx, err)
			}
			for _, pc := range open {
				m.promise(pc)
			}
			open = open[:0]
		}
	}
	return nil
}

// change seals and merges.
func (r *recovered) change(ctx context.Context) error {
	for ctx.Err() == nil {
		if r.session.Sealed() == nil {
			r.sealFirst, r.sealLast = r.model[0].ranges(), nil
			_, err := r.session.Seal()
			if err == nil {
				r.sealLast = r.model[0].ranges()
			} else if errors.Is(err, redirect.ErrBusy) { // a merge was cut short
				err = r.session.Merge(ctx)
			}
			if err != nil {
				return r.ended(ctx, err)
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(150 * time.Millisecond):
			if err := r.session.Merge(ctx); err != nil {
				return r.ended(ctx, err)
			}
		}
	}
	return nil
}

// move migrates the second disk.
func (r *recovered) move(ctx context.Context) error {
	d := r.session.Disks()[1]
	if d.Target() != "" {
		return nil
	}
	select {
	case <-ctx.Done():
		return nil
	case <-time.After(100 * time.Millisecond):
	}
	t, err := r.openTarget("target")
	if err != nil {
		return r.ended(ctx, err)
	}
	r.migrate.Store(true)
	defer r.migrate.Store(false)
	if err := d.Migrate(ctx, "target", t); err != nil {
		return r.ended(ctx, errors.Join(err, t.Close()))
	}
	return nil
}

// look opens the session that lost its power, compares every sector, and takes
// what is there for promised.
func (r *recovered) look() {
	r.t.Helper()
	fsys := r.open()
	moved := r.session.Disks()[1].Target() != ""
	if moved {
		r.moved++
		r.age++
	}
	if x := r.session.Sealed(); x != nil {
		r.sealed++
		r.lookSealed(x)
	}
	for k, d := range r.session.Disks() {
		m := r.model[k]
		found, err := m.compare(d, m.known, k == 1 && moved)
		if err != nil {
			r.t.Fatalf("disk %d after the cut: %v", k, err)
		}
		for i := range found {
			r.looked++
			if found[i].last > m.known[i].promised {
				r.newer++
			}
		}
		m.known = found
	}
	if err := errors.Join(r.session.Close(), fsys.Close()); err != nil {
		r.t.Fatal(err)
	}
	r.session = nil
	if r.age == 2 { // on with a disk that is still to be moved
		if err := os.RemoveAll(r.dir); err != nil {
			r.t.Fatal(err)
		}
		r.dir = ""
	}
}

// lookSealed compares the sealed state with what was known of the first disk
// when it was sealed.
func (r *recovered) lookSealed(x *redirect.Sealed) {
	r.t.Helper()
	v, err := x.Disk("disk0")
	if err != nil {
		r.t.Fatal(err)
	}
	last := r.sealLast
	if last == nil { // the power went before Seal returned
		last = r.model[0].known
	}
	found, err := r.model[0].compare(v, between(r.sealFirst, last), false)
	if err != nil {
		r.t.Fatalf("the sealed state after the cut: %v", err)
	}
	r.sealFirst, r.sealLast = found, found
}
