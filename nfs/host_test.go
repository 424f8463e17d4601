package nfs_test

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"holdfast/fs/treetest"
	"holdfast/nfs"
	"holdfast/nfs/nfstest"
)

// TestTwoHosts has two hosts lock one file, of which one is paused for longer
// than a lock lasts: the other takes over, and the first finds out.
func TestTwoHosts(t *testing.T) {
	for _, how := range []uint32{nfstest.Guarded, nfstest.Exclusive} {
		t.Run(fmt.Sprint("CREATE ", how), func(t *testing.T) {
			tree := treetest.NewMemWrite(treetest.MemOptions{})
			_, addr := start(t, nfs.Options{Exports: []nfs.Export{exported(tree)}})
			clock := time.Unix(1_700_000_000, 0)
			now := func() time.Time { return clock }
			root := must(dial(t, addr).Mount("/data"))(t)
			a := &nfstest.Host{C: dial(t, addr), Name: "esx-a", Dir: root, How: how, Now: now}
			b := &nfstest.Host{C: dial(t, addr), Name: "esx-b", Dir: root, How: how, Now: now}
			disk := must(a.C.Create(root, "vm-flat.vmdk", nfstest.Guarded))(t)
			mine := must(a.Lock(disk))(t)
			tries := func(want error) *nfstest.Lock {
				t.Helper()
				l, err := b.Lock(disk)
				if !errors.Is(err, want) {
					t.Fatalf("the other host: %v, want %v", err, want)
				}
				return l
			}
			for range 10 { // it lives
				tries(nfstest.ErrLocked)
				clock = clock.Add(10 * time.Second)
				if err := mine.Beat(); err != nil {
					t.Fatal(err)
				}
			}
			tries(nfstest.ErrLocked) // and is paused
			clock = clock.Add(34 * time.Second)
			tries(nfstest.ErrLocked)
			clock = clock.Add(2 * time.Second)
			theirs := tries(nil)
			if err := mine.Beat(); !errors.Is(err, nfstest.ErrLost) {
				t.Errorf("the paused host: %v", err)
			}
			if _, err := a.Lock(disk); !errors.Is(err, nfstest.ErrLocked) {
				t.Errorf("the paused host locks again: %v", err)
			}
			if err := theirs.Unlock(); err != nil {
				t.Fatal(err)
			}
			again := must(a.Lock(disk))(t)
			if err := again.Unlock(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestHostsRace has eight hosts lock the same files at once: one gets each.
func TestHostsRace(t *testing.T) {
	tree := treetest.NewMemWrite(treetest.MemOptions{})
	_, addr := start(t, nfs.Options{Exports: []nfs.Export{exported(tree)}})
	c := dial(t, addr)
	root := must(c.Mount("/data"))(t)
	var files []nfstest.Handle
	for i := range 30 {
		files = append(files, must(c.Create(root, fmt.Sprint("disk ", i), nfstest.Guarded))(t))
	}
	owners := make([]atomic.Int32, len(files))
	var wg sync.WaitGroup
	for i := range 8 {
		h := &nfstest.Host{C: dial(t, addr), Name: fmt.Sprint("host-", i), Dir: root, How: uint32(1 + i%2), Now: time.Now}
		wg.Go(func() {
			for n := range files {
				f := (n + i*5) % len(files)
				l, err := h.Lock(files[f])
				if err == nil {
					owners[f].Add(1)
					err = l.Beat()
				}
				if err != nil && !errors.Is(err, nfstest.ErrLocked) {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for i := range owners {
		if n := owners[i].Load(); n != 1 {
			t.Errorf("file %d is locked by %d hosts", i, n)
		}
	}
}
