package content_test

import (
	"os"
	"slices"
	"testing"
	"time"

	"holdfast/fs"
	"holdfast/fs/content"
	"holdfast/internal/testreq"
	"holdfast/repo"
	"holdfast/repo/vfs"
)

// TestLarge lists the top of a file system on a disk of 4 TiB, ten times, each
// from the opening of the repository on.
func TestLarge(t *testing.T) {
	if os.Getenv("HOLDFAST_LONG") == "" {
		t.Skip("HOLDFAST_LONG=1 makes a disk of 4 TiB")
	}
	testreq.Need(t, "mkfs.ext4")
	img := file(t, "img", 4<<40)
	run(t, "mkfs.ext4", "-q", "-E", "lazy_itable_init=1,lazy_journal_init=1", "-d", noisy(t, 1), img)
	w := newWorldIn(t, must1(vfs.OS(t.TempDir()))(t), must1(vfs.OS(t.TempDir()))(t))
	w.backupFile(0, "m", img)
	must(t, w.owner.Close())
	var took []time.Duration
	for range 10 {
		began := time.Now()
		r := must1(repo.Open(t.Context(), w.mem, repo.Options{}))(t)
		tree := content.New(r, content.Options{Guests: direct})
		entries := 0
		must(t, tree.ReadDir(background, resolve(t, tree, "m/latest/files/disk0/whole").ID, 0, func(fs.Entry) bool { entries++; return true }))
		took = append(took, time.Since(began))
		if entries != 8 {
			t.Errorf("%d entries, want 8", entries)
		}
		must(t, tree.Close())
		must(t, r.Close())
	}
	slices.Sort(took)
	t.Logf("median %v, longest %v", took[5], took[9])
	if took[5] > 200*time.Millisecond {
		t.Errorf("half of the listings took longer than %v, want 200ms", took[5])
	}
}
