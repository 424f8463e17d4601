package cli

import (
	"bytes"
	"strings"
	"testing"
	"unicode/utf8"

	"holdfast/fs"
	"holdfast/fs/treetest"
)

func TestModeText(t *testing.T) {
	tests := []struct {
		typ  fs.Type
		perm uint16
		want string
	}{
		{fs.TypeFile, 0o644, "-rw-r--r--"},
		{fs.TypeDir, 0o1777, "drwxrwxrwt"},
		{fs.TypeFile, 0o6755, "-rwsr-sr-x"},
		{fs.TypeFile, 0o7000, "---S--S--T"},
		{fs.TypeSymlink, 0o777, "lrwxrwxrwx"},
		{fs.TypeUnknown, 0, "?---------"},
	}
	for _, tt := range tests {
		if got := modeText(&fs.Attr{Type: tt.typ, Perm: tt.perm}); got != tt.want {
			t.Errorf("%v %o: %s, want %s", tt.typ, tt.perm, got, tt.want)
		}
	}
}

func FuzzPlain(f *testing.F) {
	for _, s := range []string{"", "plain", "ä €", "a\x1b[31m", "\xff\xfe", "\u202e", "tab\t", "�", `back\slash`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := plain(s)
		if !utf8.ValidString(got) {
			t.Errorf("%q is not UTF-8", got)
		}
		if again := plain(got); again != got {
			t.Errorf("%q became %q", got, again)
		}
		for _, r := range got {
			if r < 0x20 || r == 0x7f || r == 0x202e {
				t.Errorf("%q has %U", got, r)
			}
		}
	})
}

// TestListLattice lists a damaged tree with two to the power of 50 paths.
func TestListLattice(t *testing.T) {
	tree := treetest.NewLattice(50)
	root, err := tree.Attr(t.Context(), tree.Root())
	if err != nil {
		t.Fatal(err)
	}
	var out, told bytes.Buffer
	vol := &volume{disk: "d"}
	vs := &volumes{list: []*volume{vol}}
	l := &lister{
		app: &app{out: &out, err: &told}, out: &out, opt: filesLsOptions{recursive: true},
		f: &found{vol, tree, "/", root, vs},
	}
	if err := l.directory(t.Context(), root, "/", 0); err != nil || l.failed != 50 {
		t.Errorf("%v, %d failed, want 50", err, l.failed)
	}
	if !strings.HasSuffix(out.String(), ":\nend\n") || strings.Count(told.String(), "another name") != 50 {
		t.Errorf("listed\n%s\nand told of\n%s", out.String(), told.String())
	}
}
