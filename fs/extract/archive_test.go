package extract_test

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"io"
	iofs "io/fs"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"holdfast/fs"
	"holdfast/fs/extract"
	"holdfast/fs/treetest"
	"holdfast/internal/testreq"
)

// TestTar unpacks a tar with the tool of the same name, and finds what was
// packed.
func TestTar(t *testing.T) {
	testreq.Need(t, "tar")
	files := sample()
	delete(files, "huge") // TestTarHuge
	tree := treetest.NewTree(files)
	dir := tempDir(t)
	file, err := os.Create(dir + "/t.tar")
	if err != nil {
		t.Fatal(err)
	}
	w := extract.NewTar(file, extract.Options{})
	if err := errors.Join(w.Add(t.Context(), tree, root(t, tree), "", "to"), w.Close(), file.Close()); err != nil {
		t.Fatal(err)
	}
	flags := []string{"--xattrs", "--xattrs-include=*", "-xpf", "t.tar"}
	if os.Getuid() == 0 {
		flags = append(flags, "--same-owner")
	}
	cmd := exec.Command("tar", flags...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("tar: %v\n%s", err, out)
	}
	want := treetest.Snap(t, tree, tree.Root())
	got := treetest.SnapHost(t, dir+"/to")
	for _, d := range treetest.Diff(want, got, unlike|owners()) {
		t.Error(d)
	}
	if n := w.Totals(); n.Files != 7 || n.HardLinks != 2 || n.Links != 2 || n.Others != 1 {
		t.Errorf("totals %+v", n)
	}
}

// TestTarHuge writes holes without reading them.
func TestTarHuge(t *testing.T) {
	tree := treetest.NewTree(treetest.Files{"huge": {Attr: fs.Attr{Size: 9 << 30}, Data: noise(8, 5000)}})
	r, w := io.Pipe()
	go func() {
		a := extract.NewTar(w, extract.Options{})
		err := errors.Join(a.Add(t.Context(), tree, root(t, tree), "", ""), a.Close())
		if a.Totals().Bytes > 2<<20 {
			err = errors.Join(err, errors.New("holes were read"))
		}
		w.CloseWithError(err)
	}()
	tr := tar.NewReader(r)
	h, err := tr.Next()
	if err != nil || h.Name != "huge" || h.Size != 9<<30 {
		t.Fatalf("%+v, %v", h, err)
	}
	if n, err := io.Copy(io.Discard, tr); n != 9<<30 || err != nil {
		t.Errorf("%d bytes, %v", n, err)
	}
	if _, err := tr.Next(); err != io.EOF {
		t.Error(err)
	}
}

func TestZip(t *testing.T) {
	files := sample()
	delete(files, "huge")
	tree := treetest.NewTree(files)
	var buf bytes.Buffer
	w := extract.NewZip(&buf, extract.Options{})
	if err := errors.Join(w.Add(t.Context(), tree, root(t, tree), "", ""), w.Close()); err != nil {
		t.Fatal(err)
	}
	z, err := zip.NewReader(bytes.NewReader(buf.Bytes()), int64(buf.Len()))
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]*zip.File)
	for _, f := range z.File {
		got[f.Name] = f
	}
	seen := 0
	err = fs.Walk(t.Context(), tree, tree.Root(), func(path string, a fs.Attr, err error) error {
		if err != nil || path == "." {
			return err
		}
		name, want := path, ""
		switch a.Type {
		case fs.TypeDir:
			name += "/"
		case fs.TypeSymlink:
			want, err = tree.ReadLink(t.Context(), a.ID)
		case fs.TypeFile:
			var b []byte
			b, err = io.ReadAll(fs.File(t.Context(), tree, a))
			want = string(b)
		}
		f := got[name]
		if err != nil || f == nil {
			t.Errorf("%q is missing, %v", name, err)
			return nil
		}
		seen++
		r, err := f.Open()
		if err != nil {
			return err
		}
		b, err := io.ReadAll(r)
		if err != nil || string(b) != want {
			t.Errorf("%q has %d bytes, want %d, %v", name, len(b), len(want), err)
		}
		if f.Mode().Perm() != iofs.FileMode(a.Perm&0o777) || (f.Mode().Type() == iofs.ModeSymlink) != (a.Type == fs.TypeSymlink) || f.Mode().IsDir() != a.IsDir() {
			t.Errorf("%q has mode %v, want %o of a %v", name, f.Mode(), a.Perm, a.Type)
		}
		if sec := a.Mtime.Sec; sec > 4e8 && f.Modified.Unix() != sec {
			t.Errorf("%q was changed at %v, want %v", name, f.Modified, a.Mtime)
		}
		return nil
	})
	if err != nil || seen != len(z.File) {
		t.Errorf("%d of %d entries are of the tree, %v", seen, len(z.File), err)
	}
}

// breaks is a tree whose reads fail from a byte on.
type breaks struct{ *treetest.Tree }

