package extract_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"holdfast/fs"
	"holdfast/fs/extract"
	"holdfast/fs/treetest"
)

func noise(seed uint64, n int) []byte {
	p := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(seed)}).Read(p)
	return p
}

// sample is a tree with something of each kind, as far as anybody may make it.
func sample() treetest.Files {
	sparse := make([]byte, 3<<20)
	copy(sparse[1<<20:], noise(1, 100))
	copy(sparse[2<<20+77:], noise(2, 300<<10))
	attr := func(perm uint16, sec int64) fs.Attr {
		t := fs.Time{Sec: sec, Nsec: 123456789}
		return fs.Attr{Perm: perm, UID: uint32(os.Getuid()), GID: uint32(os.Getgid()), Atime: t, Mtime: t}
	}
	return treetest.Files{
		"d":                                      {Attr: attr(0o555, 1e9)},
		"d/big":                                  {Attr: attr(0o640, -5), Data: noise(3, 3<<20+17)},
		"d/sparse":                               {Attr: attr(0o600, 2e9), Data: sparse},
		"d/empty":                                {Attr: attr(0o444, 1)},
		"d/again":                                {Link: "d/big"},
		"hard":                                   {Link: "d/big"},
		"a \xff name":                            {Attr: attr(0o644, 1e9), Data: noise(4, 10)},
		strings.Repeat("n", 255):                 {Attr: attr(0o644, 1e9), Data: noise(5, 10)},
		"link":                                   {Attr: attr(0o777, 7), Target: "../../../etc/passwd"},
		"absolute":                               {Attr: attr(0o777, 7), Target: "/etc/passwd"},
		"fifo":                                   {Attr: func() fs.Attr { a := attr(0o600, 9); a.Type = fs.TypeFIFO; return a }()},
		"x":                                      {Attr: attr(0o644, 1e9), Data: noise(6, 10), Xattrs: map[string]string{"user.one": "1", "user.two": string(noise(7, 500))}},
		"huge":                                   {Attr: func() fs.Attr { a := attr(0o644, 1e9); a.Size = 5 << 30; return a }(), Data: noise(8, 5000)},
		"d/" + strings.Repeat("e/", 60) + "deep": {Attr: attr(0o644, 1e9), Data: noise(9, 10)},
	}
}

