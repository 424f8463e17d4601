package redirect

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"holdfast/repo/vfs"
)

// TestWorkers has 64 workers write at once. Each owns one sector of every grain,
// so that all share all grains; others write and verify whole grains of their
// own. Every sector carries its address, owner and generation. Checkpoints,
// seals, merges and a migration run beside them, and at last the power goes.
func TestWorkers(t *testing.T) {
	const (
		shared  = 40  // grains at 8 sectors
		workers = 64  // 8 sectors × 8 groups of grains
		alone   = 256 // grains behind, 4 for each worker
	)
	base := newBase(11, (shared*8+alone)*grainBytes)
	fsys := vfs.NewMem()
	opt := Options{WALBytes: 1024 * grainBytes, ReserveBytes: mib, DirtyBytes: mib, OpenTarget: openFileTarget(fsys)}
	s := mustCreate(t, fsys, opt, base)
	d := s.Disks()[0]
	rounds := steps(12)
	var mu sync.Mutex // guards promised
	promised := make(map[int64]uint64)
	var g errgroup.Group
	var left atomic.Int64
	left.Store(workers)
	for id := range workers {
		g.Go(func() error {
			defer left.Add(-1)
			rng := rand.New(rand.NewPCG(uint64(id), 12))
			sector, group := id%8, id/8
			for gen := uint64(1); gen <= uint64(rounds); gen++ {
				off := int64(group*shared+rng.IntN(shared))*grainBytes + int64(sector)*512
				n := 512
				if rng.IntN(3) == 0 {
					off, n = int64(shared*8+id*4+rng.IntN(4))*grainBytes, grainBytes
				}
				p := stamped(off, n, uint64(id), gen)
				durable := rng.IntN(2) == 0
				if _, err := d.Write(p, off, durable); err != nil {
					return err
				}
				q := make([]byte, n)
				if _, err := d.ReadAt(q, off); err != nil {
					return err
				}
				if string(p) != string(q) {
					return fmt.Errorf("worker %d reads other bytes at %d than it wrote", id, off)
				}
				if !durable {
					if err := d.Commit(); err != nil {
						return err
					}
				}
				mu.Lock()
				for at := off; at < off+int64(n); at += 512 {
					promised[at] = gen
				}
				mu.Unlock()
			}
			return nil
		})
	}
	ctx := t.Context()
	g.Go(func() error {
		for left.Load() > 0 {
			if _, err := s.Seal(); err != nil {
				return err
			}
			if err := s.Merge(ctx); err != nil {
				return err
			}
			time.Sleep(time.Millisecond)
		}
		return nil
	})
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	cut := fsys.CrashClone(vfs.CrashOptions{})
	target, err := makeTarget(fsys, base.Size())
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Migrate(context.Background(), "target", target); err != nil {
		t.Fatal(err)
	}
	after := mustOpen(t, cut, opt, base)
	for name, disk := range map[string]*Disk{"running": d, "after the cut": after.Disks()[0]} {
		for off, gen := range promised {
			p := make([]byte, 512)
			if _, err := disk.ReadAt(p, off); err != nil {
				t.Fatal(err)
			}
			if at, g := binary.LittleEndian.Uint64(p), binary.LittleEndian.Uint64(p[16:]); at != uint64(off) || g != gen {
				t.Fatalf("%s: sector at %d says %d, generation %d, want %d", name, off, at, g, gen)
			}
		}
	}
	for _, s := range []*Session{s, after} {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// stamped returns sectors that carry their address, owner and generation.
func stamped(off int64, n int, owner, gen uint64) []byte {
	p := make([]byte, n)
	for at := 0; at < n; at += 512 {
		for i := at; i < at+512; i += 32 {
			binary.LittleEndian.PutUint64(p[i:], uint64(off)+uint64(at))
			binary.LittleEndian.PutUint64(p[i+8:], owner)
			binary.LittleEndian.PutUint64(p[i+16:], gen)
		}
	}
	return p
}
