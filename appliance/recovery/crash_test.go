package recovery

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"sync"
	"testing"

	"holdfast/repo"
	"holdfast/repo/vfs"
)

var long = os.Getenv("HOLDFAST_LONG") == "1"

// powered is a world on one file system that can lose power, targets included.
type powered struct {
	*world
	mem *vfs.Mem
}

var poweredDirs = []string{"repo", "keys", "state", "redirect", "targets"}

func newPowered(t *testing.T) *powered {
	p := &powered{mem: vfs.NewMem()}
	for _, dir := range poweredDirs {
		if err := errors.Join(p.mem.Mkdir(dir), p.mem.SyncDir(".")); err != nil {
			t.Fatal(err)
		}
	}
	p.world = newWorld(t, func(name string) vfs.FS { return sub(p.mem, name) })
	return p
}

// on is the same world on another file system.
func (p *powered) on(mem *vfs.Mem, through vfs.FS) *powered {
	w := *p.world
	w.repo, w.keys, w.state, w.redirect = sub(through, "repo"), sub(through, "keys"), sub(through, "state"), sub(through, "redirect")
	w.targets = sub(through, "targets")
	return &powered{&w, mem}
}

// moment is a file system as it may be found after a power cut.
type moment struct {
	at    int
	op    vfs.Op
	after vfs.CrashOptions
	mem   *vfs.Mem
	done  bool // the verb had returned
}

// cut does something with a manager and cuts the power at every other operation of
// it, one way each time, or in a long run at each and every way.
func (p *powered) cut(t *testing.T, do func(m *Manager) error) []moment {
	t.Helper()
	mem := p.mem.CrashClone(vfs.CrashOptions{})
	faulty := vfs.NewFaulty(mem)
	m := p.on(mem, faulty).open(t)
	var mu sync.Mutex
	var moments []moment
	ways := vfs.Crashes(1, 2, 3, 4)
	take := func(at int, op vfs.Op, done bool) {
		some := ways
		if !long {
			if at%2 == 1 && !done {
				return
			}
			some = ways[at/2%len(ways):][:1]
		}
		for _, c := range some {
			moments = append(moments, moment{at, op, c, mem.CrashClone(c), done})
		}
	}
	faulty.OnOp(func(at int, op vfs.Op) {
		mu.Lock()
		defer mu.Unlock()
		take(at, op, false)
	})
	err := do(m)
	faulty.OnOp(nil)
	mu.Lock()
	for i := range ways {
		take(1<<20+i, vfs.Op{Kind: "end"}, true)
	}
	mu.Unlock()
	if err = errors.Join(err, m.Close()); err != nil {
		t.Fatal(err)
	}
	if len(moments) < 20 {
		t.Fatalf("only %d moments", len(moments))
	}
	return moments
}

