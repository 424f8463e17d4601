// Package vfstest is the suite that every vfs.FS passes.
package vfstest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"sync"
	"syscall"
	"testing"

	"holdfast/repo/vfs"

	"github.com/google/go-cmp/cmp"
)

// Run holds the file systems that make returns, each new and empty, to what
// package vfs says about FS and File.
func Run(t *testing.T, make func(t *testing.T) vfs.FS) {
	for _, c := range []struct {
		name string
		test func(t *testing.T, fsys vfs.FS)
	}{
		{"entries", entries},
		{"errors", failures},
		{"bad names", badNames},
		{"rename", rename},
		{"write and read", writeAndRead},
		{"read-only handle", readOnlyHandle},
		{"truncate", truncate},
		{"preallocate", preallocate},
		{"large offsets", largeOffsets},
		{"removed while open", removedWhileOpen},
		{"closed", closed},
		{"locks", locks},
		{"lock of a removed file", lockRemoved},
		{"durable write", durableWrite},
		{"read with a limit", readLimit},
		{"walk", walk},
		{"many at once", manyAtOnce},
		{"free", free},
		{"not locked", notLocked},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, make(t)) })
	}
}

// must ends the test on an error.
func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// wants reports an error that is not the one wanted.
func wants(t *testing.T, what string, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Errorf("%s: got error %v, want %v", what, got, want)
	}
}

// put writes a file without much ado.
func put(t *testing.T, fsys vfs.FS, name, data string) {
	t.Helper()
	f, err := fsys.Create(name)
	must(t, err)
	_, err = io.WriteString(f, data)
	must(t, err)
	must(t, f.Sync())
	must(t, f.Close())
}

// get reads a file back.
func get(t *testing.T, fsys vfs.FS, name string) string {
	t.Helper()
	data, err := vfs.ReadFile(fsys, name, 1<<20)
	must(t, err)
	return string(data)
}

func list(t *testing.T, fsys vfs.FS, name string) []vfs.Info {
	t.Helper()
	l, err := fsys.ReadDir(name)
	must(t, err)
	return l
}

func same(t *testing.T, what string, got, want any) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func entries(t *testing.T, fsys vfs.FS) {
	same(t, "an empty root", list(t, fsys, "."), []vfs.Info{})
	must(t, fsys.Mkdir("d"))
	must(t, fsys.Mkdir("d/sub"))
	put(t, fsys, "d/b", "four")
	put(t, fsys, "d/a", "")
	put(t, fsys, "d/B", "x")
	same(t, "d", list(t, fsys, "d"), []vfs.Info{
		{Name: "B", Size: 1}, {Name: "a"}, {Name: "b", Size: 4}, {Name: "sub", Dir: true},
	})
	for name, want := range map[string]vfs.Info{
		".":     {Name: ".", Dir: true},
		"d/sub": {Name: "sub", Dir: true},
		"d/b":   {Name: "b", Size: 4},
	} {
		got, err := fsys.Stat(name)
		must(t, err)
		same(t, "stat "+name, got, want)
	}
	must(t, fsys.SyncDir("d"))
	must(t, fsys.SyncDir("."))
	for _, name := range []string{"d/a", "d/b", "d/B", "d/sub", "d"} {
		must(t, fsys.Remove(name))
	}
	same(t, "the root after all", list(t, fsys, "."), []vfs.Info{})
}

