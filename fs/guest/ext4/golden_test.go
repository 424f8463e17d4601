package ext4

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"holdfast/fs"
	"holdfast/fs/treetest"
)

// goldens are small images in testdata, each with a list of what Linux showed
// of it. TestMakeGolden makes both.
var goldens = []string{"ext2-revision-0", "ext3-dirty", "ext4-dirty", "fast-commits", "inline", "large-blocks", "plain"}

// golden returns an image of testdata.
func golden(tb testing.TB, name string) []byte {
	tb.Helper()
	file, err := os.Open(filepath.Join("testdata", name+".img.gz"))
	if err != nil {
		tb.Fatal(err)
	}
	defer file.Close()
	z, err := gzip.NewReader(file)
	if err != nil {
		tb.Fatal(err)
	}
	image, err := io.ReadAll(z)
	if err != nil {
		tb.Fatal(err)
	}
	return image
}

func openBytes(tb testing.TB, image []byte) *FS {
	tb.Helper()
	f, err := Open(bytes.NewReader(image), int64(len(image)))
	if err != nil {
		tb.Fatalf("Open: %v", err)
	}
	return f
}

func TestGolden(t *testing.T) {
	for _, name := range goldens {
		t.Run(name, func(t *testing.T) {
			image := golden(t, name)
			if !Detect(bytes.NewReader(image), int64(len(image))) {
				t.Error("not detected")
			}
			want, err := os.ReadFile(filepath.Join("testdata", name+".txt"))
			if err != nil {
				t.Fatal(err)
			}
			f := openBytes(t, image)
			if diff := cmp.Diff(string(want), list(t, f)); diff != "" {
				t.Errorf("not what Linux showed (-want +got):\n%s", diff)
			}
			treetest.Conform(t, f, treetest.Options{
				Device: bytes.NewReader(image),
				Reopen: func() (fs.Tree, error) { return Open(bytes.NewReader(image), int64(len(image))) },
			})
		})
	}
}

// list writes down a tree, a line for each path.
func list(tb testing.TB, t *FS) string {
	tb.Helper()
	var out strings.Builder
	for _, note := range t.Notes() {
		fmt.Fprintf(&out, "note: %s\n", note)
	}
	err := fs.Walk(tb.Context(), t, t.Root(), func(path string, a fs.Attr, err error) error {
		if err != nil {
			return err
		}
		what := ""
		switch a.Type {
		case fs.TypeFile:
			h := sha256.New()
			if _, err := io.Copy(h, fs.File(tb.Context(), t, a)); err != nil {
				return err
			}
			what = fmt.Sprintf("%d bytes, %x", a.Size, h.Sum(nil)[:8])
		case fs.TypeSymlink:
			if what, err = t.ReadLink(tb.Context(), a.ID); err != nil {
				return err
			}
		case fs.TypeCharDevice, fs.TypeBlockDevice:
			what = fmt.Sprintf("%d:%d", a.Major, a.Minor)
		}
		fmt.Fprintf(&out, "%q %v %04o %d:%d %v %s", path, a.Type, a.Perm, a.UID, a.GID, a.Mtime, what)
		names, err := t.Xattrs(tb.Context(), a.ID)
		if err != nil {
			return err
		}
		for _, name := range names {
			value, err := t.Xattr(tb.Context(), a.ID, name)
			if err != nil {
				return err
			}
			sum := sha256.Sum256(value)
			fmt.Fprintf(&out, " %s=%d:%x", name, len(value), sum[:4])
		}
		out.WriteByte('\n')
		return nil
	})
	if err != nil {
		tb.Fatalf("walk: %v", err)
	}
	return out.String()
}

// edited is an image with some bytes changed.
type edited struct {
	image []byte
	edits []edit
}

type edit struct {
	at    int64
	bytes []byte
}

func (e *edited) ReadAt(p []byte, off int64) (int, error) {
	n, err := bytes.NewReader(e.image).ReadAt(p, off)
	for _, x := range e.edits {
		from, to := max(x.at, off), min(x.at+int64(len(x.bytes)), off+int64(n))
		if from < to {
			copy(p[from-off:to-off], x.bytes[from-x.at:])
		}
	}
	return n, err
}

