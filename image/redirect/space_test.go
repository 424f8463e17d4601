package redirect

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"holdfast/repo/vfs"
)

// TestFullVolume writes until the volume is full: the write says so, everything
// accepted is committed, and what was there is overwritten, committed and
// checkpointed on with nothing free at all, also after a power cut.
func TestFullVolume(t *testing.T) {
	base := newBase(1, 800*grainBytes)
	want := bytes.Clone(base.data)
	fsys := vfs.NewMem()
	s := mustCreate(t, fsys, smallLog, base)
	fsys.SetCapacity(fsys.Used() + 200*grainBytes)
	d := s.Disks()[0]
	rng := rand.New(rand.NewPCG(1, 1))
	var there []int64 // grains that were accepted
	full := false
	for i := range 700 {
		off := int64(i) * grainBytes
		p := bytes.Repeat([]byte{byte(i) | 1}, grainBytes)
		_, err := d.Write(p, off, i%3 == 0)
		if errors.Is(err, ErrNoSpace) {
			full = true
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		copy(want[off:], p)
		there = append(there, off)
		if i%7 == 0 {
			if err := d.Commit(); err != nil {
				t.Fatalf("commit after %d grains: %v", len(there), err)
			}
		}
	}
	if !full || len(there) < 150 {
		t.Fatalf("full: %v after %d grains", full, len(there))
	}
	overwrite := func(d *Disk) {
		t.Helper()
		for i := range 600 {
			off := there[rng.IntN(len(there))]
			p := bytes.Repeat([]byte{byte(rng.Uint32()) | 1}, 512+rng.IntN(grainBytes-512))
			if _, err := d.Write(p, off, i%5 == 0); err != nil {
				t.Fatalf("overwrite %d with nothing free: %v", i, err)
			}
			copy(want[off:], p)
		}
		if err := d.Commit(); err != nil {
			t.Fatal(err)
		}
	}
	fsys.SetCapacity(fsys.Used())
	overwrite(d)
	st, err := s.Stats()
	if err != nil || st.FreeBytes != 0 {
		t.Errorf("free %d, %v; want 0", st.FreeBytes, err)
	}
	cut := fsys.CrashClone(vfs.CrashOptions{})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for _, fsys := range []*vfs.Mem{fsys, cut} {
		fsys.SetCapacity(fsys.Used())
		s := mustOpen(t, fsys, smallLog, base)
		d := s.Disks()[0]
		if err := same(d, want); err != nil {
			t.Fatal(err)
		}
		keep := bytes.Clone(want)
		overwrite(d)
		if err := s.Checkpoint(); err != nil {
			t.Fatal(err)
		}
		if err := same(d, want); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if err := Discard(fsys); err != nil {
			t.Fatal(err)
		}
		want = keep
	}
}

// TestFullAgain shows that a volume that has space again takes new grains.
func TestFullAgain(t *testing.T) {
	base := newBase(2, 500*grainBytes)
	fsys := vfs.NewMem()
	s := mustCreate(t, fsys, smallLog, base)
	defer s.Close()
	fsys.SetCapacity(fsys.Used() + 10*grainBytes)
	d := s.Disks()[0]
	p := bytes.Repeat([]byte{1}, grainBytes)
	var err error
	at := int64(0)
	for ; err == nil; at += grainBytes {
		_, err = d.Write(p, at, true)
	}
	if !errors.Is(err, ErrNoSpace) {
		t.Fatal(err)
	}
	fsys.SetCapacity(fsys.Used() + 200*grainBytes)
	if _, err := d.Write(p, at, true); err != nil {
		t.Errorf("with space again: %v", err)
	}
}

// TestQuota holds the data files to their limit.
func TestQuota(t *testing.T) {
	base := newBase(3, 100*grainBytes)
	opt := smallLog
	opt.QuotaBytes = 10 * grainBytes
	now := time.Unix(0, 0)
	opt.Now = func() time.Time { now = now.Add(time.Second); return now }
	s := mustCreate(t, vfs.NewMem(), opt, base)
	defer s.Close()
	d := s.Disks()[0]
	p := bytes.Repeat([]byte{1}, grainBytes)
	for round := range 3 {
		for i := range int64(10) {
			if _, err := d.Write(p, i*grainBytes, i%2 == 0); err != nil {
				t.Fatalf("round %d, grain %d: %v", round, i, err)
			}
		}
		if _, err := d.Write(p, 20*grainBytes, true); !errors.Is(err, ErrNoSpace) {
			t.Fatalf("one grain more: %v", err)
		}
		// Zeros take nothing, and give back what was there.
		if _, err := d.Write(make([]byte, 5*grainBytes), 0, true); err != nil {
			t.Fatal(err)
		}
		if err := s.Checkpoint(); err != nil {
			t.Fatal(err)
		}
		st, err := s.Stats()
		if err != nil || st.UsedBytes != 5*grainBytes || st.FreeBytes != 5*grainBytes || d.UsedBytes() != 5*grainBytes {
			t.Fatalf("round %d: %+v, %v", round, st, err)
		}
		if st.TimeLeft <= 0 {
			t.Errorf("time left: %v", st.TimeLeft)
		}
	}
}

// TestRepairFull lets a sync of the log fail when little is free: the session
// goes on in a new log.
func TestRepairFull(t *testing.T) {
	base := newBase(8, 100*grainBytes)
	fsys := vfs.NewMem()
	faulty := vfs.NewFaulty(fsys)
	s := mustCreate(t, faulty, smallLog, base)
	defer s.Close()
	d := s.Disks()[0]
	p := bytes.Repeat([]byte{1}, grainBytes)
	if _, err := d.Write(p, 0, true); err != nil {
		t.Fatal(err)
	}
	fsys.SetCapacity(fsys.Used() + 3*smallLog.mapRoom()) // enough for another map, not for a log
	var once sync.Once
	faulty.OnOp(func(i int, op vfs.Op) {
		if op.Kind == vfs.OpWrite && strings.HasPrefix(op.Name, "wal.") {
			once.Do(func() { faulty.FailAt(i+1, nil) }) // the sync that follows
		}
	})
	if _, err := d.Write(p, 0, true); !errors.Is(err, ErrFailed) {
		t.Fatalf("a write whose sync failed: %v", err)
	}
	for end := time.Now().Add(20 * time.Second); errors.Is(s.usable(true), ErrFailed); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("not repaired")
		}
	}
	p[0] = 2
	if _, err := d.Write(p, 0, true); err != nil {
		t.Errorf("an overwrite after the repair: %v", err)
	}
}
