package compare_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"holdfast/fs"
	"holdfast/fs/compare"
	"holdfast/fs/treetest"
)

func noise(seed uint64, n int) []byte {
	p := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(seed)}).Read(p)
	return p
}

// lines compares two trees and writes down what differs.
func lines(t *testing.T, a, b fs.Tree, opt compare.Options) ([]string, compare.Totals) {
	t.Helper()
	var list []string
	n, err := compare.Compare(t.Context(), compare.Side{Tree: a, Top: a.Root()}, compare.Side{Tree: b, Top: b.Root()}, opt, func(c compare.Change) error {
		if (c.A == nil) != (c.Kind == compare.Added) || (c.B == nil) != (c.Kind == compare.Removed) {
			t.Errorf("%s %s with %v and %v", c.Path, c.Kind, c.A, c.B)
		}
		list = append(list, strings.TrimSpace(fmt.Sprint(c.Kind, " ", c.Path, " ", strings.Join(c.What, ","))))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return list, n
}

func base() treetest.Files {
	return treetest.Files{
		"same":     {Data: noise(1, 10000)},
		"content":  {Data: noise(2, 10000)},
		"longer":   {Data: noise(3, 100)},
		"mode":     {Data: noise(4, 100), Attr: fs.Attr{Perm: 0o644}},
		"owner":    {Data: noise(5, 100)},
		"mtime":    {Data: noise(6, 100), Attr: fs.Attr{Mtime: fs.Time{Sec: 5}}},
		"xattr":    {Data: noise(7, 100), Attr: fs.Attr{Ctime: fs.Time{Sec: 5}}, Xattrs: map[string]string{"user.a": "1", "user.b": "2"}},
		"link":     {Target: "same"},
		"retyped":  {Target: "same"},
		"d/1":      {Data: noise(8, 100)},
		"d/2":      {Link: "d/1"},
		"null":     {Attr: fs.Attr{Type: fs.TypeCharDevice, Major: 1, Minor: 3}},
		"\xff\xfe": {Data: noise(9, 100)},
	}
}

func TestCompare(t *testing.T) {
	a, b := base(), base()
	a["gone/deep/x"] = treetest.File{Data: noise(10, 10)}
	changed := noise(2, 10000)
	changed[9999]++
	b["content"] = treetest.File{Data: changed}
	b["longer"] = treetest.File{Data: noise(3, 101)}
	b["mode"] = treetest.File{Data: noise(4, 100), Attr: fs.Attr{Perm: 0o600}}
	b["owner"] = treetest.File{Data: noise(5, 100), Attr: fs.Attr{UID: 7}}
	b["mtime"] = treetest.File{Data: noise(6, 100), Attr: fs.Attr{Mtime: fs.Time{Sec: 5, Nsec: 1}}}
	b["xattr"] = treetest.File{Data: noise(7, 100), Attr: fs.Attr{Ctime: fs.Time{Sec: 6}}, Xattrs: map[string]string{"user.a": "1", "user.b": "3"}}
	b["link"] = treetest.File{Target: "other"}
	b["retyped/in"] = treetest.File{Data: noise(8, 10)}
	delete(b, "retyped")
	b["new/dir/file"] = treetest.File{Data: noise(8, 10)}
	b["d/1"] = treetest.File{Data: noise(11, 100)}
	b["null"] = treetest.File{Attr: fs.Attr{Type: fs.TypeCharDevice, Major: 1, Minor: 5}}
	got, _ := lines(t, treetest.NewTree(a), treetest.NewTree(b), compare.Options{})
	want := []string{
		"changed content content",
		"changed d/1 content",
		"changed d/2 content",
		"removed gone",
		"removed gone/deep",
		"removed gone/deep/x",
		"changed link target",
		"changed longer content",
		"touched mode mode",
		"touched mtime mtime",
		"added new",
		"added new/dir",
		"added new/dir/file",
		"changed null device",
		"touched owner owner",
		"changed retyped type",
		"added retyped/in",
		"touched xattr xattrs",
	}
	slices.Sort(got)
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if got, _ := lines(t, treetest.NewTree(a), treetest.NewTree(a), compare.Options{}); len(got) > 0 {
		t.Errorf("a tree differs from itself: %q", got)
	}
}

// TestReadsLittle tells which stretches of the device are the same, and counts
// what is read all the same.
func TestReadsLittle(t *testing.T) {
	files := treetest.Files{}
	for i := range 20 {
		files[fmt.Sprintf("%02d", i)] = treetest.File{Data: noise(uint64(i), 1<<20+i)}
	}
	a := treetest.NewTree(files)
	other := maps.Clone(files)
	data := noise(7, 1<<20+7)
	data[600<<10]++
	other["07"] = treetest.File{Data: data}
	b := treetest.NewTree(other)
	// The device tells where that is.
	devA, devB := a.Device(), b.Device()
	if devA.Size() != devB.Size() {
		t.Fatal("the trees lie differently")
	}
	first := int64(-1)
	pa, pb := make([]byte, 4096), make([]byte, 4096)
	for off := int64(0); off+4096 <= devA.Size(); off += 4096 {
		devA.ReadAt(pa, off)
		devB.ReadAt(pb, off)
		if string(pa) != string(pb) {
			first = off
		}
	}
	same := func(off, n int64) int64 {
		if off+n <= first || off >= first+4096 {
			return n
		}
		return max(0, first-off)
	}
	got, n := lines(t, a, b, compare.Options{Same: same})
	if len(got) != 1 || got[0] != "changed 07 content" {
		t.Errorf("found %q", got)
	}
	if n.ReadBytes == 0 || n.ReadBytes > 1<<20 {
		t.Errorf("read %d bytes to find one", n.ReadBytes)
	}
	if _, n := lines(t, a, a, compare.Options{}); n.ReadBytes < 20<<20 {
		t.Errorf("read %d bytes where nothing was known", n.ReadBytes)
	}
}

func TestFailed(t *testing.T) {
	a, b := base(), base()
	broken := b["same"]
	broken.Err = fs.ErrDamaged
	b["same"] = broken
	var failed []string
	opt := compare.Options{Failed: func(path string, err error) error {
		if !errors.Is(err, fs.ErrDamaged) {
			t.Errorf("%s: %v", path, err)
		}
		failed = append(failed, path)
		return nil
	}}
	got, n := lines(t, treetest.NewTree(a), treetest.NewTree(b), opt)
	if len(got) > 0 || !slices.Equal(failed, []string{"same"}) || n.Failed != 1 {
		t.Errorf("differences %q, failed %q", got, failed)
	}
	side := func(f treetest.Files) compare.Side {
		tree := treetest.NewTree(f)
		return compare.Side{Tree: tree, Top: tree.Root()}
	}
	_, err := compare.Compare(t.Context(), side(a), side(b), compare.Options{}, func(compare.Change) error { return nil })
	if !errors.Is(err, fs.ErrDamaged) || !strings.HasPrefix(err.Error(), "same: ") {
		t.Errorf("without Failed: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := compare.Compare(ctx, side(a), side(b), compare.Options{}, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}
