package redirect

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"holdfast/repo/vfs"
)

// fileTarget is a target in a file that tells of every write.
type fileTarget struct {
	vfs.File
	onWrite func(off int64) error
}

func (f *fileTarget) WriteAt(p []byte, off int64) (int, error) {
	if f.onWrite != nil {
		if err := f.onWrite(off); err != nil {
			return 0, err
		}
	}
	return f.File.WriteAt(p, off)
}

func openFileTarget(fsys vfs.FS) func(disk, name string) (Target, error) {
	return func(_, name string) (Target, error) {
		f, err := fsys.OpenWrite(name)
		if err != nil {
			return nil, err
		}
		return &fileTarget{File: f}, nil
	}
}

func makeTarget(fsys vfs.FS, size int64) (*fileTarget, error) {
	f, err := createNew(fsys, "target")
	if err != nil {
		return nil, err
	}
	// A device that held something else.
	_, err = f.WriteAt(bytes.Repeat([]byte{0xee}, int(size)), 0)
	return &fileTarget{File: f}, errors.Join(err, f.Sync(), fsys.SyncDir("."))
}

// TestMigrate writes before and behind the cursor while the disk is copied, cuts
// the power before every operation, and migrates again where that was too early.
func TestMigrate(t *testing.T) {
	const size = 3*mib + 5000
	w := &world{every: 2, mem: vfs.NewMem(), opt: Options{WALBytes: 512 * grainBytes, ReserveBytes: mib}, bases: []*memBase{newBase(1, size), newBase(2, 64*grainBytes)}}
	w.disk = vfs.NewFaulty(w.mem)
	w.fsys = w.disk
	w.opt.OpenTarget = openFileTarget(w.disk)
	for _, b := range w.bases {
		w.model = append(w.model, newVersions(b))
	}
	if err := w.create(); err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(5, 5))
	d, v := w.s.Disks()[0], w.model[0]
	write := func(off int64, p []byte, durable bool) {
		v.write(p, off)
		if _, err := d.Write(p, off, durable); err != nil {
			t.Error(err)
		}
		if durable {
			v.commit(off, int64(len(p)))
		}
	}
	for range 60 {
		off, p := randomWrite(rng, size)
		write(off, p, rng.IntN(2) == 0)
	}
	target, err := makeTarget(w.disk, size)
	if err != nil {
		t.Fatal(err)
	}
	inside := false
	target.onWrite = func(off int64) error {
		if inside {
			return nil // our own, mirrored
		}
		inside = true
		defer func() { inside = false }()
		for at := int64(0); at < size; at += mib { // into each chunk but that being copied, and over its edges
			if at != off/mib*mib {
				_, p := randomWrite(rng, 20*grainBytes)
				to := at + rng.Int64N(min(mib, size-at)-int64(len(p)))
				write(to, p, rng.IntN(2) == 0)
			}
		}
		return nil
	}
	var before, after atomic.Int64 // crashes
	w.verify = func(s stop) error {
		opt := w.opt
		opt.OpenTarget = openFileTarget(s.fs)
		ss, err := Open(s.fs, specs(w.bases...), opt)
		if err != nil {
			return err
		}
		defer ss.Close()
		d := ss.Disks()[0]
		p, err := s.snaps[0].check(d)
		if err != nil {
			return err
		}
		if d.Target() != "" {
			after.Add(1)
			return nil
		}
		before.Add(1)
		target, err := openFileTarget(s.fs)("", "target")
		if err != nil {
			return err
		}
		if err := d.Migrate(t.Context(), "target", target); err != nil {
			return err
		}
		return same(target, p)
	}
	w.watch(vfs.Crashes(1, 2, 3))
	if err := d.Migrate(t.Context(), "target", target); err != nil {
		t.Fatal(err)
	}
	v.commit(0, size) // the switch has synced it
	target.onWrite = nil
	if d.Target() != "target" {
		t.Fatal("not switched")
	}
	for i := range int64(10) { // sectors: a target may tear more, as any disk
		write(i*8192+512, bytes.Repeat([]byte{7}, 512), true)
	}
	w.unwatch(t)
	write(7000, bytes.Repeat([]byte{7}, 9000), true)
	if err := same(d, v.bytes); err != nil {
		t.Fatal(err)
	}
	if err := same(target.File, v.bytes); err != nil {
		t.Fatal(err)
	}
	if err := w.s.Close(); err != nil {
		t.Fatal(err)
	}
	if before.Load() == 0 || after.Load() == 0 {
		t.Errorf("%d crashes before the switch, %d after it", before.Load(), after.Load())
	}
}

