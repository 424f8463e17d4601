package vfs_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"holdfast/repo/vfs"
)

// step does one random operation and says what it was and what came of it.
func step(fsys vfs.FS, rng *rand.Rand) string {
	dir := func() string { return []string{"d", "tmp", "d/e", "tmp/e"}[rng.IntN(4)] }
	name := func() string { return fmt.Sprintf("%s/%c", dir(), 'a'+rng.IntN(4)) }
	a, b, off, n := name(), name(), rng.Int64N(20000), rng.IntN(9000)
	data := make([]byte, n)
	for i := range data {
		data[i] = byte(rng.Uint32())
	}
	var err error
	var what string
	switch k := rng.IntN(20); {
	case k < 4:
		what = "create " + a
		var f vfs.File
		if f, err = fsys.Create(a); err == nil {
			_, err = f.Write(data)
			f.Close()
		}
	case k < 12:
		what = "change " + a
		var f vfs.File
		if f, err = fsys.OpenWrite(a); err == nil {
			switch k {
			case 4, 5, 6:
				_, err = f.WriteAt(data, off)
			case 7:
				err = f.Truncate(off)
			case 8:
				err = f.Preallocate(off + 1)
			default:
				err = f.Sync()
			}
			f.Close()
		}
	case k < 15:
		what = "rename " + a + " " + b
		err = fsys.Rename(a, b)
	case k == 15:
		what = "remove " + a
		err = fsys.Remove(a)
	case k == 16:
		what = "mkdir d/e"
		err = fsys.Mkdir("d/e")
	case k == 17:
		what = "rename d/e tmp/e"
		err = fsys.Rename("d/e", "tmp/e")
	default:
		d := dir()
		what = "syncdir " + d
		err = fsys.SyncDir(d)
	}
	if err != nil {
		what += " !"
	}
	return what
}

// syncAll makes everything durable.
func syncAll(t *testing.T, m *vfs.Mem) {
	must(t, m.SyncDir("."))
	must(t, vfs.Walk(m, ".", func(name string, info vfs.Info) error {
		if info.Dir {
			return m.SyncDir(name)
		}
		f, err := m.Open(name)
		must(t, err)
		must(t, f.Sync())
		return f.Close()
	}))
}

// TestRandom does the same operations in memory and on a real directory, which
// must look the same. A crash that keeps all must look the same too, and after
// everything was synced one that keeps nothing; in between, crashes by chance
// leave a file system that can be read and used to the end.
func TestRandom(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := func() *rand.Rand { return rand.New(rand.NewPCG(seed, 0)) }
	real, _ := openDir(t)
	must(t, real.Mkdir("tmp"))
	must(t, real.Mkdir("d"))
	m := skeleton(t)
	memRng, realRng := rng(), rng()
	keepAll := vfs.CrashOptions{Data: vfs.KeepAll, Sizes: vfs.KeepAll, Names: vfs.KeepAll}
	for i := range 500 {
		got, want := step(m, memRng), step(real, realRng)
		if got != want {
			t.Fatalf("step %d: in memory %q, on disk %q", i, got, want)
		}
		if i%25 != 0 {
			continue
		}
		now := tree(t, m)
		if now != tree(t, real) {
			t.Fatalf("after step %d, %s: memory and disk differ", i, got)
		}
		all := m.CrashClone(keepAll)
		if tree(t, all) != now || all.Used() != m.Used() {
			t.Fatalf("after step %d: a crash that keeps all changes something", i)
		}
		syncAll(t, all)
		if strict := all.CrashClone(vfs.CrashOptions{}); tree(t, strict) != now || strict.Used() > all.Used() {
			t.Fatalf("after step %d: a crash after syncing everything changes something", i)
		}
		for _, opt := range vfs.Crashes(uint64(i), uint64(i+1)) {
			c := m.CrashClone(opt)
			before := tree(t, c)
			if tree(t, c.CrashClone(vfs.CrashOptions{})) != before {
				t.Fatalf("after step %d: %v leaves something that is not durable", i, opt)
			}
			must(t, vfs.Walk(c, "d", func(name string, info vfs.Info) error {
				if info.Dir {
					return nil
				}
				return c.Remove(name)
			}))
		}
		if tree(t, m) != now {
			t.Fatalf("after step %d: its clones changed the original", i)
		}
	}
}