func failures(t *testing.T, fsys vfs.FS) {
	must(t, fsys.Mkdir("d"))
	put(t, fsys, "d/f", "x")
	open := func(f vfs.File, err error) error { return err }
	info := func(_ vfs.Info, err error) error { return err }
	infos := func(_ []vfs.Info, err error) error { return err }
	lock := func(_ vfs.Unlocker, err error) error { return err }
	locked := func(_ bool, err error) error { return err }
	for _, c := range []struct {
		what      string
		got, want error
	}{
		{"create where a file is", open(fsys.Create("d/f")), fs.ErrExist},
		{"create where a directory is", open(fsys.Create("d")), fs.ErrExist},
		{"create in no directory", open(fsys.Create("no/f")), fs.ErrNotExist},
		{"create below a file", open(fsys.Create("d/f/g")), syscall.ENOTDIR},
		{"open nothing", open(fsys.Open("no")), fs.ErrNotExist},
		{"open a directory", open(fsys.Open("d")), syscall.EISDIR},
		{"open the root", open(fsys.Open(".")), syscall.EISDIR},
		{"open nothing for writing", open(fsys.OpenWrite("no")), fs.ErrNotExist},
		{"open a directory for writing", open(fsys.OpenWrite("d")), syscall.EISDIR},
		{"mkdir where a directory is", fsys.Mkdir("d"), fs.ErrExist},
		{"mkdir where a file is", fsys.Mkdir("d/f"), fs.ErrExist},
		{"mkdir in no directory", fsys.Mkdir("no/d"), fs.ErrNotExist},
		{"remove nothing", fsys.Remove("no"), fs.ErrNotExist},
		{"remove a directory that is not empty", fsys.Remove("d"), syscall.ENOTEMPTY},
		{"rename nothing", fsys.Rename("no", "x"), fs.ErrNotExist},
		{"rename into no directory", fsys.Rename("d/f", "no/f"), fs.ErrNotExist},
		{"list nothing", infos(fsys.ReadDir("no")), fs.ErrNotExist},
		{"list a file", infos(fsys.ReadDir("d/f")), syscall.ENOTDIR},
		{"stat nothing", info(fsys.Stat("d/no")), fs.ErrNotExist},
		{"locked of nothing", locked(fsys.Locked("d/no")), fs.ErrNotExist},
		{"locked of a directory", locked(fsys.Locked("d")), syscall.EISDIR},
		{"stat below a file", info(fsys.Stat("d/f/g")), syscall.ENOTDIR},
		{"sync no directory", fsys.SyncDir("no"), fs.ErrNotExist},
		{"sync a file as a directory", fsys.SyncDir("d/f"), syscall.ENOTDIR},
		{"lock a directory", lock(fsys.Lock("d", vfs.Exclusive)), syscall.EISDIR},
		{"lock in no directory", lock(fsys.Lock("no/l", vfs.Shared)), fs.ErrNotExist},
	} {
		wants(t, c.what, c.got, c.want)
		name := c.what[strings.LastIndex(c.what, " ")+1:]
		if c.got != nil && strings.Count(c.got.Error(), ":") < 1 {
			t.Errorf("%s: error %q does not say what %s it is about", c.what, c.got, name)
		}
	}
	same(t, "d after all that", list(t, fsys, "d"), []vfs.Info{{Name: "f", Size: 1}})
}

func badNames(t *testing.T, fsys vfs.FS) {
	must(t, fsys.Mkdir("d"))
	put(t, fsys, "f", "x")
	calls := map[string]func(name string) error{
		"create":      func(n string) error { _, err := fsys.Create(n); return err },
		"open":        func(n string) error { _, err := fsys.Open(n); return err },
		"open write":  func(n string) error { _, err := fsys.OpenWrite(n); return err },
		"mkdir":       fsys.Mkdir,
		"remove":      fsys.Remove,
		"rename":      func(n string) error { return fsys.Rename(n, "g") },
		"rename to":   func(n string) error { return fsys.Rename("f", n) },
		"read dir":    func(n string) error { _, err := fsys.ReadDir(n); return err },
		"locked":      func(n string) error { _, err := fsys.Locked(n); return err },
		"stat":        func(n string) error { _, err := fsys.Stat(n); return err },
		"sync dir":    fsys.SyncDir,
		"lock":        func(n string) error { _, err := fsys.Lock(n, vfs.Shared); return err },
		"lock to own": func(n string) error { _, err := fsys.Lock(n, vfs.Exclusive); return err },
	}
	for what, call := range calls {
		for _, name := range []string{"", "/f", "../f", "d/../f", "./f", "d//f", "d/", "a\x00b"} {
			wants(t, fmt.Sprintf("%s %q", what, name), call(name), fs.ErrInvalid)
		}
		wants(t, what+" a long name", call("d/"+strings.Repeat("x", 256)), syscall.ENAMETOOLONG)
	}
	for _, what := range []string{"create", "mkdir", "remove", "rename", "rename to", "lock"} {
		wants(t, what+" the root", calls[what]("."), fs.ErrInvalid)
	}
	put(t, fsys, strings.Repeat("x", 255), "as long as can be")
}

