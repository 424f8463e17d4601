package fs_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"holdfast/fs"
	"holdfast/fs/treetest"
)

func TestResolve(t *testing.T) {
	files := treetest.Files{
		"a/b/file":       {Data: []byte("x")},
		"a/to-file":      {Target: "b/file"},
		"a/to-dir":       {Target: "b"},
		"a/up":           {Target: "../c"},
		"a/absolute":     {Target: "/a/b"},
		"a/abs-root":     {Target: "/"},
		"a/chain":        {Target: "to-dir/../to-file"},
		"a/slash":        {Target: "to-dir/"},
		"a/dangling":     {Target: "nothing"},
		"a/far up":       {Target: "../../../../a/b/file"},
		"c/d/e":          {},
		"loop":           {Target: "loop"},
		"ping":           {Target: "pong"},
		"pong":           {Target: "ping"},
		"bad \xff\nname": {},
	}
	for i := range 41 { // l0 leads through 40 links, l-1 would be one more
		files[fmt.Sprintf("l%d", i)] = treetest.File{Target: fmt.Sprintf("l%d", i+1)}
	}
	files["l40"] = treetest.File{Data: []byte("end")}
	files["before"] = treetest.File{Target: "l0"}
	tree := treetest.NewTree(files)
	tests := []struct {
		path   string
		follow bool
		want   string // a path without links that is the same inode
		err    error
		names  string // what the error names
	}{
		{"", true, ".", nil, ""},
		{"/", true, ".", nil, ""},
		{".", true, ".", nil, ""},
		{"..", true, ".", nil, ""},
		{"/../../a", true, "a", nil, ""},
		{"a/b/file", true, "a/b/file", nil, ""},
		{"//a///b/./file", true, "a/b/file", nil, ""},
		{"a/b/..", true, "a", nil, ""},
		{"a/b/../b/", true, "a/b", nil, ""},
		{"a/to-file", true, "a/b/file", nil, ""},
		{"a/to-file", false, "a/to-file", nil, ""},
		{"a/to-dir/file", false, "a/b/file", nil, ""},
		{"a/to-dir", false, "a/to-dir", nil, ""},
		{"a/to-dir/..", true, "a", nil, ""},
		{"a/up/d/e", true, "c/d/e", nil, ""},
		{"a/absolute/file", true, "a/b/file", nil, ""},
		{"a/abs-root/c", true, "c", nil, ""},
		{"a/chain", true, "a/b/file", nil, ""},
		{"a/slash/file", true, "a/b/file", nil, ""},
		{"a/far up", true, "a/b/file", nil, ""},
		{"bad \xff\nname", true, "bad \xff\nname", nil, ""},
		{"l0", true, "l40", nil, ""},
		{"a/dangling", false, "a/dangling", nil, ""},
		{"a/dangling", true, "", fs.ErrNotFound, "/a/nothing"},
		{"a/none", true, "", fs.ErrNotFound, "/a/none"},
		{"none/x/y", true, "", fs.ErrNotFound, "/none"},
		{"a/b/file/x", true, "", fs.ErrNotDir, "/a/b/file"},
		{"a/b/file/..", true, "", fs.ErrNotDir, "/a/b/file"},
		{"a/b/file/./x", true, "", fs.ErrNotDir, "/a/b/file"},
		{"loop", true, "", fs.ErrLoop, "/loop"},
		{"loop", false, "loop", nil, ""},
		{"ping/x", false, "", fs.ErrLoop, "/p"},
		{"before", true, "", fs.ErrLoop, "/l39"},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("%q follow %v", tt.path, tt.follow), func(t *testing.T) {
			got, err := fs.Resolve(t.Context(), tree, tree.Root(), tt.path, tt.follow)
			if tt.err != nil {
				if !errors.Is(err, tt.err) || !strings.HasPrefix(err.Error(), tt.names) {
					t.Errorf("got %v, want %v that names %s", err, tt.err, tt.names)
				}
				return
			}
			want := step(t, tree, tt.want)
			if err != nil || got != want {
				t.Errorf("got %+v, %v; want %+v", got, err, want)
			}
		})
	}
}

// step goes down a path by Lookup alone.
func step(t *testing.T, tree fs.Tree, path string) fs.Attr {
	t.Helper()
	a, err := tree.Attr(t.Context(), tree.Root())
	for name := range strings.SplitSeq(path, "/") {
		if name != "." && err == nil {
			a, err = tree.Lookup(t.Context(), a.ID, name)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// TestResolveBelow has another root than the tree's: nothing leads out of it.
func TestResolveBelow(t *testing.T) {
	tree := treetest.NewTree(treetest.Files{"jail/etc/passwd": {}, "etc/passwd": {}, "jail/out": {Target: "/etc/passwd"}, "jail/up": {Target: "../../etc"}})
	jail := step(t, tree, "jail").ID
	for _, path := range []string{"out", "up/passwd", "../etc/passwd"} {
		got, err := fs.Resolve(t.Context(), tree, jail, path, true)
		if want := step(t, tree, "jail/etc/passwd"); err != nil || got != want {
			t.Errorf("%s: got %v, %v; want %v", path, got.ID, err, want.ID)
		}
	}
}

func TestResolveOfWhatIsNoDirectory(t *testing.T) {
	tree := treetest.NewTree(treetest.Files{"f": {}})
	f := step(t, tree, "f").ID
	if _, err := fs.Resolve(t.Context(), tree, f, "x", true); !errors.Is(err, fs.ErrNotDir) {
		t.Errorf("got %v, want %v", err, fs.ErrNotDir)
	}
	if _, err := fs.Resolve(t.Context(), tree, fs.ID{Ino: 999}, "x", true); !errors.Is(err, fs.ErrStale) {
		t.Errorf("got %v, want %v", err, fs.ErrStale)
	}
}
