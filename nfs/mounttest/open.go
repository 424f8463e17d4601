package mounttest

import (
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// open takes names from files that are open, which live on: they are renamed,
// removed, replaced, and made unreadable.
func (e *env) open() {
	const files = 12
	var open []*os.File
	var want [][]byte
	for i := range files {
		e.step("open file %d", i)
		f := e.create(fmt.Sprint("open", i))
		p := e.bytes(20_000)
		_, err := f.WriteAt(p, 0)
		e.ok(err)
		open, want = append(open, f), append(want, p)
	}
	check := func() {
		e.Helper()
		for i, f := range open {
			e.step("read open file %d", i)
			got := make([]byte, len(want[i])+1)
			n, err := f.ReadAt(got, 0)
			e.that(n == len(want[i]), "%d bytes, %v", n, err)
			e.same(f.Name(), got[:n], want[i])
		}
	}
	change := func() {
		e.Helper()
		for i, f := range open {
			e.step("write open file %d", i)
			p := e.bytes(5000)
			off := e.rnd.IntN(20_000)
			_, err := f.WriteAt(p, int64(off))
			e.ok(err)
			want[i] = append(want[i], make([]byte, max(0, off+len(p)-len(want[i])))...)
			copy(want[i][off:], p)
			if i%2 == 0 {
				e.ok(f.Sync())
			}
		}
	}
	for i := range open {
		e.step("take the name of open file %d", i)
		name := e.path(fmt.Sprint("open", i))
		switch i % 4 {
		case 0:
			e.ok(os.Remove(name))
			e.gone(fmt.Sprint("open", i))
		case 1:
			e.ok(os.Rename(name, e.path(fmt.Sprint("renamed", i))))
			e.gone(fmt.Sprint("open", i))
		case 2:
			e.write("new", []byte("another"))
			e.ok(os.Rename(e.path("new"), name))
		case 3:
			e.ok(os.Chmod(name, 0))
		}
	}
	check()
	change()
	e.middle()
	change()
	check()
	for i, f := range open {
		e.step("describe open file %d", i)
		info, err := f.Stat()
		e.ok(err)
		e.that(info.Size() == int64(len(want[i])), "size %d, want %d", info.Size(), len(want[i]))
		switch i % 4 {
		case 1:
			e.holds(fmt.Sprint("renamed", i), want[i])
		case 2:
			e.holds(fmt.Sprint("open", i), []byte("another"))
		}
		e.ok(f.Close())
	}
	e.directories()
}

// directories removes and renames directories that are open.
func (e *env) directories() {
	e.step("rename an open directory")
	e.ok(os.Mkdir(e.path("dir"), 0o755))
	e.write("dir/file", []byte("x"))
	d, err := os.Open(e.path("dir"))
	e.ok(err)
	defer d.Close()
	e.ok(os.Rename(e.path("dir"), e.path("elsewhere")))
	fd, err := unix.Openat(int(d.Fd()), "file", unix.O_RDONLY, 0)
	e.ok(err)
	e.ok(unix.Close(fd))
	e.ok(os.RemoveAll(e.path("elsewhere")))
	e.step("make a file in a removed directory")
	_, err = unix.Openat(int(d.Fd()), "file", unix.O_CREAT|unix.O_WRONLY, 0o600)
	e.that(err == syscall.ENOENT || err == syscall.ESTALE, "%v", err)
}
