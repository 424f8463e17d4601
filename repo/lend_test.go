package repo_test

import (
	"bytes"
	"context"
	"reflect"
	"strings"
	"testing"

	"holdfast/repo"
	"holdfast/repo/repotest"
	"holdfast/repo/vfs"
)

// TestParent makes a point of a new machine out of another machine's point and
// what changed, without reading more.
func TestParent(t *testing.T) {
	w, o := owned(t)
	base := dense(1, 40<<20)
	first := w.must(t, o, oneDisk("web1", base), nil)
	latest := w.must(t, o, oneDisk("web1", dense(2, 1<<20)), nil)

	changed := base.Clone()
	changed.Write(bytes.Repeat([]byte{7}, 5000), 9<<20)
	from := func(parent repo.PointID) func(*repo.BackupOptions) {
		return func(opt *repo.BackupOptions) {
			opt.Parent = parent
			opt.Disks[0].Changes = &repo.Changes{Base: string(first.Point.ID), SizeBytes: base.Size(), Ranges: []repo.Range{{Off: 9 << 20, Len: 5000}}}
		}
	}
	run := w.must(t, o, oneDisk("web1-recovered", changed), from(first.Point.ID))
	if d := run.Disks[0]; d.Mode != repo.ReadChanged || d.Counters.ReadBytes > 2<<20 || run.Point.Parent != first.Point.ID || run.Point.MachineID == first.Point.MachineID {
		t.Errorf("%+v of %+v", d, run.Point)
	}
	again := w.must(t, o, oneDisk("web1", changed), from(first.Point.ID))
	if d := again.Disks[0]; d.Mode != repo.ReadChanged || again.Point.Parent != first.Point.ID || again.Point.MachineID != latest.Point.MachineID {
		t.Errorf("%+v of %+v", d, again.Point)
	}
	_, err := w.backup(t.Context(), o, oneDisk("web1", changed), from("aaaaaaaaaaaaaaaaaaaa"))
	is(t, "a parent that is not there", err, repo.ErrNotFound)

	// What the new machine shares stays when the parent goes.
	for _, id := range []repo.PointID{first.Point.ID, latest.Point.ID} {
		if err := w.letGo([]repo.PointID{id}, func() error { _, err := o.Expire(t.Context(), id, "test"); return err }); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := o.Sweep(t.Context(), repo.SweepOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := repotest.Compare(t.Context(), o.Repository, w.points); err != nil {
		t.Error(err)
	}
}

// TestPerformBackup backs up through an owner in "another process", and alone.
func TestPerformBackup(t *testing.T) {
	dir, err := vfs.OS(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	opt := repo.Options{State: vfs.NewMem()}
	if _, err := repo.Create(t.Context(), dir, repo.CreateOptions{State: opt.State, ReserveBytes: -1}); err != nil {
		t.Fatal(err)
	}
	o, err := repo.Own(t.Context(), dir, opt, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	base := dense(3, 20<<20)
	files := machineFiles(1)
	reported := 0
	backup := func(d *repotest.Disk, c *repo.Changes) (*repo.Run, error) {
		return repo.PerformBackup(t.Context(), dir, opt, 0, repo.BackupOptions{
			Machine: "web1", Files: files, Progress: func(repo.Progress) { reported++ },
			Disks: []repo.SourceDisk{{Name: "disk", Source: repotest.NewSource(d), Changes: c}},
		})
	}
	first, err := backup(base, nil)
	if err != nil {
		t.Fatal(err)
	}
	changed := base.Clone()
	list := &repo.Changes{Base: string(first.Point.ID), SizeBytes: base.Size()}
	for i := range 1000 {
		off := int64(i) * 20000
		changed.Write([]byte{byte(i)}, off)
		list.Ranges = append(list.Ranges, repo.Range{Off: off, Len: 1})
	}
	second, err := backup(changed, list)
	if err != nil || second.Disks[0].Mode != repo.ReadChanged || second.Point.Parent != first.Point.ID {
		t.Fatalf("%+v, %v", second, err)
	}
	if reported == 0 {
		t.Error("no progress")
	}

	failing := repotest.NewSource(dense(4, 9<<20))
	failing.FailAt = 4 << 20
	_, err = repo.PerformBackup(t.Context(), dir, opt, 0, repo.BackupOptions{Machine: "web2", Disks: []repo.SourceDisk{{Name: "disk", Source: failing}}})
	if err == nil || !strings.Contains(err.Error(), repotest.ErrSource.Error()) {
		t.Errorf("a source that fails: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	slow := repotest.NewSource(dense(4, 9<<20))
	slow.OnRead = func(off int64) {
		if off > 2<<20 {
			cancel()
		}
	}
	_, err = repo.PerformBackup(ctx, dir, opt, 0, repo.BackupOptions{Machine: "web2", Disks: []repo.SourceDisk{{Name: "disk", Source: slow}}})
	is(t, "cancelled", err, context.Canceled)

	if err := o.Close(); err != nil {
		t.Fatal(err)
	}
	last := changed.Clone()
	last.Write([]byte{3}, 7)
	third, err := backup(last, &repo.Changes{Base: string(second.Point.ID), SizeBytes: base.Size(), Ranges: []repo.Range{{Off: 7, Len: 1}}})
	if err != nil {
		t.Fatal(err)
	}
	r, err := repo.Open(t.Context(), dir, opt)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	points, err := r.Points(t.Context())
	if err != nil || len(points) != 3 {
		t.Fatalf("%d points, %v", len(points), err)
	}
	for i, want := range []*repotest.Disk{base, changed, last} {
		p, err := r.OpenPoint([]*repo.Run{first, second, third}[i].Point.ID)
		if err != nil {
			t.Fatal(err)
		}
		d, err := p.Disk("")
		got, wanted := make([]byte, want.Size()), make([]byte, want.Size())
		if err == nil {
			_, err = d.ReadAt(got, 0)
		}
		if _, rerr := want.ReadAt(wanted, 0); err != nil || rerr != nil || !bytes.Equal(got, wanted) {
			t.Errorf("point %d differs, %v", i, err)
		}
		stored, err := p.Files()
		if !reflect.DeepEqual(stored, files) || err != nil {
			t.Errorf("point %d: %v, or other files", i, err)
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}
}
