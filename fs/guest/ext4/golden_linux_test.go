package ext4

import (
	"bytes"
	"compress/gzip"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"holdfast/fs/treetest"
	"holdfast/internal/testreq"
)

var update = flag.Bool("update", false, "make the images in testdata anew")

// TestMakeGolden makes the images in testdata. They are kept only if what we
// read of them is what the kernel shows.
func TestMakeGolden(t *testing.T) {
	if !*update {
		t.Skip("only with -update")
	}
	testreq.Need(t, "root", "loop", "mke2fs", "debugfs")
	const size = 3 // MiB
	forms := map[string]struct {
		args  []string
		dirty func(*worker)
	}{
		"ext2-revision-0": {args: []string{"-r", "0", "-b", "1024", "-O", "none"}},
		"plain":           {args: []string{"-b", "1024", "-O", "none,ext_attr,dir_index,filetype,extent,64bit,metadata_csum,ea_inode,sparse_super"}},
		"inline":          {args: []string{"-b", "1024", "-O", "none,ext_attr,dir_index,filetype,extent,inline_data,sparse_super"}},
		"large-blocks":    {args: []string{"-b", "65536", "-O", "none,ext_attr,dir_index,filetype,extent,metadata_csum"}},
		"ext3-dirty": {args: []string{"-b", "1024", "-J", "size=1", "-O", "none,has_journal,ext_attr,dir_index,filetype,sparse_super"},
			dirty: func(w *worker) { w.changeGolden() }},
		"ext4-dirty": {args: []string{"-b", "1024", "-J", "size=1", "-O", journaled + "64bit,metadata_csum"},
			dirty: func(w *worker) { w.changeGolden() }},
		"fast-commits": {args: []string{"-b", "1024", "-J", "size=1,fast_commit_size=64", "-O", journaled + "fast_commit"},
			dirty: func(w *worker) { w.changeGolden() }},
	}
	for _, name := range goldens {
		t.Run(name, func(t *testing.T) {
			form := forms[name]
			mib := size
			if name == "large-blocks" {
				mib = 8
			}
			args := append([]string{"-U", "8d5a3c9c-6f0e-4b63-8b1f-000000000001", "-E", "hash_seed=8d5a3c9c-6f0e-4b63-8b1f-000000000002", "-N", "256"}, form.args...)
			image := makeImage(t, mib, args...)
			if name == "large-blocks" { // the kernel can't mount it
				fillLarge(t, image)
				f, _ := openImage(t, image)
				writeGolden(t, name, image, list(t, f))
				return
			}
			options := "noatime"
			if form.dirty != nil {
				options += ",commit=300"
			}
			m := mount(t, image, options)
			w := &worker{tb: t, dir: m.dir, image: image, r: rand.New(rand.NewPCG(3, 3))}
			w.fillGolden(name != "ext2-revision-0")
			syncFS(t, m.dir)
			if form.dirty == nil {
				m.unmount()
				w.crash()
			} else {
				form.dirty(w)
				w.crash()
				m.unmount()
			}
			f, _ := openImage(t, w.copies[0])
			got := treetest.Snap(t, f, f.Root())
			compare(t, kernelView(t, copyImage(t, w.copies[0]), "noatime"), got, treetest.DirTimes|treetest.Used)
			if !t.Failed() {
				writeGolden(t, name, w.copies[0], list(t, f))
			}
		})
	}
}

func (w *worker) fillGolden(xattrs bool) {
	w.must(os.Mkdir(w.path("dir"), 0o751))
	w.must(os.MkdirAll(w.path("a/b/c/d"), 0o700))
	for i := range 60 {
		w.write(fmt.Sprintf("dir/file-%d", i), 60*i)
		if i%3 == 0 {
			w.must(os.Remove(w.path(fmt.Sprintf("dir/file-%d", i))))
		}
	}
	for i := range 3 {
		w.write(fmt.Sprintf("dir/%d-%s", i, strings.Repeat("long", 50)), 3)
	}
	w.write("medium", 40000)
	w.write("a/b/c/d/\xff\xfe not UTF-8", 5000)
	w.must(os.Link(w.path("medium"), w.path("a/again")))
	w.must(os.Symlink("short", w.path("a/fast")))
	w.must(os.Symlink(strings.Repeat("long/", 30), w.path("a/slow")))
	w.must(unix.Mknod(w.path("device"), unix.S_IFBLK|0o640, int(unix.Mkdev(259, 70000))))
	w.must(unix.Mkfifo(w.path("fifo"), 0o604))
	file, err := os.Create(w.path("sparse"))
	w.must(err)
	for _, at := range []int64{0, 100 << 10, 70 << 20} {
		_, err = file.WriteAt([]byte("not a hole"), at)
		w.must(err)
	}
	w.must(file.Close())
	if !xattrs {
		return
	}
	w.must(unix.Setxattr(w.path("medium"), "user.small", []byte("value"), 0))
	w.must(unix.Setxattr(w.path("dir"), "trusted.block", bytes.Repeat([]byte{7}, 300), 0))
	_ = unix.Setxattr(w.path("medium"), "user.large", bytes.Repeat([]byte("ea_inode"), 1000), 0) // where it can
}

func (w *worker) changeGolden() {
	w.must(os.RemoveAll(w.path("a/b/c")))
	for i := range 8 {
		w.write(fmt.Sprintf("dir/later-%d", i), 3000)
		w.fsync(fmt.Sprintf("dir/later-%d", i))
	}
	w.must(os.Remove(w.path("dir/file-1")))
	w.must(os.Rename(w.path("dir/file-2"), w.path("dir/file-2-renamed")))
	w.append("medium", 3000)
	w.fsync("medium")
}

// fillLarge fills an image with debugfs.
func fillLarge(t *testing.T, image string) {
	src := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(src, bytes.Repeat([]byte("0123456789"), 20000), 0o600); err != nil {
		t.Fatal(err)
	}
	commands := []string{"mkdir dir", "symlink link " + strings.Repeat("x", 100)}
	for i := range 40 {
		commands = append(commands, fmt.Sprintf("write %s dir/file-%d", src, i))
	}
	for i := range 10 {
		commands = append(commands, fmt.Sprintf("rm dir/file-%d", i*3))
	}
	debugfs(t, image, commands...)
}

func writeGolden(t *testing.T, name, image, text string) {
	t.Helper()
	raw, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	var packed bytes.Buffer
	z, _ := gzip.NewWriterLevel(&packed, gzip.BestCompression)
	if _, err := z.Write(raw); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll("testdata", 0o755); err != nil {
		t.Fatal(err)
	}
	for suffix, b := range map[string][]byte{".img.gz": packed.Bytes(), ".txt": []byte(text)} {
		if err := os.WriteFile(filepath.Join("testdata", name+suffix), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
