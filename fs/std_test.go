package fs_test

import (
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"holdfast/fs"
	"holdfast/fs/treetest"
)

func TestStd(t *testing.T) {
	files := treetest.Files{
		"hello.txt":    {Data: []byte(strings.Repeat("hello\n", 5000))},
		"empty":        {},
		"dir/sub/file": {Data: []byte("x")},
		"dir/link":     {Target: "sub/file"},
		"dir/hard":     {Link: "hello.txt"},
		"with hole":    {Data: []byte("x"), Attr: fs.Attr{Size: 100_000}},
		"bare":         dir(),
		"Ünïcode 日本":   {},
	}
	for i := range 300 {
		files[fmt.Sprintf("many/%d", i)] = treetest.File{Data: []byte{byte(i)}}
	}
	tree := treetest.NewTree(files)
	if err := fstest.TestFS(fs.Std(t.Context(), tree), "hello.txt", "dir/sub/file", "dir/link", "many/299", "bare", "Ünïcode 日本"); err != nil {
		t.Error(err)
	}
}

func TestStdModes(t *testing.T) {
	when := fs.Time{Sec: 1_600_000_000, Nsec: 5}
	tree := treetest.NewTree(treetest.Files{
		"setuid": {Attr: fs.Attr{Perm: 0o4755, Mtime: when}},
		"sticky": {Attr: fs.Attr{Type: fs.TypeDir, Perm: 0o3777}},
		"fifo":   {Attr: fs.Attr{Type: fs.TypeFIFO}},
		"socket": {Attr: fs.Attr{Type: fs.TypeSocket}},
		"null":   {Attr: fs.Attr{Type: fs.TypeCharDevice}},
		"sda":    {Attr: fs.Attr{Type: fs.TypeBlockDevice}},
		"link":   {Target: "setuid"},
	})
	std := fs.Std(t.Context(), tree)
	for name, want := range map[string]string{
		"setuid": "urwxr-xr-x", "sticky": "dgtrwxrwxrwx", "fifo": "prw-r--r--", "socket": "Srw-r--r--", "null": "Dcrw-r--r--", "sda": "Drw-r--r--", "link": "Lrwxrwxrwx",
	} {
		info, err := std.Lstat(name)
		if err != nil || info.Mode().String() != want || info.Name() != name {
			t.Errorf("%s: %v, %v; want %s", name, info, err, want)
		}
	}
	info, err := iofs.Stat(std, "link")
	if err != nil || info.Mode()&iofs.ModeSetuid == 0 || !info.ModTime().Equal(time.Unix(1_600_000_000, 5)) || info.Name() != "link" {
		t.Errorf("Stat of a link: %v, %v; want what it leads to", info, err)
	}
	if target, err := std.ReadLink("link"); err != nil || target != "setuid" {
		t.Errorf("ReadLink: %q, %v", target, err)
	}
}

func TestStdErrors(t *testing.T) {
	tree := treetest.NewTree(treetest.Files{
		"f": {Data: []byte("abc")}, "broken": {Data: make([]byte, 100), Err: fs.ErrDamaged}, "kept": {Attr: fs.Attr{Type: fs.TypeDir}, Err: fs.ErrPermission}, "dangling": {Target: "no"},
	})
	std := fs.Std(t.Context(), tree)
	read := func(name string) error {
		_, err := iofs.ReadFile(std, name)
		return err
	}
	list := func(name string) error {
		_, err := iofs.ReadDir(std, name)
		return err
	}
	_, linkErr := std.ReadLink("f")
	for _, tt := range []struct {
		name string
		err  error
		want []error
	}{
		{"absent", read("no"), []error{fs.ErrNotFound, iofs.ErrNotExist}},
		{"dangling", read("dangling"), []error{fs.ErrNotFound, iofs.ErrNotExist}},
		{"below a file", read("f/x"), []error{fs.ErrNotDir, iofs.ErrInvalid}},
		{"no path", read("/f"), []error{iofs.ErrInvalid}},
		{"damaged", read("broken"), []error{fs.ErrDamaged}},
		{"a directory as a file", read("kept"), []error{iofs.ErrInvalid}},
		{"a file as a directory", list("f"), []error{iofs.ErrInvalid}},
		{"not permitted", list("kept"), []error{fs.ErrPermission, iofs.ErrPermission}},
		{"a file as a link", linkErr, []error{iofs.ErrInvalid}},
	} {
		for _, want := range tt.want {
			if !errors.Is(tt.err, want) {
				t.Errorf("%s: %v is not %v", tt.name, tt.err, want)
			}
		}
	}
}

func TestFile(t *testing.T) {
	tree := treetest.NewTree(treetest.Files{"f": {Data: []byte("0123456789")}})
	f := fs.File(t.Context(), tree, step(t, tree, "f"))
	if b, err := io.ReadAll(f); err != nil || string(b) != "0123456789" || f.Size() != 10 {
		t.Errorf("%q, %v, size %d", b, err, f.Size())
	}
	p := make([]byte, 4)
	if n, err := f.ReadAt(p, 8); n != 2 || err != io.EOF || string(p[:n]) != "89" {
		t.Errorf("%d, %v, %q; want 2, EOF, 89", n, err, p)
	}
}

func TestNextData(t *testing.T) {
	const k = 4096
	data := make([]byte, 200*2*k)
	for i := range 200 { // every second block, more than one answer of Extents holds
		data[i*2*k+k] = 1
	}
	tree := treetest.NewTree(treetest.Files{
		"every second": {Data: data, Attr: fs.Attr{Size: 1 << 40}},
		"made":         {Data: []byte("inline"), Attr: fs.Attr{Size: 9 << 30}},
		"hole":         {Attr: fs.Attr{Size: 1 << 30}},
		"empty":        {},
		"broken":       {Data: data, Err: fs.ErrDamaged},
	})
	for _, tt := range []struct {
		name       string
		off        int64
		start, end int64
		err        error
	}{
		{"every second", 0, k, 2 * k, nil},
		{"every second", k + 5, k + 5, 2 * k, nil},
		{"every second", 2 * k, 3 * k, 4 * k, nil},
		{"every second", 150 * 2 * k, 150*2*k + k, 150*2*k + 2*k, nil},
		{"every second", 200 * 2 * k, 0, 0, io.EOF},
		{"made", 0, 0, 6, nil},
		{"made", 6, 0, 0, io.EOF},
		{"hole", 0, 0, 0, io.EOF},
		{"empty", 0, 0, 0, io.EOF},
		{"broken", 0, 0, 0, fs.ErrDamaged},
	} {
		start, end, err := fs.NextData(t.Context(), tree, step(t, tree, tt.name).ID, tt.off)
		if start != tt.start || end != tt.end || !errors.Is(err, tt.err) {
			t.Errorf("%s from %d: %d to %d, %v; want %d to %d, %v", tt.name, tt.off, start, end, err, tt.start, tt.end, tt.err)
		}
	}
}

func TestTime(t *testing.T) {
	for _, want := range []fs.Time{{}, {Sec: -1, Nsec: 999_999_999}, {Sec: 15_032_385_535, Nsec: 1}, {Sec: -12_000_000_000}} {
		if got := fs.TimeOf(want.Time()); got != want {
			t.Errorf("%v became %v", want, got)
		}
	}
	if s := (fs.Time{Sec: -1, Nsec: 5}).String(); s != "1969-12-31T23:59:59.000000005Z" {
		t.Error(s)
	}
	if s := fs.TypeSymlink.String() + " " + fs.Type(99).String(); s != "symlink type 99" {
		t.Error(s)
	}
}