// decodeEdits makes of anything a list of changes to blocks of an image that
// are not empty: two bytes of which block, two of where, one of how many bytes,
// and those.
func decodeEdits(image, data []byte) []edit {
	const block = 1024
	var used []int64
	zero := make([]byte, block)
	for at := 0; at+block <= len(image); at += block {
		if !bytes.Equal(image[at:at+block], zero) {
			used = append(used, int64(at))
		}
	}
	var list []edit
	for len(data) >= 6 && len(list) < 64 {
		n := min(int(data[4])%32+1, len(data)-5)
		at := used[int(le.Uint16(data))%len(used)] + int64(le.Uint16(data[2:])%block)
		list = append(list, edit{at, data[5 : 5+n]})
		data = data[5+n:]
	}
	return list
}

// FuzzOpen opens images with anything changed in them, or that are anything at
// all, and uses what it gets.
func FuzzOpen(f *testing.F) {
	images := make([][]byte, len(goldens))
	for i, name := range goldens {
		images[i] = golden(f, name)
		f.Add(uint8(i), []byte{})
		f.Add(uint8(i), []byte{0, 0, 0x60, 0, 3, 0xff, 0xff, 0xff, 0xff}) // the features
		f.Add(uint8(i), []byte{5, 0, 0x2c, 0, 1, 0x80, 0x80, 7, 0, 4, 0, 3, 1, 2, 3, 4})
	}
	f.Add(uint8(255), images[len(images)-1][:4096])
	f.Fuzz(func(t *testing.T, base uint8, data []byte) {
		dev, size := io.ReaderAt(bytes.NewReader(data)), int64(len(data))
		if int(base) < len(images) {
			dev, size = &edited{images[base], decodeEdits(images[base], data)}, int64(len(images[base]))
		}
		Detect(dev, size)
		tree, err := Open(dev, size)
		if err != nil {
			if !errors.Is(err, fs.ErrDamaged) && !errors.Is(err, fs.ErrUnsupported) {
				t.Fatalf("Open: %v, which is neither damaged nor unsupported", err)
			}
			return
		}
		use(t, tree)
	})
}

// use calls all that a tree has, for some of its inodes, and sees to it that
// errors are of the right kind.
func use(t *testing.T, f *FS) {
	ctx := context.Background()
	check := func(what string, err error) {
		for _, ok := range []error{nil, io.EOF, fs.ErrDamaged, fs.ErrUnsupported, fs.ErrStale, fs.ErrNotFound} {
			if errors.Is(err, ok) {
				return
			}
		}
		t.Fatalf("%s: %v", what, err)
	}
	_, err := f.StatFS(ctx, f.Root())
	check("StatFS", err)
	buf := make([]byte, 20000)
	left := 100
	enough := errors.New("enough")
	err = fs.Walk(ctx, f, f.Root(), func(path string, a fs.Attr, err error) error {
		check("walk to "+path, err)
		if left--; left < 0 {
			return enough
		}
		if err != nil {
			return nil
		}
		names, err := f.Xattrs(ctx, a.ID)
		check("Xattrs", err)
		for _, name := range names {
			_, err := f.Xattr(ctx, a.ID, name)
			check("Xattr", err)
		}
		switch a.Type {
		case fs.TypeFile:
			_, err := f.Extents(ctx, a.ID, 0, 10)
			check("Extents", err)
			for _, off := range []int64{0, 11111, a.Size - 100} {
				if off < 0 {
					continue
				}
				n, err := f.ReadAt(ctx, a.ID, buf, off)
				check("ReadAt", err)
				if n < len(buf) && err == nil || (errors.Is(err, io.EOF) && off < a.Size && off+int64(n) != a.Size) {
					t.Fatalf("ReadAt of %s at %d: %d bytes of %d, %v", path, off, n, a.Size, err)
				}
			}
		case fs.TypeDir:
			_, err := f.Lookup(ctx, a.ID, "..")
			check("Lookup", err)
			_, err = f.Lookup(ctx, a.ID, "file-7")
			check("Lookup", err)
		case fs.TypeSymlink:
			_, err := f.ReadLink(ctx, a.ID)
			check("ReadLink", err)
		}
		return nil
	})
	if err != nil && !errors.Is(err, enough) {
		t.Fatalf("walk: %v", err)
	}
}
