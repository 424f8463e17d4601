package mounttest

import (
	"fmt"
	"io"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// many fills one directory with thousands of files, lists it while they come, are
// renamed and go, and removes what it reads as it reads it.
func (e *env) many() {
	n := e.opt.Files
	name := func(i int) string { return fmt.Sprintf("a file with a name of some length %06d", i) }
	inodes := map[uint64]bool{}
	for i := range n {
		e.step("make file %d", i)
		if i%10 == 0 {
			e.ok(e.create(name(i)).Close())
		} else { // in a single request
			e.ok(unix.Mknod(e.path(name(i)), unix.S_IFREG|0o644, 0))
		}
		inodes[e.stat(name(i)).Sys().(*syscall.Stat_t).Ino] = true
		if i == n/2 {
			e.middle()
		}
	}
	e.that(len(inodes) == n, "%d inodes", len(inodes))
	got := e.names("")
	e.that(len(got) == n, "%d names, want %d", len(got), n)
	for i, g := range got {
		e.that(g == name(i), "name %d is %s", i, g)
	}
	e.whileChanging(n, name)
	d, err := os.Open(e.dir)
	e.ok(err)
	defer d.Close()
	removed := 0
	for {
		e.step("remove what was listed, %d so far", removed)
		list, err := d.Readdirnames(100)
		for _, name := range list {
			e.ok(os.Remove(e.path(name)))
			removed++
		}
		if err == io.EOF {
			break
		}
		e.ok(err)
	}
	e.that(removed == n, "%d files were listed", removed)
	e.that(len(e.names("")) == 0, "something is left")
}

// whileChanging lists the directory part by part, and between the parts renames
// files, so that it is another one all the time: those left alone come once.
func (e *env) whileChanging(n int, name func(int) string) {
	d, err := os.Open(e.dir)
	e.ok(err)
	defer d.Close()
	seen := map[string]int{}
	for k := 0; ; k++ {
		e.step("list part %d", k)
		list, err := d.Readdirnames(200)
		for _, name := range list {
			seen[name]++
		}
		if err == io.EOF {
			break
		}
		e.ok(err)
		for i := range 3 {
			at := (k*3 + i) * 10 % n
			e.ok(os.Rename(e.path(name(at)), e.path("other")))
			e.ok(os.Rename(e.path("other"), e.path(name(at))))
		}
	}
	for i := range n {
		if i%10 != 0 {
			e.that(seen[name(i)] == 1, "%s came %d times", name(i), seen[name(i)])
		}
	}
}