func rename(t *testing.T, fsys vfs.FS) {
	for _, d := range []string{"a", "b", "b/full"} {
		must(t, fsys.Mkdir(d))
	}
	put(t, fsys, "a/1", "one")
	put(t, fsys, "a/2", "two")
	put(t, fsys, "b/full/x", "x")

	must(t, fsys.Rename("a/1", "a/3"))
	must(t, fsys.Rename("a/3", "b/1"))
	must(t, fsys.Rename("a/2", "b/1")) // in place of one
	same(t, "b/1", get(t, fsys, "b/1"), "two")
	same(t, "a", list(t, fsys, "a"), []vfs.Info{})
	must(t, fsys.Rename("b/1", "b/1"))
	same(t, "b/1 renamed to itself", get(t, fsys, "b/1"), "two")

	wants(t, "a file over a directory", fsys.Rename("b/1", "a"), fs.ErrExist)
	wants(t, "a directory over a file", fsys.Rename("a", "b/1"), syscall.ENOTDIR)
	wants(t, "a directory over another", fsys.Rename("a", "b/full"), fs.ErrExist)
	wants(t, "a directory into itself", fsys.Rename("b", "b/full/b"), syscall.EINVAL)

	must(t, fsys.Rename("b/full", "moved"))
	same(t, "a file below a renamed directory", get(t, fsys, "moved/x"), "x")
	same(t, "b", list(t, fsys, "b"), []vfs.Info{{Name: "1", Size: 3}})
}

func writeAndRead(t *testing.T, fsys vfs.FS) {
	f, err := fsys.Create("f")
	must(t, err)
	defer f.Close()
	for _, s := range []string{"hello ", "", "world"} {
		n, err := io.WriteString(f, s)
		must(t, err)
		same(t, "bytes written", n, len(s))
	}
	_, err = f.WriteAt([]byte("W"), 6)
	must(t, err)
	_, err = f.WriteAt([]byte("far"), 10000)
	must(t, err)
	_, err = io.WriteString(f, "!") // where the last Write ended
	must(t, err)
	size, err := f.Size()
	must(t, err)
	same(t, "size", size, int64(10003))

	buf := make([]byte, 14)
	_, err = f.ReadAt(buf, 0)
	must(t, err)
	same(t, "start", string(buf), "hello World!\x00\x00")
	n, err := f.ReadAt(buf, 9999)
	wants(t, "read over the end", err, io.EOF)
	same(t, "end", string(buf[:n]), "\x00far")
	n, err = f.ReadAt(buf, 10003)
	wants(t, "read at the end", err, io.EOF)
	same(t, "bytes at the end", n, 0)
	if _, err := f.ReadAt(buf, -1); err == nil {
		t.Error("read at -1: no error")
	}
	if _, err := f.WriteAt(buf, -1); err == nil {
		t.Error("write at -1: no error")
	}

	g, err := fsys.OpenWrite("f")
	must(t, err)
	defer g.Close()
	_, err = io.WriteString(g, "J")
	must(t, err)
	_, err = f.ReadAt(buf[:5], 0)
	must(t, err)
	same(t, "what another handle wrote", string(buf[:5]), "Jello")
	must(t, f.DropCache(0, 0))
	must(t, f.DropCache(4096, 4096))
}

func readOnlyHandle(t *testing.T, fsys vfs.FS) {
	put(t, fsys, "f", "x")
	f, err := fsys.Open("f")
	must(t, err)
	defer f.Close()
	_, err = f.Write([]byte("y"))
	wants(t, "write", err, syscall.EBADF)
	_, err = f.WriteAt([]byte("y"), 0)
	wants(t, "write at", err, syscall.EBADF)
	if f.Truncate(0) == nil || f.Preallocate(10) == nil {
		t.Error("a handle for reading changed the length")
	}
	same(t, "content", get(t, fsys, "f"), "x")
	must(t, f.DropCache(0, 0))
}

