package fs_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"holdfast/fs"
	"holdfast/fs/treetest"
)

func dir() treetest.File { return treetest.File{Attr: fs.Attr{Type: fs.TypeDir}} }

func TestWalk(t *testing.T) {
	tree := treetest.NewTree(treetest.Files{
		"a/x": {}, "a/y/z": {}, "b": {Target: "a"}, "c": dir(), "d/broken": {Attr: fs.Attr{Type: fs.TypeDir}, Err: fs.ErrDamaged}, "d/e": {},
	})
	var got []string
	note := func(path string, a fs.Attr, err error) error {
		got = append(got, fmt.Sprintf("%s %v %v", path, a.Type, err))
		if path == "a/y" {
			return fs.SkipDir
		}
		return nil
	}
	if err := fs.Walk(t.Context(), tree, tree.Root(), note); err != nil {
		t.Fatal(err)
	}
	want := []string{
		". directory <nil>", "a directory <nil>", "a/x file <nil>", "a/y directory <nil>", "b symlink <nil>", "c directory <nil>",
		"d directory <nil>", "d/broken directory <nil>", "d/broken directory damaged", "d/e file <nil>",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
}

func TestWalkEnds(t *testing.T) {
	tree := treetest.NewTree(treetest.Files{"a/x": {}, "b/y": {}})
	stop := errors.New("enough")
	calls := 0
	err := fs.Walk(t.Context(), tree, tree.Root(), func(path string, a fs.Attr, err error) error {
		if calls++; path == "a/x" {
			return stop
		}
		return nil
	})
	if err != stop || calls != 3 {
		t.Errorf("%v after %d calls, want %v after 3", err, calls, stop)
	}
	ctx, cancel := context.WithCancel(t.Context())
	err = fs.Walk(ctx, tree, tree.Root(), func(string, fs.Attr, error) error { cancel(); return nil })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	err = fs.Walk(t.Context(), tree, tree.Root(), func(string, fs.Attr, error) error { return fs.SkipDir })
	if err != nil {
		t.Errorf("skipped at the top: %v", err)
	}
	err = fs.Walk(t.Context(), tree, fs.ID{Ino: 99}, func(_ string, _ fs.Attr, err error) error { return err })
	if !errors.Is(err, fs.ErrStale) {
		t.Errorf("from an inode that is not there: %v", err)
	}
}

// TestWalkBigDir has a directory that is read in parts, while fn asks the tree.
func TestWalkBigDir(t *testing.T) {
	files := treetest.Files{}
	for i := range 5000 {
		files[fmt.Sprintf("big/%05d", i)] = treetest.File{}
	}
	tree := treetest.NewTree(files)
	var got []string
	err := fs.Walk(t.Context(), tree, tree.Root(), func(path string, a fs.Attr, err error) error {
		if a.Type == fs.TypeFile {
			got = append(got, path)
			_, err = tree.Attr(t.Context(), a.ID)
		}
		return err
	})
	if err != nil || len(got) != 5000 || !slices.IsSorted(got) || len(slices.Compact(got)) != 5000 {
		t.Errorf("%d paths, %v; want 5000, each once", len(got), err)
	}
}

// looped has a directory below itself, as damage may make it.
type looped struct{ *treetest.Tree }

func (l looped) ReadDir(ctx context.Context, d fs.ID, cookie uint64, fn func(fs.Entry) bool) error {
	return l.Tree.ReadDir(ctx, d, cookie, func(e fs.Entry) bool {
		if e.Name == "self" {
			e.ID, e.Attr = l.Root(), nil
		}
		return fn(e)
	})
}

func TestWalkOfALoop(t *testing.T) {
	tree := looped{treetest.NewTree(treetest.Files{"a/self": dir(), "b": {}})}
	var got []string
	err := fs.Walk(t.Context(), tree, tree.Root(), func(path string, a fs.Attr, err error) error {
		got = append(got, fmt.Sprint(path, " ", err))
		return nil
	})
	want := []string{". <nil>", "a <nil>", "a/self directory has another name, under which it was read: damaged", "b <nil>"}
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Errorf("%v, -want +got\n%s", err, d)
	}
}

// TestWalkOfALattice has two to the power of 50 paths.
func TestWalkOfALattice(t *testing.T) {
	tree := treetest.NewLattice(50)
	first, second := 0, 0
	err := fs.Walk(t.Context(), tree, tree.Root(), func(path string, a fs.Attr, err error) error {
		switch {
		case err == nil:
			first++
		case !errors.Is(err, fs.ErrDamaged) || !strings.HasSuffix(path, "b"):
			return fmt.Errorf("%s: %w", path, err)
		default:
			second++
		}
		return nil
	})
	if err != nil || first != 52 || second != 50 {
		t.Errorf("%d paths and %d second names, %v; want 52 and 50", first, second, err)
	}
}

// endless is a directory that holds another, without end.
type endless struct{ *treetest.Tree }

func (e endless) Attr(_ context.Context, id fs.ID) (fs.Attr, error) {
	return fs.Attr{ID: id, Type: fs.TypeDir}, nil
}

func (e endless) ReadDir(_ context.Context, d fs.ID, cookie uint64, fn func(fs.Entry) bool) error {
	if cookie == 0 {
		fn(fs.Entry{Name: "d", ID: fs.ID{Ino: d.Ino + 1}, Cookie: 1})
	}
	return nil
}

func TestWalkEndsInDepth(t *testing.T) {
	deepest, ended := 0, false
	err := fs.Walk(t.Context(), endless{}, fs.ID{Ino: 1}, func(path string, a fs.Attr, err error) error {
		deepest = max(deepest, strings.Count(path, "/"))
		ended = ended || errors.Is(err, fs.ErrDamaged)
		return nil
	})
	if err != nil || !ended || deepest > 5000 {
		t.Errorf("%v, %d deep, ended with an error: %v", err, deepest, ended)
	}
}
