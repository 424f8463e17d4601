package recovery

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"holdfast/fs"
	"holdfast/repo"
	"holdfast/repo/vfs"
)

// TestSession goes through the life of a session, over a restart.
func TestSession(t *testing.T) {
	w := newWorld(t, onDisk(t))
	m := w.opened(t)
	s := publish(t, m, w, PublishOptions{})
	if s.Name != "web1" || s.State != "running" || s.Point != w.point || len(s.Disks) != 2 || s.Config != "web1.vmx" {
		t.Fatalf("%+v", s)
	}
	if pins := pinned(t, w); len(pins) != 1 || !strings.HasPrefix(pins[0], "recovery:web1.") {
		t.Errorf("pins %q", pins)
	}
	config, err := parseVMX(bytesOf(t, m, "web1", "web1.vmx"))
	if err != nil || config.get("scsi0:0.fileName") != "root.vmdk" || config.get("ctkEnabled") != "" || config.get("nvram") != "web1.nvram" {
		t.Errorf("configuration %q, %v", bytesOf(t, m, "web1", "web1.vmx"), err)
	}
	sameBytes(t, "nvram", bytesOf(t, m, "web1", "web1.nvram"), worldFiles[1].Data)
	if text := string(bytesOf(t, m, "web1", "data.vmdk")); !strings.Contains(text, `"data-flat.vmdk"`) {
		t.Errorf("descriptor %q", text)
	}
	want := [][]byte{flat(w.disks[0]), flat(w.disks[1])}
	sameBytes(t, "root", bytesOf(t, m, "web1", "root-flat.vmdk"), want[0])
	sameBytes(t, "data", bytesOf(t, m, "web1", "data-flat.vmdk"), want[1])

	for i, name := range []string{"root-flat.vmdk", "data-flat.vmdk"} {
		p := bytes.Repeat([]byte{byte(i + 1)}, 5000)
		off := int64(len(want[i]) - 5000)
		write(t, m, "web1", name, p, off)
		copy(want[i][off:], p)
	}
	handle := file(t, m, "web1", "root-flat.vmdk").ID
	second := publish(t, m, w, PublishOptions{})
	if second.Name != "web1-2" {
		t.Errorf("the second is called %s", second.Name)
	}
	if _, err := m.Publish(t.Context(), string(w.point), PublishOptions{Name: "web1"}); !errors.Is(err, ErrExists) {
		t.Errorf("the same name: %v", err)
	}

	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	m = w.opened(t)
	if list := m.List(); len(list) != 2 || list[0].State != "running" || list[0].ID != s.ID || list[0].UsedBytes == 0 {
		t.Errorf("%+v", list)
	}
	if a := file(t, m, "web1", "root-flat.vmdk"); a.ID != handle || a.Size != int64(len(want[0])) {
		t.Errorf("%+v, it was %+v", a, handle)
	}
	sameBytes(t, "root after a restart", bytesOf(t, m, "web1", "root-flat.vmdk"), want[0])
	sameBytes(t, "data after a restart", bytesOf(t, m, "web1", "data-flat.vmdk"), want[1])
	sameBytes(t, "data of the other", bytesOf(t, m, "web1-2", "data-flat.vmdk"), flat(w.disks[1]))

	for _, name := range []string{"web1", second.ID} {
		if err := m.Stop(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := m.store.Attr(t.Context(), handle); !errors.Is(err, fs.ErrStale) {
		t.Errorf("a handle of a session that has ended: %v", err)
	}
	if err := m.Stop(t.Context(), "web1"); !errors.Is(err, ErrNoSession) {
		t.Errorf("stopped again: %v", err)
	}
	left(t, w)
	if third := publish(t, m, w, PublishOptions{}); third.Name != "web1" || file(t, m, "web1", "root-flat.vmdk").ID == handle {
		t.Error("the name is not free again, or the handle is")
	}
}

// TestKeep makes points of what was written, of which nothing else is read.
func TestKeep(t *testing.T) {
	w := newWorld(t, onDisk(t))
	m := w.opened(t)
	publish(t, m, w, PublishOptions{})
	want := [][]byte{flat(w.disks[0]), flat(w.disks[1])}
	change := func(disk int, name string, off int64, n int, b byte) {
		p := bytes.Repeat([]byte{b}, n)
		write(t, m, "web1", name, p, off)
		copy(want[disk][off:], p)
	}
	change(0, "root-flat.vmdk", 1<<20, 10000, 1)
	change(1, "data-flat.vmdk", 4096, 100, 2)
	write(t, m, "web1", "web1.nvram", []byte("changed"), 0)
	run, err := m.Keep(t.Context(), "web1", KeepOptions{})
	if err != nil {
		t.Fatal(err)
	}
	p := run.Point
	if p.Machine != "web1-recovered" || p.Parent != w.point || p.Consistency != "crash" || len(p.Files) != 2 || run.Disks[0].Mode != repo.ReadChanged {
		t.Errorf("%+v", run)
	}
	if read := p.Counters.ReadBytes; read > 3<<20 {
		t.Errorf("%d bytes were read", read)
	}
	for _, d := range p.Disks {
		if d.ChangeID != "" {
			t.Errorf("a change id: %+v", d)
		}
	}
	sameBytes(t, "root", diskOf(t, w, p.ID, "root.vmdk"), want[0])
	sameBytes(t, "data", diskOf(t, w, p.ID, "data"), want[1])
	latest, err := w.repository(t).Find(t.Context(), "web1@latest", nil)
	if err != nil || latest.ID != w.point {
		t.Errorf("the latest of the original is %s, %v", latest.ID, err)
	}

	// A second one has all since the base, and is the original's if that is asked for.
	change(0, "root-flat.vmdk", 0, 4096, 3)
	again, err := m.Keep(t.Context(), "web1", KeepOptions{Same: true})
	if err != nil || again.Point.MachineID != latest.MachineID || again.Point.Parent != w.point {
		t.Fatalf("%+v, %v", again, err)
	}
	sameBytes(t, "root again", diskOf(t, w, again.Point.ID, "root.vmdk"), want[0])
	sameBytes(t, "still served", bytesOf(t, m, "web1", "root-flat.vmdk"), want[0])

	reader, err := w.repository(t).OpenPoint(p.ID)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	files, err := reader.Files()
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(files, func(f repo.MachineFile) bool { return f.Name == "web1.nvram" })
	if i < 0 || !bytes.HasPrefix(files[i].Data, []byte("changed")) {
		t.Errorf("files %d", len(files))
	}
	if list := m.List(); len(list[0].Kept) != 2 {
		t.Errorf("%+v", list[0].Kept)
	}

	// What was kept can be published, with all that was in it.
	s, err := m.Publish(t.Context(), string(again.Point.ID), PublishOptions{Name: "once-more", NoSwapRoom: true})
	if err != nil || len(s.Warnings) > 0 {
		t.Fatalf("%+v, %v", s, err)
	}
	sameBytes(t, "published again", bytesOf(t, m, "once-more", "root-flat.vmdk"), want[0])
}

// TestKeepThroughOwner keeps while another process owns the repository.
func TestKeepThroughOwner(t *testing.T) {
	w := newWorld(t, onDisk(t))
	m := w.opened(t)
	publish(t, m, w, PublishOptions{})
	write(t, m, "web1", "root-flat.vmdk", []byte("through the owner"), 77)
	o, err := repo.Own(t.Context(), w.repo, repo.Options{State: w.keys}, 0)
	if err != nil {
		t.Fatal(err)
	}
	run, err := m.Keep(t.Context(), "web1", KeepOptions{As: "other"})
	if err = errors.Join(err, o.Close()); err != nil {
		t.Fatal(err)
	}
	want := flat(w.disks[0])
	copy(want[77:], "through the owner")
	sameBytes(t, "kept", diskOf(t, w, run.Point.ID, "root.vmdk"), want)
}

// TestMigrate moves both disks away while one of them is written to, one to a
// file that is there again after a restart.
func TestMigrate(t *testing.T) {
	w := newWorld(t, onDisk(t))
	m := w.opened(t)
	publish(t, m, w, PublishOptions{})
	want := [][]byte{flat(w.disks[0]), flat(w.disks[1])}
	write(t, m, "web1", "root-flat.vmdk", []byte("before"), 4000)
	copy(want[0][4000:], "before")
	handle := file(t, m, "web1", "root-flat.vmdk").ID

	dir := t.TempDir()
	to := map[string]string{"root.vmdk": filepath.Join(dir, "root.raw")}
	if err := os.WriteFile(to["root.vmdk"], []byte("somebody's"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Migrate(t.Context(), "web1", MigrateOptions{To: to}); !errors.Is(err, os.ErrExist) {
		t.Errorf("to a file that is there: %v", err)
	}
	if err := os.Remove(to["root.vmdk"]); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	_, err := m.Migrate(ctx, "web1", MigrateOptions{To: to, Progress: func(Progress) { cancel() }})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("given up: %v", err)
	}
	if _, err := m.Migrate(t.Context(), "web1", MigrateOptions{To: to}); err != nil {
		t.Fatalf("begun again: %v", err)
	}
	write(t, m, "web1", "root-flat.vmdk", []byte("after"), 9000)
	copy(want[0][9000:], "after")
	if len(pinned(t, w)) != 1 {
		t.Error("the pin went with the first disk")
	}
	if _, err := m.Keep(t.Context(), "web1", KeepOptions{}); !errors.Is(err, ErrMigrated) {
		t.Errorf("keep: %v", err)
	}
	s, err := m.Migrate(t.Context(), "web1", MigrateOptions{To: map[string]string{"data": filepath.Join(dir, "data.raw")}})
	if err != nil || !s.Disks[0].Migrated || !s.Disks[1].Migrated {
		t.Fatalf("%+v, %v", s, err)
	}
	if pins := pinned(t, w); len(pins) != 0 {
		t.Errorf("pinned by %q", pins)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(to["root.vmdk"])
	if err != nil {
		t.Fatal(err)
	}
	sameBytes(t, "the file", got, want[0])

	m = w.opened(t)
	if file(t, m, "web1", "root-flat.vmdk").ID != handle {
		t.Error("another handle")
	}
	sameBytes(t, "root after a restart", bytesOf(t, m, "web1", "root-flat.vmdk"), want[0])
	sameBytes(t, "data after a restart", bytesOf(t, m, "web1", "data-flat.vmdk"), want[1])
	if err := m.Stop(t.Context(), "web1"); err != nil {
		t.Fatal(err)
	}
	left(t, w)
	if info, err := os.Stat(to["root.vmdk"]); err != nil || info.Size() != int64(len(want[0])) {
		t.Errorf("what was migrated went with the session: %v", err)
	}
}

// TestOffline: what is wrong with one session is no other's matter, and a
// repository that comes back brings its sessions.
func TestOffline(t *testing.T) {
	w := newWorld(t, inMemory)
	w.retry = 1e6
	m := w.opened(t)
	publish(t, m, w, PublishOptions{Name: "sick"})
	publish(t, m, w, PublishOptions{Name: "well"})
	sick := m.List()[0]
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	redirected := w.redirect.(*vfs.Mem)
	if err := redirected.Corrupt("session-"+sick.ID+"/session", 30, 0xff); err != nil {
		t.Fatal(err)
	}
	m = w.opened(t)
	list := m.List()
	if list[0].State != "offline" || list[0].Error == "" || list[1].State != "running" {
		t.Errorf("%+v", list)
	}
	sameBytes(t, "the other one", bytesOf(t, m, "well", "data-flat.vmdk"), flat(w.disks[1]))
	if text := bytesOf(t, m, "sick", "sick.vmx"); len(text) == 0 {
		t.Error("small files are gone")
	}
	a := file(t, m, "sick", "root-flat.vmdk")
	if _, err := m.store.ReadAt(t.Context(), a.ID, make([]byte, 10), 0); err == nil || errors.Is(err, fs.ErrRetry) {
		t.Errorf("bytes of a damaged session: %v", err)
	}
	if _, err := m.Keep(t.Context(), "sick", KeepOptions{}); !errors.Is(err, ErrOffline) {
		t.Errorf("keep: %v", err)
	}
	if err := m.Stop(t.Context(), "sick"); err != nil {
		t.Errorf("stop: %v", err)
	}
	if list := m.List(); len(list) != 1 {
		t.Errorf("%+v", list)
	}
}

// TestDamagedRecord: a session whose record can't be read is told of by its id, and
// can be ended; the others are not touched.
func TestDamagedRecord(t *testing.T) {
	for _, migrated := range []bool{false, true} {
		w := newWorld(t, inMemory)
		w.targets = vfs.NewMem()
		m := w.opened(t)
		sick := publish(t, m, w, PublishOptions{Name: "sick"})
		publish(t, m, w, PublishOptions{Name: "well"})
		if migrated {
			if _, err := m.Migrate(t.Context(), "sick", MigrateOptions{To: map[string]string{"root.vmdk": "a", "data": "b"}}); err != nil {
				t.Fatal(err)
			}
		}
		if err := m.Close(); err != nil {
			t.Fatal(err)
		}
		if err := w.state.(*vfs.Mem).Corrupt(recordPath(sick.ID), 50, 1); err != nil {
			t.Fatal(err)
		}
		m = w.opened(t)
		list := m.List()
		if len(list) != 2 || list[0].Name != "well" || list[0].State != "running" || list[1].ID != sick.ID || list[1].Error == "" {
			t.Fatalf("%+v", list)
		}
		if err := m.Stop(t.Context(), sick.ID); err != nil {
			t.Errorf("migrated %t: %v", migrated, err)
		}
		consistent(t, m, w)
		sameBytes(t, "the other", bytesOf(t, m, "well", "data-flat.vmdk"), flat(w.disks[1]))
		if err := m.Stop(t.Context(), "well"); err != nil {
			t.Error(err)
		}
		left(t, w)
	}
}

func TestRoom(t *testing.T) {
	w := newWorld(t, inMemory)
	w.redirect.(*vfs.Mem).SetCapacity(4 << 20)
	m := w.opened(t)
	var room *RoomError
	_, err := m.Publish(t.Context(), string(w.point), PublishOptions{})
	if !errors.As(err, &room) || !errors.Is(err, ErrNoRoom) || room.Swap != 4<<20 {
		t.Errorf("%v", err)
	}
	left(t, w)
	// Without a swap file, but not even room for the layer.
	w.redirect.(*vfs.Mem).SetCapacity(200 << 10)
	if _, err = m.Publish(t.Context(), string(w.point), PublishOptions{NoSwapRoom: true}); err == nil {
		t.Error("published without room")
	}
	left(t, w)
	w.redirect.(*vfs.Mem).SetCapacity(64 << 20)
	if _, err := m.Publish(t.Context(), string(w.point), PublishOptions{SwapDir: "/vmfs/volumes/local"}); err != nil {
		t.Error(err)
	}
}
