package ext4

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"holdfast/fs/treetest"
	"holdfast/internal/testreq"
)

// worker changes a mounted file system. What fails fails the test.
type worker struct {
	tb  testing.TB
	dir string
	r   *rand.Rand

	open []*os.File // to be closed once the image is copied

	image  string
	copies []string
}

// crash copies the image as the device has it now, as a backup would.
func (w *worker) crash() {
	w.tb.Helper()
	w.copies = append(w.copies, copyImage(w.tb, w.image))
}

func (w *worker) must(err error) {
	w.tb.Helper()
	if err != nil {
		w.tb.Fatal(err)
	}
}

func (w *worker) path(name string) string { return filepath.Join(w.dir, name) }

// write makes a file of bytes that no other has, some blocks of which begin with
// the magic of the journal.
func (w *worker) write(name string, size int) {
	w.tb.Helper()
	b := make([]byte, size)
	var pattern [40]byte
	for i := range pattern {
		pattern[i] = byte(w.r.Uint32())
	}
	for i := range b {
		b[i] = pattern[i%len(pattern)] + byte(i>>10)
	}
	for at := 0; at+4 <= len(b); at += 1024 {
		if w.r.IntN(3) == 0 {
			be.PutUint32(b[at:], journalMagic)
		}
	}
	w.must(os.WriteFile(w.path(name), b, 0o644))
}

func (w *worker) fsync(name string) {
	w.tb.Helper()
	file, err := os.Open(w.path(name))
	w.must(err)
	w.must(file.Sync())
	w.must(file.Close())
}

// churn changes names, attributes and contents all over the tree, and leaves
// it to the journal to remember them.
func (w *worker) churn(rounds int) {
	w.tb.Helper()
	for i := range rounds {
		dir := fmt.Sprintf("work-%d", i)
		w.must(os.Mkdir(w.path(dir), 0o750))
		for k := range 30 {
			w.write(fmt.Sprintf("%s/file-%d-%s", dir, k, strings.Repeat("n", w.r.IntN(100))), w.r.IntN(20000))
		}
		w.must(os.Symlink(strings.Repeat("s", 1+w.r.IntN(200)), w.path(dir+"/link")))
		names, err := os.ReadDir(w.path(dir))
		w.must(err)
		for k, e := range names {
			name := w.path(dir + "/" + e.Name())
			switch k % 6 {
			case 0:
				w.must(os.Remove(name))
			case 1:
				w.must(os.Rename(name, w.path(dir+"/renamed-"+e.Name())))
			case 2:
				w.must(os.Link(name, w.path("link-to-"+e.Name()+dir)))
			case 3:
				if e.Type().IsRegular() {
					w.must(os.Truncate(name, int64(w.r.IntN(40000))))
				}
			}
		}
		if i%2 == 1 {
			w.must(os.RemoveAll(w.path(fmt.Sprintf("work-%d", i-1))))
		}
		w.write("last", 100)
		w.fsync("last")
	}
}

// revokes has the blocks of directories, fresh in the journal, freed and used
// for data at once.
func (w *worker) revokes() {
	w.tb.Helper()
	for round := range 4 {
		for i := range 60 {
			dir := fmt.Sprintf("doomed-%d-%d", round, i)
			w.must(os.Mkdir(w.path(dir), 0o755))
			w.write(dir+"/in", 10)
		}
		w.fsync(fmt.Sprintf("doomed-%d-0/in", round))
		for i := range 60 {
			w.must(os.RemoveAll(w.path(fmt.Sprintf("doomed-%d-%d", round, i))))
		}
		w.fsync(".")
		// As much as there is room for, so that every free block is used.
		for i := range 1000 {
			name := fmt.Sprintf("fill-%d-%d", round, i)
			if os.WriteFile(w.path(name), bytes.Repeat([]byte{byte(i), byte(round)}, 128<<10), 0o600) != nil {
				break
			}
			w.fsync(name)
		}
		for i := range 1000 {
			if w.r.IntN(2) == 0 {
				_ = os.Remove(w.path(fmt.Sprintf("fill-%d-%d", round, i)))
			}
		}
		w.fsync(".")
	}
}

const journaled = "none,has_journal,ext_attr,dir_index,filetype,extent,sparse_super,large_file,"

