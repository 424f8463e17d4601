package recovery

import (
	"errors"
	"testing"

	"holdfast/fs"
	"holdfast/repo/vfs"
)

// TestRepositoryIsAway: a machine waits for a repository that isn't there, and one
// that was migrated needs none, even if it was not noted any more that it is.
func TestRepositoryIsAway(t *testing.T) {
	w := newWorld(t, inMemory)
	w.targets = vfs.NewMem()
	m := w.opened(t)
	publish(t, m, w, PublishOptions{Name: "waits"})
	publish(t, m, w, PublishOptions{Name: "moved"})
	if _, err := m.Migrate(t.Context(), "moved", MigrateOptions{To: map[string]string{"root.vmdk": "a", "data": "b"}}); err != nil {
		t.Fatal(err)
	}
	s, err := m.find("moved")
	if err == nil {
		err = s.change(w.state, func(rec *record) { rec.Released = false })
	}
	if err = errors.Join(err, m.Close()); err != nil {
		t.Fatal(err)
	}
	opt := w.options()
	opt.Repositories = nil
	m, err = Open(t.Context(), opt)
	if err == nil {
		err = m.Wait(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	sameBytes(t, "root", bytesOf(t, m, "moved", "root-flat.vmdk"), flat(w.disks[0]))
	a := file(t, m, "waits", "root-flat.vmdk")
	if _, err := m.store.ReadAt(t.Context(), a.ID, make([]byte, 10), 0); !errors.Is(err, fs.ErrRetry) {
		t.Errorf("bytes without the repository: %v", err)
	}
	if list := m.List(); list[0].State != "offline" || list[0].Error == "" {
		t.Errorf("%+v", list[0])
	}
}
