package mounttest

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
)

// special is what file systems have been caught at.
func (e *env) special() {
	e.names255()
	e.exclusive()
	e.holes()
	e.again()
	e.kinds()
	e.positions()
	e.races()
}

// names255 uses the longest names, names of odd bytes, and one too long.
func (e *env) names255() {
	e.step("use odd names")
	for _, name := range []string{strings.Repeat("n", 255), "with space", "new\nline", "\xff\xfe", "-rf", "*?", "a:b\\c", "…"} {
		e.write(name, []byte(name))
		e.holds(name, []byte(name))
		found := false
		for _, n := range e.names("") {
			found = found || n == name
		}
		e.that(found, "%q is not listed", name)
		e.ok(os.Remove(e.path(name)))
	}
	e.fails(os.WriteFile(e.path(strings.Repeat("n", 256)), nil, 0o644), syscall.ENAMETOOLONG)
}

// exclusive makes files that must not be there.
func (e *env) exclusive() {
	for i := range e.opt.Loops {
		e.step("make a file alone, %d", i)
		f := e.create("lock")
		_, err := os.OpenFile(e.path("lock"), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		e.fails(err, syscall.EEXIST)
		e.ok(f.Close())
		e.fails(os.Mkdir(e.path("lock"), 0o700), syscall.EEXIST)
		e.ok(os.Remove(e.path("lock")))
		e.fails(os.Remove(e.path("lock")), syscall.ENOENT)
	}
}

// holes writes far apart, beyond what 32 bits can hold.
func (e *env) holes() {
	f := e.create("holes")
	for _, off := range []int64{0, 1<<31 - 3, 1<<32 - 3, 1<<32 + 4096, 1 << 40} {
		e.step("write at %d", off)
		want := e.bytes(10)
		_, err := f.WriteAt(want, off)
		e.ok(err)
		e.ok(f.Sync())
		got := make([]byte, 10)
		_, err = f.ReadAt(got, off)
		e.ok(err)
		e.same("holes", got, want)
		e.that(e.stat("holes").Size() == off+10, "size %d", e.stat("holes").Size())
		if off > 0 {
			_, err = f.ReadAt(got, off-20)
			e.ok(err)
			e.same("the hole", got, make([]byte, 10))
		}
	}
	e.step("cut")
	e.ok(f.Truncate(4))
	n, err := f.ReadAt(make([]byte, 10), 0)
	e.that(n == 4 && err == io.EOF, "%d bytes, %v", n, err)
	e.ok(os.Remove(e.path("holes")))
}

// again repeats what must not be done twice, many times: the reply of a request
// that was asked twice is that of the first time.
func (e *env) again() {
	for i := range e.opt.Loops {
		e.step("repeat, %d", i)
		e.ok(os.Mkdir(e.path("d"), 0o755))
		e.write("d/f", []byte("x"))
		e.ok(os.Link(e.path("d/f"), e.path("d/g")))
		e.ok(os.Rename(e.path("d/f"), e.path("d/h")))
		e.ok(os.Symlink("h", e.path("d/s")))
		e.ok(os.Remove(e.path("d/g")))
		e.holds("d/s", []byte("x"))
		if i == e.opt.Loops/2 {
			e.middle()
		}
		e.ok(os.Remove(e.path("d/s")))
		e.ok(os.Remove(e.path("d/h")))
		e.ok(syscall.Rmdir(e.path("d")))
	}
}

// kinds takes one kind of object for another.
func (e *env) kinds() {
	e.step("take one kind for another")
	e.write("file", nil)
	e.ok(os.Mkdir(e.path("dir"), 0o755))
	e.ok(os.Mkdir(e.path("dir/sub"), 0o755))
	e.ok(os.Mkdir(e.path("empty"), 0o755))
	_, err := os.Lstat(e.path("file/x"))
	e.fails(err, syscall.ENOTDIR)
	e.fails(syscall.Rmdir(e.path("file")), syscall.ENOTDIR)
	if err := syscall.Unlink(e.path("dir")); !errors.Is(err, syscall.EISDIR) && !errors.Is(err, syscall.EPERM) {
		e.Errorf("unlink of a directory: %v", err)
	}
	e.fails(syscall.Rename(e.path("empty"), e.path("dir")), syscall.ENOTEMPTY)
	e.ok(syscall.Rename(e.path("dir/sub"), e.path("empty")))
	e.ok(syscall.Mkfifo(e.path("fifo"), 0o600))
	e.that(e.stat("fifo").Mode()&os.ModeNamedPipe != 0, "it is %v", e.stat("fifo").Mode())
	e.ok(os.Remove(e.path("fifo")))
}

// positions reads a directory from places in it that were told before.
func (e *env) positions() {
	e.ok(os.Mkdir(e.path("tell"), 0o755))
	for i := range 100 {
		e.step("fill a directory")
		e.write(fmt.Sprint("tell/", i), nil)
	}
	e.step("go back in a directory")
	d, err := os.Open(e.path("tell"))
	e.ok(err)
	defer d.Close()
	seen := map[string]int{}
	read := func() (n int) {
		buf := make([]byte, 700)
		for {
			k, err := syscall.Getdents(int(d.Fd()), buf)
			e.ok(err)
			if k <= 0 {
				return n
			}
			_, _, names := syscall.ParseDirent(buf[:k], -1, nil)
			for _, name := range names {
				seen[name]++
				n++
			}
		}
	}
	e.that(read() == 100, "%d names", len(seen))
	_, err = d.Seek(0, io.SeekStart)
	e.ok(err)
	e.that(read() == 100 && len(seen) == 100, "%d names the second time", len(seen))
	for name, n := range seen {
		e.that(n == 2, "%s came %d times", name, n)
	}
	_, err = d.Seek(0, io.SeekStart)
	e.ok(err)
	e.ok(os.Remove(e.path("tell/7")))
	e.write("tell/new", nil)
	e.that(read() == 100, "not 100 names after a change")
}

// races has several at once try to make, rename and remove the same names: each
// succeeds for exactly one.
func (e *env) races() {
	for i := range e.opt.Loops / 4 {
		e.step("race, %d", i)
		e.write("from", []byte("x"))
		var made, moved, removed atomic.Int32
		all := func(n *atomic.Int32, do func(k int) error) {
			var wg sync.WaitGroup
			for k := range 4 {
				wg.Go(func() {
					if do(k) == nil {
						n.Add(1)
					}
				})
			}
			wg.Wait()
		}
		all(&made, func(int) error { return os.Mkdir(e.path("one"), 0o755) })
		all(&moved, func(k int) error { return os.Rename(e.path("from"), e.path(fmt.Sprint("to", k))) })
		all(&removed, func(int) error { return syscall.Rmdir(e.path("one")) })
		e.that(made.Load() == 1 && moved.Load() == 1 && removed.Load() == 1, "%d made, %d moved, %d removed", made.Load(), moved.Load(), removed.Load())
		for k := range 4 {
			_ = os.Remove(e.path(fmt.Sprint("to", k))) // one of them is there
		}
	}
}
