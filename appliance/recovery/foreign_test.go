package recovery

import (
	"bytes"
	"errors"
	"testing"

	"holdfast/repo/vfs"
)

// TestRedirectIsMissing: where the volume of the redirect directory isn't mounted,
// no other datastore is made in its place.
func TestRedirectIsMissing(t *testing.T) {
	w := newWorld(t, inMemory)
	m := w.opened(t)
	publish(t, m, w, PublishOptions{})
	write(t, m, "web1", "root-flat.vmdk", []byte("written"), 0)
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	volume, empty := w.redirect, vfs.NewMem()
	w.redirect = empty
	if m, err := Open(t.Context(), w.options()); !errors.Is(err, ErrNoDatastore) {
		t.Errorf("%v, %v", m, err)
	}
	if _, err := empty.Stat(datastoreDir + "/root"); err == nil {
		t.Error("a datastore was made")
	}
	w.redirect = volume
	m = w.opened(t)
	if p := bytesOf(t, m, "web1", "root-flat.vmdk"); !bytes.HasPrefix(p, []byte("written")) {
		t.Errorf("%q", p[:10])
	}
}

// TestForeignRedirect: a session that is stopped takes no other with it that has
// its number in another datastore.
func TestForeignRedirect(t *testing.T) {
	w := newWorld(t, inMemory)
	m := w.opened(t)
	publish(t, m, w, PublishOptions{Name: "ours"})
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	ours := w.state
	w.state, w.redirect = vfs.NewMem(), vfs.NewMem()
	m = w.opened(t)
	publish(t, m, w, PublishOptions{Name: "theirs"})
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	theirs := w.state
	w.state = ours
	m = w.opened(t)
	if err := m.Stop(t.Context(), "ours"); err != nil {
		t.Error(err)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	w.state = theirs
	m = w.opened(t)
	if list := m.List(); len(list) != 1 || list[0].State != "running" {
		t.Errorf("%+v", list)
	}
	sameBytes(t, "data", bytesOf(t, m, "theirs", "data-flat.vmdk"), flat(w.disks[1]))
}

// TestDamagedRoot: a datastore whose root is damaged is not served, until it may
// be made anew; then sessions are as they were.
func TestDamagedRoot(t *testing.T) {
	w := newWorld(t, inMemory)
	m := w.opened(t)
	publish(t, m, w, PublishOptions{})
	write(t, m, "web1", "root-flat.vmdk", []byte("written"), 0)
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"journal.0", "journal.1"} {
		f, err := w.redirect.OpenWrite(datastoreDir + "/root/" + name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt(make([]byte, 4096), 0); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(f.Sync(), f.Close()); err != nil {
			t.Fatal(err)
		}
	}
	if m, err := Open(t.Context(), w.options()); !errors.Is(err, ErrDamagedRoot) {
		t.Fatalf("%v, %v", m, err)
	}
	opt := w.options()
	opt.Rebuild = true
	m, err := Open(t.Context(), opt)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	m = w.opened(t)
	if p := bytesOf(t, m, "web1", "root-flat.vmdk"); !bytes.HasPrefix(p, []byte("written")) {
		t.Errorf("%q", p[:10])
	}
}
