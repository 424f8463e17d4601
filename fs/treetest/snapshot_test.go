package treetest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"holdfast/fs"
)

// plain is a Plan that needs neither root nor any ability, and is soon made.
var plain = Plan{Seed: 7, Files: 60, Dirs: 8, FileBytes: 100_000, BigDir: 90, Deep: 200, AnyNames: true, Cases: true,
	ByteNames: true, Sparse: true, Huge: true, HardLinks: true, Symlinks: true, Special: true, Modes: true}

const madeByKernel = Atime | Ctime | Btime | Used

func TestPopulateIsDeterministic(t *testing.T) {
	a, b := t.TempDir(), t.TempDir()
	for _, dir := range []string{a, b} {
		if err := Populate(t, dir, plain); err != nil {
			t.Fatal(err)
		}
	}
	want, got := SnapHost(t, a), SnapHost(t, b)
	for _, d := range Diff(want, got, madeByKernel|DirSize|DirTimes) {
		t.Error(d)
	}
	if n := len(want.Nodes); n < 500 {
		t.Errorf("only %d paths", n)
	}
	other := plain
	other.Seed++
	c := t.TempDir()
	if err := Populate(t, c, other); err != nil {
		t.Fatal(err)
	}
	if len(Diff(want, SnapHost(t, c), madeByKernel)) < 60 {
		t.Error("another seed makes nearly the same")
	}
}

// TestSnapsAgree puts the same into a Tree and a directory.
func TestSnapsAgree(t *testing.T) {
	dir := t.TempDir()
	data := strings.Repeat("some bytes ", 30_000)
	write := func(rel, s string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, rel), []byte(s), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "d"), 0o755); err != nil {
		t.Fatal(err)
	}
	write("d/file", data)
	write("empty", "")
	write("bad \xff name", "x")
	write("sparse", "head")
	for _, err := range []error{
		os.Truncate(filepath.Join(dir, "sparse"), 9<<20+1), os.Symlink("d/file", filepath.Join(dir, "link")),
		os.Link(filepath.Join(dir, "d/file"), filepath.Join(dir, "d/again")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	tree := NewTree(Files{
		"d/file": {Data: []byte(data)}, "d/again": {Link: "d/file"}, "empty": {}, "bad \xff name": {Data: []byte("x")},
		"sparse": {Data: []byte("head"), Attr: fs.Attr{Size: 9<<20 + 1}}, "link": {Target: "d/file"},
	})
	own := Owner | Used | Atime | Mtime | Ctime | Btime | DirSize | DirNlink | Perm | Xattrs
	for _, d := range Diff(SnapHost(t, dir), Snap(t, tree, tree.Root()), own) {
		t.Error(d)
	}
	if err := os.WriteFile(filepath.Join(dir, "sparse"), []byte("Head"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(filepath.Join(dir, "sparse"), 9<<20+1); err != nil {
		t.Fatal(err)
	}
	got := Diff(SnapHost(t, dir), Snap(t, tree, tree.Root()), own)
	if len(got) != 1 || !strings.HasPrefix(got[0], `"sparse": content`) {
		t.Errorf("after a change of one byte: %q", got)
	}
}

func TestDiff(t *testing.T) {
	base := func() Files {
		return Files{
			"f":    {Data: []byte("abc"), Xattrs: map[string]string{"user.a": "1"}, Streams: map[string][]byte{"s": []byte("1")}},
			"l":    {Target: "f"},
			"d/e":  {},
			"null": {Attr: fs.Attr{Type: fs.TypeCharDevice, Major: 1, Minor: 3}},
		}
	}
	change := func(path string, fn func(*File)) func(Files) {
		return func(all Files) {
			f := all[path]
			fn(&f)
			all[path] = f
		}
	}
	tests := []struct {
		name   string
		change func(Files)
		field  Fields // what leaves the difference out
		says   string
	}{
		{"perm", change("f", func(f *File) { f.Perm = 0o600 }), Perm, `"f": perm: got 0600, want 0644`},
		{"owner", change("f", func(f *File) { f.UID = 5 }), Owner, `"f": owner: got 5:0, want 0:0`},
		{"size", change("f", func(f *File) { f.Size = 9 }), Size | Content, `"f": size: got 9, want 3`},
		{"content", change("f", func(f *File) { f.Data = []byte("abd") }), Content, `"f": content`},
		{"used", change("f", func(f *File) { f.Used = 4096 }), Used, `"f": used: got 4096, want 0`},
		{"mtime", change("f", func(f *File) { f.Mtime.Sec = 1 }), Mtime, `"f": mtime: got 1970-01-01T00:00:01Z`},
		{"btime of a directory", change("d", func(f *File) { f.Type = fs.TypeDir; f.Btime.Sec = 1 }), DirTimes, `"d": btime`},
		{"target", change("l", func(f *File) { f.Target = "g" }), Target, `"l": target: got "g", want "f"`},
		{"device", change("null", func(f *File) { f.Minor = 5 }), Device, `"null": device: got 1:5, want 1:3`},
		{"xattr", change("f", func(f *File) { f.Xattrs = map[string]string{"user.a": "2"} }), Xattrs, `"f": xattr user.a: got "2", want "1"`},
		{"xattr gone", change("f", func(f *File) { f.Xattrs = nil }), Xattrs, `"f": xattr user.a: got none, want "1"`},
		{"stream", change("f", func(f *File) { f.Streams = nil }), Streams, `"f": stream s: got none`},
		{"link count and group", func(all Files) { all["d/e"] = File{Link: "f"} }, Nlink | Links | Size | Content | Xattrs | Streams, `"d/e": links: got ["d/e" "f"], want []`},
		{"missing", func(all Files) { delete(all, "l") }, 0, `"l": missing, want a symlink of 1 bytes`},
		{"too many", func(all Files) { all["new"] = File{} }, 0, `"new": got a file of 0 bytes, want nothing`},
		{"type", change("d/e", func(f *File) { f.Type = fs.TypeFIFO }), 0, `"d/e": type: got fifo, want file`},
	}
	snap := func(files Files) *Snapshot {
		tree := NewTree(files)
		return Snap(t, tree, tree.Root())
	}
	want := snap(base())
	if d := Diff(want, snap(base()), 0); len(d) > 0 {
		t.Fatalf("the same differs: %q", d)
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			files := base()
			tt.change(files)
			got := snap(files)
			if d := strings.Join(Diff(want, got, 0), "\n"); !strings.Contains(d, tt.says) {
				t.Errorf("got %q; want %q in it", d, tt.says)
			}
			if d := Diff(want, got, tt.field); tt.field != 0 && len(d) > 0 {
				t.Errorf("left out, and still: %q", d)
			}
		})
	}
}

// TestSnapTellsErrors has a file that can't be read.
func TestSnapTellsErrors(t *testing.T) {
	tree := NewTree(Files{"broken": {Data: make([]byte, 5000), Err: fs.ErrDamaged}, "dir": {Attr: fs.Attr{Type: fs.TypeDir}, Err: fs.ErrDamaged}, "good": {}})
	var s *Snapshot
	failed, said := record(t, func(tb testing.TB) { s = Snap(tb, tree, tree.Root()) })
	if !failed || !strings.Contains(said, `"broken": read`) || !strings.Contains(said, `"dir": damaged`) {
		t.Errorf("failed %v, said %s", failed, said)
	}
	if d := Diff(s, s, 0); len(d) != 2 {
		t.Errorf("nodes with errors: %q, want a line for each of two", d)
	}
}