// TestMigrationEnds lets targets fail: the disk goes on without them.
func TestMigrationEnds(t *testing.T) {
	const size = 2*mib + 100
	bad := errors.New("bad target")
	tests := []struct {
		name  string
		spoil func(*fileTarget, *Disk, context.CancelFunc)
		want  error
	}{
		{"a write", func(f *fileTarget, _ *Disk, _ context.CancelFunc) {
			f.onWrite = func(off int64) error {
				if off >= mib {
					return bad
				}
				return nil
			}
		}, ErrTarget},
		{"a mirrored write", func(f *fileTarget, d *Disk, _ context.CancelFunc) {
			f.onWrite = func(off int64) error {
				if off == 8192 {
					return bad
				}
				if off == mib {
					_, err := d.Write([]byte("behind the cursor"), 8192, true)
					return err
				}
				return nil
			}
		}, ErrTarget},
		{"other bytes", func(f *fileTarget, _ *Disk, _ context.CancelFunc) {
			f.onWrite = func(off int64) error {
				if off == mib {
					_, err := f.File.WriteAt([]byte("flip"), 77)
					return err
				}
				return nil
			}
		}, ErrTarget},
		{"cancelled", func(f *fileTarget, _ *Disk, cancel context.CancelFunc) {
			f.onWrite = func(int64) error { cancel(); return nil }
		}, context.Canceled},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			fsys := vfs.NewMem()
			base := newBase(3, size)
			s := mustCreate(t, fsys, Options{WALBytes: 2 * mib}, base)
			defer s.Close()
			d := s.Disks()[0]
			target, err := makeTarget(fsys, size)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			tt.spoil(target, d, cancel)
			if err := d.Migrate(ctx, "target", target); !errors.Is(err, tt.want) {
				t.Fatalf("got %v, want %v", err, tt.want)
			}
			p := make([]byte, size)
			if _, err := d.ReadAt(p, 0); err != nil {
				t.Fatal(err)
			}
			want := slices.Clone(base.data)
			if tt.name == "a mirrored write" {
				copy(want[8192:], "behind the cursor")
			}
			if !bytes.Equal(p, want) {
				t.Error("the disk has changed")
			}
			target.onWrite = nil
			if err := d.Migrate(t.Context(), "target", target); err != nil {
				t.Errorf("again: %v", err)
			}
			if err := same(target.File, want); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestSwitchedNeedsTarget refuses to open a session whose disk is elsewhere.
func TestSwitchedNeedsTarget(t *testing.T) {
	fsys := vfs.NewMem()
	base := newBase(4, 100*grainBytes)
	s := mustCreate(t, fsys, smallLog, base)
	target, err := makeTarget(fsys, base.Size())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Disks()[0].Migrate(t.Context(), "target", target); err != nil {
		t.Fatal(err)
	}
	if err := s.Checkpoint(); err != nil { // so that the map has to know
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err := Open(fsys, specs(base), smallLog); err == nil {
		t.Error("opened without its target", s.Close())
	}
	opt := smallLog
	opt.OpenTarget = openFileTarget(fsys)
	s = mustOpen(t, fsys, opt, base)
	defer s.Close()
	if err := same(s.Disks()[0], base.data); err != nil {
		t.Error(fmt.Errorf("through the target: %w", err))
	}
}

// TestSwitchFull lets the last step of a migration find no room in the log. It
// fails, the disk goes on without the target, and stays without it: what is
// written afterwards is there when the session is opened again.
func TestSwitchFull(t *testing.T) {
	base := newBase(6, 100*grainBytes)
	fsys, other := vfs.NewMem(), vfs.NewMem()
	opt := smallLog
	opt.ReserveBytes, opt.often, opt.OpenTarget = 1, time.Millisecond, openFileTarget(other)
	s := mustCreate(t, fsys, opt, base)
	d := s.Disks()[0]
	want := bytes.Clone(base.data)
	write := func(i int) error {
		p := bytes.Repeat([]byte{byte(i) | 1, byte(i >> 8)}, 4*grainBytes/2)
		_, err := d.Write(p, 0, true)
		if err == nil {
			copy(want, p)
		}
		return err
	}
	if err := write(0); err != nil {
		t.Fatal(err)
	}
	fsys.SetCapacity(fsys.Used())
	var err error
	for i := 1; err == nil; i++ { // until the map has to be written anew, and can't be
		if err = write(i); i > 10000 {
			t.Fatal("there is always room")
		}
	}
	if !errors.Is(err, ErrNoSpace) {
		t.Fatal(err)
	}
	target, err := makeTarget(other, base.Size())
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Migrate(t.Context(), "target", target); !errors.Is(err, ErrNoSpace) {
		t.Fatalf("switched with no room in the log: %v", err)
	}
	fsys.SetCapacity(1 << 40)
	for end := time.Now().Add(20 * time.Second); write(7) != nil; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("no room again")
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, fsys, opt, base)
	defer s.Close()
	d = s.Disks()[0]
	if d.Target() != "" {
		t.Errorf("the disk is %q", d.Target())
	}
	if err := same(d, want); err != nil {
		t.Error(err)
	}
}

// TestCloseSyncsTarget closes a session whose disk was switched: what was
// written to the target is durable.
func TestCloseSyncsTarget(t *testing.T) {
	base := newBase(6, 10*grainBytes)
	other := vfs.NewMem()
	s := mustCreate(t, vfs.NewMem(), smallLog, base)
	target, err := makeTarget(other, base.Size())
	if err != nil {
		t.Fatal(err)
	}
	d := s.Disks()[0]
	if err := d.Migrate(t.Context(), "target", target); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Write([]byte("written"), 0, false); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	f, err := other.CrashClone(vfs.CrashOptions{}).Open("target")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p := make([]byte, 7)
	if _, err := f.ReadAt(p, 0); err != nil || string(p) != "written" {
		t.Errorf("%q, %v", p, err)
	}
}
