package content_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"holdfast/fs"
	"holdfast/fs/content"
	"holdfast/fs/guest"
	"holdfast/fs/treetest"
	"holdfast/image"
	"holdfast/internal/testreq"
	"holdfast/repo"
)

// run runs a program.
func run(t *testing.T, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin", "MTOOLS_SKIP_CHECK=1")
	if path, err := exec.LookPath(name); err != nil {
		for _, dir := range []string{"/usr/sbin/", "/sbin/"} {
			if _, err := os.Stat(dir + name); err == nil {
				cmd.Path, cmd.Err = dir+name, nil
			}
		}
	} else {
		cmd.Path = path
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
}

// file makes a sparse file.
func file(t *testing.T, name string, size int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	must(t, os.WriteFile(path, nil, 0o600))
	must(t, os.Truncate(path, size))
	return path
}

// noisy makes a directory with a few files that are not like each other.
func noisy(t *testing.T, seed uint64) string {
	t.Helper()
	dir := t.TempDir()
	rng := rand.New(rand.NewPCG(seed, 5))
	for i := range 40 {
		sub := filepath.Join(dir, fmt.Sprintf("d%d", i%5), fmt.Sprintf("e%d", i%3))
		must(t, os.MkdirAll(sub, 0o755))
		b := make([]byte, rng.IntN(200<<10))
		rand.NewChaCha8([32]byte{byte(i), byte(seed)}).Read(b)
		must(t, os.WriteFile(filepath.Join(sub, fmt.Sprintf("f%d", i)), b, 0o640))
	}
	must(t, os.Symlink("d1/e1", filepath.Join(dir, "link")))
	must(t, os.Link(filepath.Join(dir, "d0/e0/f0"), filepath.Join(dir, "hard")))
	return dir
}

// guestDisk makes a GPT disk with an ext4, an NTFS, a FAT and an encrypted
// partition.
func guestDisk(t *testing.T) string {
	t.Helper()
	testreq.Need(t, "mkfs.ext4", "mkntfs", "ntfscp", "mformat", "mcopy", "sfdisk")
	dir := noisy(t, 1)
	disk := file(t, "disk", 64<<20)
	table := exec.Command("sh", "-c", "PATH=$PATH:/sbin:/usr/sbin sfdisk -q "+disk)
	table.Stdin = strings.NewReader("label: gpt\nstart=1MiB, size=24MiB\nstart=25MiB, size=16MiB\nstart=41MiB, size=8MiB\nstart=49MiB, size=8MiB\n")
	if out, err := table.CombinedOutput(); err != nil {
		t.Fatalf("sfdisk: %v\n%s", err, out)
	}
	ext, ntfs, fat := file(t, "ext", 24<<20), file(t, "ntfs", 16<<20), file(t, "fat", 8<<20)
	run(t, "mkfs.ext4", "-q", "-L", "root", "-d", dir, ext)
	run(t, "mkntfs", "-q", "-F", "-s", "512", ntfs)
	run(t, "ntfscp", "-q", "-f", ntfs, filepath.Join(dir, "d1/e1/f1"), "one")
	run(t, "ntfscp", "-q", "-f", "-N", "stream", ntfs, filepath.Join(dir, "d2/e2/f2"), "one")
	run(t, "mformat", "-i", fat, "::")
	run(t, "mcopy", "-s", "-i", fat, filepath.Join(dir, "d3"), "::/")
	for _, part := range []struct {
		path string
		at   string
	}{{ext, "1"}, {ntfs, "25"}, {fat, "41"}} {
		run(t, "dd", "if="+part.path, "of="+disk, "bs=1M", "seek="+part.at, "conv=notrunc,sparse", "status=none")
	}
	f := must1(os.OpenFile(disk, os.O_WRONLY, 0))(t)
	_, err := f.WriteAt([]byte("LUKS\xba\xbe\x00\x02"), 49<<20)
	must(t, errors.Join(err, f.Close()))
	return disk
}

// backupFile makes a point of files.
func (w *world) backupFile(at int64, machine string, paths ...string) repo.Point {
	w.t.Helper()
	w.clock.Store(at)
	var disks []repo.SourceDisk
	for i, path := range paths {
		d := must1(image.Open(path, image.Options{Format: "raw"}))(w.t)
		defer d.Close()
		disks = append(disks, repo.SourceDisk{Name: fmt.Sprintf("disk%d", i), Source: d})
	}
	run := must1(w.owner.Backup(w.t.Context(), repo.BackupOptions{Machine: machine, Disks: disks}))(w.t)
	return run.Point
}

// TestGuests shows the files of a disk as their readers do, and holds all of the
// tree to the contract.
func TestGuests(t *testing.T) {
	disk := guestDisk(t)
	w := newWorld(t)
	w.backupFile(0, "m", disk)
	tree := w.tree(content.Options{Guests: direct})
	dir := "m/latest/files/disk0/"
	if got, want := names(t, tree, dir), []string{"1", "2", "3", "4.unreadable.txt"}; !slices.Equal(slices.DeleteFunc(got, func(s string) bool { return s == "NOTES.txt" }), want) {
		t.Errorf("volumes %q, want %q", got, want)
	}
	dev := must1(image.Open(disk, image.Options{Format: "raw"}))(t)
	defer dev.Close()
	layout := must1(guest.Direct{}.Layout(background, dev))(t)
	for _, v := range layout.Volumes[:3] {
		alone := must1(guest.Direct{}.Open(background, dev, v))(t)
		want := treetest.Snap(t, alone, alone.Root())
		got := treetest.Snap(t, tree, resolve(t, tree, dir+v.Name).ID)
		if len(want.Nodes) < 2 {
			t.Errorf("volume %s has %d inodes", v.Name, len(want.Nodes))
		}
		for _, d := range treetest.Diff(want, got, 0) {
			t.Errorf("volume %s: %s", v.Name, d)
		}
		a := resolve(t, tree, dir+v.Name)
		if up := must1(tree.Lookup(background, a.ID, ".."))(t); up.ID != resolve(t, tree, dir).ID {
			t.Errorf("above the top of volume %s is %v", v.Name, up.ID)
		}
		must(t, alone.Close())
	}
	if got := string(read(t, tree, dir+"4.unreadable.txt")); !strings.HasPrefix(got, layout.Volumes[3].Why+"\n") || !strings.Contains(got, "luks") {
		t.Errorf("of the last volume it says\n%s", got)
	}
	open := func() (fs.Tree, error) { return content.New(w.reader(), content.Options{Guests: direct}), nil }
	treetest.Conform(t, tree, treetest.Options{Reopen: open, MaxInodes: 500})
}

// TestJournal shows an ext4 that was not unmounted, and says so beside it.
func TestJournal(t *testing.T) {
	testreq.Need(t, "root", "loop", "mkfs.ext4")
	img := file(t, "img", 16<<20)
	run(t, "mkfs.ext4", "-q", img)
	dir := t.TempDir()
	run(t, "mount", "-o", "loop", img, dir)
	t.Cleanup(func() { exec.Command("umount", "-l", dir).Run() })
	must(t, os.WriteFile(filepath.Join(dir, "new"), []byte("in the journal"), 0o644))
	run(t, "sync", "-f", dir)
	dirty := file(t, "dirty", 0)
	run(t, "cp", img, dirty)
	w := newWorld(t)
	w.backupFile(0, "m", dirty)
	tree := w.tree(content.Options{Guests: direct})
	if got := string(read(t, tree, "m/latest/files/disk0/whole/new")); got != "in the journal" {
		t.Errorf("the file has %q", got)
	}
	if got := string(read(t, tree, "m/latest/files/disk0/NOTES.txt")); !strings.Contains(got, "volume whole: ") || !strings.Contains(got, "journal") {
		t.Errorf("the notes say %q", got)
	}
}

// TestEviction looks at more volumes than may stay open.
func TestEviction(t *testing.T) {
	testreq.Need(t, "mkfs.ext4")
	w := newWorld(t)
	var dirs []string
	for i := range 5 {
		dir := noisy(t, uint64(i))
		img := file(t, "img", 16<<20)
		run(t, "mkfs.ext4", "-q", "-d", dir, img)
		w.backupFile(int64(i), "m", img)
		dirs = append(dirs, dir)
	}
	tree := w.tree(content.Options{Guests: direct, Volumes: 2, Points: 2, Idle: 50 * time.Millisecond})
	for round := range 3 {
		for i, dir := range dirs {
			path := fmt.Sprintf("d%d/e%d/f%d", i, i%3, i)
			want := must1(os.ReadFile(filepath.Join(dir, path)))(t)
			if got := read(t, tree, fmt.Sprintf("m/2026-11-22T03-00-%02d.000Z/files/disk0/whole/%s", i, path)); !bytes.Equal(got, want) {
				t.Errorf("round %d, point %d: other bytes", round, i)
			}
		}
	}
	deadline := time.Now().Add(10 * time.Second)
	for _, p := range must1(w.owner.Points(background))(t) {
		w.expire(p.ID)
	}
	for len(must1(w.owner.Sweep(background, repoSweep))(t).Held) > 0 {
		if time.Now().After(deadline) {
			t.Fatal("points are still held though nobody reads")
		}
		time.Sleep(20 * time.Millisecond)
	}
}
