package mounttest

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// basic makes, looks up, changes, lists, links and removes.
func (e *env) basic() {
	e.trees()
	e.attributes()
	e.large()
	e.middle()
	e.links()
	e.listed()
	e.free()
}

// trees makes directories within directories, with files, looks them all up from
// below and removes them.
func (e *env) trees() {
	const width = 3
	depth := min(1+e.opt.Loops/5, 4)
	var all []string
	var grow func(dir string, left int)
	grow = func(dir string, left int) {
		for i := range width {
			e.step("make files and directories")
			f := filepath.Join(dir, fmt.Sprint("file.", i))
			e.write(f, []byte(f))
			all = append(all, f)
			if left > 0 {
				d := filepath.Join(dir, fmt.Sprint("dir.", i))
				e.ok(os.Mkdir(e.path(d), 0o755))
				all = append(all, d)
				grow(d, left-1)
			}
			if left == 0 && i > 0 {
				break
			}
		}
	}
	e.ok(os.Mkdir(e.path("tree"), 0o755))
	grow("tree", depth-1)
	for _, name := range all {
		e.step("look up %s", name)
		if info := e.stat(name); !info.IsDir() {
			e.holds(name, []byte(name))
		}
		up, err := os.Stat(filepath.Join(e.path(filepath.Dir(name)), "."))
		e.ok(err)
		e.that(up.IsDir(), "its directory is none")
	}
	e.step("remove a directory that isn't empty")
	e.fails(syscall.Rmdir(e.path("tree")), syscall.ENOTEMPTY)
	for _, name := range slices.Backward(all) {
		e.step("remove %s", name)
		e.ok(os.Remove(e.path(name)))
	}
	e.that(len(e.names("tree")) == 0, "something is left")
}

// attributes sets what can be set and reads it again.
func (e *env) attributes() {
	e.step("set attributes")
	e.write("attr", []byte("0123456789"))
	for _, mode := range []os.FileMode{0, 0o600, 0o751, 0o444, 0o644} {
		e.ok(os.Chmod(e.path("attr"), mode))
		e.that(e.stat("attr").Mode().Perm() == mode, "mode %v, want %v", e.stat("attr").Mode(), mode)
	}
	when := time.Unix(1_234_567_890, 123_456_000)
	e.ok(os.Chtimes(e.path("attr"), when, when))
	e.that(e.stat("attr").ModTime().Equal(when), "time %v, want %v", e.stat("attr").ModTime(), when)
	for _, size := range []int64{3, 0, 100_000, 5} {
		e.ok(os.Truncate(e.path("attr"), size))
		e.that(e.stat("attr").Size() == size, "size %d, want %d", e.stat("attr").Size(), size)
	}
	e.holds("attr", make([]byte, 5))
	before := e.stat("attr").ModTime()
	e.write("attr", []byte("again"))
	e.that(e.stat("attr").ModTime().After(before), "a write leaves the time at %v", before)
	if os.Geteuid() == 0 {
		e.ok(os.Lchown(e.path("attr"), 1234, 5678))
		st := e.stat("attr").Sys().(*syscall.Stat_t)
		e.that(st.Uid == 1234 && st.Gid == 5678, "owner %d:%d", st.Uid, st.Gid)
	}
}

// large writes some megabytes, reads them in other pieces, and writes over them.
func (e *env) large() {
	size := e.opt.Loops*150_000 + 777
	want := e.bytes(size)
	f := e.create("large")
	for off := 0; off < size; {
		e.step("write at %d", off)
		n := min(1+e.rnd.IntN(100_000), size-off)
		_, err := f.WriteAt(want[off:off+n], int64(off))
		e.ok(err)
		off += n
	}
	e.step("sync")
	e.ok(f.Sync())
	for range e.opt.Loops {
		off := e.rnd.IntN(size - 5000)
		e.step("write over %d", off)
		copy(want[off:], e.bytes(5000))
		_, err := f.WriteAt(want[off:off+5000], int64(off))
		e.ok(err)
	}
	e.ok(f.Close())
	e.step("read what was written")
	e.holds("large", want)
	e.that(e.stat("large").Size() == int64(size), "size %d", e.stat("large").Size())
}

