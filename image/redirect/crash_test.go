package redirect

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sync/errgroup"

	"holdfast/repo/vfs"
)

var long = os.Getenv("HOLDFAST_LONG") == "1"

var hashSeed = maphash.MakeSeed()

// versions remembers what every grain of a disk was told to hold, and since when
// one of them is promised.
type versions struct {
	mu        sync.Mutex
	bytes     []byte // as written last
	hashes    [][]uint64
	committed []int
}

func newVersions(b *memBase) *versions {
	n := int(align(b.Size(), grainBytes) / grainBytes)
	v := &versions{bytes: slices.Clone(b.data), hashes: make([][]uint64, n), committed: make([]int, n)}
	for g := range n {
		v.hashes[g] = []uint64{v.hash(g)}
	}
	return v
}

func (v *versions) grain(g int) []byte {
	return v.bytes[g*grainBytes : min(len(v.bytes), (g+1)*grainBytes)]
}

func (v *versions) hash(g int) uint64 { return maphash.Bytes(hashSeed, v.grain(g)) }

// write notes what is about to be written.
func (v *versions) write(p []byte, off int64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	copy(v.bytes[off:], p)
	for g := int(off / grainBytes); int64(g)*grainBytes < off+int64(len(p)); g++ {
		v.hashes[g] = append(v.hashes[g], v.hash(g))
	}
}

// commit notes that what had been written to n bytes at off is promised.
func (v *versions) commit(off, n int64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for g := int(off / grainBytes); int64(g)*grainBytes < off+n; g++ {
		v.committed[g] = len(v.hashes[g]) - 1
	}
}

// snap is what may be found of a disk after a crash: of each grain one of the
// versions from the first to the last.
type snap struct {
	v           *versions
	first, last []int
}

func (v *versions) snap() snap {
	v.mu.Lock()
	defer v.mu.Unlock()
	last := make([]int, len(v.hashes))
	for g := range last {
		last[g] = len(v.hashes[g]) - 1
	}
	return snap{v, slices.Clone(v.committed), last}
}

// check compares a disk with the snap and returns its bytes.
func (s snap) check(d *Disk) ([]byte, error) {
	p := make([]byte, d.Size())
	if _, err := d.ReadAt(p, 0); err != nil {
		return nil, err
	}
	s.v.mu.Lock()
	defer s.v.mu.Unlock()
	for g := range s.first {
		h := maphash.Bytes(hashSeed, p[g*grainBytes:min(len(p), (g+1)*grainBytes)])
		known := s.v.hashes[g]
		if !slices.Contains(known[s.first[g]:s.last[g]+1], h) {
			return nil, fmt.Errorf("disk %s, grain %d: holds version %d, promised is %d, written up to %d",
				d.Name(), g, slices.Index(known, h), s.first[g], s.last[g])
		}
	}
	return p, nil
}

// stop is a file system after a crash, and what must be found in it.
type stop struct {
	index int
	op    vfs.Op
	crash vfs.CrashOptions
	fs    *vfs.Mem
	snaps []snap
	made  bool // Create had returned
}

func (s stop) String() string {
	return fmt.Sprintf("power lost before operation %d, %v, %v", s.index, s.op, s.crash)
}

// world is a session under random work, on a file system that is watched.
type world struct {
	disk  *vfs.Faulty
	mem   *vfs.Mem
	fsys  vfs.FS // what the session uses: the disk, or what leads there
	bases []*memBase
	model []*versions
	opt   Options
	s     *Session
	every int // unless long, the power is cut at every one of so many operations

	sealed [][]byte // the bytes of each disk when it was sealed

	stops    chan stop
	checking errgroup.Group
	verify   func(stop) error // default: stop.recover
	checked  atomic.Int64
	failed   atomic.Bool

	mu   sync.Mutex
	made bool
}

func newWorld(seed uint64) *world {
	w := &world{every: 2, mem: vfs.NewMem(), opt: smallLog, bases: []*memBase{newBase(seed, 150*grainBytes+700), newBase(seed+50, 40*grainBytes)}}
	w.disk = vfs.NewFaulty(w.mem)
	w.fsys = w.disk
	for _, b := range w.bases {
		w.model = append(w.model, newVersions(b))
	}
	return w
}

