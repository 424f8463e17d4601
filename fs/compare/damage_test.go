package compare_test

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"holdfast/fs"
	"holdfast/fs/compare"
	"holdfast/fs/treetest"
)

// TestStreams changes nothing but alternate streams, one of which is too long
// for an attribute.
func TestStreams(t *testing.T) {
	long := noise(1, 200<<10)
	other := slices.Clone(long)
	other[150<<10]++
	attr := fs.Attr{Ctime: fs.Time{Sec: 5, Nsec: 1}}
	with := func(s map[string][]byte) treetest.Files {
		return treetest.Files{
			"f": {Data: noise(2, 100), Attr: attr, Streams: s},
			"d": {Attr: fs.Attr{Type: fs.TypeDir, Ctime: attr.Ctime}, Streams: s},
		}
	}
	one := map[string][]byte{"short": []byte("1"), "long": long}
	for _, tt := range []struct {
		name string
		b    map[string][]byte
	}{
		{"other bytes", map[string][]byte{"short": []byte("1"), "long": other}},
		{"other size", map[string][]byte{"short": []byte("12"), "long": long}},
		{"other name", map[string][]byte{"Short": []byte("1"), "long": long}},
		{"one less", map[string][]byte{"short": []byte("1")}},
		{"one more", map[string][]byte{"short": []byte("1"), "long": long, "more": nil}},
		{"none", nil},
	} {
		got, _ := lines(t, treetest.NewTree(with(one)), treetest.NewTree(with(tt.b)), compare.Options{})
		if want := []string{"changed d streams", "changed f streams"}; !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", tt.name, got, want)
		}
	}
	if got, _ := lines(t, treetest.NewTree(with(one)), treetest.NewTree(with(maps.Clone(one))), compare.Options{}); len(got) > 0 {
		t.Errorf("the same streams: %q", got)
	}
}

// TestWholeSeconds has inodes whose times have no fractions, as those of small
// inodes or of an image with all its times set to one: that those are the same
// says nothing.
func TestWholeSeconds(t *testing.T) {
	with := func(value string) fs.Tree {
		return treetest.NewTree(treetest.Files{"f": {Attr: fs.Attr{Ctime: fs.Time{Sec: 1_700_000_000}}, Xattrs: map[string]string{"user.a": value}}})
	}
	got, _ := lines(t, with("1"), with("2"), compare.Options{})
	if want := []string{"touched f xattrs"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// looped is a tree in which the directory "d" has itself, under two names.
type looped struct {
	*treetest.Tree
	d fs.ID
	n int
}

func (l *looped) ReadDir(ctx context.Context, dir fs.ID, cookie uint64, fn func(fs.Entry) bool) error {
	if dir != l.d {
		return l.Tree.ReadDir(ctx, dir, cookie, fn)
	}
	if l.n++; l.n > 1000 {
		return context.Canceled // it would not end
	}
	_ = fn(fs.Entry{Name: "x", ID: l.d, Type: fs.TypeDir, Cookie: 1}) && fn(fs.Entry{Name: "y", ID: l.d, Type: fs.TypeDir, Cookie: 2})
	return nil
}

// TestLattice compares trees with two to the power of 50 paths.
func TestLattice(t *testing.T) {
	var failed []string
	opt := compare.Options{Failed: func(path string, err error) error {
		if !errors.Is(err, fs.ErrDamaged) || !strings.HasSuffix(path, "b") {
			t.Errorf("%s: %v", path, err)
		}
		failed = append(failed, path)
		return nil
	}}
	if got, _ := lines(t, treetest.NewLattice(50), treetest.NewLattice(50), opt); len(got) > 0 || len(failed) != 50 {
		t.Errorf("%d differences, %d failed, want 0 and 50", len(got), len(failed))
	}
	failed = nil
	if got, _ := lines(t, treetest.NewTree(nil), treetest.NewLattice(50), opt); len(got) != 101 || len(failed) != 50 {
		t.Errorf("%d differences, %d failed, want 101 and 50", len(got), len(failed))
	}
}

func TestOwnAncestor(t *testing.T) {
	tree := func() fs.Tree {
		tree := treetest.NewTree(treetest.Files{"d": {Attr: fs.Attr{Type: fs.TypeDir}}})
		a, err := tree.Lookup(t.Context(), tree.Root(), "d")
		if err != nil {
			t.Fatal(err)
		}
		return &looped{Tree: tree, d: a.ID}
	}
	var failed []string
	opt := compare.Options{Failed: func(path string, err error) error {
		if !errors.Is(err, fs.ErrDamaged) {
			t.Errorf("%s: %v", path, err)
		}
		failed = append(failed, path)
		return nil
	}}
	if got, _ := lines(t, tree(), tree(), opt); len(got) > 0 || strings.Join(failed, " ") != "d/x d/y" {
		t.Errorf("differences %q, failed %q", got, failed)
	}
	failed = nil
	if got, _ := lines(t, treetest.NewTree(nil), tree(), opt); len(got) != 3 || strings.Join(failed, " ") != "d/x d/y" {
		t.Errorf("differences %q, failed %q", got, failed)
	}
}