// TestDirty compares images copied while they are mounted and changed with what
// the kernel shows once it has replayed the journal of the same copy.
func TestDirty(t *testing.T) {
	testreq.Need(t, "root", "loop", "mke2fs")
	tests := []struct {
		name  string
		mib   int
		args  []string
		mount string
		work  func(*worker)
	}{
		{"ext3", 64, []string{"-t", "ext3", "-O", "none,has_journal,ext_attr,filetype,sparse_super"}, "", func(w *worker) { w.churn(5) }},
		{"metadata_csum, 64bit", 64, []string{"-O", journaled + "64bit,metadata_csum,flex_bg"}, "", func(w *worker) { w.churn(5) }},
		{"64bit without checksums", 64, []string{"-O", journaled + "64bit"}, "", func(w *worker) { w.churn(3) }},
		{"journal_checksum", 64, []string{"-O", journaled + "uninit_bg"}, "journal_checksum", func(w *worker) { w.churn(3) }},
		{"asynchronous commits", 64, []string{"-O", journaled + "metadata_csum"}, "data=writeback,journal_async_commit", func(w *worker) { w.churn(5) }},
		{"data in the journal", 64, []string{"-O", journaled + "metadata_csum"}, "data=journal", func(w *worker) { w.churn(4) }},
		{"data in the journal, 1 KiB blocks", 48, []string{"-b", "1024", "-O", journaled}, "data=journal", func(w *worker) { w.churn(3) }},
		{"around the ring", 48, []string{"-b", "1024", "-J", "size=1", "-O", journaled + "metadata_csum"}, "", func(w *worker) { w.churn(30) }},
		{"around the ring with data", 48, []string{"-b", "1024", "-J", "size=2", "-O", journaled + "64bit"}, "data=journal", func(w *worker) { w.churn(12) }},
		{"revoked blocks", 16, []string{"-O", journaled + "metadata_csum", "-N", "4096"}, "", (*worker).revokes},
		{"revoked blocks, ext3", 16, []string{"-b", "1024", "-O", "none,has_journal,filetype,sparse_super", "-N", "4096"}, "", (*worker).revokes},
		{"bigalloc, inline_data", 64, []string{"-O", journaled + "bigalloc,inline_data,metadata_csum,64bit", "-C", "16384"}, "", func(w *worker) { w.churn(4) }},
		{"orphan_file", 64, []string{"-O", journaled + "metadata_csum,orphan_file"}, "", orphans},
		{"orphans", 64, []string{"-O", journaled + "metadata_csum"}, "", orphans},
	}
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			image := makeImage(t, tt.mib, tt.args...)
			options := "noatime,commit=300"
			if tt.mount != "" {
				options += "," + tt.mount
			}
			m := mount(t, image, options)
			w := &worker{tb: t, dir: m.dir, image: image, r: rand.New(rand.NewPCG(1, uint64(i)))}
			w.must(os.Mkdir(w.path("before"), 0o700))
			w.write("before/file", 50000)
			syncFS(t, m.dir)
			tt.work(w)
			w.crash()
			for _, file := range w.open {
				w.must(file.Close())
			}
			m.unmount()
			for _, dirty := range w.copies {
				checkDirty(t, dirty, 0)
			}
		})
	}
}

// checkDirty compares what we show of an image that has to be replayed with what
// the kernel shows.
func checkDirty(t *testing.T, dirty string, ignore treetest.Fields) *FS {
	t.Helper()
	f, file := openImage(t, dirty)
	if len(f.overlay.blocks) == 0 || len(f.Notes()) == 0 {
		t.Fatalf("%d blocks replayed, notes %q: the copy is not dirty", len(f.overlay.blocks), f.Notes())
	}
	got := treetest.Snap(t, f, f.Root())
	treetest.Conform(t, f, treetest.Options{Device: file, MaxInodes: 100, Reopen: reopener(file, f.size)})
	compare(t, kernelView(t, copyImage(t, dirty), "noatime"), got, ignore)
	return f
}

// orphans leaves files that are open and have no name any more, or are being
// cut short.
func orphans(w *worker) {
	w.churn(1)
	for i := range 20 {
		name := fmt.Sprintf("orphan-%d", i)
		w.write(name, 100000)
		file, err := os.Open(w.path(name))
		w.must(err)
		w.open = append(w.open, file)
		if i%2 == 0 {
			w.must(os.Remove(w.path(name)))
		} else {
			w.must(os.Truncate(w.path(name), int64(i*1000)))
		}
	}
	w.fsync("last")
}
