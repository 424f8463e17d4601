package datastore

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"holdfast/repo/vfs"
)

// oddDisk is a disk whose reads wait and whose verifier is what a test says.
type oddDisk struct {
	Disk
	begun, hold chan struct{}
	verifier    atomic.Uint64
}

func (d *oddDisk) Verifier() uint64 { return d.verifier.Load() }

func (d *oddDisk) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	close(d.begun)
	<-d.hold
	return d.Disk.ReadAt(ctx, p, off)
}

// TestVerifier asks for the verifier while a read of a disk waits, which is
// answered, and from several sides at once just after a disk's has changed: none
// hears the old one.
func TestVerifier(t *testing.T) {
	b := newBench(t, Options{})
	n := b.add(vmSpec("vm"))
	_, disk := newRedirect(t, vfs.NewMem())
	d := &oddDisk{Disk: disk, begun: make(chan struct{}), hold: make(chan struct{})}
	d.verifier.Store(1)
	if err := b.s.Attach(n, map[string]Disk{"vm-flat.vmdk": d}); err != nil {
		t.Fatal(err)
	}
	flat := b.lookup(SessionRoot(n), "vm-flat.vmdk")
	if _, err := b.s.WriteAt(ctx, flat.ID, []byte("unsynced"), 0, false); err != nil {
		t.Fatal(err)
	}
	var reading sync.WaitGroup
	reading.Go(func() { _, _ = b.s.ReadAt(ctx, flat.ID, make([]byte, 8), 0) })
	<-d.begun
	answered := make(chan struct{})
	go func() {
		b.s.Verifier()
		close(answered)
	}()
	select {
	case <-answered:
	case <-time.After(10 * time.Second):
		t.Error("the verifier waits for a read")
	}
	close(d.hold)
	reading.Wait()
	for range 2000 {
		old := b.s.Verifier()
		var stale atomic.Int32
		var all sync.WaitGroup
		d.verifier.Add(1)
		for range 4 {
			all.Go(func() {
				if b.s.Verifier() == old {
					stale.Add(1)
				}
			})
		}
		all.Wait()
		if stale.Load() > 0 {
			t.Fatal("a verifier from before writes were lost")
		}
	}
}
