package ext4

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"holdfast/fs"
	"holdfast/fs/treetest"
	"holdfast/internal/testreq"
)

// someFiles has debugfs fill an image.
func someFiles(tb testing.TB, image string, more ...string) {
	tb.Helper()
	src := filepath.Join(tb.TempDir(), "file")
	if err := os.WriteFile(src, bytes.Repeat([]byte("0123456789abcdef"), 10000), 0o600); err != nil {
		tb.Fatal(err)
	}
	debugfs(tb, image, append([]string{"write " + src + " file", "mkdir dir", "write " + src + " dir/inside",
		"symlink link target"}, more...)...)
}

func lookup(tb testing.TB, f *FS, path string) fs.Attr {
	tb.Helper()
	a, err := fs.Resolve(tb.Context(), f, f.Root(), path, false)
	if err != nil {
		tb.Fatal(err)
	}
	return a
}

// overwrite changes bytes of an image.
func overwrite(tb testing.TB, image string, at int64, b []byte) {
	tb.Helper()
	file, err := os.OpenFile(image, os.O_WRONLY, 0)
	if err != nil {
		tb.Fatal(err)
	}
	defer file.Close()
	if _, err := file.WriteAt(b, at); err != nil {
		tb.Fatal(err)
	}
}

// TestBackup reads file systems whose beginning is gone.
func TestBackup(t *testing.T) {
	testreq.Need(t, "mke2fs", "debugfs")
	for _, args := range [][]string{
		{"-b", "1024", "-O", "none,filetype,extent,sparse_super,metadata_csum"},
		{"-b", "4096", "-O", "none,filetype,extent,sparse_super,metadata_csum,64bit"},
		{"-b", "1024", "-O", "none,filetype,extent,sparse_super,metadata_csum,meta_bg"},
	} {
		t.Run(fmt.Sprint(args), func(t *testing.T) {
			image := makeImage(t, 160, args...)
			someFiles(t, image)
			f, _ := openImage(t, image)
			want := list(t, f)

			overwrite(t, image, superAt+100, []byte{1, 2, 3, 4})
			g, _ := openImage(t, image)
			if got := list(t, g); len(g.Notes()) != 1 || !strings.HasSuffix(got, want) {
				t.Errorf("with a damaged super block: notes %q\n%s\nwant\n%s", g.Notes(), got, want)
			}
			if f.sb.has(incompatMetaBG) {
				return
			}
			overwrite(t, image, 0, make([]byte, int64(f.sb.at+2)*f.sb.blockBytes())) // and the descriptors
			h, _ := openImage(t, image)
			if got := list(t, h); !strings.HasSuffix(got, want) {
				t.Errorf("without its beginning:\n%s\nwant\n%s", got, want)
			}
		})
	}
}

// TestDescriptorCopies reads a file system with its first descriptors damaged.
func TestDescriptorCopies(t *testing.T) {
	testreq.Need(t, "mke2fs", "debugfs")
	for _, features := range []string{"sparse_super", "meta_bg", "sparse_super2"} {
		image := makeImage(t, 64, "-b", "1024", "-O", "none,filetype,extent,metadata_csum,"+features)
		someFiles(t, image)
		f, _ := openImage(t, image)
		want := list(t, f)
		overwrite(t, image, 2048+8, []byte{1, 2, 3, 4})
		f, _ = openImage(t, image)
		if got := list(t, f); got != want {
			t.Errorf("%s:\n%s\nwant\n%s", features, got, want)
		}
	}
}

func TestRefused(t *testing.T) {
	testreq.Need(t, "mke2fs", "debugfs")
	base := []string{"-b", "1024", "-O", "none,filetype,extent"}
	tests := []struct {
		name   string
		args   []string
		change func(image string)
		err    error
		text   string
	}{
		{"a feature of the future", base, func(image string) { overwrite(t, image, superAt+98, []byte{0x10}) },
			fs.ErrUnsupported, "incompat 0x100000"},
		{"compression", base, func(image string) { overwrite(t, image, superAt+96, []byte{0x43}) }, fs.ErrUnsupported, "compression"},
		{"the journal of another", []string{"-b", "1024", "-O", "journal_dev"}, func(string) {}, fs.ErrUnsupported, "journal_dev"},
		{"a journal elsewhere that must be replayed", []string{"-b", "1024", "-O", "none,filetype,extent,has_journal"}, func(image string) {
			debugfs(t, image, "ssv journal_inum 0", "ssv journal_dev 0x0801", "feature needs_recovery")
		}, fs.ErrUnsupported, "another device"},
		{"a revision of the future", base, func(image string) { overwrite(t, image, superAt+76, []byte{2}) }, fs.ErrUnsupported, "revision 2"},
		{"nothing", base, func(image string) { overwrite(t, image, 0, make([]byte, 4096)) }, fs.ErrDamaged, "magic"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			image := makeImage(t, 4, tt.args...)
			tt.change(image)
			b, err := os.ReadFile(image)
			if err != nil {
				t.Fatal(err)
			}
			_, err = Open(bytes.NewReader(b), int64(len(b)))
			if !errors.Is(err, tt.err) || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("Open = %v, want %v that says %q", err, tt.err, tt.text)
			}
		})
	}
}