func truncate(t *testing.T, fsys vfs.FS) {
	f, err := fsys.Create("f")
	must(t, err)
	defer f.Close()
	_, err = f.Write(bytes.Repeat([]byte("x"), 3*4096))
	must(t, err)
	must(t, f.Truncate(4097))
	must(t, f.Truncate(4100))
	same(t, "cut and grown again", get(t, fsys, "f"), strings.Repeat("x", 4097)+"\x00\x00\x00")
	_, err = f.Write([]byte("y")) // the position stayed
	must(t, err)
	size, err := f.Size()
	must(t, err)
	same(t, "size", size, int64(3*4096+1))
	must(t, f.Truncate(0))
	same(t, "empty", get(t, fsys, "f"), "")
	if f.Truncate(-1) == nil {
		t.Error("truncate to -1: no error")
	}
}

func preallocate(t *testing.T, fsys vfs.FS) {
	f, err := fsys.Create("f")
	must(t, err)
	defer f.Close()
	_, err = f.Write([]byte("abc"))
	must(t, err)
	must(t, f.Preallocate(0))
	must(t, f.Preallocate(5))
	must(t, f.Preallocate(2))
	same(t, "content", get(t, fsys, "f"), "abc\x00\x00")
	_, err = f.Write([]byte("d"))
	must(t, err)
	same(t, "content", get(t, fsys, "f"), "abcd\x00")
}

func largeOffsets(t *testing.T, fsys vfs.FS) {
	f, err := fsys.Create("f")
	must(t, err)
	defer f.Close()
	const far = 1 << 40
	_, err = f.WriteAt([]byte("x"), far)
	must(t, err)
	size, err := f.Size()
	must(t, err)
	same(t, "size", size, int64(far+1))
	buf := []byte{1, 1}
	_, err = f.ReadAt(buf, far-1)
	must(t, err)
	same(t, "bytes", string(buf), "\x00x")
	must(t, f.Truncate(0))
}

func removedWhileOpen(t *testing.T, fsys vfs.FS) {
	put(t, fsys, "f", "old")
	f, err := fsys.OpenWrite("f")
	must(t, err)
	must(t, fsys.Remove("f"))
	put(t, fsys, "f", "new")
	_, err = f.Write([]byte("OL"))
	must(t, err)
	buf := make([]byte, 3)
	_, err = f.ReadAt(buf, 0)
	must(t, err)
	same(t, "the removed file", string(buf), "OLd")
	must(t, f.Sync())
	must(t, vfs.SyncData(f))
	must(t, f.Close())
	same(t, "the new file", get(t, fsys, "f"), "new")
}

func closed(t *testing.T, fsys vfs.FS) {
	f, err := fsys.Create("f")
	must(t, err)
	must(t, f.Close())
	_, err = f.Write([]byte("x"))
	wants(t, "write", err, fs.ErrClosed)
	_, err = f.ReadAt(make([]byte, 1), 0)
	wants(t, "read", err, fs.ErrClosed)
	wants(t, "sync", f.Sync(), fs.ErrClosed)
	wants(t, "sync data", vfs.SyncData(f), fs.ErrClosed)
	wants(t, "close", f.Close(), fs.ErrClosed)
	_, err = f.Size()
	wants(t, "size", err, fs.ErrClosed)
}

func locks(t *testing.T, fsys vfs.FS) {
	take := func(mode vfs.LockMode, want error) vfs.Unlocker {
		t.Helper()
		l, err := fsys.Lock("lock", mode)
		wants(t, "lock", err, want)
		return l
	}
	own := take(vfs.Exclusive, nil)
	take(vfs.Exclusive, vfs.ErrLocked)
	take(vfs.Shared, vfs.ErrLocked)

	f, err := fsys.OpenWrite("lock") // its text
	must(t, err)
	_, err = f.Write([]byte("pid 1"))
	must(t, err)
	must(t, f.Close())
	take(vfs.Shared, vfs.ErrLocked) // closing that handle lost nothing

	must(t, own.Unlock())
	wants(t, "unlock again", own.Unlock(), fs.ErrClosed)
	one, two := take(vfs.Shared, nil), take(vfs.Shared, nil)
	take(vfs.Exclusive, vfs.ErrLocked)
	must(t, one.Unlock())
	take(vfs.Exclusive, vfs.ErrLocked)
	must(t, two.Unlock())
	must(t, take(vfs.Exclusive, nil).Unlock())
	same(t, "text", get(t, fsys, "lock"), "pid 1")
}

