package fat_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"holdfast/fs"
	"holdfast/fs/guest/fat"
	"holdfast/fs/treetest"
	"holdfast/internal/testreq"
)

// tool runs a program, in UTC and UTF-8, in which mtools keep times and names.
func tool(tb testing.TB, argv ...string) string {
	tb.Helper()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "TZ=UTC", "MTOOLS_SKIP_CHECK=1", "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	out, err := cmd.CombinedOutput()
	if err != nil {
		tb.Fatalf("%q: %v\n%s", argv, err, out)
	}
	return string(out)
}

// openImage opens the file system in a file, and gives its file too.
func openImage(tb testing.TB, path string) (*fat.FS, *os.File, int64) {
	tb.Helper()
	dev, err := os.Open(path)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { dev.Close() })
	info, err := dev.Stat()
	if err != nil {
		tb.Fatal(err)
	}
	f, err := fat.Open(dev, info.Size())
	if err != nil {
		tb.Fatal(err)
	}
	return f, dev, info.Size()
}

// noMtools are names that mtools can't write. (Characters outside the first
// plane come out as "_"; the names that tests make by hand have them.)
var noMtools = []string{"...", strings.Repeat("m", 254), "emoji 🦊🗄️"}

// TestAgainstMtools copies a tree with mtools, removes some of it, copies more
// into the gaps, and compares.
func TestAgainstMtools(t *testing.T) {
	for _, tt := range []struct {
		name string
		mkfs string
		size int64
		plan treetest.Plan
	}{
		{"fat12", "-F 12 -s 8", 15 << 20, treetest.Plan{Seed: 12, Files: 100, Dirs: 12, FileBytes: 200 << 10}},
		{"fat16", "-F 16 -s 4", 60 << 20, treetest.Plan{Seed: 16, Files: 200, Dirs: 30, FileBytes: 1 << 20, Deep: 20}},
		{"fat32", "-F 32 -s 1 -f 2", 60 << 20, treetest.Plan{Seed: 32, Files: 250, Dirs: 30, FileBytes: 1 << 20, Deep: 20}},
		{"fat32", "-F 32 -S 4096 -s 2", 700 << 20, treetest.Plan{Seed: 4096, Files: 100, Dirs: 10}},
		{"fat32", "-F 32 -f 1 -R 4 -n ONE_FAT", 60 << 20, treetest.Plan{Seed: 1, Files: 20, Dirs: 4, FileBytes: 1 << 20}},
	} {
		t.Run(tt.mkfs, func(t *testing.T) {
			testreq.Need(t, "mkfs.vfat", "mcopy", "mdel", "mattrib", "fsck.vfat")
			dir := t.TempDir()
			img, tree := filepath.Join(dir, "image"), filepath.Join(dir, "tree")
			if err := os.Mkdir(tree, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := treetest.Populate(t, tree, tt.plan); err != nil {
				t.Fatal(err)
			}
			for _, name := range noMtools {
				if err := os.RemoveAll(filepath.Join(tree, "names", name)); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.WriteFile(img, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Truncate(img, tt.size); err != nil {
				t.Fatal(err)
			}
			tool(t, slices.Concat([]string{"mkfs.vfat"}, strings.Fields(tt.mkfs), []string{img})...)
			fillByMtools(t, img, tree)
			tool(t, "fsck.vfat", "-n", img)

			f, dev, size := openImage(t, img)
			if s, err := f.StatFS(t.Context(), f.Root()); err != nil || s.Type != tt.name {
				t.Errorf("%+v, %v; want %s", s, err, tt.name)
			}
			treetest.Conform(t, f, treetest.Options{Device: dev, Reopen: func() (fs.Tree, error) { return fat.Open(dev, size) }})
			want, got := treetest.SnapHost(t, tree), treetest.Snap(t, f, f.Root())
			for _, n := range want.Nodes { // FAT counts in two seconds
				n.Mtime = fs.Time{Sec: n.Mtime.Sec &^ 1}
			}
			ignore := treetest.Perm | treetest.Owner | treetest.DirNlink | treetest.DirSize | treetest.DirTimes | treetest.Used |
				treetest.Atime | treetest.Ctime | treetest.Btime | treetest.Xattrs
			diff := treetest.Diff(want, got, ignore)
			for _, d := range diff[:min(20, len(diff))] {
				t.Error(d)
			}
			if len(f.Notes()) > 0 {
				t.Errorf("notes %q", f.Notes())
			}
			t.Logf("%d paths", len(got.Nodes))
			checkReadOnly(t, f)
			checkFree(t, f, img)
		})
	}
}

// fillByMtools copies what tree holds to an image, into the gaps that removed
// files leave, and removes all that is not in tree.
func fillByMtools(t *testing.T, img, tree string) {
	t.Helper()
	fillers := t.TempDir()
	first, second := []string{"mdel", "-i", img}, []string{"mdel", "-i", img}
	copyAll := []string{"mcopy", "-i", img}
	for i := range 60 {
		name := fmt.Sprintf("filler %d", i)
		if err := os.WriteFile(filepath.Join(fillers, name), make([]byte, 100+300*i), 0o600); err != nil {
			t.Fatal(err)
		}
		copyAll = append(copyAll, filepath.Join(fillers, name))
		if i%2 == 0 {
			first = append(first, "::"+name)
		} else {
			second = append(second, "::"+name)
		}
	}
	tool(t, append(copyAll, "::")...)
	tool(t, first...)
	entries, err := os.ReadDir(tree)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		tool(t, "mcopy", "-s", "-m", "-i", img, filepath.Join(tree, e.Name()), "::")
	}
	tool(t, second...)
	last := filepath.Join(tree, "into the gaps")
	if err := os.WriteFile(last, bytes.Repeat([]byte("gap "), 100_000), 0o600); err != nil {
		t.Fatal(err)
	}
	tool(t, "mcopy", "-m", "-i", img, last, "::")
	if err := os.WriteFile(filepath.Join(tree, "read only.txt"), []byte("read only"), 0o400); err != nil {
		t.Fatal(err)
	}
	tool(t, "mcopy", "-m", "-i", img, filepath.Join(tree, "read only.txt"), "::")
	tool(t, "mattrib", "+r", "-i", img, "::read only.txt")
}

func checkReadOnly(t *testing.T, f *fat.FS) {
	t.Helper()
	for path, want := range map[string]uint16{"read only.txt": 0o444, "8.3": 0o644} {
		a, err := fs.Resolve(t.Context(), f, f.Root(), path, true)
		if err != nil && path == "8.3" {
			continue // in a directory further down
		}
		if err != nil || a.Perm != want {
			t.Errorf("%s: mode %#o, %v; want %#o", path, a.Perm, err, want)
		}
	}
}

// checkFree compares the free space with what mdir counts.
func checkFree(t *testing.T, f *fat.FS, img string) {
	t.Helper()
	s, err := f.StatFS(t.Context(), f.Root())
	if err != nil {
		t.Fatal(err)
	}
	out := strings.TrimSpace(tool(t, "mdir", "-i", img, "::"))
	last := out[strings.LastIndexByte(out, '\n')+1:]
	digits := strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' {
			return r
		}
		return -1
	}, last)
	if digits != fmt.Sprint(s.FreeBytes) {
		t.Errorf("%d bytes free; mdir says %s", s.FreeBytes, last)
	}
}

// TestMakerAgainstFsck shows that the images that tests make are in order.
func TestMakerAgainstFsck(t *testing.T) {
	testreq.Need(t, "fsck.vfat")
	images := map[string][]byte{"big directory": bigDir(32, 3000)}
	for _, bits := range []int{12, 16, 32} {
		images[fmt.Sprint("sample ", bits)] = sample(bits)
	}
	for name, img := range images {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "image")
			if err := os.WriteFile(path, img, 0o600); err != nil {
				t.Fatal(err)
			}
			t.Log(tool(t, "fsck.vfat", "-n", path))
		})
	}
}