// TestEncrypted sees to it that what is encrypted has attributes but is not
// taken for what it is not.
func TestEncrypted(t *testing.T) {
	testreq.Need(t, "mke2fs", "debugfs")
	image := makeImage(t, 4, "-b", "1024", "-O", "none,filetype,extent,encrypt")
	someFiles(t, image, "sif file flags 0x80800", "sif dir flags 0x80800", "sif link flags 0x800")
	f, _ := openImage(t, image)
	ctx := t.Context()
	file, dir, link := lookup(t, f, "file"), lookup(t, f, "dir"), lookup(t, f, "link")
	_, rerr := f.ReadAt(ctx, file.ID, make([]byte, 10), 0)
	_, xerr := f.Extents(ctx, file.ID, 0, 1)
	derr := f.ReadDir(ctx, dir.ID, 0, func(fs.Entry) bool { return true })
	_, lerr := f.Lookup(ctx, dir.ID, "inside")
	_, terr := f.ReadLink(ctx, link.ID)
	for what, err := range map[string]error{"ReadAt": rerr, "Extents": xerr, "ReadDir": derr, "Lookup": lerr, "ReadLink": terr} {
		if !errors.Is(err, fs.ErrUnsupported) {
			t.Errorf("%s = %v", what, err)
		}
	}
}

// TestCasefold looks names up that are hashed folded.
func TestCasefold(t *testing.T) {
	testreq.Need(t, "mke2fs", "debugfs")
	image := makeImage(t, 8, "-b", "1024", "-O", "none,filetype,extent,casefold,dir_index", "-E", "encoding=utf8")
	commands := []string{"sif dir flags 0x40080000"}
	for i := range 200 {
		commands = append(commands, fmt.Sprintf("mkdir dir/Name-%d", i))
	}
	someFiles(t, image, commands...)
	f, file := openImage(t, image)
	treetest.Conform(t, f, treetest.Options{Device: file})
	lookup(t, f, "dir/Name-199")
}

// TestDirtyWithoutJournal says that nobody can tell.
func TestDirtyWithoutJournal(t *testing.T) {
	testreq.Need(t, "loop", "mke2fs")
	image := makeImage(t, 4, "-O", "none,filetype")
	m := mount(t, image, "noatime")
	syncFS(t, m.dir)
	dirty := copyImage(t, image)
	m.unmount()
	if f, _ := openImage(t, dirty); len(f.Notes()) != 1 {
		t.Errorf("notes %q", f.Notes())
	}
	if f, _ := openImage(t, image); len(f.Notes()) != 0 {
		t.Errorf("notes once it is unmounted: %q", f.Notes())
	}
}