func TestArchiveDamage(t *testing.T) {
	for name, make := range map[string]func(io.Writer, extract.Options) *extract.Archive{"tar": extract.NewTar, "zip": extract.NewZip} {
		t.Run(name, func(t *testing.T) {
			tree := treetest.NewTree(treetest.Files{"bad": {Data: noise(1, 100), Err: fs.ErrDamaged}, "good": {Data: noise(2, 10)}, "null": {Attr: fs.Attr{Type: fs.TypeCharDevice, Major: 1}}})
			var failed []string
			opt := extract.Options{Failed: func(path string, err error) error {
				failed = append(failed, path)
				return nil
			}}
			w := make(io.Discard, opt)
			if err := errors.Join(w.Add(t.Context(), tree, root(t, tree), "top", ""), w.Close()); err != nil {
				t.Error(err)
			}
			if !slices.Equal(failed, []string{"top/bad"}) || w.Totals().Files != 1 || w.Totals().Unmade != 1 {
				t.Errorf("failed %q, %+v", failed, w.Totals())
			}
			broken := breaks{treetest.NewTree(treetest.Files{"long": {Data: noise(1, 4<<20)}})}
			w = make(io.Discard, opt)
			if err := w.Add(t.Context(), broken, root(t, broken), "top", ""); !errors.Is(err, fs.ErrDamaged) || !strings.Contains(err.Error(), "the archive ends here") {
				t.Errorf("broke off: %v", err)
			}
			lying := liar{treetest.NewTree(treetest.Files{"a/in": {Data: noise(1, 1)}, "b/in": {Data: noise(1, 1)}, "c": {Data: noise(1, 1)}})}
			failed = nil
			w = make(io.Discard, opt)
			err := errors.Join(w.Add(t.Context(), lying, root(t, lying), "", ""), w.Close())
			if n := w.Totals(); err != nil || !slices.Equal(failed, []string{"..", "", ""}) || n.Files+n.Dirs != 0 {
				t.Errorf("failed %q, %+v, %v", failed, n, err)
			}
		})
	}
}

func (b breaks) ReadAt(ctx context.Context, id fs.ID, p []byte, off int64) (int, error) {
	if off >= 2<<20 {
		return 0, fs.ErrDamaged
	}
	return b.Tree.ReadAt(ctx, id, p, off)
}

// TestZipTimes: a time that a zip can't say is the nearest that it can.
func TestZipTimes(t *testing.T) {
	for sec, want := range map[int64]int64{-5: 315532800, 1e9: 1e9, 1<<32 - 1: 1<<32 - 1, 1 << 32: 1<<32 - 1, 1 << 33: 1<<32 - 1} {
		tree := treetest.NewTree(treetest.Files{"f": {Attr: fs.Attr{Perm: 0o644, Mtime: fs.Time{Sec: sec}}}})
		var buf bytes.Buffer
		w := extract.NewZip(&buf, extract.Options{})
		if err := errors.Join(w.Add(t.Context(), tree, root(t, tree), "", ""), w.Close()); err != nil {
			t.Fatal(err)
		}
		z, err := zip.NewReader(bytes.NewReader(buf.Bytes()), int64(buf.Len()))
		if err != nil {
			t.Fatal(err)
		}
		if got := z.File[0].Modified.Unix(); got != want {
			t.Errorf("changed at %d is said to be at %d, want %d", sec, got, want)
		}
	}
}

// doubled is a tree whose directory has the name "a" three times: a link that
// leads out, a directory, and a file.
type doubled struct{ *treetest.Tree }

func (d doubled) ReadDir(ctx context.Context, dir fs.ID, cookie uint64, fn func(fs.Entry) bool) error {
	return d.Tree.ReadDir(ctx, dir, cookie, func(e fs.Entry) bool {
		if dir == d.Root() {
			e.Name = "a"
		}
		return fn(e)
	})
}

// TestThroughLink puts nothing behind a link of the same name.
func TestThroughLink(t *testing.T) {
	tree := doubled{treetest.NewTree(treetest.Files{"1": {Target: "/tmp"}, "2/evil": {Data: noise(1, 10)}, "3": {Data: noise(2, 10)}})}
	for _, form := range []func(io.Writer, extract.Options) *extract.Archive{extract.NewTar, extract.NewZip} {
		failed := 0
		w := form(io.Discard, extract.Options{Failed: func(path string, err error) error {
			if failed++; path != "a" || !errors.Is(err, fs.ErrDamaged) {
				t.Errorf("%s: %v", path, err)
			}
			return nil
		}})
		if err := errors.Join(w.Add(t.Context(), tree, root(t, tree), "", ""), w.Close()); err != nil {
			t.Fatal(err)
		}
		if n := w.Totals(); failed != 2 || n.Links != 1 || n.Files != 0 || n.Dirs != 0 {
			t.Errorf("%d failed, %+v", failed, n)
		}
	}
}