func lockRemoved(t *testing.T, fsys vfs.FS) {
	old, err := fsys.Lock("lock", vfs.Exclusive)
	must(t, err)
	must(t, fsys.Remove("lock"))
	l, err := fsys.Lock("lock", vfs.Exclusive)
	must(t, err)
	must(t, old.Unlock())
	_, err = fsys.Lock("lock", vfs.Shared)
	wants(t, "lock while the new one is held", err, vfs.ErrLocked)
	must(t, l.Unlock())
}

func durableWrite(t *testing.T, fsys vfs.FS) {
	must(t, fsys.Mkdir(vfs.TempDir))
	must(t, fsys.Mkdir("points"))
	must(t, vfs.WriteFile(fsys, "points/a", []byte("one")))
	wants(t, "write again", vfs.WriteFile(fsys, "points/a", []byte("two")), fs.ErrExist)
	wants(t, "write where no directory is", vfs.WriteFile(fsys, "no/a", nil), fs.ErrNotExist)
	same(t, "content", get(t, fsys, "points/a"), "one")

	long := "points/" + strings.Repeat("n", 255)
	f, tmp, err := vfs.CreateTemp(fsys, long)
	must(t, err)
	must(t, f.Close())
	must(t, vfs.WriteFile(fsys, long, []byte("beside a leftover")))
	same(t, "content", get(t, fsys, long), "beside a leftover")
	wants(t, "place over a file", vfs.Place(fsys, tmp, long), fs.ErrExist)
	same(t, "tmp", list(t, fsys, vfs.TempDir), []vfs.Info{})
}

func readLimit(t *testing.T, fsys vfs.FS) {
	put(t, fsys, "f", "12345")
	data, err := vfs.ReadFile(fsys, "f", 5)
	must(t, err)
	same(t, "content", string(data), "12345")
	_, err = vfs.ReadFile(fsys, "f", 4)
	wants(t, "over the limit", err, vfs.ErrTooLarge)
	_, err = vfs.ReadFile(fsys, "no", 4)
	wants(t, "nothing", err, fs.ErrNotExist)
}

func walk(t *testing.T, fsys vfs.FS) {
	must(t, fsys.Mkdir("b"))
	must(t, fsys.Mkdir("b/c"))
	put(t, fsys, "a", "")
	put(t, fsys, "b/c/d", "")
	put(t, fsys, "b/e", "")
	var got []string
	must(t, vfs.Walk(fsys, ".", func(name string, _ vfs.Info) error {
		got = append(got, name)
		return nil
	}))
	same(t, "names", got, []string{"a", "b", "b/c", "b/c/d", "b/e"})
	stop := errors.New("stop")
	wants(t, "walk that stops", vfs.Walk(fsys, "b", func(string, vfs.Info) error { return stop }), stop)
}

func manyAtOnce(t *testing.T, fsys vfs.FS) {
	must(t, fsys.Mkdir(vfs.TempDir))
	must(t, fsys.Mkdir("d"))
	f, err := fsys.Create("shared")
	must(t, err)
	defer f.Close()
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			mine := bytes.Repeat([]byte{byte('a' + i)}, 3000)
			got := make([]byte, len(mine))
			for k := range 10 {
				off := int64(8*k+i) * 3000
				_, err1 := f.WriteAt(mine, off)
				_, err2 := f.ReadAt(got, off)
				err3 := vfs.WriteFile(fsys, fmt.Sprintf("d/%d-%d", i, k), mine)
				_, err4 := fsys.ReadDir("d")
				if err := errors.Join(err1, err2, err3, err4); err != nil || !bytes.Equal(got, mine) {
					t.Errorf("writer %d at %d: error %v, equal %v", i, off, err, bytes.Equal(got, mine))
				}
			}
		})
	}
	wg.Wait()
	same(t, "files", len(list(t, fsys, "d")), 80)
}

func free(t *testing.T, fsys vfs.FS) {
	n, err := fsys.Free()
	must(t, err)
	if n == 0 {
		t.Error("no space is free")
	}
}
