package vfstest

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"
	"testing"

	"holdfast/repo/vfs"
)

// SetLocked makes a file immutable, or takes that back: in a Mem; in a Dir, for
// which it needs root and a file system that has the flag; in one of these that
// a Faulty stands before. Else it gives errors.ErrUnsupported. A test that locks
// files in a directory unlocks them, or nobody can remove it.
func SetLocked(fsys vfs.FS, name string, on bool) error {
	switch f := fsys.(type) {
	case *vfs.Mem:
		return f.SetLocked(name, on)
	case *vfs.Dir:
		return setImmutable(f, name, on)
	case *vfs.Faulty:
		return SetLocked(f.Unwrap(), name, on)
	}
	return fmt.Errorf("set locked %s in a %T: %w", name, fsys, errors.ErrUnsupported)
}

// RunLocked holds an empty file system in which SetLocked works to what package
// vfs says about files that are locked.
func RunLocked(t *testing.T, fsys vfs.FS) {
	must(t, fsys.Mkdir("d"))
	put(t, fsys, "d/f", "locked")
	put(t, fsys, "d/g", "not")
	must(t, SetLocked(fsys, "d/f", true))
	dir := "d"
	t.Cleanup(func() {
		if err := SetLocked(fsys, dir+"/f", false); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Error(err)
		}
	})
	wantLocked(t, fsys, "d/f", true)
	wantLocked(t, fsys, "d/g", false)

	_, err := fsys.OpenWrite("d/f")
	for what, err := range map[string]error{
		"remove":         fsys.Remove("d/f"),
		"rename":         fsys.Rename("d/f", "d/h"),
		"rename over it": fsys.Rename("d/g", "d/f"),
		"open to write":  err,
	} {
		wants(t, what, err, fs.ErrPermission)
		wants(t, what, err, syscall.EPERM)
	}
	_, err = fsys.Create("d/f")
	wants(t, "create", err, fs.ErrExist)
	same(t, "content", get(t, fsys, "d/f"), "locked")
	for _, mode := range []vfs.LockMode{vfs.Shared, vfs.Exclusive} {
		l, err := fsys.Lock("d/f", mode)
		must(t, err)
		must(t, l.Unlock())
	}

	must(t, fsys.Rename("d/g", "d/h")) // what is beside it is free
	must(t, fsys.Rename("d", "e"))     // and so is what it is in
	dir = "e"
	wantLocked(t, fsys, "e/f", true)
	must(t, SetLocked(fsys, "e/f", false))
	wantLocked(t, fsys, "e/f", false)
	must(t, fsys.Rename("e/h", "e/f"))
	must(t, fsys.Remove("e/f"))
	_, err = fsys.Locked("e/f")
	wants(t, "locked, once it is removed", err, fs.ErrNotExist)
}

func notLocked(t *testing.T, fsys vfs.FS) {
	put(t, fsys, "f", "x")
	wantLocked(t, fsys, "f", false)
}

func wantLocked(t *testing.T, fsys vfs.FS, name string, want bool) {
	t.Helper()
	locked, err := fsys.Locked(name)
	must(t, err)
	same(t, name+" locked", locked, want)
}