// each reopens at every moment, has fn look at it, ends what is published and
// looks whether anything is left.
func (p *powered) each(t *testing.T, moments []moment, fn func(t *testing.T, m *Manager, w *world, c moment)) {
	for _, c := range moments {
		t.Run(fmt.Sprintf("%d %s %s", c.at, c.op, c.after), func(t *testing.T) {
			w := p.on(c.mem, c.mem).world
			m := w.opened(t)
			consistent(t, m, w)
			fn(t, m, w, c)
			for _, s := range m.List() {
				if err := m.Stop(t.Context(), s.ID); err != nil {
					t.Error(err)
				}
			}
			left(t, w)
			if err := m.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// consistent holds records, pins, layers and the datastore to each other.
func consistent(t *testing.T, m *Manager, w *world) {
	t.Helper()
	var pins, dirs, numbers []string
	for _, s := range m.list() {
		rec := s.snapshot()
		if rec.State != running || s.offline() {
			t.Errorf("%+v: %v", rec, s.err)
		}
		if !rec.Released {
			pins = append(pins, rec.pin())
		}
		dirs = append(dirs, rec.dir())
		numbers = append(numbers, fmt.Sprint(rec.Number, rec.Name))
	}
	got := pinned(t, w)
	slices.Sort(pins)
	slices.Sort(got)
	if !slices.Equal(got, pins) {
		t.Errorf("pins %q, want %q", got, pins)
	}
	list, err := w.redirect.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	var have []string
	for _, e := range list {
		if e.Name != datastoreDir {
			have = append(have, e.Name)
		}
	}
	slices.Sort(dirs)
	if !slices.Equal(have, dirs) {
		t.Errorf("layers %q, want %q", have, dirs)
	}
	var stored []string
	for _, s := range m.store.Sessions() {
		stored = append(stored, fmt.Sprint(s.Number, s.Name))
	}
	slices.Sort(stored)
	slices.Sort(numbers)
	if !slices.Equal(stored, numbers) {
		t.Errorf("datastore %q, want %q", stored, numbers)
	}
}

// TestPublishCut: a session is there as a whole or not at all.
func TestPublishCut(t *testing.T) {
	p := newPowered(t)
	moments := p.cut(t, func(m *Manager) error {
		_, err := m.Publish(t.Context(), string(p.point), PublishOptions{NoSwapRoom: true})
		return err
	})
	found := 0
	p.each(t, moments, func(t *testing.T, m *Manager, w *world, c moment) {
		list := m.List()
		if len(list) == 0 && !c.done {
			return
		}
		if found++; len(list) != 1 || list[0].State != "running" {
			t.Fatalf("%+v", list)
		}
		sameBytes(t, "root", bytesOf(t, m, "web1", "root-flat.vmdk"), flat(w.disks[0]))
		sameBytes(t, "data", bytesOf(t, m, "web1", "data-flat.vmdk"), flat(w.disks[1]))
		sameBytes(t, "nvram", bytesOf(t, m, "web1", "web1.nvram"), worldFiles[1].Data)
		if _, err := parseVMX(bytesOf(t, m, "web1", "web1.vmx")); err != nil {
			t.Error(err)
		}
	})
	if found == 0 || found == len(moments) {
		t.Errorf("published in %d of %d moments", found, len(moments))
	}
}

// published is a world with a session to which something was written.
func published(t *testing.T) (p *powered, want [][]byte) {
	p = newPowered(t)
	w := p.on(p.mem, p.mem).world
	m := w.open(t)
	publish(t, m, w, PublishOptions{})
	want = [][]byte{flat(w.disks[0]), flat(w.disks[1])}
	for i, name := range []string{"root-flat.vmdk", "data-flat.vmdk"} {
		b := bytes.Repeat([]byte{byte(9 + i)}, 9000)
		write(t, m, "web1", name, b, 5000)
		copy(want[i][5000:], b)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	return p, want
}

// TestStopCut: a session is there with all that was written, or gone with all
// that it had.
func TestStopCut(t *testing.T) {
	p, want := published(t)
	moments := p.cut(t, func(m *Manager) error { return m.Stop(t.Context(), "web1") })
	found := 0
	p.each(t, moments, func(t *testing.T, m *Manager, _ *world, c moment) {
		list := m.List()
		if len(list) == 0 {
			return
		}
		if found++; len(list) != 1 || c.done {
			t.Fatalf("%+v", list)
		}
		sameBytes(t, "root", bytesOf(t, m, "web1", "root-flat.vmdk"), want[0])
		sameBytes(t, "data", bytesOf(t, m, "web1", "data-flat.vmdk"), want[1])
	})
	if found == 0 || found == len(moments) {
		t.Errorf("there in %d of %d moments", found, len(moments))
	}
}

// TestKeepCut: the session goes on with all its bytes whatever becomes of the
// point, which is whole or not there, and can be kept again.
func TestKeepCut(t *testing.T) {
	p, want := published(t)
	moments := p.cut(t, func(m *Manager) error {
		_, err := m.Keep(t.Context(), "web1", KeepOptions{})
		return err
	})
	made := 0
	p.each(t, moments, func(t *testing.T, m *Manager, w *world, c moment) {
		sameBytes(t, "root", bytesOf(t, m, "web1", "root-flat.vmdk"), want[0])
		sameBytes(t, "data", bytesOf(t, m, "web1", "data-flat.vmdk"), want[1])
		last := m.List()[0]
		if c.done && len(last.Kept) != 1 {
			t.Errorf("%+v", last)
		}
		k, err := w.repository(t).Find(t.Context(), "web1-recovered@latest", nil)
		if err == nil {
			made++
			sameBytes(t, "kept", diskOf(t, w, k.ID, "root.vmdk"), want[0])
		} else if c.done || !errors.Is(err, repo.ErrNotFound) {
			t.Errorf("the point: %v", err)
		}
		if c.at%7 == 0 || long {
			run, err := m.Keep(t.Context(), "web1", KeepOptions{As: "again"})
			if err != nil {
				t.Fatal(err)
			}
			sameBytes(t, "kept again", diskOf(t, w, run.Point.ID, "data"), want[1])
		}
	})
	if made == 0 || made == len(moments) {
		t.Errorf("kept in %d of %d moments", made, len(moments))
	}
}

// TestMigrateCut: the disks are where they were or at their targets, with all
// their bytes, and what was begun can be begun again.
func TestMigrateCut(t *testing.T) {
	p, want := published(t)
	to := map[string]string{"root.vmdk": "/root.raw", "data": "/data.raw"}
	moments := p.cut(t, func(m *Manager) error {
		_, err := m.Migrate(t.Context(), "web1", MigrateOptions{To: to})
		return err
	})
	moved := 0
	p.each(t, moments, func(t *testing.T, m *Manager, w *world, c moment) {
		s := m.List()[0]
		again := make(map[string]string)
		for _, d := range s.Disks {
			if !d.Migrated {
				again[d.Name] = to[d.Name]
			}
		}
		if len(again) == 0 {
			moved++
		} else if c.done {
			t.Errorf("%+v", s)
		}
		if _, err := m.Migrate(t.Context(), "web1", MigrateOptions{To: again}); err != nil {
			t.Fatalf("begun again: %v", err)
		}
		sameBytes(t, "root", bytesOf(t, m, "web1", "root-flat.vmdk"), want[0])
		sameBytes(t, "data", bytesOf(t, m, "web1", "data-flat.vmdk"), want[1])
		if pins := pinned(t, w); len(pins) > 0 {
			t.Errorf("pinned by %q", pins)
		}
	})
	if moved == 0 || moved == len(moments) {
		t.Errorf("moved in %d of %d moments", moved, len(moments))
	}
}

// memTargets are files on a file system that can lose power.
type memTargets struct{ fs vfs.FS }

func (memTargets) path(name string) (string, error) { return path.Base(name), nil }

func (m memTargets) isFile(name string) (bool, error) {
	_, err := m.fs.Stat(name)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

func (m memTargets) open(name string, size int64) (migrationTarget, error) {
	f, err := m.fs.OpenWrite(name)
	if errors.Is(err, os.ErrNotExist) && size > 0 {
		f, err = m.fs.Create(name)
	}
	if err == nil && size > 0 {
		err = errors.Join(f.Truncate(size), m.fs.SyncDir("."))
	}
	return f, err
}
