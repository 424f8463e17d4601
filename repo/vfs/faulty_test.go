package vfs_test

import (
	"errors"
	"io/fs"
	"strings"
	"syscall"
	"testing"

	"holdfast/repo/vfs"
)

func TestFaultyTrace(t *testing.T) {
	f := vfs.NewFaulty(skeleton(t))
	must(t, vfs.WriteFile(f, "d/a", []byte("one")))
	file, err := f.OpenWrite("d/a")
	must(t, err)
	for range 3 {
		_, err := file.Write([]byte("xy"))
		must(t, err)
	}
	must(t, file.Truncate(2))
	wants(t, "mkdir", f.Mkdir("d"), fs.ErrExist)
	same(t, "trace", vfs.Trace(f.Ops()), `create tmp/d-a
write tmp/d-a
sync tmp/d-a
rename tmp/d-a d/a
syncdir d
write d/a
truncate d/a
mkdir d
`)
	var full []string
	for _, op := range f.Ops()[5:] {
		full = append(full, op.String())
	}
	same(t, "numbers", full, []string{"write d/a 0+2", "write d/a 2+2", "write d/a 4+2", "truncate d/a 2", "mkdir d !"})
}

// TestFaultyWriteFile fails each operation of a durable write in turn.
func TestFaultyWriteFile(t *testing.T) {
	for _, c := range []struct {
		name  string
		fault vfs.Fault
		want  error
		left  [5]string // after each operation failed
	}{
		{"once", vfs.Fault{Err: syscall.ENOSPC}, syscall.ENOSPC,
			[5]string{"d/ tmp/", "d/ tmp/", "d/ tmp/", "d/ tmp/", "d/ d/a=one! tmp/"}},
		{"input or output error unless said otherwise", vfs.Fault{}, syscall.EIO,
			[5]string{"d/ tmp/", "d/ tmp/", "d/ tmp/", "d/ tmp/", "d/ d/a=one! tmp/"}},
		{"sticky", vfs.Fault{Sticky: true}, syscall.EIO,
			[5]string{"d/ tmp/", "d/ tmp/ tmp/d-a=", "d/ tmp/ tmp/d-a=one!", "d/ tmp/ tmp/d-a=one!", "d/ d/a=one! tmp/"}},
		{"crash", vfs.Fault{Err: vfs.ErrCrashed}, vfs.ErrCrashed,
			[5]string{"d/ tmp/", "d/ tmp/ tmp/d-a=", "d/ tmp/ tmp/d-a=one!", "d/ tmp/ tmp/d-a=one!", "d/ d/a=one! tmp/"}},
		{"crash in a write", vfs.Fault{Err: vfs.ErrCrashed, Partial: -1}, vfs.ErrCrashed,
			[5]string{"d/ tmp/", "d/ tmp/ tmp/d-a=on", "d/ tmp/ tmp/d-a=one!", "d/ tmp/ tmp/d-a=one!", "d/ d/a=one! tmp/"}},
		{"crash after", vfs.Fault{Err: vfs.ErrCrashed, Done: true}, vfs.ErrCrashed,
			[5]string{"d/ tmp/ tmp/d-a=", "d/ tmp/ tmp/d-a=one!", "d/ tmp/ tmp/d-a=one!", "d/ d/a=one! tmp/", "d/ d/a=one! tmp/"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for at, left := range c.left {
				m := skeleton(t)
				f := vfs.NewFaulty(m)
				c.fault.At = at
				f.Inject(c.fault)
				wants(t, "write", vfs.WriteFile(f, "d/a", []byte("one!")), c.want)
				same(t, f.Ops()[at].String(), tree(t, m), left)
				if f.Ops()[at].Err == nil {
					t.Errorf("%v: the log says it worked", f.Ops()[at])
				}
			}
		})
	}
}

