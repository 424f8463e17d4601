package ext4

import (
	"fmt"
	"math/rand/v2"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"holdfast/fs/treetest"
	"holdfast/internal/testreq"
)

// fastWork is what programs do that save their files with care: each step is
// made to last by fsync alone, for which the kernel uses fast commits.
func fastWork(w *worker) {
	for i := range 40 {
		name := fmt.Sprintf("dir/new-%d", i)
		w.write(name, 1000+w.r.IntN(30000))
		w.fsync(name)
		switch i % 8 {
		case 1:
			w.must(os.Rename(w.path(name), w.path(name+"-renamed")))
			w.fsync(name + "-renamed")
		case 2:
			w.must(os.Link(w.path(name), w.path(fmt.Sprintf("before/link-%d", i))))
			w.fsync(name)
		case 3:
			w.must(os.Remove(w.path(name)))
			w.fsync("dir")
		case 4:
			w.must(os.Truncate(w.path(name), int64(w.r.IntN(500))))
			w.fsync(name)
		case 5:
			w.must(os.Chmod(w.path(name), 0o4711))
			w.fsync(name)
		case 6: // in place of another
			w.must(os.Rename(w.path(name), w.path("dir/replaced")))
			w.fsync("dir/replaced")
		case 7:
			w.append("before/file", 5000)
			w.fsync("before/file")
		}
		if i%7 == 6 {
			w.crash()
		}
	}
}

func (w *worker) append(name string, size int) {
	w.tb.Helper()
	file, err := os.OpenFile(w.path(name), os.O_WRONLY|os.O_APPEND, 0)
	w.must(err)
	_, err = file.Write(make([]byte, size))
	w.must(err)
	w.must(file.Close())
}

// fastScattered writes here and there, allocates ahead, and punches holes.
func fastScattered(w *worker) {
	file, err := os.OpenFile(w.path("before/file"), os.O_RDWR, 0)
	w.must(err)
	for i := range 60 {
		b := make([]byte, 1+w.r.IntN(9000))
		for k := range b {
			b[k] = byte(i + 1)
		}
		_, err = file.WriteAt(b, int64(w.r.IntN(3<<20)))
		w.must(err)
		w.must(file.Sync())
		if i%10 == 3 {
			w.must(unix.Fallocate(int(file.Fd()), unix.FALLOC_FL_KEEP_SIZE, int64(i)<<16, 1<<20))
			w.must(file.Sync())
		}
		if i%15 == 7 {
			w.crash()
		}
	}
	w.must(file.Close())
}

func fastDirs(w *worker) {
	w.must(os.Mkdir(w.path("dir/made"), 0o711))
	for i := range 10 {
		w.write(fmt.Sprintf("dir/made/inside-%d", i), 3000)
	}
	w.must(os.Mkdir(w.path("dir/made/below"), 0o711))
	w.must(os.Mkdir(w.path("dir/gone"), 0o711))
	w.must(os.Remove(w.path("dir/gone")))
	w.write("before/new", 3000)
	w.fsync("before/new")
}

// TestFastCommits is TestDirty for file systems with fast commits. Linux does
// not restore the times and link counts of directories.
func TestFastCommits(t *testing.T) {
	testreq.Need(t, "root", "loop", "mke2fs")
	tests := []struct {
		name   string
		args   []string
		work   func(*worker)
		ignore treetest.Fields
	}{
		{"names and contents", []string{"-O", journaled + "fast_commit,metadata_csum"}, fastWork, 0},
		{"1 KiB blocks", []string{"-b", "1024", "-O", journaled + "fast_commit"}, fastWork, 0},
		{"inline_data", []string{"-O", journaled + "fast_commit,inline_data,metadata_csum"}, fastWork,
			treetest.Mtime | treetest.Ctime}, // of files that Linux goes on truncating, the time of the mount
		{"scattered", []string{"-O", journaled + "fast_commit,metadata_csum"}, fastScattered, 0},
		{"directories", []string{"-O", journaled + "fast_commit,metadata_csum"}, fastDirs, treetest.Used},
	}
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			image := makeImage(t, 64, append([]string{"-J", "size=8"}, tt.args...)...)
			m := mount(t, image, "noatime,commit=300")
			w := &worker{tb: t, dir: m.dir, image: image, r: rand.New(rand.NewPCG(2, uint64(i)))}
			w.must(os.Mkdir(w.path("before"), 0o700))
			w.must(os.Mkdir(w.path("dir"), 0o700))
			w.write("before/file", 50000)
			syncFS(t, m.dir)
			tt.work(w)
			w.crash()
			m.unmount()
			fast := 0
			for _, dirty := range w.copies {
				f := checkDirty(t, dirty, treetest.DirTimes|tt.ignore)
				fast += len(f.fast.inodes)
			}
			if fast == 0 {
				t.Error("no fast commits in any copy")
			}
		})
	}
}
