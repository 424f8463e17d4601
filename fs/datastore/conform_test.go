package datastore

import (
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
	for seed := range uint64(3) {
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
