package repo

import (
	"strings"
	"sync"
	"testing"

	"holdfast/repo/vfs"
)

// lateName names the first pack after an index file has got its name, and goes
// on when reindex is done.
type lateName struct {
	*vfs.Mem
	pack, list                 sync.Once
	began, made, named, ending chan struct{}
}

func (f *lateName) Rename(from, to string) (err error) {
	renamed := false
	rename := func() { renamed, err = true, f.Mem.Rename(from, to) }
	switch {
	case strings.HasPrefix(to, packsDir+"/"):
		f.pack.Do(func() {
			close(f.began)
			<-f.made
			rename()
			close(f.named)
			<-f.ending
		})
	case strings.HasPrefix(to, indexDir+"/list-"):
		f.list.Do(func() {
			rename()
			close(f.made)
			<-f.named
		})
	}
	if !renamed {
		rename()
	}
	return err
}

// TestReindexBesideRun has a run name a pack when the index was just made anew,
// and add it when reindex is done: it is not missing.
func TestReindexBesideRun(t *testing.T) {
	s := sampleOf(t, sampleShapes()[0])
	mem := s.clone()
	fsys := &lateName{Mem: mem, began: make(chan struct{}), made: make(chan struct{}), named: make(chan struct{}), ending: make(chan struct{})}
	o := s.own(t, fsys)
	var reindexing sync.WaitGroup
	reindexing.Go(func() {
		<-fsys.began
		defer close(fsys.ending)
		rep, err := o.Reindex(t.Context())
		if err != nil || len(rep.Missing) > 0 {
			t.Errorf("reindex: %+v, %v", rep, err)
		}
	})
	noise := make([]byte, 8*sampleChunk)
	for i := range noise {
		noise[i] = byte(i * i >> 7)
	}
	run, err := o.Backup(t.Context(), BackupOptions{Machine: "new", Disks: []SourceDisk{{Name: "a", Source: memSource(noise)}}})
	if err != nil {
		t.Fatal(err)
	}
	reindexing.Wait()
	if d := o.store.damage.Load(); d != nil {
		t.Errorf("taken to be damaged: %+v", d.packs)
	}
	if err := o.Close(); err != nil {
		t.Error(err)
	}
	s.mustBeWhole(t, "after a reindex beside a run", mem)
	r, err := Open(t.Context(), mem, s.options(t.Output()))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.OpenPoint(run.Point.ID); err != nil {
		t.Error(err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}