func openDir(t *testing.T, path string) *extract.Dir {
	t.Helper()
	d, err := extract.OpenDir(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func root(t *testing.T, tree fs.Tree) fs.Attr {
	t.Helper()
	a, err := tree.Attr(t.Context(), tree.Root())
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// tempDir is t.TempDir for directories that nobody may write to.
func tempDir(t *testing.T) string {
	dir := t.TempDir()
	t.Cleanup(func() {
		filepath.WalkDir(dir, func(path string, e iofs.DirEntry, err error) error {
			if err == nil && e.IsDir() {
				os.Chmod(path, 0o700)
			}
			return nil
		})
	})
	return dir
}

// unlike is what a copy may have otherwise: what the kernel decides.
const unlike = treetest.Used | treetest.Ctime | treetest.Btime | treetest.Nlink | treetest.DirNlink | treetest.DirSize | treetest.SymlinkPerm | treetest.Atime

// owners leaves those out that only root can give away.
func owners() treetest.Fields {
	if os.Getuid() != 0 {
		return treetest.Owner
	}
	return 0
}

func TestCopyAttributes(t *testing.T) {
	tree := treetest.NewTree(sample())
	dir := tempDir(t)
	n, err := extract.Copy(t.Context(), tree, root(t, tree), "", openDir(t, dir), "to", extract.Options{Attributes: true})
	if err != nil {
		t.Fatal(err)
	}
	want := treetest.Snap(t, tree, tree.Root())
	got := treetest.SnapHost(t, filepath.Join(dir, "to"))
	for _, d := range treetest.Diff(want, got, unlike|owners()) {
		t.Error(d)
	}
	if n.Files != 8 || n.HardLinks != 2 || n.Links != 2 || n.Others != 1 || n.Failed != 0 {
		t.Errorf("totals %+v", n)
	}
	for _, name := range []string{"d/sparse", "huge"} {
		var st unix.Stat_t
		if err := unix.Stat(filepath.Join(dir, "to", name), &st); err != nil || st.Blocks*512 > 1<<20 {
			t.Errorf("%s takes %d bytes, %v", name, st.Blocks*512, err)
		}
	}
}

func TestCopyPlain(t *testing.T) {
	tree := treetest.NewTree(sample())
	dir := tempDir(t)
	n, err := extract.Copy(t.Context(), tree, root(t, tree), "", openDir(t, dir), "", extract.Options{})
	if err != nil {
		t.Fatal(err)
	}
	want := treetest.Snap(t, tree, tree.Root())
	delete(want.Nodes, "fifo")
	got := treetest.SnapHost(t, dir)
	for _, d := range treetest.Diff(want, got, unlike|treetest.Mtime|treetest.DirTimes|treetest.Owner|treetest.Perm|treetest.Links|treetest.Xattrs) {
		t.Error(d)
	}
	if n.Unmade != 1 || n.Others != 0 || n.Files != 10 || n.HardLinks != 0 {
		t.Errorf("totals %+v", n)
	}
	if info, err := os.Stat(filepath.Join(dir, "d/big")); err != nil || info.Mode().Perm()&^0o640 != 0 {
		t.Errorf("d/big has mode %v, %v", info.Mode(), err)
	}
}

// TestSetID drops what would give away a user's rights.
func TestSetID(t *testing.T) {
	me := fs.Attr{UID: uint32(os.Getuid()), GID: uint32(os.Getgid())}
	with := func(perm uint16) fs.Attr { a := me; a.Perm = perm; return a }
	tree := treetest.NewTree(treetest.Files{
		"su":    {Attr: with(0o6755), Data: noise(1, 10), Xattrs: map[string]string{"security.capability": string(noise(2, 20))}},
		"dir":   {Attr: with(0o2755)},
		"dir/x": {Attr: with(0o1644)},
	})
	dir := tempDir(t)
	n, err := extract.Copy(t.Context(), tree, root(t, tree), "", openDir(t, dir), "", extract.Options{Attributes: true})
	if err != nil || n.Stripped != 3 {
		t.Errorf("%+v, %v", n, err)
	}
	for name, want := range map[string]uint32{"su": 0o755, "dir": 0o755, "dir/x": 0o1644} {
		var st unix.Stat_t
		if err := unix.Stat(filepath.Join(dir, name), &st); err != nil || st.Mode&0o7777 != want {
			t.Errorf("%s has mode %o, %v", name, st.Mode&0o7777, err)
		}
	}
	if n, err := extract.Copy(t.Context(), tree, root(t, tree), "", openDir(t, dir), "kept", extract.Options{Attributes: true, SetID: true}); err != nil || n.Stripped != 0 {
		t.Errorf("%+v, %v", n, err)
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(dir, "kept/su"), &st); err != nil || st.Mode&0o7777 != 0o6755 {
		t.Errorf("kept/su has mode %o, %v", st.Mode&0o7777, err)
	}
}

// TestExisting meets what is there already.
func TestExisting(t *testing.T) {
	outside := t.TempDir()
	victim := filepath.Join(outside, "victim")
	dir := t.TempDir()
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(victim, "precious")
	write(filepath.Join(dir, "file"), "old")
	for name, target := range map[string]string{"link": victim, "linkdir": outside, "dangling": outside + "/new"} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	os.Mkdir(filepath.Join(dir, "dir"), 0o755)
	write(filepath.Join(dir, "dir", "stays"), "here")
	tree := treetest.NewTree(treetest.Files{
		"file":           {Data: []byte("new")},
		"link":           {Data: []byte("new")},
		"dangling":       {Data: []byte("new")},
		"linkdir/victim": {Data: []byte("new")},
		"dir":            {Data: []byte("new")},
	})
	copyIt := func(replace bool) (failed []string) {
		_, err := extract.Copy(t.Context(), tree, root(t, tree), "", openDir(t, dir), "", extract.Options{Replace: replace, Failed: func(path string, err error) error {
			if !errors.Is(err, iofs.ErrExist) {
				t.Errorf("%s: %v", path, err)
			}
			failed = append(failed, path)
			return nil
		}})
		if err != nil {
			t.Error(err)
		}
		slices.Sort(failed)
		return failed
	}
	content := func(name string) string {
		b, _ := os.ReadFile(filepath.Join(dir, name))
		return string(b)
	}
	if got := copyIt(false); !slices.Equal(got, []string{"dangling", "dir", "file", "link", "linkdir"}) || content("file") != "old" {
		t.Errorf("failed %q, file is %q", got, content("file"))
	}
	if got := copyIt(true); !slices.Equal(got, []string{"dir", "linkdir"}) || content("file") != "new" || content("link") != "new" {
		t.Errorf("failed %q, file is %q, link %q", got, content("file"), content("link"))
	}
	if b, err := os.ReadFile(victim); string(b) != "precious" || err != nil {
		t.Errorf("a file outside was written: %q, %v", b, err)
	}
	if names, _ := os.ReadDir(outside); len(names) != 1 {
		t.Errorf("outside there is %v", names)
	}
	names, _ := os.ReadDir(dir)
	for _, n := range names {
		if strings.HasSuffix(n.Name(), ".partial") {
			t.Errorf("%s is left", n.Name())
		}
	}
}

// TestLattice takes trees with two to the power of 50 paths.
func TestLattice(t *testing.T) {
	run := func(name string, fn func(opt extract.Options, tree fs.Tree) (extract.Totals, error)) {
		n, err := fn(extract.Options{Failed: func(path string, err error) error {
			if !errors.Is(err, fs.ErrDamaged) || !strings.HasSuffix(path, "b") {
				return fmt.Errorf("%s: %w", path, err)
			}
			return nil
		}}, treetest.NewLattice(50))
		if err != nil || n.Files != 1 || n.Dirs != 50 || n.Failed != 50 {
			t.Errorf("%s: %+v, %v; want 1 file, 50 directories, 50 failed", name, n, err)
		}
	}
	run("copy", func(opt extract.Options, tree fs.Tree) (extract.Totals, error) {
		return extract.Copy(t.Context(), tree, root(t, tree), "", openDir(t, t.TempDir()), "", opt)
	})
	run("tar", func(opt extract.Options, tree fs.Tree) (extract.Totals, error) {
		w := extract.NewTar(io.Discard, opt)
		err := w.Add(t.Context(), tree, root(t, tree), "", "")
		return w.Totals(), errors.Join(err, w.Close())
	})
}

// liar is a tree that calls its files what no file can be called, and has a
// directory in itself.
type liar struct{ *treetest.Tree }

var lies = []string{"..", ".", "", "../escaped", "/tmp/escaped", "a/b", "a\x00b", "fine"}

func (l liar) ReadDir(ctx context.Context, dir fs.ID, cookie uint64, fn func(fs.Entry) bool) error {
	i := 0
	return l.Tree.ReadDir(ctx, dir, cookie, func(e fs.Entry) bool {
		if i < len(lies) {
			e.Name = lies[i]
		} else {
			e.Name, e.ID, e.Type, e.Attr = "loop", l.Root(), fs.TypeDir, nil
		}
		i++
		return fn(e)
	})
}

func TestLies(t *testing.T) {
	files := treetest.Files{}
	for i := range len(lies) + 1 {
		files[string(rune('a'+i))] = treetest.File{Data: noise(uint64(i), 10)}
	}
	tree := liar{treetest.NewTree(files)}
	dir := t.TempDir()
	inner := filepath.Join(dir, "inner")
	os.Mkdir(inner, 0o755)
	var failed int
	opt := extract.Options{Attributes: true, Failed: func(path string, err error) error {
		failed++
		if !errors.Is(err, extract.ErrName) && !errors.Is(err, fs.ErrDamaged) {
			t.Errorf("%q: %v", path, err)
		}
		return nil
	}}
	if _, err := extract.Copy(t.Context(), tree, root(t, tree), "", openDir(t, inner), "", opt); err != nil {
		t.Fatal(err)
	}
	if failed != len(lies) {
		t.Errorf("%d objects were refused, want %d", failed, len(lies))
	}
	names, err := os.ReadDir(inner)
	if err != nil || len(names) != 1 || names[0].Name() != "fine" {
		t.Errorf("made %v, %v", names, err)
	}
	if names, _ := os.ReadDir(dir); len(names) != 1 {
		t.Errorf("made %v outside", names)
	}
}

// TestDamage leaves out what can't be read, and nothing else.
func TestDamage(t *testing.T) {
	tree := treetest.NewTree(treetest.Files{
		"bad": {Data: noise(1, 5<<20), Err: fs.ErrDamaged}, "good": {Data: noise(2, 10)}, "z/bad": {Target: "x", Err: fs.ErrDamaged},
	})
	dir := t.TempDir()
	var failed []string
	n, err := extract.Copy(t.Context(), tree, root(t, tree), "top", openDir(t, dir), "", extract.Options{Failed: func(path string, err error) error {
		failed = append(failed, path)
		return nil
	}})
	if err != nil || n.Failed != 2 || !slices.Equal(failed, []string{"top/bad", "top/z/bad"}) {
		t.Errorf("%+v, %q, %v", n, failed, err)
	}
	if names, _ := os.ReadDir(dir); len(names) != 2 {
		t.Errorf("made %v", names)
	}
	if _, err := extract.Copy(t.Context(), tree, root(t, tree), "top", openDir(t, t.TempDir()), "", extract.Options{}); !errors.Is(err, fs.ErrDamaged) {
		t.Errorf("without Failed: %v", err)
	}
}

// TestStreams: what Linux has no streams for becomes attributes, what is too long
// for one is told of, and neither ends a copy.
func TestStreams(t *testing.T) {
	tree := treetest.NewTree(treetest.Files{
		"a": {
			Attr: fs.Attr{Perm: 0o644, UID: uint32(os.Getuid()), GID: uint32(os.Getgid())}, Data: noise(1, 10),
			Xattrs: map[string]string{"user.long": string(noise(2, 60<<10))}, // ext4 says that there is no space
			Streams: map[string][]byte{
				"Zone.Identifier": []byte("[ZoneTransfer]\r\nZoneId=3\r\n"),
				"large":           noise(3, 64<<10+1),
			},
		},
		"b": {Attr: fs.Attr{Perm: 0o644}, Data: noise(4, 10)},
	})
	dir := tempDir(t)
	n, err := extract.Copy(t.Context(), tree, root(t, tree), "", openDir(t, dir), "to", extract.Options{Attributes: true})
	if err != nil || n.Files != 2 || n.Streams != 1 || n.Failed != 0 {
		t.Fatalf("%+v, %v", n, err)
	}
	value := make([]byte, 100)
	got, err := unix.Getxattr(filepath.Join(dir, "to/a"), "user.stream.Zone.Identifier", value)
	if err != nil || string(value[:got]) != "[ZoneTransfer]\r\nZoneId=3\r\n" {
		t.Errorf("the stream's attribute is %q, %v", value[:max(got, 0)], err)
	}
	if kept, _ := unix.Getxattr(filepath.Join(dir, "to/a"), "user.long", nil); kept != 60<<10 && n.Attributes == 0 {
		t.Errorf("a long attribute has %d bytes there, and nobody said so", kept)
	}
}

// lostInodes is a tree in which no file can be described, as of a file system
// whose table of inodes is broken.
type lostInodes struct {
	*treetest.Tree
	asked int
}

func (l *lostInodes) Attr(ctx context.Context, id fs.ID) (fs.Attr, error) {
	a, err := l.Tree.Attr(ctx, id)
	if err == nil && !a.IsDir() {
		if l.asked++; l.asked > 10_000 {
			return fs.Attr{}, context.Canceled // it would not end
		}
		return fs.Attr{}, fs.ErrDamaged
	}
	return a, err
}

func (l *lostInodes) ReadDir(ctx context.Context, dir fs.ID, cookie uint64, fn func(fs.Entry) bool) error {
	return l.Tree.ReadDir(ctx, dir, cookie, func(e fs.Entry) bool {
		e.Attr = nil
		return fn(e)
	})
}

// TestNothingDescribed has more files that can't be described than are listed
// at a time: each is told of once, and the work ends.
func TestNothingDescribed(t *testing.T) {
	files := treetest.Files{}
	const n = 1500
	for i := range n {
		files[fmt.Sprint("f", i)] = treetest.File{Data: []byte("x")}
	}
	tree := &lostInodes{Tree: treetest.NewTree(files)}
	told := make(map[string]int)
	opt := extract.Options{Failed: func(path string, err error) error {
		told[path]++
		return nil
	}}
	got, err := extract.Copy(t.Context(), tree, root(t, tree), "/", openDir(t, t.TempDir()), "", opt)
	if err != nil || got.Failed != n || len(told) != n {
		t.Errorf("%v; failed %d times, with %d files of %d", err, got.Failed, len(told), n)
	}
}