// TestDeepExtents reads a file of many pieces, written, unwritten and holes.
func TestDeepExtents(t *testing.T) {
	testreq.Need(t, "loop", "mke2fs")
	pieces := 4000 // two levels of index
	if os.Getenv("HOLDFAST_LONG") == "1" {
		pieces = 40000 // three
	}
	for _, features := range []string{"extent,metadata_csum", "^extent,sparse_super"} {
		image := makeImage(t, 200, "-b", "1024", "-N", "128", "-O", "none,filetype,"+features)
		m := mount(t, image, "noatime")
		file, err := os.Create(filepath.Join(m.dir, "file"))
		if err != nil {
			t.Fatal(err)
		}
		for i := range pieces {
			if _, err := file.WriteAt([]byte(fmt.Sprintf("piece %d", i)), int64(i)*2048); err != nil {
				t.Fatal(err)
			}
		}
		if features[0] != '^' {
			for i := range 50 {
				if err := unix.Fallocate(int(file.Fd()), 0, int64(pieces+i*5)*1024, 3072); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := file.Close(); err != nil {
			t.Fatal(err)
		}
		m.unmount()
		want := kernelView(t, image, "ro")
		f, dev := openImage(t, image)
		in, err := f.inode(lookup(t, f, "file").ID.Ino)
		if depth := le.Uint16(in.iblock()[6:]); err != nil || (features[0] != '^' && depth < 2) {
			t.Errorf("depth %d, %v", depth, err)
		}
		compare(t, want, treetest.Snap(t, f, f.Root()), 0)
		treetest.Conform(t, f, treetest.Options{Device: dev})
	}
}

// TestOpenDirectory reads a directory from any cookie, and one that is damaged.
func TestOpenDirectory(t *testing.T) {
	image := golden(t, "ext2-revision-0")
	f := openBytes(t, image)
	dir := lookup(t, f, "dir")
	var names []string
	var cookies []uint64
	err := f.ReadDir(t.Context(), dir.ID, 0, func(e fs.Entry) bool {
		names, cookies = append(names, e.Name), append(cookies, e.Cookie)
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	for cookie := range uint64(dir.Size) + 5000 { // also those that no entry has
		from := 0
		for from < len(cookies) && cookies[from] <= cookie {
			from++
		}
		var got string
		err := f.ReadDir(t.Context(), dir.ID, cookie, func(e fs.Entry) bool { got = e.Name; return false })
		// The entry that the cookie is in or before, or, if it is within, the next.
		ok := (from < len(names) && got == names[from]) || (from+1 < len(names) && got == names[from+1]) ||
			(from+1 >= len(names) && got == "")
		if err != nil || !ok {
			t.Fatalf("from %d: %q, %v; want entry %d", cookie, got, err, from)
		}
	}

	in, err := f.inode(dir.ID.Ino)
	if err != nil {
		t.Fatal(err)
	}
	_, at, err := f.fileBlock(&in, 0)
	if err != nil {
		t.Fatal(err)
	}
	d := &edited{image, []edit{{int64(at<<10) + 28, []byte{3, 0}}}} // a length that can't be
	f, err = Open(d, int64(len(image)))
	if err != nil {
		t.Fatal(err)
	}
	if err := f.ReadDir(t.Context(), dir.ID, 0, func(fs.Entry) bool { return true }); !errors.Is(err, fs.ErrDamaged) {
		t.Errorf("a damaged block: %v", err)
	}
	if _, err := f.Lookup(t.Context(), dir.ID, names[len(names)-1]); err != nil {
		t.Errorf("a name behind the damage: %v", err)
	}
	if _, err := f.Lookup(t.Context(), dir.ID, "nowhere"); !errors.Is(err, fs.ErrDamaged) {
		t.Errorf("a name that may be in the damage: %v", err)
	}
}

// TestDeviceErrors hands on what the device answers.
func TestDeviceErrors(t *testing.T) {
	image := golden(t, "plain")
	sick := &sickDevice{Reader: bytes.NewReader(image)}
	f, err := Open(sick, int64(len(image)))
	if err != nil {
		t.Fatal(err)
	}
	a := lookup(t, f, "medium")
	sick.err = fs.ErrRetry
	if n, err := f.ReadAt(t.Context(), a.ID, make([]byte, 100), 0); n != 0 || !errors.Is(err, fs.ErrRetry) || errors.Is(err, fs.ErrDamaged) {
		t.Errorf("ReadAt = %d, %v", n, err)
	}
	sick.err = nil
	if _, err := f.ReadAt(t.Context(), a.ID, make([]byte, 100), 0); err != nil {
		t.Errorf("ReadAt once the device is well = %v", err)
	}
	in, err := f.inode(rootIno)
	if err != nil {
		t.Fatal(err)
	}
	_, at, err := f.fileBlock(&in, 0)
	if err != nil {
		t.Fatal(err)
	}
	sick.from, sick.to = int64(at+1)<<10, int64(at+2)<<10 // beside it
	if f, err = Open(sick, int64(len(image))); err != nil {
		t.Fatal(err)
	}
	lookup(t, f, "medium")
	sick.from = int64(at) << 10
	if f, err = Open(sick, int64(len(image))); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Lookup(t.Context(), f.Root(), "medium"); !errors.Is(err, fs.ErrRetry) {
		t.Errorf("Lookup in a directory that can't be read: %v", err)
	}

	cut := int64(600 << 10)
	g, err := Open(bytes.NewReader(image[:cut]), cut)
	if err != nil || len(g.Notes()) != 1 {
		t.Errorf("an image cut short: %v, notes %q", err, g.Notes())
	}
}

// sickDevice answers err, or fs.ErrRetry for what is between two bytes.
type sickDevice struct {
	*bytes.Reader
	err      error
	from, to int64
}

func (s *sickDevice) ReadAt(p []byte, off int64) (int, error) {
	if s.err != nil {
		return 0, s.err
	}
	if off < s.to && off+int64(len(p)) > s.from {
		return 0, fs.ErrRetry
	}
	return s.Reader.ReadAt(p, off)
}
