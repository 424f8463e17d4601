package datastore

import (
	"bytes"
	"fmt"
	"testing"

	"holdfast/fs"
	"holdfast/fs/treetest"
	"holdfast/repo/vfs"
)

// bench is a store on a file system in memory that can be opened again.
type bench struct {
	t   testing.TB
	mem *vfs.Mem
	opt Options
	s   *Store
}

func newBench(t testing.TB, opt Options) *bench {
	t.Helper()
	b := &bench{t: t, mem: vfs.NewMem(), opt: opt}
	if err := Create(b.mem, opt); err != nil {
		t.Fatal(err)
	}
	b.open()
	t.Cleanup(func() {
		if err := b.s.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

func (b *bench) open() {
	b.t.Helper()
	var err error
	if b.s, err = Open(b.mem, b.opt); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) reopen() (fs.WriteTree, error) {
	err := b.s.Close()
	if err == nil {
		b.s, err = Open(b.mem, b.opt)
	}
	return b.s, err
}

// crash cuts the power: the old store goes on somewhere else, and is closed.
func (b *bench) crash(how vfs.CrashOptions) (fs.WriteTree, error) {
	mem := b.mem.CrashClone(how)
	err := b.s.Close()
	b.mem = mem
	if err == nil {
		b.s, err = Open(b.mem, b.opt)
	}
	return b.s, err
}

func TestConforms(t *testing.T) {
	for seed := range uint64(steps(1)) {
		t.Run(fmt.Sprint("root ", seed), func(t *testing.T) {
			b := newBench(t, Options{QuotaBytes: 24 << 20})
			treetest.ConformWrite(t, b.s, treetest.WriteOptions{
				Seed: seed, RoomBytes: 32 << 20, Reopen: b.reopen,
				Crash: func() (fs.WriteTree, error) { return b.crash(vfs.CrashOptions{}) },
			})
		})
		t.Run(fmt.Sprint("session ", seed), func(t *testing.T) {
			b := newBench(t, Options{})
			n, err := b.s.AddSession(SessionSpec{Name: "vm"})
			if err != nil {
				t.Fatal(err)
			}
			crashes := vfs.Crashes(seed, seed+3)
			b.mem.SetCapacity(64 << 20)
			treetest.ConformWrite(t, b.s, treetest.WriteOptions{
				Dir: SessionRoot(n), Seed: seed + 10, RoomBytes: 128 << 20, Reopen: b.reopen,
				Crash: func() (fs.WriteTree, error) {
					crashes = append(crashes[1:], crashes[0])
					return b.crash(crashes[0])
				},
			})
		})
	}
}

// TestCutIsForGood cuts a large file shorter and the power right after the
// journal knows, before the file beside it does. Made longer again, it has zeros
// where the old bytes were.
func TestCutIsForGood(t *testing.T) {
	const long, short = 3*unitBytes - 5000, 2*unitBytes - 9000
	b := newBench(t, Options{})
	faulty := vfs.NewFaulty(b.mem)
	if err := b.s.Close(); err != nil {
		t.Fatal(err)
	}
	var err error
	if b.s, err = Open(faulty, b.opt); err != nil {
		t.Fatal(err)
	}
	c, err := b.s.Create(t.Context(), b.s.Root(), "swap", fs.Creation{}, fs.SetAttr{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	id := c.Object.ID
	if _, err := b.s.WriteAt(t.Context(), id, bytes.Repeat([]byte{7}, long), 0, true); err != nil {
		t.Fatal(err)
	}
	var clones []*vfs.Mem
	faulty.OnOp(func(_ int, op vfs.Op) { clones = append(clones, b.mem.CrashClone(vfs.CrashOptions{})) })
	if _, err := b.s.SetAttr(t.Context(), id, fs.SetAttr{Set: fs.SetSize, Size: short}); err != nil {
		t.Fatal(err)
	}
	faulty.OnOp(nil)
	cut := 0
	for i, mem := range append(clones, b.mem.CrashClone(vfs.CrashOptions{})) {
		s, err := Open(mem, b.opt)
		if err != nil {
			t.Fatal(err)
		}
		a, err := s.Attr(t.Context(), id)
		if err == nil && a.Size == short {
			cut++
		}
		if err == nil {
			_, err = s.SetAttr(t.Context(), id, fs.SetAttr{Set: fs.SetSize, Size: long})
		}
		p := make([]byte, long)
		if n, rerr := s.ReadAt(t.Context(), id, p, 0); n < len(p) {
			t.Fatal(n, err, rerr)
		}
		if err != nil {
			t.Fatal(err)
		}
		if a.Size == short && !bytes.Equal(p, append(bytes.Repeat([]byte{7}, short), make([]byte, long-short)...)) {
			t.Errorf("power cut before operation %d: bytes that were cut off are there again", i)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	if cut < 2 {
		t.Errorf("the file was cut in %d of %d cases", cut, len(clones)+1)
	}
}
