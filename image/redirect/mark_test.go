package redirect

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"time"

	"holdfast/repo/vfs"
)

// unmarked has sessions write marks only when they are closed.
var unmarked = Options{WALBytes: smallLog.WALBytes, ReserveBytes: smallLog.ReserveBytes, DirtyBytes: smallLog.DirtyBytes, markAfter: time.Hour}

// tailed is a session that has synced grains one after another.
type tailed struct {
	t    *testing.T
	fsys *vfs.Mem
	base *memBase
	want []byte
	s    *Session
}

func newTailed(t *testing.T, opt Options) *tailed {
	base := newBase(21, 60*grainBytes)
	x := &tailed{t: t, fsys: vfs.NewMem(), base: base, want: bytes.Clone(base.data)}
	x.s = mustCreate(t, x.fsys, opt, base)
	return x
}

// write writes a grain, durably, and returns where in which log file its batch
// begins and ends.
func (x *tailed) write(g int) (name string, begin, end int64) {
	x.t.Helper()
	x.s.log.mu.Lock()
	begin = x.s.log.active.end
	x.s.log.mu.Unlock()
	p := bytes.Repeat([]byte{byte(g + 100)}, grainBytes)
	if _, err := x.s.Disks()[0].Write(p, int64(g)*grainBytes, true); err != nil {
		x.t.Fatal(err)
	}
	copy(x.want[g*grainBytes:], p)
	x.s.log.mu.Lock()
	defer x.s.log.mu.Unlock()
	return x.s.log.active.name, begin, x.s.log.active.end
}

// awaitMark waits until nothing is left to say about the log.
func (x *tailed) awaitMark() {
	x.t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		x.s.log.mu.Lock()
		w := x.s.log.active
		said := !x.s.untold() && w.durable.Load() == w.end
		x.s.log.mu.Unlock()
		switch {
		case said:
			return
		case time.Now().After(end):
			x.t.Fatal("no mark was written")
		}
	}
}

// cut closes the session and returns what the power cut left before.
func (x *tailed) cut() *vfs.Mem {
	x.t.Helper()
	fsys := x.fsys.CrashClone(vfs.CrashOptions{})
	if err := x.s.Close(); err != nil {
		x.t.Fatal(err)
	}
	return fsys
}

// damaged flips a bit of a copy and opens that.
func (x *tailed) open(fsys *vfs.Mem, name string, flip int64) error {
	x.t.Helper()
	bad := fsys.CrashClone(vfs.CrashOptions{})
	if err := bad.Corrupt(name, flip, 0x80); err != nil {
		x.t.Fatal(err)
	}
	s, err := Open(bad, specs(x.base), unmarked)
	if err != nil {
		return err
	}
	return errors.Join(same(s.Disks()[0], x.want), s.Close())
}

// TestLastBatch damages what was synced last. It is told when anything came to
// the disk after the sync.
func TestLastBatch(t *testing.T) {
	tests := []struct {
		name string
		opt  Options
		then func(x *tailed) *vfs.Mem
	}{
		{"left alone", smallLog, func(x *tailed) *vfs.Mem { x.awaitMark(); return x.cut() }},
		{"closed", unmarked, func(x *tailed) *vfs.Mem { x.cut(); return x.fsys.CrashClone(vfs.CrashOptions{}) }},
		{"another write", unmarked, func(x *tailed) *vfs.Mem { x.write(9); return x.cut() }},
		{"a write to the other file", unmarked, func(x *tailed) *vfs.Mem {
			x.s.dataMu.Lock() // the checkpoint waits
			x.s.log.mu.Lock()
			err := x.s.turn()
			x.s.log.mu.Unlock()
			x.write(9)
			fsys := x.fsys.CrashClone(vfs.CrashOptions{})
			x.s.dataMu.Unlock()
			if x.cut(); err != nil {
				x.t.Fatal(err)
			}
			return fsys
		}},
		{"opened again", smallLog, func(x *tailed) *vfs.Mem {
			x.fsys = x.cut()
			x.s = mustOpen(x.t, x.fsys, smallLog, x.base)
			x.awaitMark()
			return x.cut()
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			x := newTailed(t, tt.opt)
			x.write(1)
			name, begin, end := x.write(3)
			cut := tt.then(x)
			for off := begin; off < end; off += 499 {
				if used := off-begin < batchBytes+recordBytes || off-begin >= grainBytes; !used {
					continue // between the record and its bytes there is nothing
				}
				if err := x.open(cut, name, off); !errors.Is(err, ErrDamaged) {
					t.Fatalf("a flipped bit at %d of the last write: %v", off-begin, err)
				}
			}
		})
	}
}