// watch takes a crash of the file system before every operation, and has each
// one looked at while the work goes on: only as many are kept as are looked at.
func (w *world) watch(ways []vfs.CrashOptions) {
	w.stops = make(chan stop)
	if w.verify == nil {
		w.verify = func(s stop) error { return s.recover(w.bases, w.opt) }
	}
	for range 2 {
		w.checking.Go(w.check)
	}
	w.disk.OnOp(func(i int, op vfs.Op) {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.failed.Load() || !long && i%w.every != 0 {
			return
		}
		n := 1
		if long {
			n = 2
		}
		for k := range n {
			c := ways[(i/w.every*n+k)%len(ways)]
			// What is promised before the clone must be in it, what is written
			// may be up to after it.
			before := w.snaps()
			fsys := w.mem.CrashClone(c)
			snaps := w.snaps()
			for k := range snaps {
				snaps[k].first = before[k].first
			}
			w.stops <- stop{i, op, c, fsys, snaps, w.made}
		}
	})
}

// check looks at stops until there are no more.
func (w *world) check() error {
	var first error
	for s := range w.stops {
		if first != nil {
			continue
		}
		if err := w.verify(s); err != nil {
			first = fmt.Errorf("%v: %w", s, err)
			w.failed.Store(true)
		}
		w.checked.Add(1)
	}
	return first
}

func (w *world) snaps() (list []snap) {
	for _, v := range w.model {
		list = append(list, v.snap())
	}
	return list
}

func (w *world) create() (err error) {
	w.s, err = Create(w.fsys, specs(w.bases...), w.opt)
	w.mu.Lock()
	w.made = err == nil
	w.mu.Unlock()
	return err
}

// work does n random operations.
func (w *world) work(rng *rand.Rand, n int) error {
	for range n {
		k := rng.IntN(len(w.bases))
		d, v := w.s.Disks()[k], w.model[k]
		switch op := rng.IntN(40); {
		case op < 32:
			off, p := randomWrite(rng, len(w.bases[k].data))
			durable := rng.IntN(2) == 0
			v.write(p, off)
			if _, err := d.Write(p, off, durable); err != nil {
				return err
			}
			if durable {
				v.commit(off, int64(len(p)))
			}
		case op < 36:
			if err := d.Commit(); err != nil {
				return err
			}
			for _, v := range w.model {
				v.commit(0, int64(len(v.bytes)))
			}
		case op < 38:
			if err := w.sealOrMerge(); err != nil {
				return err
			}
		default:
			if err := w.s.Close(); err != nil {
				return err
			}
			for _, v := range w.model {
				v.commit(0, int64(len(v.bytes)))
			}
			var err error
			if w.s, err = Open(w.fsys, specs(w.bases...), w.opt); err != nil {
				return err
			}
		}
	}
	return nil
}

// sealOrMerge seals the session, or looks at what was sealed and merges it.
func (w *world) sealOrMerge() error {
	x := w.s.Sealed()
	if x == nil {
		x, err := w.s.Seal()
		if err != nil {
			return err
		}
		w.sealed = nil
		for k, v := range w.model {
			v.commit(0, int64(len(v.bytes)))
			w.sealed = append(w.sealed, slices.Clone(v.bytes))
			if err := checkView(x, w.bases[k], fmt.Sprint("d", k), w.sealed[k]); err != nil {
				return err
			}
		}
		return nil
	}
	for k := range w.model {
		if err := checkView(x, w.bases[k], fmt.Sprint("d", k), w.sealed[k]); err != nil {
			return err
		}
	}
	return x.Release(context.Background())
}

// checkView compares a sealed disk with what it should be, and its changes with
// the base.
func checkView(x *Sealed, base *memBase, name string, want []byte) error {
	v, err := x.Disk(name)
	if err != nil {
		return err
	}
	if err := same(v, want); err != nil {
		return fmt.Errorf("sealed disk %s: %w", name, err)
	}
	changed := slices.Clone(base.data)
	last := int64(-1)
	err = v.Changed(func(off, n int64) error {
		if off <= last {
			return fmt.Errorf("changes at %d after %d", off, last)
		}
		last = off
		copy(changed[off:off+n], want[off:])
		return nil
	})
	if err != nil {
		return err
	}
	if !slices.Equal(changed, want) {
		return fmt.Errorf("disk %s has changes that were not listed", name)
	}
	return checkExtents(v, want)
}