// links makes hard and symbolic links, and moves names.
func (e *env) links() {
	e.step("link")
	e.write("one", []byte("content"))
	ino := func(name string) (uint64, uint64) {
		st := e.stat(name).Sys().(*syscall.Stat_t)
		return st.Ino, uint64(st.Nlink)
	}
	was, _ := ino("one")
	for i := range 10 {
		e.ok(os.Link(e.path("one"), e.path(fmt.Sprint("link", i))))
		now, links := ino(fmt.Sprint("link", i))
		e.that(now == was && links == uint64(i+2), "inode %d with %d links, want %d with %d", now, links, was, i+2)
	}
	e.fails(os.Link(e.path("one"), e.path("link0")), syscall.EEXIST)
	e.step("rename")
	e.ok(os.Rename(e.path("one"), e.path("two")))
	e.gone("one")
	e.ok(os.Remove(e.path("two")))
	now, links := ino("link9")
	e.that(now == was && links == 10, "inode %d with %d links", now, links)
	e.holds("link3", []byte("content"))
	e.write("other", []byte("other"))
	e.ok(os.Rename(e.path("other"), e.path("link0")))
	e.holds("link0", []byte("other"))
	e.ok(os.Mkdir(e.path("dir"), 0o755))
	e.ok(os.Rename(e.path("link0"), e.path("dir/inside")))
	e.ok(os.Rename(e.path("dir"), e.path("moved")))
	e.holds("moved/inside", []byte("other"))
	e.fails(syscall.Rename(e.path("link1"), e.path("moved")), syscall.EISDIR)
	e.fails(syscall.Rename(e.path("moved"), e.path("link1")), syscall.ENOTDIR)
	e.fails(syscall.Rename(e.path("moved"), e.path("moved/below")), syscall.EINVAL)
	e.step("symbolic links")
	for _, target := range []string{"link1", "moved/inside", "/nowhere", "../" + e.group + "/link2", strings.Repeat("x", 1000)} {
		e.ok(os.Symlink(target, e.path("sym")))
		got, err := os.Readlink(e.path("sym"))
		e.ok(err)
		e.that(got == target, "leads to %q, want %q", got, target)
		e.that(e.stat("sym").Mode()&os.ModeSymlink != 0, "it is %v", e.stat("sym").Mode())
		e.ok(os.Remove(e.path("sym")))
	}
	e.ok(os.Symlink("moved", e.path("way")))
	e.holds("way/inside", []byte("other"))
}

// listed reads directories from which names go meanwhile.
func (e *env) listed() {
	e.ok(os.Mkdir(e.path("list"), 0o755))
	n := 10 * e.opt.Loops
	for i := range n {
		e.step("fill a directory")
		e.write(fmt.Sprintf("list/%03d", i), nil)
	}
	for i := 0; i < n; i += 2 {
		e.step("thin it out")
		e.ok(os.Remove(e.path(fmt.Sprintf("list/%03d", i))))
		if i%20 == 0 {
			got := e.names("list")
			e.that(len(got) == n-1-i/2, "%d names at %d", len(got), i)
			for k, name := range got {
				want := fmt.Sprintf("%03d", min(2*k+1, k+1+i/2))
				e.that(name == want, "name %d is %s, want %s", k, name, want)
			}
		}
	}
}

// free asks what space there is.
func (e *env) free() {
	e.step("ask for space")
	var st syscall.Statfs_t
	e.ok(syscall.Statfs(e.dir, &st))
	e.that(st.Blocks > 0 && st.Bfree <= st.Blocks && st.Bavail <= st.Bfree && st.Namelen >= 255, "%+v", st)
}
