package index

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"holdfast/repo/chunk"
	"holdfast/repo/pack"
	"holdfast/repo/vfs"
)

// TestConcurrent lets one owner add, remove and flush while others look up in
// its index and in readers' that refresh. What is added is found from then on,
// in a reader from the flush on, whatever is merged and unlinked meanwhile.
func TestConcurrent(t *testing.T) {
	mem := newMem(t)
	x := own(t, mem, small)
	const rounds, perPack = 120, 20
	pack0 := func(i uint64) pack.Name { return testPack(1, i) }
	idOf := func(i uint64) chunk.ID { return testID(i*perPack + i%perPack) }
	var added, flushed atomic.Uint64
	stop := make(chan struct{})
	var wg sync.WaitGroup
	run := func(fn func(r *rand.Rand) error) {
		seed := uint64(len(stop)) + added.Load()
		wg.Go(func() {
			r := rand.New(rand.NewPCG(seed, 3))
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := fn(r); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	find := func(x *Index, n uint64, r *rand.Rand) error {
		if n == 0 {
			return nil
		}
		i := r.Uint64N(n)
		list, err := x.Lookup(idOf(i))
		has, err2 := x.HasPack(pack0(i))
		if err := errors.Join(err, err2); err != nil {
			return err
		}
		if len(list) != 1 || list[0].Pack != pack0(i) || !has {
			return fmt.Errorf("pack %d of %d: found %v, %v", i, n, list, has)
		}
		return nil
	}
	for range 2 {
		run(func(r *rand.Rand) error { return find(x, added.Load(), r) })
		reader := read(t, mem, small)
		defer reader.Close()
		run(func(r *rand.Rand) error {
			n := flushed.Load()
			if err := errors.Join(reader.Refresh(), reader.Skipped()); err != nil {
				return err
			}
			if got := reader.Covers(); got < n {
				return fmt.Errorf("covers %d, want at least %d", got, n)
			}
			return find(reader, n, r)
		})
	}
	run(func(r *rand.Rand) error {
		least, n := added.Load()*perPack, uint64(0)
		err := x.Walk(func(uint64, Entry) error { n++; return nil })
		if err == nil && n < least {
			err = fmt.Errorf("walked %d entries, want at least %d", n, least)
		}
		return err
	})

	for i := range uint64(rounds) {
		var entries []pack.Entry
		for j := range uint64(perPack) {
			entries = append(entries, chunkAt(testID(i*perPack+j), 64+uint32(j), 1))
		}
		must(t, x.Add(pack0(i), entries))
		added.Store(i + 1)
		gone := testPack(2, i)
		must(t, x.Add(gone, []pack.Entry{chunkAt(testID(1<<30), 64, 1)}))
		if i%3 == 0 {
			must(t, x.Flush(i+1))
			flushed.Store(i + 1)
		}
		must(t, x.Remove(gone))
	}
	close(stop)
	wg.Wait()
	if list := lookup(t, x, testID(1<<30)); list != nil {
		t.Errorf("removed packs show: %v", list)
	}
	must(t, x.Flush(rounds))
	accounted(t, mem, x)
	must(t, x.Close())
}

// TestClosed calls everything after Close.
func TestClosed(t *testing.T) {
	x := own(t, newMem(t), Options{})
	must(t, x.Close())
	must(t, x.Close())
	_, err1 := x.Lookup(testID(1))
	_, err2 := x.HasPack(testPack(1, 1))
	for what, err := range map[string]error{
		"lookup": err1, "has pack": err2, "add": x.Add(testPack(1, 1), nil), "flush": x.Flush(1), "reset": x.Reset(),
		"remove": x.Remove(testPack(1, 1)), "walk": x.Walk(nil), "verify": x.Verify(t.Context()),
	} {
		if !errors.Is(err, fs.ErrClosed) {
			t.Errorf("%s: got %v, want ErrClosed", what, err)
		}
	}
}

// TestReader holds a reader to what it may do: anything in its own memory.
func TestReader(t *testing.T) {
	mem := newMem(t)
	x := read(t, mem, small) // there is no directory yet
	if x.Covers() != 0 || x.Skipped() != nil {
		t.Errorf("an index that does not exist covers %d, skipped %v", x.Covers(), x.Skipped())
	}
	o := own(t, mem, small)
	early, late := testPack(1, 1), testPack(1, 2)
	must(t, o.Add(early, []pack.Entry{chunkAt(testID(1), 64, 1)}))
	must(t, o.Flush(1))
	must(t, x.Add(early, []pack.Entry{chunkAt(testID(1), 64, 1)}))
	must(t, x.Add(late, []pack.Entry{chunkAt(testID(2), 64, 1)}))
	mem.SetReadOnly(true)
	must(t, x.Refresh())
	if x.Count() != 2 || len(lookup(t, x, testID(1))) != 1 || len(lookup(t, x, testID(2))) != 1 {
		t.Errorf("after refresh there are %d entries, want 2", x.Count())
	}
	for what, err := range map[string]error{"flush": x.Flush(2), "remove": x.Remove(early)} {
		if !errors.Is(err, ErrReadOnly) {
			t.Errorf("%s: got %v, want ErrReadOnly", what, err)
		}
	}
	must(t, x.Reset())
	if x.Count() != 0 {
		t.Errorf("after reset there are %d entries", x.Count())
	}
	must(t, x.Refresh())
	if len(lookup(t, x, testID(1))) != 1 {
		t.Errorf("refresh does not bring the files back")
	}
	must(t, errors.Join(x.Close(), o.Close()))
}

// TestVanishing lets the owner be faster than a reader that opens: it moves on
// between any two of the reader's operations.
func TestVanishing(t *testing.T) {
	for at := 0; ; at++ {
		mem := newMem(t)
		x := own(t, mem, small)
		step := func(i uint64) {
			must(t, x.Add(testPack(1, i), []pack.Entry{chunkAt(testID(i), 64, 1)}))
			must(t, x.Flush(i))
		}
		step(1)
		fsys := vfs.NewFaulty(mem)
		fsys.CountReads()
		met := false
		fsys.OnOp(func(i int, op vfs.Op) {
			if i == at {
				met = true
				step(2)
			}
		})
		reader := read(t, fsys, small)
		if got := reader.Covers(); reader.Skipped() != nil || got == 0 || len(lookup(t, reader, testID(got))) != 1 {
			t.Errorf("operation %d: covers %d, skipped %v", at, got, reader.Skipped())
		}
		must(t, errors.Join(reader.Close(), x.Close()))
		if !met {
			if at < 5 {
				t.Errorf("a reader's open has only %d operations", at)
			}
			return
		}
	}
}

// TestAddRefuses holds Add to all or nothing.
func TestAddRefuses(t *testing.T) {
	x := own(t, newMem(t), small)
	err := x.Add(testPack(1, 1), []pack.Entry{chunkAt(testID(1), 64, 1), chunkAt(testID(2), 64, MaxRecordBytes+1)})
	if has, _ := x.HasPack(testPack(1, 1)); !errors.Is(err, ErrEntry) || has || x.Count() != 0 {
		t.Errorf("got %v, has %v, %d entries; want ErrEntry and nothing", err, has, x.Count())
	}
	must(t, x.Close())
}

// TestHiddenLimit removes more packs than a list may hide, which merges
// everything, and then all that is left, which leaves no file.
func TestHiddenLimit(t *testing.T) {
	mem := newMem(t)
	x := own(t, mem, Options{})
	const n = 6*maxHidden + 12
	var names []pack.Name
	for i := range uint64(n) {
		names = append(names, testPack(1, i))
		must(t, x.Add(names[i], []pack.Entry{chunkAt(scaleID(i), 64, 1)}))
	}
	must(t, x.Flush(1))
	must(t, x.Remove(names[:maxHidden]...))
	must(t, x.Flush(2))
	if got := len(x.view.list.hidden); got != maxHidden || x.Count() != n {
		t.Errorf("%d packs hidden, %d entries; want %d and %d", got, x.Count(), maxHidden, n)
	}
	must(t, x.Remove(names[maxHidden]))
	if list := lookup(t, x, scaleID(maxHidden)); list != nil {
		t.Errorf("a removed pack shows: %v", list)
	}
	must(t, x.Flush(3))
	if got := len(x.view.list.hidden); got != 0 || x.Count() != n-maxHidden-1 {
		t.Errorf("%d packs hidden, %d entries; want 0 and %d", got, x.Count(), n-maxHidden-1)
	}
	must(t, x.Remove(names...))
	must(t, x.Flush(4))
	if got := len(x.Files()); got != 0 || x.Covers() != 4 {
		t.Errorf("%d files of nothing, covers %d", got, x.Covers())
	}
	accounted(t, mem, x)
	must(t, x.Close())
}