// checkExtents looks for data outside of the extents.
func checkExtents(d Base, want []byte) error {
	for off := int64(0); off < d.Size(); {
		start, end, err := d.NextData(off)
		if err == io.EOF {
			start, end, err = d.Size(), d.Size(), nil
		}
		if err != nil || start < off || end < start || end > d.Size() {
			return fmt.Errorf("data from %d: %d to %d, %w", off, start, end, err)
		}
		if i := bytes.IndexFunc(want[off:start], func(r rune) bool { return r != 0 }); i >= 0 {
			return fmt.Errorf("byte %d is data and in no extent", off+int64(i))
		}
		off = end
	}
	return nil
}

// recover opens the session in a stop, compares every grain, writes more, and
// opens it again.
func (s stop) recover(bases []*memBase, opt Options) error {
	ss, err := Open(s.fs, specs(bases...), opt)
	if errors.Is(err, fs.ErrNotExist) && !s.made {
		if err := Discard(s.fs); err != nil {
			return err
		}
		ss, err = Create(s.fs, specs(bases...), opt)
	}
	if err != nil {
		return err
	}
	rng := rand.New(rand.NewPCG(uint64(s.index), 7))
	var want [][]byte
	for k, d := range ss.Disks() {
		p, err := s.snaps[k].check(d)
		if err != nil {
			return errors.Join(err, ss.Close())
		}
		for range 6 {
			off, q := randomWrite(rng, len(p))
			if _, err := d.Write(q, off, rng.IntN(2) == 0); err != nil {
				return errors.Join(err, ss.Close())
			}
			copy(p[off:], q)
		}
		want = append(want, p)
	}
	if x := ss.Sealed(); x != nil && rng.IntN(2) == 0 {
		if err := x.Release(context.Background()); err != nil {
			return errors.Join(err, ss.Close())
		}
	} else if err := ss.Merge(context.Background()); x == nil && err != nil {
		return errors.Join(err, ss.Close())
	}
	for k, d := range ss.Disks() {
		if err := same(d, want[k]); err != nil {
			return errors.Join(fmt.Errorf("before the second closing: disk %d: %w", k, err), ss.Close())
		}
		if err := checkExtents(d, want[k]); err != nil {
			return errors.Join(err, ss.Close())
		}
	}
	if rng.IntN(2) == 0 {
		err = ss.Checkpoint()
	}
	if err = errors.Join(err, ss.Close()); err != nil {
		return err
	}
	if ss, err = Open(s.fs.CrashClone(vfs.CrashOptions{}), specs(bases...), opt); err != nil {
		return fmt.Errorf("open again: %w", err)
	}
	for k, d := range ss.Disks() {
		if err := same(d, want[k]); err != nil {
			return errors.Join(fmt.Errorf("after more writes: disk %d: %w", k, err), ss.Close())
		}
	}
	return ss.Close()
}

// unwatch ends watch and reports what was found.
func (w *world) unwatch(t *testing.T) {
	t.Helper()
	w.disk.OnOp(nil)
	w.mu.Lock()
	w.failed.Store(true) // whoever is on the way to a stop turns back
	close(w.stops)
	w.mu.Unlock()
	if err := w.checking.Wait(); err != nil {
		t.Error(err)
	}
	t.Logf("%d crashes at %d operations", w.checked.Load(), w.disk.Count())
}

// steps is n, or ten times as many when there is time.
func steps(n int) int {
	if long {
		return 10 * n
	}
	return n
}

// TestPowerLoss cuts the power before every file operation of creating a
// session, working with it and discarding it.
func TestPowerLoss(t *testing.T) {
	for seed := range uint64(2) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			w := newWorld(seed)
			w.watch(vfs.Crashes(seed, seed+10, seed+20, seed+31))
			defer w.unwatch(t)
			if err := w.create(); err != nil {
				t.Fatal(err)
			}
			if err := w.work(rand.New(rand.NewPCG(seed, 2)), steps(80)); err != nil {
				t.Fatal(err)
			}
			if err := w.s.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}
