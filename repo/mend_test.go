package repo

import (
	"bytes"
	"math/rand/v2"
	"path"
	"syscall"
	"testing"

	"holdfast/repo/chunk"
	"holdfast/repo/vfs"
)

// TestPackUnreadableOnce lets an owner build the index while one pack gives
// I/O errors. The next owner, whose medium is well again, must not believe that
// the index is complete.
func TestPackUnreadableOnce(t *testing.T) {
	fsys, state := vfs.NewMem(), vfs.NewMem()
	ctx := t.Context()
	if _, err := Create(ctx, fsys, CreateOptions{
		State: state, ReserveBytes: -1, PackBytes: 1 << 20,
		Geometry: chunk.Geometry{ChunkBytes: 256 << 10, FrameBytes: 64 << 10},
	}); err != nil {
		t.Fatal(err)
	}
	disk := make([]byte, 600<<10)
	rng := rand.New(rand.NewPCG(3, 4))
	for i := range disk {
		disk[i] = byte(rng.Uint32())
	}
	own := func(fsys vfs.FS) *Owner {
		t.Helper()
		o, err := Own(ctx, fsys, Options{State: state}, 0)
		if err != nil {
			t.Fatal(err)
		}
		return o
	}
	o := own(fsys)
	run, err := o.Backup(ctx, BackupOptions{Machine: "m", Disks: []SourceDisk{{Name: "d", Source: memSource(disk)}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := o.Close(); err != nil {
		t.Fatal(err)
	}
	infos, err := fsys.ReadDir(indexDir)
	if err != nil {
		t.Fatal(err)
	}
	for _, info := range infos {
		if err := fsys.Remove(path.Join(indexDir, info.Name)); err != nil {
			t.Fatal(err)
		}
	}

	sick := vfs.NewFaulty(fsys)
	sick.FailReads("packs/data/*/*", syscall.EIO)
	if err := own(sick).Close(); err != nil {
		t.Fatal(err)
	}

	o = own(fsys)
	defer o.Close()
	r, err := o.OpenPoint(run.Point.ID)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	d, err := r.Disk("")
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(disk))
	if _, err := d.ReadAt(got, 0); err != nil || !bytes.Equal(got, disk) {
		t.Fatalf("after the medium is well again: %v", err)
	}
}