func TestFaultyCrashEndsEverything(t *testing.T) {
	m := skeleton(t)
	f := vfs.NewFaulty(m)
	file := create(t, f, "d/a", "A")
	lock, err := f.Lock("d/lock", vfs.Exclusive)
	must(t, err)
	f.CrashAt(f.Count())
	_, err = file.ReadAt(make([]byte, 1), 0)
	must(t, err) // not yet
	wants(t, "remove", f.Remove("d/a"), vfs.ErrCrashed)

	_, err = f.Open("d/a")
	wants(t, "open", err, vfs.ErrCrashed)
	_, err = file.ReadAt(make([]byte, 1), 0)
	wants(t, "read", err, vfs.ErrCrashed)
	_, err = f.Stat("d")
	wants(t, "stat", err, vfs.ErrCrashed)
	_, err = f.ReadDir("d")
	wants(t, "list", err, vfs.ErrCrashed)
	_, err = file.Size()
	wants(t, "size", err, vfs.ErrCrashed)
	_, err = f.Free()
	wants(t, "free", err, vfs.ErrCrashed)
	wants(t, "sync", file.Sync(), vfs.ErrCrashed)
	must(t, file.Close())
	must(t, lock.Unlock())
	same(t, "operations", f.Count(), 4)

	f.Heal()
	must(t, f.Remove("d/a"))
}

// TestFaultyFailedSync: what a failed sync was about is lost, though it reads
// and though the next sync works.
func TestFaultyFailedSync(t *testing.T) {
	m := skeleton(t)
	f := vfs.NewFaulty(vfs.NewFaulty(m)) // they stack
	file := create(t, f, "d/a", "aaaa")
	must(t, file.Sync())
	must(t, f.SyncDir("d"))
	_, err := file.WriteAt([]byte("bb"), 0)
	must(t, err)
	f.FailAt(f.Count(), syscall.EIO)
	wants(t, "sync", file.Sync(), syscall.EIO)
	must(t, file.Truncate(6))
	must(t, file.Truncate(4))
	_, err = file.WriteAt([]byte("c"), 3)
	must(t, err)

	all := vfs.CrashOptions{Data: vfs.KeepAll, Sizes: vfs.KeepAll, Names: vfs.KeepAll}
	same(t, "live", get(t, m, "d/a"), "bbac")
	same(t, "after a crash that keeps all", get(t, m.CrashClone(all), "d/a"), "aaac")
	must(t, file.Sync())
	same(t, "live", get(t, m, "d/a"), "bbac")
	same(t, "after another sync and a crash", get(t, m.CrashClone(vfs.CrashOptions{}), "d/a"), "aaac")
}

func TestFaultyReads(t *testing.T) {
	f := vfs.NewFaulty(skeleton(t))
	synced(t, f, "d/a", "abc")
	synced(t, f, "d/b", "abc")
	synced(t, f, "d/c", "abc")
	f.FlipReads("d/[ab]", 1, 1)
	f.FailReads("d/c", syscall.EIO)
	same(t, "flipped", get(t, f, "d/a"), "acc")
	_, err := vfs.ReadFile(f, "d/c", 10)
	wants(t, "read", err, syscall.EIO)

	file, err := f.Open("d/b")
	must(t, err)
	buf := make([]byte, 1)
	for off, want := range []string{"a", "c", "c"} {
		_, err := file.ReadAt(buf, int64(off))
		must(t, err)
		same(t, "byte", string(buf), want)
	}
	f.Heal()
	same(t, "healed", get(t, f, "d/a")+get(t, f, "d/c"), "abcabc")
}

func TestFaultyCountReads(t *testing.T) {
	m := skeleton(t)
	synced(t, m, "d/a", "abc")
	f := vfs.NewFaulty(m)
	f.CountReads()
	get(t, f, "d/a")
	_, err := f.ReadDir("d")
	must(t, err)
	same(t, "trace", vfs.Trace(f.Ops()), "open d/a\nstat d/a\nread d/a\nreaddir d\n")
	f.FailAt(f.Count()+2, syscall.EIO)
	_, err = vfs.ReadFile(f, "d/a", 10)
	wants(t, "third operation from here", err, syscall.EIO)
}

// TestFaultyDiskFills fills the disk before each operation of a durable write.
func TestFaultyDiskFills(t *testing.T) {
	data := []byte(strings.Repeat("x", 10000))
	for at := range 5 {
		m := skeleton(t)
		f := vfs.NewFaulty(m)
		f.OnOp(func(index int, _ vfs.Op) {
			if index == at {
				m.SetCapacity(m.Used())
			}
		})
		err := vfs.WriteFile(f, "d/a", data)
		if full := at < 2; errors.Is(err, syscall.ENOSPC) != full || !full && err != nil {
			t.Errorf("full before %v: got error %v", f.Ops()[at], err)
		} else if full {
			same(t, "left", tree(t, m), "d/ tmp/")
		}
	}
}