// TestLastMoment shows what nothing can tell: whether the last batch, when it is
// not whole and nothing followed, had been synced. All before it is told.
func TestLastMoment(t *testing.T) {
	x := newTailed(t, unmarked)
	x.write(1)
	nameA, beginA, _ := x.write(2)
	before := bytes.Clone(x.want)
	nameB, beginB, _ := x.write(3)
	cut := x.cut()
	if err := x.open(cut, nameA, beginA+grainBytes+5); !errors.Is(err, ErrDamaged) {
		t.Errorf("damage to the last batch but one: %v", err)
	}
	x.want = before
	if err := x.open(cut, nameB, beginB+grainBytes+5); err != nil {
		t.Errorf("damage to the last batch: %v", err)
	}
}

// TestMarkLost damages a mark: nothing is lost with it.
func TestMarkLost(t *testing.T) {
	x := newTailed(t, smallLog)
	name, _, end := x.write(1)
	x.awaitMark()
	cut := x.cut()
	for _, off := range []int64{0, 9, 30, 40} {
		if err := x.open(cut, name, end+off); err != nil {
			t.Errorf("damage at %d of the mark: %v", off, err)
		}
	}
}

// TestMapEnd damages the last batch that was appended to the map.
func TestMapEnd(t *testing.T) {
	x := newTailed(t, smallLog)
	for round := range 3 {
		for g := range 20 {
			x.write(g + round)
		}
		if err := x.s.Checkpoint(); err != nil {
			t.Fatal(err)
		}
	}
	end := x.s.m.end
	cut := x.cut()
	for _, back := range []int64{mapUnit, mapUnit - 30, mapUnit - batchBytes - 1} {
		if err := x.open(cut, mapName, end-back); !errors.Is(err, ErrDamaged) {
			t.Errorf("a flipped bit %d bytes before the end of the map: %v", back, err)
		}
	}
}

// TestMapBegin damages the last of several batches that a map was written with.
func TestMapBegin(t *testing.T) {
	const pages = 300 // at 4 KiB, and a batch takes some more than 1 MiB
	fsys := vfs.NewMem()
	disks := []DiskSpec{{Name: "d0", Base: emptyBase(pages * pageGrains * grainBytes), Identity: Identity{Size: pages * pageGrains * grainBytes}}}
	s, err := Create(fsys, disks, unmarked)
	if err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	for n := range uint64(pages) {
		for g := range uint64(grainBytes / recordBytes * 2) {
			s.disks[0].layers[0].grains.set(n*pageGrains+2*g, stateZero)
		}
	}
	s.mu.Unlock()
	if err := s.m.rewrite(s.disks, s.m.mode, s.m.applied, s.opt.mapRoom()); err != nil { // the keeper is idle
		t.Fatal(err)
	}
	end := s.m.end
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err := Open(fsys, disks, unmarked); err != nil || s.disks[0].layers[0].grains.count[stateZero] != pages*grainBytes/recordBytes*2 || s.Close() != nil {
		t.Fatalf("undamaged: %v", err)
	}
	if err := fsys.Corrupt(mapName, end-77, 1); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(fsys, disks, unmarked); !errors.Is(err, ErrDamaged) {
		t.Errorf("a flipped bit in the map as it was written: %v", err)
	}
}

// emptyBase is a base without data.
type emptyBase int64

func (b emptyBase) Size() int64 { return int64(b) }

func (b emptyBase) ReadAt(p []byte, off int64) (int, error) {
	n := int(min(int64(len(p)), max(0, int64(b)-off)))
	clear(p[:n])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (emptyBase) NextData(int64) (start, end int64, err error) { return 0, 0, io.EOF }
