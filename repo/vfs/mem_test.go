package vfs_test

import (
	"fmt"
	"io"
	"strings"
	"syscall"
	"testing"

	"holdfast/repo/vfs"
)

const kib = 1 << 10

func TestMemCapacity(t *testing.T) {
	m := skeleton(t) // three directories
	m.SetCapacity(24 * kib)
	f := create(t, m, "d/a", "x") // and two pages
	free, err := m.Free()
	must(t, err)
	same(t, "free", free, uint64(4*kib))

	n, err := f.WriteAt([]byte(strings.Repeat("y", 12*kib)), 0)
	wants(t, "a write that does not fit", err, syscall.ENOSPC)
	same(t, "bytes of it", n, 8*kib)
	size, err := f.Size()
	must(t, err)
	same(t, "size", size, int64(8*kib))
	_, err = f.WriteAt([]byte("z"), 100)
	must(t, err) // in a page that is there
	_, err = m.Create("d/b")
	wants(t, "create", err, syscall.ENOSPC)
	wants(t, "mkdir", m.Mkdir("e"), syscall.ENOSPC)
	wants(t, "preallocate", f.Preallocate(9*kib), syscall.ENOSPC)
	_, err = m.Lock("d/l", vfs.Shared)
	wants(t, "lock", err, syscall.ENOSPC)
	must(t, m.Rename("d/a", "tmp/a"))

	must(t, f.Truncate(4*kib))
	must(t, f.Preallocate(8*kib))
	must(t, m.Remove("tmp/a"))
	same(t, "used by a removed file that is open", m.Used(), int64(24*kib))
	must(t, f.Close())
	same(t, "used by nothing", m.Used(), int64(12*kib))
}

func TestMemReserve(t *testing.T) {
	m := skeleton(t)
	m.SetCapacity(1 << 20)
	f := create(t, m, "d/reserve", "")
	must(t, f.Preallocate(800*kib))
	must(t, f.Sync())
	must(t, m.SyncDir("d"))
	big := make([]byte, 300*kib)
	wants(t, "write beside the reserve", vfs.WriteFile(m, "d/a", big), syscall.ENOSPC)
	c := m.CrashClone(vfs.CrashOptions{})
	same(t, "used after a crash", c.Used(), m.Used())
	_, err := f.Write(big) // in what was reserved
	must(t, err)
	must(t, f.Truncate(0))
	must(t, vfs.WriteFile(m, "d/a", big))
}

func TestMemReadOnly(t *testing.T) {
	m := skeleton(t)
	f := create(t, m, "d/a", "A")
	m.SetReadOnly(true)
	_, err := f.Write([]byte("x"))
	wants(t, "write", err, syscall.EROFS)
	_, err = m.Create("d/b")
	wants(t, "create", err, syscall.EROFS)
	_, err = m.OpenWrite("d/a")
	wants(t, "open for writing", err, syscall.EROFS)
	wants(t, "mkdir", m.Mkdir("e"), syscall.EROFS)
	wants(t, "remove", m.Remove("d/a"), syscall.EROFS)
	wants(t, "rename", m.Rename("d/a", "d/b"), syscall.EROFS)
	_, err = m.Lock("d/l", vfs.Shared)
	wants(t, "lock of a new file", err, syscall.EROFS)
	_, err = m.Lock("d/a", vfs.Exclusive)
	wants(t, "lock", err, syscall.EROFS)
	l, err := m.Lock("d/a", vfs.Shared)
	must(t, err)
	must(t, l.Unlock())
	same(t, "tree", tree(t, m), "d/ d/a=A tmp/")
	m.SetReadOnly(false)
	must(t, m.Remove("d/a"))
}

func TestMemCorrupt(t *testing.T) {
	m := skeleton(t)
	f := create(t, m, "d/a", "abc")
	must(t, f.Truncate(10000)) // a hole at the end
	must(t, f.Sync())
	must(t, m.Corrupt("d/a", 1, 1))
	must(t, m.Corrupt("d/a", 9999, 0x20))
	same(t, "start", get(t, m, "d/a")[:4], "acc\x00")
	same(t, "end", get(t, m, "d/a")[9998:], "\x00 ")
	wants(t, "at the end", m.Corrupt("d/a", 10000, 1), io.EOF)
	wants(t, "before the start", m.Corrupt("d/a", -1, 1), io.EOF)
	wants(t, "no file", m.Corrupt("d/b", 0, 1), syscall.ENOENT)
	wants(t, "a directory", m.Corrupt("d", 0, 1), syscall.EISDIR)
	before := m.Used()
	must(t, f.Truncate(0))
	same(t, "freed", before-m.Used(), int64(8*kib))
}

// TestMemSettles: a directory that is never synced does not pile up changes,
// and what was made durable through it stays so.
func TestMemSettles(t *testing.T) {
	m := skeleton(t)
	const files = 3000
	for i := range files {
		must(t, vfs.WriteFile(m, fmt.Sprintf("d/%04d", i), nil))
	}
	if n := m.Unsynced("tmp"); n > 1024 {
		t.Errorf("%d changes of tmp are kept", n)
	}
	for _, opt := range vfs.Crashes(1, 2, 3, 4) {
		list, err := m.CrashClone(opt).ReadDir("d")
		must(t, err)
		same(t, opt.String(), len(list), files)
	}
}

func TestMemDump(t *testing.T) {
	m := skeleton(t)
	synced(t, m, "d/a", "123456789")
	same(t, "dump", m.Dump(), "d/\nd/a 9 e3069283\ntmp/\n") // the check value of CRC-32C
}
