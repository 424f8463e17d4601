package vfs_test

import (
	"errors"
	"strings"
	"testing"

	"holdfast/repo/vfs"

	"github.com/google/go-cmp/cmp"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wants(t testing.TB, what string, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Errorf("%s: got error %v, want %v", what, got, want)
	}
}

func same(t testing.TB, what string, got, want any) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

// create makes a file of the given bytes and leaves it open.
func create(t testing.TB, fsys vfs.FS, name, data string) vfs.File {
	t.Helper()
	f, err := fsys.Create(name)
	must(t, err)
	_, err = f.Write([]byte(data))
	must(t, err)
	return f
}

// synced makes a file of the given bytes and syncs it, but not its name.
func synced(t testing.TB, fsys vfs.FS, name, data string) {
	t.Helper()
	f := create(t, fsys, name, data)
	must(t, f.Sync())
	must(t, f.Close())
}

func get(t testing.TB, fsys vfs.FS, name string) string {
	t.Helper()
	data, err := vfs.ReadFile(fsys, name, 1<<24)
	must(t, err)
	return string(data)
}

// tree lists all files with their bytes, and directories with a slash.
func tree(t testing.TB, fsys vfs.FS) string {
	t.Helper()
	var lines []string
	must(t, vfs.Walk(fsys, ".", func(name string, info vfs.Info) error {
		if info.Dir {
			lines = append(lines, name+"/")
		} else {
			lines = append(lines, name+"="+get(t, fsys, name))
		}
		return nil
	}))
	return strings.Join(lines, " ")
}

// skeleton returns a Mem with durable directories tmp and d.
func skeleton(t testing.TB) *vfs.Mem {
	t.Helper()
	m := vfs.NewMem()
	must(t, m.Mkdir("tmp"))
	must(t, m.Mkdir("d"))
	must(t, m.SyncDir("."))
	return m
}
